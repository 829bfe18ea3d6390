"""The shard node: the agent beside one Redis.

It starts Redis with the shard engine and watches it, binds the Redis to its shard and epoch, announces it,
rotates the remembered outcomes and ends holds that are due. It keeps this order, which the epoch's promise
rests on: the topology names this Redis at an epoch before the Redis accepts calls at that epoch.

One agent, one Redis: electing a primary among replicas will decide, in `_serve`, whether this Redis
is the one the topology shall name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from shard_node.agent.binding import DEFAULT_MAX_BACKLOG, bind, claim
from shard_node.agent.redis_process import RedisProcess
from shard_node.agent.rotation import long_in_doubt_ms, may_rotate
from shard_node.agent.upkeep import ask_peer, end_due_holds
from shard_node.client import Shard, connect, disconnect
from shard_node.cluster import MemberKind, Registry
from shard_node.errors import RegistryError, RetryableError, ShardNodeError, WrongShardError
from shard_node.logs import keep_small

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from shard_node.client import ShardRedis
    from shard_node.cluster import Topology

# Between two tries to bring Redis back; the first one is at once.
RESTART_SECONDS = 1.0
# How often the agent looks whether a rotation is due, and, when it is, whether it may be.
ROTATION_CHECK_SECONDS = 5.0
# How often it ends holds whose time is over.
EXPIRY_SECONDS = 1.0
# How often it looks at the sizes of logs. Within that a log of errors grows by some megabytes.
LOG_CHECK_SECONDS = 60.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What an agent is told at its start. ``max_memory_bytes`` 0 means no limit."""

    zookeeper: str
    shard_id: str
    data: Path
    host: str = "127.0.0.1"
    port: int | None = None
    dedupe_window_seconds: float = 3600.0
    max_memory_bytes: int = 0
    # Ledger entries that may wait to be archived: some 120 bytes each, so 600 MB.
    max_backlog: int = DEFAULT_MAX_BACKLOG
    # Logs of other processes that are kept small besides that of Redis: all files of that folder.
    logs: Path | None = None


class Agent:
    """Looks after one Redis until it is told to stop."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._registry = Registry(settings.zookeeper)
        self._redis = RedisProcess(settings.data, settings.host, settings.port, settings.max_memory_bytes)
        self._bound_epoch = 0
        # Addresses that this agent named in the topology.
        self._named: set[str] = set()
        self._topology_changed = asyncio.Event()

    async def run(self, stopping: asyncio.Event) -> None:
        """Serves until ``stopping`` is set, then withdraws the shard and ends its Redis."""
        await self._registry.start()
        self._registry.watch(lambda _: self._topology_changed.set())
        try:
            if self._settings.shard_id not in {s.shard_id for s in self._registry.topology.shards}:
                raise RegistryError(f"the topology has no shard {self._settings.shard_id!r}")
            await self._serve()
            duties = [asyncio.ensure_future(duty()) for duty in self._duties()]
            stop = asyncio.ensure_future(stopping.wait())
            await asyncio.wait([stop, *duties], return_when=asyncio.FIRST_COMPLETED)
            for task in (stop, *duties):
                task.cancel()
            results = await asyncio.gather(stop, *duties, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    raise result
        finally:
            with contextlib.suppress(RegistryError):
                await self._registry.deregister()
            if self._bound_epoch or not self._redis.adopted:
                # A Redis that runs without us, and that we could not serve with, is not ours to end.
                await self._redis.stop()
            await self._registry.stop()
            log.info("stopped")

    def _duties(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        return (self._watch_redis, self._follow, self._rotate, self._expire_holds, self._keep_logs_small)

    async def _keep_logs_small(self) -> None:
        """Cuts the log of Redis, and those in the folder of logs, when they have grown large."""
        while True:
            others = sorted(self._settings.logs.glob("*.log")) if self._settings.logs else []
            await asyncio.to_thread(keep_small, [self._redis.log, *others])
            await asyncio.sleep(LOG_CHECK_SECONDS)

    async def _serve(self) -> None:
        """Brings Redis up and makes it this shard's primary."""
        settings = self._settings
        await self._redis.start()
        address = self._redis.address

        async with self._client() as redis:
            holding = await claim(redis, await self._registry.reload(), settings.shard_id)

            def name_us(topology: Topology) -> Topology | None:
                holding.may_be_named(topology, settings.shard_id, address)
                # Noted first: the watch may tell of the change before the change returns.
                self._named.add(address)
                if topology.shard(settings.shard_id).primary == address:
                    return None
                return topology.with_primary(settings.shard_id, address)

            await self._registry.change_topology(name_us)
            self._named = {address}
            await self._bind(redis)
        await self._registry.register(
            MemberKind.SHARD_NODE, settings.shard_id, address, os.getpid(), redis_pid=self._redis.pid
        )
        log.info("serving", address=address, epoch=self._bound_epoch)

    async def _bind(self, redis: ShardRedis) -> None:
        topology, settings = self._registry.topology, self._settings
        window_ms = int(settings.dedupe_window_seconds * 1000)
        await bind(redis, topology, settings.shard_id, window_ms, settings.max_backlog)
        self._bound_epoch = topology.shard(self._settings.shard_id).epoch

    async def _watch_redis(self) -> None:
        """Brings Redis back whenever it ends."""
        while True:
            await self._redis.wait()
            log.error("redis ended, starting it again", redis_pid=self._redis.pid)
            while True:
                try:
                    await self._serve()
                    break
                except (RetryableError, RegistryError) as error:
                    log.error("redis does not start", error=str(error))
                    await asyncio.sleep(RESTART_SECONDS)

    async def _follow(self) -> None:
        """Writes each new epoch of this shard into its Redis."""
        while True:
            await self._topology_changed.wait()
            self._topology_changed.clear()
            info = self._registry.topology.shard(self._settings.shard_id)
            if info.primary not in self._named:
                # Our Redis stays at its old epoch, at which nobody calls it any more.
                raise WrongShardError(
                    f"{info.primary} is now the primary of {info.shard_id}: this agent ends"
                )
            if info.epoch == self._bound_epoch or info.primary != self._redis.address:
                # A Redis that just moved is bound when the topology has its new address.
                continue
            try:
                async with self._client() as redis:
                    await self._bind(redis)
                log.info("epoch raised", epoch=self._bound_epoch)
            except RetryableError as error:
                # A Redis that is brought back is bound then; one that was only slow is bound here.
                log.warning("cannot raise the epoch yet", error=str(error))
                await asyncio.sleep(RESTART_SECONDS)
                self._topology_changed.set()

    async def _rotate(self) -> None:
        window = self._settings.dedupe_window_seconds
        rotated = time.monotonic()
        while True:
            await asyncio.sleep(ROTATION_CHECK_SECONDS)
            elapsed = time.monotonic() - rotated
            if elapsed < window:
                continue
            topology, long_ms = self._registry.topology, long_in_doubt_ms(window)
            peers = await asyncio.gather(*(ask_peer(topology, shard, long_ms) for shard in topology.shards))
            if not may_rotate(elapsed, window, peers):
                log.warning("no rotation: a shard is silent or has attempts or commits long in doubt")
                continue
            try:
                async with self._shard() as shard:
                    # The shard counts too: of a lost answer, or an earlier agent's, this one does not know.
                    carried = await shard.rotate(int(window * 1000), once_archived=True)
            except ShardNodeError as error:
                log.warning("no rotation this time", error=str(error))
                continue
            if carried is None:
                log.warning("no rotation: the last one is too recent, or the archive is behind")
                continue
            rotated = time.monotonic()
            log.info("outcomes rotated", carried=carried)

    async def _expire_holds(self) -> None:
        """Ends holds whose time is over. Capture refuses them by itself: this only frees what they hold."""
        while True:
            await asyncio.sleep(EXPIRY_SECONDS)
            try:
                async with self._shard() as shard:
                    await end_due_holds(shard)
            except ShardNodeError as error:
                log.warning("holds cannot be ended now", error=str(error))

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[ShardRedis]:
        redis = connect(self._redis.address)
        try:
            yield redis
        finally:
            await disconnect(redis)

    @contextlib.asynccontextmanager
    async def _shard(self) -> AsyncIterator[Shard]:
        """This agent's shard, at the topology's epoch."""
        topology = self._registry.topology
        info = topology.shard(self._settings.shard_id)
        async with self._client() as redis:
            yield Shard(info.shard_id, topology.fence(info), redis)
