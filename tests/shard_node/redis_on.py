"""A shard's Redis on a folder, as its agent starts it, and one without the engine."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from shard_node.agent.compatibility import server_program
from shard_node.agent.redis_process import RedisProcess, free_port
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


@contextlib.contextmanager
def plain_server(data: Path) -> Iterator[tuple[int, Redis]]:
    """A server without the engine, as releases before it had them: its process id, and a client."""
    port = free_port("127.0.0.1")
    # By it whoever starts next finds this server.
    (data / "redis.conf").write_text(f"port {port}\nbind 127.0.0.1\nappendonly yes\n")
    with subprocess.Popen(
        [server_program(), str(data / "redis.conf"), "--dir", str(data)], stdout=subprocess.DEVNULL
    ) as process:
        try:
            # It answers as soon as it has read its data.
            with Redis("127.0.0.1", port, retry=Retry(ConstantBackoff(0.05), 200)) as client:
                client.ping()
                yield process.pid, client
        finally:
            process.terminate()
