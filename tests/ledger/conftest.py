"""Fixtures of the ledger's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from shard_node.client.shard import Shard
from tests.ledger.databases import empty_url, engine, ledger_url, postgresql
from tests.real_shards import RealShards, redis_servers, shards

__all__ = ["empty_url", "engine", "ledger_url", "postgresql", "redis_servers", "shard", "shards"]


@pytest.fixture
async def shard(shards: RealShards) -> AsyncIterator[Shard]:
    """One empty shard."""
    async with shards.shard(0) as opened:
        yield opened
