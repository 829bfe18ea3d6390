"""Archives every shard whose lock this process gets, and says how far it is.

A lock in ZooKeeper gives each shard to one archiver. The lock only spares work, so whoever holds one goes
on while ZooKeeper is away. What fails is tried again for ever, ever more slowly; what needs a person is
said again and again. Meanwhile the shard keeps what is not stored, and refuses new transfers when it
keeps too much.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Final

import structlog

from shard_node.archiver.shard_archiver import BATCH_ENTRIES, ShardArchiver
from shard_node.client import Directory, Shard
from shard_node.cluster import ARCHIVER_LOCKS, Registry
from shard_node.errors import BatchTakenError, RegistryError, RetryableError, ShardNodeError
from shard_node.ledger.store import Archive

# Between two looks at a stream that had less than a batch: how late history is when little happens.
IDLE_SECONDS: Final = 0.3
# Between two looks at the locks, and at which shards there are.
LOCK_SECONDS: Final = 1.0
# Between two lines of figures, and two sayings of what needs a person.
GAUGE_SECONDS: Final = 10.0
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 10.0
# For what the stopped routers and coordinators left in the streams; what remains is stored after the start.
DRAIN_SECONDS: Final = 5.0

log = structlog.get_logger(__name__)


class Archiver:
    """Looks after the shards of the newest topology. ``executor`` runs what blocks on the database."""

    def __init__(
        self,
        name: str,
        registry: Registry,
        directory: Directory,
        archive: Archive,
        executor: Executor,
        *,
        batch_entries: int = BATCH_ENTRIES,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._name = name
        self._registry = registry
        self._directory = directory
        self._archive = archive
        self._executor = executor
        self._batch_entries = batch_entries
        self._clock_ms = clock_ms
        self._held: set[str] = set()
        self._keepers: dict[str, asyncio.Task[None]] = {}
        # Entries stored by this process, by shard.
        self._stored: dict[str, int] = {}
        # Why a shard is not archived at the moment.
        self._problems: dict[str, str] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Until ``stopping`` is set; then stores what is there, within ``DRAIN_SECONDS``."""
        gauges = asyncio.ensure_future(self._tell_gauges())
        try:
            while not stopping.is_set():
                await asyncio.gather(*(self._lock(shard) for shard in self._directory.current.shards))
                for shard in self._directory.current.shards:
                    if shard.shard_id not in self._keepers:
                        keeper = asyncio.ensure_future(self._keep(shard.shard_id, stopping))
                        self._keepers[shard.shard_id] = keeper
                ended = [task for task in (gauges, *self._keepers.values()) if task.done()]
                for task in ended:
                    # None ends before all stop: it failed, and so must the process.
                    task.result()
                await _pause(stopping, LOCK_SECONDS)
            await asyncio.gather(*self._keepers.values())
        finally:
            for task in (gauges, *self._keepers.values()):
                task.cancel()

    async def _lock(self, shard: Shard) -> None:
        try:
            mine = await self._registry.try_lock(f"{ARCHIVER_LOCKS}/{shard.shard_id}", self._name)
        except RegistryError as error:
            log.warning("no word of the lock", shard=shard.shard_id, error=str(error))
            return
        if mine and shard.shard_id not in self._held:
            log.info("archiving", shard=shard.shard_id)
            self._held.add(shard.shard_id)
        elif not mine:
            self._held.discard(shard.shard_id)

    def _shard(self, shard_id: str) -> Shard | None:
        return next((s for s in self._directory.current.shards if s.shard_id == shard_id), None)

    # ------------------------------------------------------------------ one shard

    async def _keep(self, shard_id: str, stopping: asyncio.Event) -> None:
        """Archives one shard whenever it is ours."""
        archiver = ShardArchiver(
            shard_id,
            self._archive,
            self._executor,
            self._clock_ms,
            self._registry.exponents,
            self._batch_entries,
        )
        self._stored[shard_id] = 0
        pause, failures = 0.0, 0
        while True:
            await _pause(stopping, pause)
            last = stopping.is_set()
            shard = self._shard(shard_id)
            if shard is None or shard_id not in self._held:
                archiver.forget()
                self._tell(shard_id, "")
                pause = LOCK_SECONDS
            elif last:
                await self._drain(archiver, shard)
            else:
                ok, pause = await self._look(archiver, shard, failures)
                failures = 0 if ok else failures + 1
            if last:
                return

    async def _look(self, archiver: ShardArchiver, shard: Shard, failures: int) -> tuple[bool, float]:
        """One step; whether it went well, and the seconds until the next."""
        try:
            step = await archiver.step(shard)
        except BatchTakenError as error:
            log.info("another archiver goes on", shard=shard.shard_id, error=str(error))
            return False, _FIRST_PAUSE_SECONDS
        except RetryableError as error:
            self._tell(shard.shard_id, str(error))
            log.warning("to be archived later", **await self._described(shard, error))
            return False, min(_FIRST_PAUSE_SECONDS * 2**failures, _LONGEST_PAUSE_SECONDS)
        except ShardNodeError as error:
            self._tell(shard.shard_id, str(error))
            log.error("not archived: this needs a person", **await self._described(shard, error))
            return False, GAUGE_SECONDS
        self._tell(shard.shard_id, "")
        self._stored[shard.shard_id] += step.entries
        return True, 0.0 if step.full else IDLE_SECONDS

    def _tell(self, shard_id: str, problem: str) -> None:
        """Has the registration say why a shard is not archived, or, with an empty text, that it is."""
        if self._problems.get(shard_id, "") != problem:
            self._problems[shard_id] = problem
            # One database that is away is the same news of every shard.
            self._registry.tell_problem("; ".join(sorted({*filter(None, self._problems.values())})))

    async def _drain(self, archiver: ShardArchiver, shard: Shard) -> None:
        """Stores what is there, for a while."""
        deadline = time.monotonic() + DRAIN_SECONDS
        try:
            while time.monotonic() < deadline:
                step = await archiver.step(shard)
                self._stored[shard.shard_id] += step.entries
                if not step.full:
                    return
        except ShardNodeError as error:
            log.warning("to be archived after the next start", shard=shard.shard_id, error=str(error))

    # ------------------------------------------------------------------ figures

    @staticmethod
    async def _described(shard: Shard, error: ShardNodeError) -> dict[str, object]:
        """What is logged of a failure: with how much waits on the shard, when it says."""
        fields: dict[str, object] = {
            "shard": shard.shard_id,
            "error": str(error),
            "kind": type(error).__name__,
        }
        with contextlib.suppress(ShardNodeError):
            state = await shard.ledger_state()
            fields |= {"backlog": state.backlog, "backlog_limit": state.backlog_limit}
        return fields

    async def _tell_gauges(self) -> None:
        """Logs, when it changed, how much is stored and how much waits."""
        stored_before = 0
        told: Mapping[str, object] = {}
        while True:
            began = time.monotonic()
            await asyncio.sleep(GAUGE_SECONDS)
            shards: dict[str, object] = {}
            crowded = False
            for shard in self._directory.current.shards:
                if shard.shard_id in self._held:
                    with contextlib.suppress(ShardNodeError):
                        state = await shard.ledger_state()
                        crowded |= 2 * state.backlog > state.backlog_limit > 0
                        shards[shard.shard_id] = {
                            "archived_batch": state.number,
                            "backlog": state.backlog,
                            "backlog_limit": state.backlog_limit,
                        }
            stored = sum(self._stored.values())
            if shards == told and stored == stored_before:
                continue
            rate = round((stored - stored_before) / (time.monotonic() - began))
            # Half of what a shard may keep is near the point where it refuses transfers.
            say = log.warning if crowded else log.info
            say("archived", entries=stored, entries_per_second=rate, shards=shards)
            stored_before, told = stored, shards


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    """Waits, unless all stop."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopping.wait()
