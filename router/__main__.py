"""``python -m router``: the wallet's gRPC service. Stateless; run as many as needed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING

import structlog

from coordinator import ClusterService
from router.execution import Coordinators, Dispatcher
from router.requests import FieldReader
from router.services import LedgerService, WalletService, add_methods
from shard_node.client import Directory, ask
from shard_node.cluster import MemberKind, Registry
from shard_node.errors import LedgerError, RegistryError
from shard_node.ledger.questions import History
from shard_node.ledger.store import LEDGER_VARIABLE, open_ledger
from shard_node.process import configure_logs, member_parser, run
from shard_node.serving import Server
from tallystick.v1 import cluster_pb2_grpc, ledger_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = structlog.get_logger(__name__)


def route(
    zookeeper: str, name: str, listen: str, ledger: str | None = None
) -> Callable[[asyncio.Event], Awaitable[None]]:
    """A router, to be run until its event is set. ``ledger`` is the URL of the ledger's database.

    Raises LedgerError when that URL is none.
    """
    engine = open_ledger(ledger, statement_timeout_seconds=10) if ledger is not None else None

    async def serve(stopping: asyncio.Event) -> None:
        registry = Registry(zookeeper)
        await registry.start()
        history = History(engine, registry.exponents) if engine else None
        directory = Directory(registry)
        coordinators = Coordinators(registry)
        await coordinators.start()
        service = WalletService(
            Dispatcher(directory, coordinators, ask),
            directory,
            FieldReader(registry.exponents),
            registry,
            history,
        )
        ledger_service = LedgerService(history, directory)
        server = Server(
            ("tallystick.v1.WalletService", "tallystick.v1.LedgerService", "tallystick.v1.ClusterService")
        )
        add_methods(service, server.methods)
        ledger_pb2_grpc.add_LedgerServiceServicer_to_server(ledger_service, server.methods)
        cluster_pb2_grpc.add_ClusterServiceServicer_to_server(
            ClusterService(registry, directory), server.methods
        )
        address = await server.start(listen)
        await registry.register(MemberKind.ROUTER, name, address, os.getpid())
        log.info("serving", address=address)
        await stopping.wait()
        with contextlib.suppress(RegistryError):
            await registry.deregister()
        ledger_service.close_watches()
        await server.drain()
        await service.finish_all()
        ledger_service.close()
        if engine:
            engine.dispose()
        await coordinators.close()
        await directory.close()
        await registry.stop()
        log.info("stopped")

    return serve


def main() -> int:
    """Reads the command line and serves until SIGTERM."""
    parser = member_parser("router", "Serves accounts and transfers over gRPC.", listens=True)
    parser.add_argument(
        "--ledger",
        metavar="URL",
        default=os.environ.get(LEDGER_VARIABLE) or None,
        help="the ledger's database, for SQLAlchemy; without it no LedgerService "
        f"(default: the variable {LEDGER_VARIABLE})",
    )
    arguments = parser.parse_args()
    configure_logs(process="router", name=arguments.name)
    try:
        serve = route(arguments.zookeeper, arguments.name, arguments.listen, arguments.ledger)
    except LedgerError as error:
        parser.error(str(error))
    return run(serve)


if __name__ == "__main__":
    sys.exit(main())
