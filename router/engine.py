"""Carries out a batch: one call a shard for what stays on it, a coordinator for what crosses.

Rows that met an older or newer map of the cluster are split again by the newest one, until the
deadline: that is how transfers wait, rather than fail, while slots move. What holds for transfers and for
journals alike is in :class:`Carrier`; each kind of batch brings its own way of making one try.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeVar

from coordinator.driver import ask
from coordinator.protocol import NoReply
from router.kept import KeptTasks
from router.maps import Tries, at_owner
from shard_node.calls import Post
from shard_node.limits import NO_BALANCE
from shard_node.outcomes import Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from router.maps import Maps
    from shard_node.directory import Cluster
    from shard_node.records import RememberedOutcome
    from shard_node.transfers import Transfers
    from tallystick.v1 import coordinator_pb2

_STALE = int(Outcome.STALE_EPOCH)
UNKNOWN: Final = int(Outcome.OUTCOME_UNKNOWN)
_EXHAUSTED = int(Outcome.RESOURCE_EXHAUSTED)
# Another try may end otherwise; or one before may have, which Carrier looks at only in the end.
_NOT_FINAL = frozenset((_STALE, _EXHAUSTED))
NO_REPLY: Final = {
    NoReply.LOST: UNKNOWN,
    NoReply.STALE: _STALE,
    NoReply.FULL: _EXHAUSTED,
}


class Committers(Protocol):
    """Who commits across shards: :class:`router.coordinators.Coordinators`."""

    async def commit(
        self, transfers: Transfers, topology_version: int, deadline_seconds: float
    ) -> coordinator_pb2.CommitResponse | NoReply:
        """Has a batch committed by the map of that version or a newer one."""


class Told(Protocol):
    """The results of a batch, filled in while it is carried out."""

    outcomes: list[int]

    def so_far(self) -> Self:
        """A copy of what is known while the work goes on: what may still change is unknown."""


R = TypeVar("R", bound=Told)


def final_or_unknown(outcomes: Sequence[int]) -> list[int]:
    """Outcomes as they may be told while further tries may follow."""
    return [UNKNOWN if code in _NOT_FINAL else code for code in outcomes]


class Carrier:
    """Makes tries of a batch until every row has its outcome, or the deadline comes."""

    def __init__(self, directory: Maps) -> None:
        self._directory = directory
        # Work that goes on after its caller was answered is kept here; a Redis call is never cancelled.
        self._under_way = KeptTasks()

    async def finish_all(self) -> None:
        """Waits for everything under way, also what was answered before it ended."""
        await self._under_way.finish_all()

    async def _by_deadline(
        self,
        results: R,
        attempt: Callable[[Sequence[int], Cluster], Awaitable[None]],
        deadline_seconds: float,
    ) -> R:
        """The results when all are there, or at the deadline; then the work goes on."""
        work = self._carry_out(results, attempt, deadline_seconds)
        if await self._under_way.done_by(work, deadline_seconds):
            return results
        return results.so_far()

    async def _carry_out(
        self,
        results: Told,
        attempt: Callable[[Sequence[int], Cluster], Awaitable[None]],
        deadline_seconds: float,
    ) -> None:
        outcomes = results.outcomes
        rows: Sequence[int] = range(len(outcomes))
        again = False
        async for cluster in Tries(self._directory, deadline_seconds):
            await attempt(rows, cluster)
            if again:
                # "Nothing was begun" is true of this try only: the one before may have committed the row.
                for row in rows:
                    if outcomes[row] == _EXHAUSTED:
                        outcomes[row] = UNKNOWN
            again = True
            rows = [row for row in rows if outcomes[row] == _STALE]
            if not rows:
                return
        for row in rows:
            outcomes[row] = UNKNOWN


@dataclass(slots=True)
class Results:
    """A value a row. Outcomes carry PAYEE as shards give them; balances are NO_BALANCE if unknown."""

    outcomes: list[int]
    payer_balances: list[int]
    payee_balances: list[int]

    @classmethod
    def unknown(cls, count: int) -> Results:
        """Nothing is known yet."""
        return cls([UNKNOWN] * count, [NO_BALANCE] * count, [NO_BALANCE] * count)

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
        return Results(
            final_or_unknown(self.outcomes), self.payer_balances.copy(), self.payee_balances.copy()
        )


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


class Engine(Carrier):
    """Carries out batches of validated transfers."""

    def __init__(self, directory: Maps, coordinators: Committers) -> None:
        super().__init__(directory)
        self._coordinators = coordinators

    async def execute(self, transfers: Transfers, deadline_seconds: float) -> Results:
        """One batch, each row with an outcome. ``deadline_seconds`` is of the monotonic clock.

        Answers by the deadline: what has no answer by then is OUTCOME_UNKNOWN, and goes on.
        """
        results = Results.unknown(len(transfers))

        async def attempt(rows: Sequence[int], cluster: Cluster) -> None:
            await self._attempt(transfers, rows, cluster, results, deadline_seconds)

        return await self._by_deadline(results, attempt, deadline_seconds)

    async def outcome(
        self, transaction_id: bytes, payer_slot: int, deadline_seconds: float
    ) -> RememberedOutcome | None:
        """What the payer's shard remembers under the 16 bytes of an id.

        Raises the errors of :mod:`shard_node.errors` when the shard does not answer by the deadline.
        """
        decision = transaction_id + payer_slot.to_bytes(2, "little")
        return await at_owner(
            self._directory, payer_slot, lambda shard: shard.outcome(decision), deadline_seconds
        )

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
                results.outcomes[row] = NO_REPLY[answer]
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
                results.outcomes[row] = NO_REPLY[answer]
        else:
            results.put(rows, answer.outcomes, answer.payer_balances_minor, answer.payee_balances_minor)
