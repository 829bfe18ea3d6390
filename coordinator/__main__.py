"""``python -m coordinator``: two-phase commit for the routers of a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING

import structlog

from coordinator.cluster_service import ClusterService
from coordinator.driver import Driver
from coordinator.resolver import Resolver
from coordinator.service import CoordinatorService
from shard_node.client import Directory
from shard_node.cluster import MemberKind, Registry
from shard_node.errors import RegistryError
from shard_node.process import configure_logs, member_parser, run
from shard_node.serving import Server
from tallystick.v1 import cluster_pb2_grpc, coordinator_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = structlog.get_logger(__name__)


def coordinate(zookeeper: str, name: str, listen: str) -> Callable[[asyncio.Event], Awaitable[None]]:
    """A coordinator, to be run until its event is set."""

    async def serve(stopping: asyncio.Event) -> None:
        registry = Registry(zookeeper)
        await registry.start()
        directory = Directory(registry)
        driver = Driver(directory)
        service = CoordinatorService(driver, directory)
        server = Server(("tallystick.v1.CoordinatorService", "tallystick.v1.ClusterService"))
        coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(service, server.methods)
        cluster_pb2_grpc.add_ClusterServiceServicer_to_server(
            ClusterService(registry, directory), server.methods
        )
        address = await server.start(listen)
        duties = [
            asyncio.ensure_future(driver.settle_idle()),
            asyncio.ensure_future(Resolver(name, registry, directory).run()),
        ]
        await registry.register(MemberKind.COORDINATOR, name, address, os.getpid())
        log.info("serving", address=address)
        stop = asyncio.ensure_future(stopping.wait())
        # A duty never ends by itself: if one does, it failed, and so must the process.
        await asyncio.wait([stop, *duties], return_when=asyncio.FIRST_COMPLETED)
        with contextlib.suppress(RegistryError):
            await registry.deregister()
        await server.drain()
        await service.finish_all()
        for duty in (stop, *duties):
            duty.cancel()
        results = await asyncio.gather(*duties, return_exceptions=True)
        await driver.settle_now()
        await directory.close()
        await registry.stop()
        for result in results:
            if isinstance(result, Exception):
                raise result
        log.info("stopped")

    return serve


def main() -> int:
    """Reads the command line and serves until SIGTERM."""
    arguments = member_parser("coordinator", "Commits transactions across shards.", listens=True).parse_args()
    configure_logs(process="coordinator", name=arguments.name)
    return run(coordinate(arguments.zookeeper, arguments.name, arguments.listen))


if __name__ == "__main__":
    sys.exit(main())
