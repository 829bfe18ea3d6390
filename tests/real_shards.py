"""Real Redis servers for tests of the shard's functions and of the protocol, without ZooKeeper.

They are started by the product's own RedisProcess, so with its own settings.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest
from redis.asyncio import Redis

from shard_node.agent.agent import bind, load_library
from shard_node.agent.redis_process import RedisProcess
from shard_node.client.shard import Shard, connect
from shard_node.cluster.slots import SLOT_COUNT
from shard_node.cluster.topology import ShardInfo, SlotRange, Topology

# So long that only what was rotated away is forgotten.
ENDLESS_WINDOW_MS = 2**50


async def read_hash(redis: Redis, key: str) -> dict[bytes, bytes]:
    """A whole hash. redis-py's annotation covers every decoding; here it is always bytes."""
    return cast("dict[bytes, bytes]", await redis.hgetall(key))


@dataclass(slots=True)
class RealShards:
    """Some Redis servers under one topology. ``addresses`` by shard index."""

    addresses: list[str]
    processes: list[RedisProcess]
    window_ms: int = ENDLESS_WINDOW_MS
    topology: Topology = field(init=False)

    def __post_init__(self) -> None:
        initial = Topology.initial("test", [f"shard-{i}" for i in range(len(self.addresses))])
        self.topology = initial.changed(
            replace(s, primary=a) for s, a in zip(initial.shards, self.addresses, strict=True)
        )

    async def wipe(self) -> None:
        """Empties every server and binds it to its shard anew."""
        for index in range(len(self.addresses)):
            async with self.open(index) as shard:
                await shard.redis.flushdb()
                await load_library(shard.redis)
                await bind(shard.redis, self.topology, shard.shard_id, self.window_ms)

    def shard(self, index: int) -> Shard:
        """A shard at the topology's present epoch, for one event loop; close it."""
        info = self.topology.shards[index]
        return Shard(info.shard_id, self.topology.fence(info), connect(info.primary))

    @asynccontextmanager
    async def open(self, index: int) -> AsyncIterator[Shard]:
        """A shard at the topology's present epoch, for one event loop."""
        shard = self.shard(index)
        try:
            yield shard
        finally:
            await shard.close()

    async def own(self, slots: dict[int, int]) -> None:
        """Gives single slots to shards (slot -> index), all others to shard 0; epochs rise."""
        ranges: list[list[SlotRange]] = [[] for _ in self.addresses]
        for slot in range(SLOT_COUNT):
            owner = slots.get(slot, 0)
            mine = ranges[owner]
            if mine and mine[-1].last == slot - 1:
                mine[-1] = SlotRange(mine[-1].first, slot)
            else:
                mine.append(SlotRange(slot, slot))
        self.topology = self.topology.changed(
            ShardInfo(s.shard_id, s.epoch + 1, s.primary, tuple(r))
            for s, r in zip(self.topology.shards, ranges, strict=True)
        )
        for index in range(len(self.addresses)):
            async with self.open(index) as shard:
                await bind(shard.redis, self.topology, shard.shard_id, self.window_ms)


@pytest.fixture(scope="session")
def redis_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisProcess]]:
    """Three Redis servers for the whole session."""
    with asyncio.Runner() as runner:
        processes = [
            RedisProcess(Path(tmp_path_factory.mktemp(f"redis-{i}")), "127.0.0.1", None, 0) for i in range(3)
        ]
        try:
            for process in processes:
                runner.run(process.start())
            yield processes
        finally:
            for process in processes:
                runner.run(process.stop())


@pytest.fixture
async def shards(redis_servers: list[RedisProcess]) -> RealShards:
    """Three empty shards, their slots dealt out evenly."""
    made = RealShards([process.address for process in redis_servers], redis_servers)
    await made.wipe()
    return made
