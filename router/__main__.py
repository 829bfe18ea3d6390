"""``python -m router``: the wallet's gRPC service. Stateless; run as many as needed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING

import structlog

from coordinator.cluster_service import ClusterService
from coordinator.serving import Server
from router.coordinators import Coordinators
from router.engine import Engine
from router.journal_engine import JournalEngine
from router.requests import RequestReader
from router.service import WalletService
from shard_node.directory import Directory
from shard_node.errors import RegistryError
from shard_node.process import configure_logs, run
from shard_node.registry import MemberKind, Registry
from tallystick.v1 import cluster_pb2_grpc, wallet_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = structlog.get_logger(__name__)


def route(zookeeper: str, name: str, listen: str) -> Callable[[asyncio.Event], Awaitable[None]]:
    """A router, to be run until its event is set."""

    async def serve(stopping: asyncio.Event) -> None:
        registry = Registry(zookeeper)
        await registry.start()
        directory = Directory(registry)
        coordinators = Coordinators(registry)
        await coordinators.start()
        service = WalletService(
            Engine(directory, coordinators),
            JournalEngine(directory, coordinators),
            directory,
            RequestReader(),
        )
        server = Server(("tallystick.v1.WalletService", "tallystick.v1.ClusterService"))
        wallet_pb2_grpc.add_WalletServiceServicer_to_server(service, server.grpc)
        cluster_pb2_grpc.add_ClusterServiceServicer_to_server(
            ClusterService(registry, directory), server.grpc
        )
        address = await server.start(listen)
        await registry.register(MemberKind.ROUTER, name, address, os.getpid())
        log.info("serving", address=address)
        await stopping.wait()
        with contextlib.suppress(RegistryError):
            await registry.deregister()
        await server.drain()
        await service.finish_all()
        await coordinators.close()
        await directory.close()
        await registry.stop()
        log.info("stopped")

    return serve


def main() -> int:
    """Reads the command line and serves until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m router", description="Serves accounts and transfers over gRPC."
    )
    parser.add_argument(
        "--zookeeper", required=True, metavar="HOST:PORT[,...]", help="where ZooKeeper answers"
    )
    parser.add_argument("--name", required=True, help="name among the members, unique in the cluster")
    parser.add_argument(
        "--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="default: %(default)s, a free port"
    )
    arguments = parser.parse_args()
    configure_logs(process="router", name=arguments.name)
    return run(route(arguments.zookeeper, arguments.name, arguments.listen))


if __name__ == "__main__":
    sys.exit(main())
