"""The shards of the newest topology, each with its connections.

One per process. Hands out immutable snapshots: who works with one sees a single map from beginning
to end, and is refused by each shard whose epoch has moved on.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shard_node.client.connection import CALL_TIMEOUT_SECONDS, ShardRedis, connect, disconnect
from shard_node.client.line import Line
from shard_node.client.shard import Shard
from shard_node.errors import RegistryError

if TYPE_CHECKING:
    from array import array

    from shard_node.cluster import Registry, Topology

# Connections to an address that is no longer a primary are kept for calls still under way.
GRACE_SECONDS = 2 * CALL_TIMEOUT_SECONDS


@dataclass(frozen=True, slots=True)
class Cluster:
    """A topology and its shards, by the same index. ``owner[slot]`` is a shard's index."""

    topology: Topology
    shards: tuple[Shard, ...]

    @property
    def owner(self) -> array[int]:
        """The shard index of each slot."""
        return self.topology.owner

    @property
    def shard_ids(self) -> list[str]:
        """The shards' ids, by index."""
        return [shard.shard_id for shard in self.shards]


class Directory:
    """Follows the registry's topology and keeps one Redis client an address."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._clients: dict[str, ShardRedis] = {}
        self._lines: dict[str, Line] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.current = self._snapshot(registry.topology)
        registry.watch(self._on_topology)

    async def newer_than(self, version: int, timeout_seconds: float) -> bool:
        """Waits for a topology above ``version``, all of the time-out if need be; whether there is one.

        Without ZooKeeper it waits too: a watch may bring the topology when ZooKeeper is back.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                if self.current.topology.version <= version:
                    with contextlib.suppress(RegistryError):
                        await self._registry.reload()
                while self.current.topology.version <= version:
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Closes every connection."""
        for task in self._closing:
            task.cancel()
        for client in self._clients.values():
            await disconnect(client)

    def _on_topology(self, topology: Topology) -> None:
        self.current = self._snapshot(topology)
        gone = self._clients.keys() - {shard.primary for shard in topology.shards}
        for address in gone:
            del self._lines[address]
            task = asyncio.ensure_future(self._retire(self._clients.pop(address)))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._changed.set()
        self._changed = asyncio.Event()

    def _snapshot(self, topology: Topology) -> Cluster:
        shards: list[Shard] = []
        for info in topology.shards:
            # A shard that was never started has no address; port 0 refuses every call.
            address = info.primary or "127.0.0.1:0"
            if address not in self._clients:
                self._clients[address] = connect(address)
                self._lines[address] = Line()
            shards.append(
                Shard(info.shard_id, topology.fence(info), self._clients[address], self._lines[address])
            )
        return Cluster(topology, tuple(shards))

    @staticmethod
    async def _retire(client: ShardRedis) -> None:
        await asyncio.sleep(GRACE_SECONDS)
        await disconnect(client)
