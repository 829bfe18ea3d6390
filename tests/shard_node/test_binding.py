"""Whose data a Redis holds, and at which epoch it serves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shard_node.agent.binding import Holding, bind, claim
from shard_node.client.shard import Shard
from shard_node.cluster.topology import Topology
from shard_node.errors import StaleEpochError, WrongShardError
from tests.shard_node.redis_on import running

pytestmark = pytest.mark.servers

WINDOW_MS = 3_600_000
TOPOLOGY = Topology.initial("test", ["shard-0"])


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Any]:
    """A client of an empty Redis."""
    async with running(tmp_path / "data") as (_, client):
        yield client


async def test_empty_redis_is_claimed_for_a_shard_without_a_primary(redis: Any) -> None:
    """It has then begun, and has not served; claimed again it stays so."""
    for _ in range(2):
        found = await claim(redis, TOPOLOGY, "shard-0")
        assert found == Holding("test/shard-0", served=False)
    # No caller can have the fence of a claim.
    with pytest.raises(StaleEpochError):
        await Shard("shard-0", "test/shard-0/1", redis).info()


async def test_empty_redis_is_not_claimed_in_anothers_place(redis: Any) -> None:
    """The shard has a primary: an empty Redis would be the loss of all its money."""
    named = TOPOLOGY.with_primary("shard-0", "127.0.0.1:1")
    found = await claim(redis, named, "shard-0")
    assert found == Holding(None, served=False)
    with pytest.raises(WrongShardError, match="is empty"):
        found.may_be_named(named, "shard-0", "127.0.0.1:2")


async def test_bound_redis_serves_its_epoch_and_keeps_its_shard(tmp_path: Path) -> None:
    """Also after a restart; it is neither another shard's nor at an older epoch."""
    named = TOPOLOGY.with_primary("shard-0", "127.0.0.1:1")
    async with running(tmp_path) as (_, redis):
        await claim(redis, TOPOLOGY, "shard-0")
        await bind(redis, named, "shard-0", WINDOW_MS, 7)
    async with running(tmp_path) as (_, redis):
        assert await claim(redis, named, "shard-0") == Holding("test/shard-0", served=True)
        status = await Shard("shard-0", "test/shard-0/2", redis).info()
        assert (status.epoch, status.window_ms, status.backlog_limit) == (2, WINDOW_MS, 7)
        with pytest.raises(StaleEpochError):
            await bind(redis, TOPOLOGY, "shard-0", WINDOW_MS)
        with pytest.raises(WrongShardError, match="holds test/shard-0"):
            await bind(redis, Topology.initial("other", ["shard-0"]), "shard-0", WINDOW_MS)
