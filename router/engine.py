"""Carries out a batch: one call a shard for what stays on it, a coordinator for what crosses.

Rows that met an older or newer map of the cluster are split again by the newest one, until the
deadline: that is how transfers wait, rather than fail, while slots move.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from coordinator.driver import ask
from coordinator.protocol import NoReply
from shard_node.calls import Post
from shard_node.errors import StaleEpochError
from shard_node.limits import NO_BALANCE
from shard_node.outcomes import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shard_node.directory import Cluster
    from shard_node.records import RememberedOutcome
    from shard_node.transfers import Transfers
    from tallystick.v1 import coordinator_pb2

_STALE = int(Outcome.STALE_EPOCH)
_UNKNOWN = int(Outcome.OUTCOME_UNKNOWN)
_EXHAUSTED = int(Outcome.RESOURCE_EXHAUSTED)
# Another try may end otherwise; or one before may have, which _carry_out looks at only in the end.
_NOT_FINAL = frozenset((_STALE, _EXHAUSTED))
_NO_REPLY = {
    NoReply.LOST: _UNKNOWN,
    NoReply.STALE: _STALE,
    NoReply.FULL: _EXHAUSTED,
}

# Between two tries with the same map: the shard may be about to learn of its new epoch.
FIRST_RETRY_SECONDS = 0.02
LAST_RETRY_SECONDS = 0.5
# What a batch gets whose deadline has passed when it comes: its one try, if shards answer as usual.
LEAST_SECONDS = 0.05


class Maps(Protocol):
    """Where the newest map of the cluster comes from: :class:`shard_node.directory.Directory`."""

    @property
    def current(self) -> Cluster:
        """The newest one seen."""

    async def newer_than(self, version: int, timeout_seconds: float) -> bool:
        """Waits for a map above ``version``; whether there is one."""


class Committers(Protocol):
    """Who commits across shards: :class:`router.coordinators.Coordinators`."""

    async def commit(
        self, transfers: Transfers, topology_version: int, deadline_seconds: float
    ) -> coordinator_pb2.CommitResponse | NoReply:
        """Has a batch committed by the map of that version or a newer one."""


@dataclass(slots=True)
class Results:
    """A value a row. Outcomes carry PAYEE as shards give them; balances are NO_BALANCE if unknown."""

    outcomes: list[int]
    payer_balances: list[int]
    payee_balances: list[int]

    @classmethod
    def unknown(cls, count: int) -> Results:
        """Nothing is known yet."""
        return cls([_UNKNOWN] * count, [NO_BALANCE] * count, [NO_BALANCE] * count)

    def put(
        self,
        rows: Sequence[int],
        outcomes: Sequence[int],
        payer_balances: Sequence[int],
        payee_balances: Sequence[int],
    ) -> None:
        """Fills in the results of some rows."""
        for i, row in enumerate(rows):
            self.outcomes[row] = outcomes[i]
            self.payer_balances[row] = payer_balances[i]
            self.payee_balances[row] = payee_balances[i]

    def so_far(self) -> Results:
        """A copy of what is known while the work goes on: what may still change is unknown."""
        outcomes = [_UNKNOWN if code in _NOT_FINAL else code for code in self.outcomes]
        return Results(outcomes, self.payer_balances.copy(), self.payee_balances.copy())


def split(
    rows: Sequence[int], payer_shards: Sequence[int], payee_shards: Sequence[int]
) -> tuple[dict[int, list[int]], list[int]]:
    """Rows that stay on one shard, by shard, and rows that cross."""
    local: dict[int, list[int]] = {}
    cross: list[int] = []
    for row in rows:
        shard = payer_shards[row]
        if shard != payee_shards[row]:
            cross.append(row)
        elif shard in local:
            local[shard].append(row)
        else:
            local[shard] = [row]
    return local, cross


class Engine:
    """Carries out batches of validated transfers."""

    def __init__(self, directory: Maps, coordinators: Committers) -> None:
        self._directory = directory
        self._coordinators = coordinators
        # Work that goes on after its caller was answered is kept here; a Redis call is never cancelled.
        self._under_way: set[asyncio.Task[None]] = set()

    async def finish_all(self) -> None:
        """Waits for everything under way, also what was answered before it ended."""
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def execute(self, transfers: Transfers, deadline_seconds: float) -> Results:
        """One batch, each row with an outcome. ``deadline_seconds`` is of the monotonic clock.

        Answers by the deadline: what has no answer by then is OUTCOME_UNKNOWN, and goes on.
        """
        results = Results.unknown(len(transfers))
        task = asyncio.ensure_future(self._carry_out(transfers, results, deadline_seconds))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.wait((task,), timeout=max(deadline_seconds - time.monotonic(), LEAST_SECONDS))
        if not task.done():
            return results.so_far()
        task.result()
        return results

    async def _carry_out(self, transfers: Transfers, results: Results, deadline_seconds: float) -> None:
        rows: Sequence[int] = range(len(transfers))
        pause = FIRST_RETRY_SECONDS
        again = False
        while True:
            cluster = self._directory.current
            await self._attempt(transfers, rows, cluster, results, deadline_seconds)
            if again:
                # "Nothing was begun" is true of this try only: the one before may have committed the row.
                for row in rows:
                    if results.outcomes[row] == _EXHAUSTED:
                        results.outcomes[row] = _UNKNOWN
            again = True
            rows = [row for row in rows if results.outcomes[row] == _STALE]
            remaining = deadline_seconds - time.monotonic()
            if not rows:
                return
            if remaining <= pause:
                for row in rows:
                    results.outcomes[row] = _UNKNOWN
                return
            await self._directory.newer_than(cluster.topology.version, pause)
            pause = min(pause * 2, LAST_RETRY_SECONDS)

    async def outcome(
        self, transaction_id: bytes, payer_slot: int, deadline_seconds: float
    ) -> RememberedOutcome | None:
        """What the payer's shard remembers under the 16 bytes of an id.

        Raises the errors of :mod:`shard_node.errors` when the shard does not answer by the deadline.
        """
        decision = transaction_id + payer_slot.to_bytes(2, "little")
        pause = FIRST_RETRY_SECONDS
        while True:
            cluster = self._directory.current
            try:
                return await cluster.shards[cluster.owner[payer_slot]].outcome(decision)
            except StaleEpochError:
                if deadline_seconds - time.monotonic() <= pause:
                    raise
            await self._directory.newer_than(cluster.topology.version, pause)
            pause = min(pause * 2, LAST_RETRY_SECONDS)

    async def _attempt(
        self,
        transfers: Transfers,
        rows: Sequence[int],
        cluster: Cluster,
        results: Results,
        deadline_seconds: float,
    ) -> None:
        owner = cluster.owner
        local, cross = split(
            rows,
            [owner[slot] for slot in transfers.payer_slots],
            [owner[slot] for slot in transfers.payee_slots],
        )
        work = [self._post(transfers, group, cluster, shard, results) for shard, group in local.items()]
        if cross:
            work.append(self._commit(transfers, cross, cluster, results, deadline_seconds))
        await asyncio.gather(*work)

    async def _post(
        self, transfers: Transfers, rows: list[int], cluster: Cluster, shard: int, results: Results
    ) -> None:
        answer = await ask(cluster.shards[shard], Post(transfers.select(rows)))
        if isinstance(answer, NoReply):
            for row in rows:
                results.outcomes[row] = _NO_REPLY[answer]
        else:
            results.put(rows, answer.codes, answer.payer_balances, answer.payee_balances)

    async def _commit(
        self,
        transfers: Transfers,
        rows: list[int],
        cluster: Cluster,
        results: Results,
        deadline_seconds: float,
    ) -> None:
        batch = transfers if len(rows) == len(transfers) else transfers.select(rows)
        answer = await self._coordinators.commit(batch, cluster.topology.version, deadline_seconds)
        if isinstance(answer, NoReply):
            for row in rows:
                results.outcomes[row] = _NO_REPLY[answer]
        else:
            results.put(rows, answer.outcomes, answer.payer_balances_minor, answer.payee_balances_minor)
