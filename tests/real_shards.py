"""Real Redis servers with the engine under one topology, for tests of the protocol without ZooKeeper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

import pytest

from shard_node.client import Cluster, Shard, connect
from shard_node.cluster.slots import SLOT_COUNT
from shard_node.cluster.topology import ShardInfo, SlotRange, Topology
from tests.engine.server import EngineServer

SHARDS = 3
# So long that only what was rotated away is forgotten.
ENDLESS_WINDOW_MS = 2**50
UNLIMITED = 2**40
# As in production: what was answered is on the disk.
_DURABLE = "appendfsync always"
_EXPORT_BYTES = 65536


@dataclass(slots=True)
class RealShards:
    """Some servers under one topology, by shard index."""

    servers: Sequence[EngineServer]
    backlog_limit: int = UNLIMITED
    topology: Topology = field(init=False)

    def __post_init__(self) -> None:
        initial = Topology.initial("test", [f"shard-{i}" for i in range(len(self.servers))])
        self.topology = initial.changed(
            replace(info, primary=f"127.0.0.1:{server.port}")
            for info, server in zip(initial.shards, self.servers, strict=True)
        )

    def wipe(self) -> None:
        """Empties every server and binds it to its shard anew."""
        for server in self.servers:
            server.redis.flushall()
        self.bind()

    def bind(self) -> None:
        """Binds every server to its shard at the topology's epoch."""
        for info, server in zip(self.topology.shards, self.servers, strict=True):
            name, _, epoch = self.topology.fence(info).rpartition("/")
            server.redis.execute_command(
                "tallystick.bind", name, epoch, ENDLESS_WINDOW_MS, self.backlog_limit
            )

    def shard(self, index: int) -> Shard:
        """One shard at the topology's present epoch, for one event loop; close it."""
        info = self.topology.shards[index]
        return Shard(info.shard_id, self.topology.fence(info), connect(info.primary))

    def cluster(self) -> Cluster:
        """The shards at the topology's present epochs, for one event loop; close them."""
        return Cluster(self.topology, tuple(map(self.shard, range(len(self.servers)))))

    def move(self, slot: int, target: int) -> None:
        """Gives a slot with all that it holds to a shard, while nobody calls; the epochs of both rise.

        Raises the server's error, and changes nothing, when something of the slot is in doubt.
        """
        source = self.topology.owner[slot]
        if source == target:
            return
        old, new = self.servers[source].redis, self.servers[target].redis
        fences = [self.topology.fence(self.topology.shards[index]) for index in (source, target)]
        chunks, cursor = [], b""
        while True:
            cursor, chunk = old.execute_command(
                "tallystick.slot.export", fences[0], slot, cursor, _EXPORT_BYTES
            )
            chunks.append(chunk)
            if not cursor:
                break
        # Refused while something is in doubt.
        while old.execute_command("tallystick.slot.drop", fences[0], slot, 1000):
            pass
        for chunk in chunks:
            new.execute_command("tallystick.slot.import", fences[1], slot, chunk)
        self.topology = with_slot_moved(self.topology, slot, target)
        self.bind()


def with_slot_moved(topology: Topology, slot: int, target: int) -> Topology:
    """The topology in which a shard has one slot more; the epochs of both shards rise."""
    owner = list(topology.owner)
    changed = {owner[slot], target}
    owner[slot] = target
    ranges: list[list[SlotRange]] = [[] for _ in topology.shards]
    for index, slots in groupby(range(SLOT_COUNT), lambda number: owner[number]):
        first, *rest = slots
        ranges[index].append(SlotRange(first, rest[-1] if rest else first))
    return topology.changed(
        ShardInfo(info.shard_id, info.epoch + 1, info.primary, tuple(ranges[index]))
        if index in changed
        else info
        for index, info in enumerate(topology.shards)
    )


@contextmanager
def real_servers(
    folder: Path, count: int = SHARDS, *, manual_clock: bool = False
) -> Iterator[list[EngineServer]]:
    """So many servers, which are stopped whatever happens. Where time is set nothing waits for a disk."""
    more = "" if manual_clock else _DURABLE
    folders = [folder / f"redis-{i}" for i in range(count)]
    servers = [EngineServer(one, manual_clock=manual_clock, more=more) for one in folders]
    try:
        for server in servers:
            server.start()
        yield servers
    finally:
        for server in servers:
            server.stop()


@pytest.fixture(scope="session")
def redis_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EngineServer]]:
    """Three servers for the whole session."""
    with real_servers(tmp_path_factory.mktemp("engines")) as servers:
        yield servers


@pytest.fixture
def shards(redis_servers: list[EngineServer]) -> RealShards:
    """Three empty shards, their slots dealt out evenly."""
    made = RealShards(redis_servers)
    made.wipe()
    return made
