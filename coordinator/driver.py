"""Carries the messages of the commit protocol between the machine in ``protocol.py`` and shards.

All that is decided is decided there; here are tasks, calls and the settlements that wait for a ride.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar, overload

import structlog

from coordinator.journal_protocol import JournalCommit, JournalRecovery
from coordinator.protocol import Commit, Part, Recovery
from shard_node.client import Answer, JournalAnswer, NoReply, ask, ask_all
from shard_node.contract import PendingAttempt, PendingCommit, Settle, SettleCommits
from shard_node.errors import ShardNodeError
from shard_node.limits import MAX_BATCH, MIN_WINDOW_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from shard_node.client import Cluster, Directory, Shard
    from shard_node.contract import Call, JournalCall, Journals

# Settlements ride on the next decide of their shard; after this long without one they go alone.
SETTLE_IDLE_SECONDS = 0.5
# A coordinator that was stopped for longer than this between two steps, and wakes up, must not go on: what it
# knows may be forgotten by the shards, and the id in other hands. Half of the shortest window; a batch that
# is only slow takes some 15 s at the most.
MAX_PAUSE_SECONDS = 0.5 * MIN_WINDOW_SECONDS
# More than this waiting for one shard are left to recovery, which settles what it finds.
MAX_SETTLEMENTS = 16 * MAX_BATCH

log = structlog.get_logger(__name__)

B = TypeVar("B", PendingAttempt, PendingCommit)


class Pace:
    """Asks shards step by step, and stops when a step comes too long after the first."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._clock = clock
        self._begun = clock()

    @overload
    async def ask_all(self, calls: Mapping[int, Call]) -> dict[int, Answer]: ...
    @overload
    async def ask_all(self, calls: Mapping[int, JournalCall]) -> dict[int, JournalAnswer]: ...
    async def ask_all(self, calls: Mapping[int, Any]) -> dict[int, Any]:
        """All calls at once; the answers by the same shard index. Too late, none is made and all are LOST."""
        if calls and self._clock() - self._begun > MAX_PAUSE_SECONDS:
            log.error("stopped for too long in the middle of a batch; recovery will end it")
            return dict.fromkeys(calls, NoReply.LOST)
        answers: dict[int, Any] = await ask_all(self._cluster, calls)
        return answers


def sound_alarm(what: str, names: Sequence[bytes]) -> None:
    """R5: committed legs are nowhere. Nothing can repair this by itself; somebody must look.

    ``what`` says what the first 16 bytes of ``names`` are: attempts or transactions.
    """
    for name in names:
        log.critical("committed legs are neither prepared nor applied", **{what: name[:16].hex()})


class Settlements:
    """Names of what is finished everywhere, until its deciding shard has been told (step 5)."""

    def __init__(self) -> None:
        self._keys: dict[str, list[bytes]] = {}

    def add(self, shard_id: str, keys: Sequence[bytes]) -> None:
        """Keeps the keys, unless far too many wait already."""
        waiting = self._keys.setdefault(shard_id, [])
        if len(waiting) < MAX_SETTLEMENTS:
            waiting.extend(keys)

    def take(self, shard_id: str) -> list[bytes]:
        """All that waits for the shard, at most a batch."""
        waiting = self._keys.pop(shard_id, None)
        if waiting is None:
            return []
        if len(waiting) > MAX_BATCH:
            self._keys[shard_id] = waiting[MAX_BATCH:]
            del waiting[MAX_BATCH:]
        return waiting

    def waiting(self) -> list[str]:
        """Shards with something to be told."""
        return list(self._keys)


class Driver:
    """Runs batches through two-phase commit. Keeps nothing that a crash could lose."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        # Of transfers: names of commits. Of journals: their keys.
        self._commits = Settlements()
        self._journals = Settlements()

    async def commit(self, parts: Sequence[Part], cluster: Cluster, *, with_balances: bool = True) -> Commit:
        """One batch, through all its steps. Never cancel it: see the class docstring of Shard."""
        machine = Commit(parts, cluster.shard_ids, with_balances=with_balances)
        await self._carry_out(machine, cluster, self._commits)
        sound_alarm("attempt", machine.missing)
        for index, names in machine.elsewhere().items():
            machine.finished_elsewhere(index, await self._finish_others(cluster, index, names))
        return machine

    async def commit_journals(self, batch: Journals, cluster: Cluster) -> JournalCommit:
        """The same for journals."""
        machine = JournalCommit(batch, cluster.owner)
        await self._carry_out(machine, cluster, self._journals)
        sound_alarm("transaction_id", machine.missing)
        return machine

    async def _carry_out(
        self, machine: Commit | JournalCommit, cluster: Cluster, settlements: Settlements
    ) -> None:
        # Any: the two kinds of machines are asked alike, each in calls and answers of its own.
        steps: Any = machine
        pace = Pace(cluster)
        answers = await pace.ask_all(steps.prepare())
        riding = self._ride(cluster, machine.deciding_shards, settlements)
        answers = await pace.ask_all(steps.decide(answers, riding))
        self._ridden(cluster, riding, answers, settlements)
        steps.conclude(await pace.ask_all(steps.finish(answers)))
        for index, names in machine.settled.items():
            settlements.add(cluster.shards[index].shard_id, names)

    async def _finish_others(self, cluster: Cluster, index: int, names: Sequence[bytes]) -> set[bytes]:
        """Ends commits of other coordinators that transfers of ours are in; those that have ended.

        Whoever began them may be dead, or about to do the same: either way a caller of ours need not wait.
        """
        try:
            found = await cluster.shards[index].commits(names)
        except ShardNodeError as error:
            log.warning("no answer", shard=cluster.shards[index].shard_id, error=str(error))
            return set()
        ended = set(names) - {commit.name for commit in found}
        pace = Pace(cluster)
        for commits in batches(found):
            recovery = Recovery(index, (), commits, cluster.owner, cluster.shard_ids)
            await end(pace, recovery, "attempt")
            ended.update(recovery.finished)
        return ended

    def _ride(
        self, cluster: Cluster, deciding: Sequence[int], settlements: Settlements
    ) -> dict[int, list[bytes]]:
        """Settlements that may go along with calls to these shards, by shard index."""
        riding: dict[int, list[bytes]] = {}
        if settlements.waiting():
            for index in set(deciding):
                names = settlements.take(cluster.shards[index].shard_id)
                if names:
                    riding[index] = names
        return riding

    @staticmethod
    def _ridden(
        cluster: Cluster,
        riding: Mapping[int, Sequence[bytes]],
        answers: Mapping[int, Answer] | Mapping[int, JournalAnswer],
        settlements: Settlements,
    ) -> None:
        """Keeps the settlements whose ride did not arrive, or perhaps not."""
        for index, names in riding.items():
            if isinstance(answers.get(index, NoReply.LOST), NoReply):
                settlements.add(cluster.shards[index].shard_id, names)

    async def settle_idle(self) -> None:
        """Forever: sends settlements that found no ride."""
        while True:
            before = {*self._commits.waiting(), *self._journals.waiting()}
            await asyncio.sleep(SETTLE_IDLE_SECONDS)
            cluster = self._directory.current
            for shard in cluster.shards:
                if shard.shard_id in before:
                    await self._settle(shard)

    async def settle_now(self) -> None:
        """Sends all that waits, before the process ends; what fails is left to recovery."""
        for shard in self._directory.current.shards:
            await self._settle(shard)

    async def _settle(self, shard: Shard) -> None:
        # What fails is left to recovery, which settles what it finds; what waits behind is tried next time.
        while names := self._commits.take(shard.shard_id):
            if isinstance(await ask(shard, SettleCommits(names)), NoReply):
                return
        while keys := self._journals.take(shard.shard_id):
            if isinstance(await ask(shard, Settle(keys)), NoReply):
                return


def batches(bundles: Iterable[B]) -> Iterator[list[B]]:
    """Bundles, some at a time: so many that a call about them all stays within its limit."""
    batch: list[B] = []
    size = 0
    for bundle in bundles:
        size += bundle.size
        if size > MAX_BATCH and batch:
            yield batch
            batch, size = [], bundle.size
        batch.append(bundle)
    if batch:
        yield batch


async def end(pace: Pace, recovery: Recovery | JournalRecovery, what: str) -> int:
    """Takes a recovery through its steps; how many attempts, or legs, ended. ``what`` as for sound_alarm."""
    # Any: as in Driver._carry_out.
    steps: Any = recovery
    answers = await pace.ask_all(steps.resolve())
    answers = await pace.ask_all(steps.finish(answers))
    await pace.ask_all(steps.settle(answers))
    sound_alarm(what, recovery.missing)
    return recovery.ended
