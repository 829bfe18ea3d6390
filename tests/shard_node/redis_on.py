"""A shard's Redis on a folder, as its agent starts it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from shard_node.agent.redis_process import RedisProcess
from shard_node.client.connection import connect, disconnect

if TYPE_CHECKING:
    from shard_node.client.connection import ShardRedis


def process_on(data: Path, port: int | None = None) -> RedisProcess:
    """A Redis on that folder, not yet started."""
    return RedisProcess(data, "127.0.0.1", port, 0)


@contextlib.asynccontextmanager
async def client_of(address: str) -> AsyncIterator[ShardRedis]:
    """A client, closed after use."""
    client = connect(address)
    try:
        yield client
    finally:
        await disconnect(client)


@contextlib.asynccontextmanager
async def running(data: Path) -> AsyncIterator[tuple[RedisProcess, ShardRedis]]:
    """A started Redis and a client of it; both are ended after use."""
    process = process_on(data)
    try:
        await process.start()
        async with client_of(process.address) as client:
            yield process, client
    finally:
        await process.stop()
