"""Carries the commands of the commit protocol between its machines and shards.

All that is decided is decided in ``attempts.py`` and ``attempt_steps.py``; here are tasks, calls, and the
settlements that wait for a ride.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from coordinator.attempt_steps import Batch
from coordinator.pace import Pace
from shard_node.client import CALL_TIMEOUT_SECONDS, NoReply, ask
from shard_node.contract import Command, Decide, Settle, new_attempt_id, start_ms
from shard_node.limits import MAX_BATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Protocol

    from coordinator.attempts import Answers, Attempt, Calls, Recovery
    from coordinator.pace import Cluster
    from shard_node.client import AskedShard

    class Directory(Protocol):
        """Knows the newest topology."""

        @property
        def current(self) -> Cluster:
            """Its shards."""


# A settlement: an attempt, and the number of a participant that has finished it.
Settlement = tuple[bytes, int]

# Younger attempts are most likely still in the hands of the coordinator that made them: no call of its takes
# longer. Abandoning one would be safe, but under load end attempts that only wait their turn.
MINIMUM_AGE_MS = int(CALL_TIMEOUT_SECONDS * 1000)
# Settlements ride on the next decide of their shard; after this long without one they go alone.
SETTLE_IDLE_SECONDS = 0.5
# More than this waiting for one shard are left to recovery, which settles what it finds.
MAX_SETTLEMENTS = 16 * MAX_BATCH

log = structlog.get_logger(__name__)


def now_ms() -> int:
    """The time that attempt ids begin with: ms since 1970."""
    return time.time_ns() // 1_000_000


def sound_alarm(missing: Iterable[bytes]) -> None:
    """R5: committed legs are nowhere. Nothing can repair this by itself; somebody must look."""
    for attempt_id in missing:
        log.critical("committed legs are neither prepared nor applied", attempt=attempt_id.hex())


class Settlements:
    """What is finished, by the id of its deciding shard, until that has heard of it (R6)."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Settlement]] = {}

    def add(self, shard_id: str, settled: Sequence[Settlement]) -> None:
        """Keeps them, unless far too many wait already."""
        waiting = self._waiting.setdefault(shard_id, [])
        if len(waiting) < MAX_SETTLEMENTS:
            waiting.extend(settled)

    def take(self, shard_id: str) -> list[Settlement]:
        """All that waits for the shard, at most what one call may carry."""
        waiting = self._waiting.pop(shard_id, [])
        if len(waiting) > MAX_BATCH:
            self._waiting[shard_id] = waiting[MAX_BATCH:]
            del waiting[MAX_BATCH:]
        return waiting

    def shard_ids(self) -> list[str]:
        """Shards for which something waits."""
        return list(self._waiting)


class Driver:
    """Runs batches through two-phase commit. Keeps nothing that a crash could lose.

    ``clock_ms`` is the wall clock, ms since 1970.
    """

    def __init__(self, directory: Directory, clock_ms: Callable[[], int] = now_ms) -> None:
        self._directory = directory
        self._clock_ms = clock_ms
        self._settlements = Settlements()

    def new_attempt_id(self) -> bytes:
        """An id for an attempt that begins now."""
        return new_attempt_id(self._clock_ms())

    async def commit(
        self, attempts: Sequence[Attempt], cluster: Cluster, *, with_balances: bool = True
    ) -> None:
        """Carries attempts through all steps; then they have their outcomes.

        Together they have at most a batch of transactions. Never cancel it: what is past its commit point
        would wait for recovery.
        """
        batch = Batch(
            attempts, cluster.shard_ids, self.new_attempt_id, self._may_abandon, with_balances=with_balances
        )
        pace, steps = Pace(cluster), batch.steps()
        calls = next(steps)
        with contextlib.suppress(StopIteration):
            while True:
                calls = steps.send(await self._ask_all(pace, cluster, calls))
        sound_alarm(batch.missing)
        for index, settled in batch.settled.items():
            self._settlements.add(cluster.shard_ids[index], settled)

    def _may_abandon(self, attempt_id: bytes) -> bool:
        return self._clock_ms() - start_ms(attempt_id) >= MINIMUM_AGE_MS

    async def _ask_all(self, pace: Pace, cluster: Cluster, calls: Calls) -> Answers:
        """One step. Settlements ride along, and wait again when their ride did not arrive, or perhaps not."""
        riding = self._ride(cluster, calls)
        answers = await pace.ask_all({**calls, **riding})
        for index, decide in riding.items():
            if isinstance(answers[index], NoReply):
                self._settlements.add(cluster.shard_ids[index], decide.settled)
        return answers

    def _ride(self, cluster: Cluster, calls: Mapping[int, Command]) -> dict[int, Decide]:
        riding: dict[int, Decide] = {}
        for index, command in calls.items():
            if isinstance(command, Decide) and (settled := self._settlements.take(cluster.shard_ids[index])):
                riding[index] = replace(command, settled=settled)
        return riding

    async def settle_idle(self) -> None:
        """Forever: sends settlements that found no ride."""
        while True:
            before = set(self._settlements.shard_ids())
            await asyncio.sleep(SETTLE_IDLE_SECONDS)
            for shard in self._directory.current.shards:
                if shard.shard_id in before:
                    await self._settle(shard)

    async def settle_now(self) -> None:
        """Sends all that waits, before the process ends."""
        for shard in self._directory.current.shards:
            await self._settle(shard)

    async def _settle(self, shard: AskedShard) -> None:
        # What fails is left to recovery, which settles what it finds; what waits behind is tried next time.
        while settled := self._settlements.take(shard.shard_id):
            if isinstance(await ask(shard, Settle(settled)), NoReply):
                return


async def end(pace: Pace, recovery: Recovery) -> int:
    """Takes a recovery through its steps; how many attempts ended."""
    answers = await pace.ask_all(recovery.abandon())
    answers = await pace.ask_all(recovery.finish(answers))
    await pace.ask_all(recovery.settle(answers))
    sound_alarm(recovery.missing)
    return len(recovery.ended)
