"""Connections to a shard's Redis, and what its errors mean.

Foreign errors are mapped here, once: what the rest of the cluster sees is ``errors.py``. redis-py
sends a timed-out call again by default; here it never does, for only the caller knows whether a
repetition is safe (the transaction id makes it so).
"""

from __future__ import annotations

import asyncio
from typing import cast

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shard_node.client.link import Link
from shard_node.errors import (
    ShardDefectError,
    ShardFullError,
    ShardNodeError,
    ShardUnavailableError,
    StaleEpochError,
    WrongShardError,
)

# A call holds the shard for some 40 ms at the most; a fsync on a busy disk may take longer than that
# by far. Past this the answer counts as lost.
CALL_TIMEOUT_SECONDS = 5.0


class ShardRedis(Redis):
    """A client of redis-py, and beside it the link that the engine's calls take."""

    link: Link


def connect(address: str, *, timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> ShardRedis:
    """A client of the Redis at host:port that never repeats a call by itself."""
    host, _, port = address.rpartition(":")
    pool: ConnectionPool = ConnectionPool(
        host=host,
        port=int(port),
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),
    )
    client = cast("ShardRedis", ShardRedis.from_pool(pool))
    client.link = Link(host, int(port), timeout_seconds)
    return client


async def disconnect(redis: ShardRedis) -> None:
    """Closes a client of :func:`connect` with its connections, which a client from a pool leaves open."""
    redis.link.close()
    await redis.aclose()
    await redis.connection_pool.disconnect()


def as_shard_error(shard_id: str, error: Exception) -> ShardNodeError:
    """The error of ``errors.py`` that stands for a redis-py error."""
    text = f"{shard_id}: {error}"
    if isinstance(error, OutOfMemoryError) or str(error).startswith(("OOM", "LEDGER_FULL")):
        return ShardFullError(text)
    if isinstance(error, (RedisConnectionError, RedisTimeoutError, OSError, asyncio.TimeoutError)):
        return ShardUnavailableError(text)
    if isinstance(error, ResponseError):
        message = str(error)
        if message.startswith("STALE_EPOCH"):
            return StaleEpochError(text)
        if message.startswith("WRONG_SHARD"):
            return WrongShardError(text)
        # Starting up, a full disk, a command too long under way, no longer the primary.
        if isinstance(error, ReadOnlyError) or message.startswith(("LOADING", "MISCONF", "BUSY", "READONLY")):
            return ShardUnavailableError(text)
    return ShardDefectError(text)
