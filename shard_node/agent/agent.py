"""The shard node: the agent beside one Redis.

It starts Redis and watches it, loads the function library, binds the Redis to its shard and epoch,
announces it, and rotates the remembered outcomes. It keeps this order, which the epoch's promise
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
from itertools import product
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import OutOfMemoryError, RedisError

from shard_node import library
from shard_node.agent.binding import DEFAULT_MAX_BACKLOG, Holding
from shard_node.agent.redis_process import RedisProcess
from shard_node.agent.rotation import Peer, long_unsettled_ms, may_rotate
from shard_node.client import Shard, as_shard_error, connect, disconnect
from shard_node.cluster import MemberKind, Registry, package_exponent
from shard_node.errors import RegistryError, RetryableError, ShardNodeError, WrongShardError
from shard_node.limits import MAX_BATCH
from shard_node.logs import keep_small

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from redis.asyncio import Redis

    from shard_node.client import ShardRedis
    from shard_node.cluster import ShardInfo, Topology

# Between two tries to bring Redis back; the first one is at once.
RESTART_SECONDS = 1.0
# How often the agent looks whether a rotation is due, and, when it is, whether it may be.
ROTATION_CHECK_SECONDS = 5.0
# How often it ends holds whose time is over.
EXPIRY_SECONDS = 1.0
# How often it looks at the sizes of logs. Within that a log of errors grows by some megabytes.
LOG_CHECK_SECONDS = 60.0

# Field of ``meta``: the currencies of all accounts that were there once have their exponents stored.
_CURRENCIES_READ = "currencies_read"
# Every code that a currency can have: one look at a shard's system accounts, some 20 ms at its start.
_CODES = tuple(map("".join, product(ascii_uppercase, repeat=3)))

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


async def load_library(redis: Redis) -> None:
    """Loads the function library, in place of an older one.

    Not when it is there already: Redis refuses to load anything at its memory limit, and a full shard
    must be able to start.
    """
    source = library.source()
    # redis-py hands this out as it comes: a list of names and values, or a dict with RESP3.
    present: list[Any] = await redis.function_list(library=library.NAME, withcode=True)
    for found in present:
        if source.encode() in (found.values() if isinstance(found, dict) else found):
            return
    await redis.function_load(source, replace=True)


async def claim(redis: Redis, topology: Topology, shard_id: str) -> Holding:
    """What this Redis holds. An empty one becomes this shard's, when the shard has no primary as yet."""
    identity = f"{topology.cluster_id}/{shard_id}"
    try:
        if not topology.shard(shard_id).primary:
            await redis.hsetnx("meta", "shard", identity)
        # redis-py's annotation covers every decoding; here it is always bytes.
        held: list[Any] = await redis.hmget("meta", ["shard", "fence"])
    except (RedisError, OSError) as error:
        raise as_shard_error(shard_id, error) from error
    return Holding(held[0].decode() if held[0] else None, served=held[1] is not None)


async def bind(
    redis: Redis,
    topology: Topology,
    shard_id: str,
    window_ms: int,
    max_backlog: int = DEFAULT_MAX_BACKLOG,
) -> None:
    """Binds a Redis to its shard and epoch. Raises WrongShardError when it holds another's data."""
    info = topology.shard(shard_id)
    try:
        await redis.execute_command(
            "FCALL",
            "setup",
            0,
            f"{topology.cluster_id}/{shard_id}",
            info.epoch,
            window_ms,
            max_backlog,
        )
    except (RedisError, OSError) as error:
        raise as_shard_error(shard_id, error) from error


async def ask_peer(topology: Topology, info: ShardInfo, long_ms: int) -> Peer:
    """Whether a shard has transfers that were committed at least ``long_ms`` ago and are not settled."""
    try:
        async with Shard(info.shard_id, topology.fence(info), connect(info.primary)) as shard:
            # Refuses an address at which another shard answers by now.
            await shard.counters()
            return Peer.LAGGING if await shard.pending("unsettled", long_ms, 1) else Peer.SETTLED
    except (ShardNodeError, ValueError) as error:
        log.warning("a shard does not answer", peer=info.shard_id, error=str(error))
        return Peer.SILENT


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
            await load_library(redis)
            await self._bind(redis)
            await self._adopt_currencies(redis)
        await self._registry.register(
            MemberKind.SHARD_NODE, settings.shard_id, address, os.getpid(), redis_pid=self._redis.pid
        )
        log.info("serving", address=address, epoch=self._bound_epoch)

    async def _bind(self, redis: Redis) -> None:
        topology, settings = self._registry.topology, self._settings
        window_ms = int(settings.dedupe_window_seconds * 1000)
        await bind(redis, topology, settings.shard_id, window_ms, settings.max_backlog)
        self._bound_epoch = topology.shard(self._settings.shard_id).epoch

    async def _adopt_currencies(self, redis: ShardRedis) -> None:
        """Has exponents stored for currencies whose accounts are older than the storing of exponents.

        Their amounts were read by the package's exponent: so that is their exponent, unless the package has
        dropped the currency, and then only another release of it can tell.
        """
        used = sorted(await self._used_currencies(redis) - self._registry.exponents.keys())
        wanted = {code: exponent for code in used if (exponent := package_exponent(code)) is not None}
        if wanted:
            await self._registry.store_exponents(wanted)
            log.info("stored the exponents of currencies in use", exponents=wanted)
        for code in used:
            if code not in wanted:
                log.error(
                    "a currency in use has no stored exponent, and the ISO 4217 package does not know it: "
                    "its money rests until an agent starts once with a release of iso4217 that has it",
                    currency=code,
                )
        if len(wanted) == len(used):
            # A full shard starts without noting it, and reads them again the next time.
            with contextlib.suppress(OutOfMemoryError):
                await redis.hset("meta", _CURRENCIES_READ, 1)

    async def _used_currencies(self, redis: ShardRedis) -> set[str]:
        """The currencies of all accounts; once these are stored, of the system accounts alone.

        Money needs no system account: that of a credit line has none. Accounts that open later have their
        currency's exponent stored before.
        """
        if await redis.hexists("meta", _CURRENCIES_READ):
            found = await redis.hmget("accounts", [f"@world:{code}" for code in _CODES])
            return {code for code, record in zip(_CODES, found, strict=True) if record is not None}
        pages = Shard(self._settings.shard_id, "", redis).accounts_by_page()
        return {account.currency async for page in pages for _, account in page}

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
            topology = self._registry.topology
            long_ms = long_unsettled_ms(window)
            peers = await asyncio.gather(*(ask_peer(topology, shard, long_ms) for shard in topology.shards))
            if not may_rotate(elapsed, window, peers):
                log.warning("no rotation: a shard is silent or has long unsettled transfers")
                continue
            shard = topology.shard(self._settings.shard_id)
            try:
                async with self._client() as redis:
                    found = Shard(shard.shard_id, topology.fence(shard), redis)
                    # The shard counts too: of a lost answer, or an earlier agent's, this one does not know.
                    carried = await found.rotate(int(window * 1000), once_archived=True)
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
            topology = self._registry.topology
            info = topology.shard(self._settings.shard_id)
            try:
                async with self._client() as redis:
                    shard = Shard(info.shard_id, topology.fence(info), redis)
                    while await shard.expire_holds(MAX_BATCH) == MAX_BATCH:
                        pass
            except ShardNodeError as error:
                log.warning("holds cannot be ended now", error=str(error))

    @contextlib.asynccontextmanager
    async def _client(self):  # type: ignore[no-untyped-def]  # noqa: ANN202
        redis = connect(self._redis.address)
        try:
            yield redis
        except (RedisError, OSError) as error:
            raise as_shard_error(self._settings.shard_id, error) from error
        finally:
            await disconnect(redis)
