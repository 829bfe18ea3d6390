"""Carries out a batch: one call a shard for what stays on it, a coordinator for what crosses.

Rows that met an older or newer map of the cluster are split again by the newest one, until the
deadline: that is how transfers wait, rather than fail, while slots move. What holds for transfers and for
journals alike is in :class:`Carrier`; each kind of batch brings its own way of making one try.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar

from router.execution.kept import KeptTasks
from router.execution.maps import Tries, at_owner
from shard_node.client import NoReply, ask
from shard_node.contract import Outcome, Post
from shard_node.limits import NO_BALANCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, MutableSequence, Sequence

    from router.execution.maps import Maps
    from shard_node.client import Cluster, Shard
    from shard_node.contract import Bundle, Packable, Part, RememberedOutcome
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
    """Who commits across shards: :class:`router.execution.coordinators.Coordinators`."""

    async def commit(
        self,
        parts: Sequence[tuple[int, int, Bundle]],
        topology_version: int,
        deadline_seconds: float,
        *,
        with_balances: bool = True,
    ) -> coordinator_pb2.CommitResponse | NoReply:
        """Has a batch committed by the map of that version.

        Each part is payers' shard, payees' shard, and what goes between.
        """


class Told(Protocol):
    """The results of a batch, filled in while it is carried out."""

    @property
    def outcomes(self) -> MutableSequence[int]:
        """One a row."""

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
            # Asked of the whole batch first, in one call: hardly ever is there one.
            rows = [row for row in rows if outcomes[row] == _STALE] if _STALE in outcomes else ()
            if not rows:
                return
        for row in rows:
            outcomes[row] = UNKNOWN


@dataclass(slots=True)
class Results:
    """A value a row. Outcomes carry PAYEE as shards give them; balances are NO_BALANCE if unknown.

    Without balances both of their columns are empty.
    """

    outcomes: MutableSequence[int]
    payer_balances: MutableSequence[int]
    payee_balances: MutableSequence[int]

    @classmethod
    def unknown(cls, count: int, *, with_balances: bool = True) -> Results:
        """Nothing is known yet."""
        balances = [NO_BALANCE] * count if with_balances else []
        return cls(bytearray((UNKNOWN,)) * count, balances, balances.copy())

    def put(self, rows: Sequence[int], outcomes: bytes, payer_balances: bytes, payee_balances: bytes) -> None:
        """Fills in the results of some rows, as shards give them for a bundle."""
        told = self.outcomes
        if len(outcomes) == len(rows):
            for row, outcome in zip(rows, outcomes, strict=True):
                told[row] = outcome
        else:
            (outcome,) = outcomes
            for row in rows:
                told[row] = outcome
        _put_balances(self.payer_balances, rows, payer_balances)
        _put_balances(self.payee_balances, rows, payee_balances)

    def so_far(self) -> Results:
        """A copy of what is known while the work goes on: what may still change is unknown."""
        return Results(final_or_unknown(self.outcomes), list(self.payer_balances), list(self.payee_balances))


def _put_balances(balances: MutableSequence[int], rows: Sequence[int], packed: bytes) -> None:
    if packed and balances:
        for row, balance in zip(rows, struct.unpack(f"<{len(rows)}q", packed), strict=True):
            balances[row] = balance


class Engine(Carrier):
    """Carries out batches of validated transfers."""

    def __init__(self, directory: Maps, coordinators: Committers) -> None:
        super().__init__(directory)
        self._coordinators = coordinators

    async def execute(
        self, transfers: Packable, deadline_seconds: float, *, with_balances: bool = True
    ) -> Results:
        """One batch, each row with an outcome. ``deadline_seconds`` is of the monotonic clock.

        Answers by the deadline: what has no answer by then is OUTCOME_UNKNOWN, and goes on.
        """
        results = Results.unknown(len(transfers), with_balances=with_balances)

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
        transfers: Packable,
        rows: Sequence[int],
        cluster: Cluster,
        results: Results,
        deadline_seconds: float,
    ) -> None:
        parts = transfers.split(rows, cluster.owner)
        crossing = [part for part in parts if part.payer_shard != part.payee_shard]
        work: list[Coroutine[Any, Any, None]] = [
            self._post(part, cluster.shards[part.payer_shard], results)
            for part in parts
            if part.payer_shard == part.payee_shard
        ]
        if crossing:
            work.append(self._commit(crossing, cluster, results, deadline_seconds))
        await asyncio.gather(*work)

    async def _post(self, part: Part, shard: Shard, results: Results) -> None:
        answer = await ask(shard, Post(part.bundle, bool(results.payer_balances)))
        if isinstance(answer, NoReply):
            results.put(part.rows, bytes((NO_REPLY[answer],)), b"", b"")
        else:
            results.put(part.rows, answer.codes[0], answer.payer_balances[0], answer.payee_balances[0])

    async def _commit(
        self,
        parts: list[Part],
        cluster: Cluster,
        results: Results,
        deadline_seconds: float,
    ) -> None:
        answer = await self._coordinators.commit(
            [(part.payer_shard, part.payee_shard, part.bundle) for part in parts],
            cluster.topology.version,
            deadline_seconds,
            with_balances=bool(results.payer_balances),
        )
        if isinstance(answer, NoReply):
            for part in parts:
                results.put(part.rows, bytes((NO_REPLY[answer],)), b"", b"")
            return
        for part, told in zip(parts, answer.results, strict=True):
            results.put(part.rows, told.outcomes, told.payer_balances, told.payee_balances)
