"""Servers with the engine: one for the module's tests, and as many more as a test asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.server import EngineServer
from tests.engine.shard import EngineShard

StartServer = Callable[..., EngineServer]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers, each in a folder of its own; they are stopped whatever happens."""
    servers: list[EngineServer] = []

    def start(*, manual_clock: bool = False, sanitized: bool = False) -> EngineServer:
        folder = tmp_path / f"server-{len(servers)}"
        server = EngineServer(folder, manual_clock=manual_clock, sanitized=sanitized)
        servers.append(server)
        server.start()
        return server

    try:
        yield start
    finally:
        for server in servers:
            server.stop()


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    """One server for a whole module's tests, with a manual clock."""
    server = EngineServer(tmp_path_factory.mktemp("engine"), manual_clock=True)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def shard(module_server: EngineServer) -> EngineShard:
    """An empty shard, at a fixed time."""
    module_server.redis.flushall()
    shard = EngineShard(module_server)
    module_server.set_clock(NOW_MS)
    shard.bind()
    return shard


NOW_MS = 1_800_000_000_000
