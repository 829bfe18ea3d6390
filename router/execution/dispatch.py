"""Carries out a batch of transactions: a call to each shard for what stays there, a coordinator for the rest.

Transactions that met an older or newer map of the cluster are split again by the newest one, until the
deadline: that is how they wait, rather than fail, while slots move.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from router.execution.kept import KeptTasks
from router.execution.maps import Tries
from router.requests import Batch, Part
from shard_node.client import NoReply
from shard_node.contract import MAX_ATTEMPTS, Answer, Outcome, Post
from shard_node.limits import NO_BALANCE

if TYPE_CHECKING:
    from router.execution.maps import Maps
    from shard_node.client import Cluster
    from tallystick.v1 import coordinator_pb2

_STALE: Final = int(Outcome.STALE_EPOCH)
_UNKNOWN: Final = int(Outcome.OUTCOME_UNKNOWN)
_EXHAUSTED: Final = int(Outcome.RESOURCE_EXHAUSTED)
# What is told instead of each code: steps of the protocol, and what is no outcome, say nothing to callers.
_OUTCOMES: Final = bytes(
    code if Outcome.COMMITTED <= code <= Outcome.VERSION_MISMATCH or code == _STALE else _UNKNOWN
    for code in range(256)
)
_NO_REPLY: Final = {
    NoReply.LOST: bytes((_UNKNOWN,)),
    NoReply.STALE: bytes((_STALE,)),
    NoReply.FULL: bytes((_EXHAUSTED,)),
}


class AskShard(Protocol):
    """How a shard of a map is asked: as :func:`shard_node.client.ask`."""

    async def __call__(self, shard: Any, command: Post) -> Answer | NoReply:
        """What it answers, or why it did not."""


class Committers(Protocol):
    """Who commits across shards: :class:`router.execution.coordinators.Coordinators`."""

    async def commit_attempts(
        self, parts: Sequence[Part], topology_version: int, deadline_seconds: float, *, with_balances: bool
    ) -> coordinator_pb2.CommitAttemptsResponse | NoReply:
        """Has parts of a batch committed by the map of that version, each in an attempt of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """What became of a batch, filled in while it is carried out.

    ``outcomes`` and ``legs`` have a value a transaction: an :class:`~shard_node.contract.Outcome`, and the
    number of the leg that a refusal concerns. ``balances`` have one for each leg of each transaction:
    available minor units after, NO_BALANCE where not known; none at all when nobody asks.
    """

    outcomes: NDArray[np.uint8]
    legs: NDArray[np.uint8]
    balances: NDArray[np.int64]

    @classmethod
    def unknown(cls, batch: Batch) -> Results:
        """Nothing is known yet."""
        count = len(batch)
        return cls(
            np.full(count, _UNKNOWN, np.uint8),
            np.zeros(count, np.uint8),
            np.full(batch.leg_count, NO_BALANCE, np.int64),
        )

    def put(self, part: Part, codes: bytes, legs: bytes = b"", balances: Sequence[bytes] = ()) -> None:
        """Fills in what was answered for a part: columns of :mod:`shard_node.contract.commands`.

        ``balances`` are by owner.
        """
        self.outcomes[part.rows] = np.frombuffer(codes.translate(_OUTCOMES), np.uint8)
        if legs:
            self.legs[part.rows] = np.frombuffer(legs, np.uint8)
        for places, column in zip(part.legs, balances, strict=False):
            if column:
                self.balances[places] = np.frombuffer(column, "<i8")

    def so_far(self) -> Results:
        """A copy of what is known while the work goes on: what may still change is unknown."""
        outcomes = self.outcomes.copy()
        # Another try may end otherwise; or one before may have, which is looked at only in the end.
        outcomes[(outcomes == _STALE) | (outcomes == _EXHAUSTED)] = _UNKNOWN
        return Results(outcomes, self.legs.copy(), self.balances.copy())


class Dispatcher:
    """Carries out batches of transactions that were read and checked."""

    def __init__(self, maps: Maps, committers: Committers, ask: AskShard) -> None:
        self._maps = maps
        self._committers = committers
        self._ask = ask
        # Work that goes on after its caller was answered is kept here; a Redis call is never cancelled.
        self._under_way = KeptTasks()

    async def finish_all(self) -> None:
        """Waits for everything under way, also what was answered before it ended."""
        await self._under_way.finish_all()

    async def execute(self, batch: Batch, deadline_seconds: float, principal: str = "") -> Results:
        """Each transaction's outcome. ``deadline_seconds`` is of the monotonic clock.

        ``principal`` is who makes the call. Answers by the deadline: what has no answer by then is
        OUTCOME_UNKNOWN, and goes on.
        """
        results = Results.unknown(batch)
        work = self._carry_out(batch, results, deadline_seconds, principal)
        if await self._under_way.done_by(work, deadline_seconds):
            return results
        return results.so_far()

    async def _carry_out(
        self, batch: Batch, results: Results, deadline_seconds: float, principal: str
    ) -> None:
        outcomes = results.outcomes
        rows = np.arange(len(batch))
        is_first = True
        async for cluster in Tries(self._maps, deadline_seconds):
            parts = batch.split(rows, cluster.owner, principal)
            await self._try(parts, cluster, results, deadline_seconds)
            if not is_first:
                # "Nothing was begun" is true of this try only: one before may have committed.
                outcomes[rows[outcomes[rows] == _EXHAUSTED]] = _UNKNOWN
            is_first = False
            rows = rows[outcomes[rows] == _STALE]
            results.legs[rows] = 0
            if not len(rows):
                return
        outcomes[rows] = _UNKNOWN

    async def _try(
        self, parts: Sequence[Part], cluster: Cluster, results: Results, deadline_seconds: float
    ) -> None:
        crossing = [part for part in parts if part.participants]
        work: list[Coroutine[Any, Any, None]] = [
            self._post(part, cluster, results) for part in parts if not part.participants
        ]
        # Each has a deciding shard and participants of its own, so a batch of journals may have very many.
        work += [
            self._commit(crossing[first : first + MAX_ATTEMPTS], cluster, results, deadline_seconds)
            for first in range(0, len(crossing), MAX_ATTEMPTS)
        ]
        await asyncio.gather(*work)

    async def _post(self, part: Part, cluster: Cluster, results: Results) -> None:
        command = Post(part.bundle, bool(len(results.balances)))
        answer = await self._ask(cluster.shards[part.decider], command)
        if isinstance(answer, NoReply):
            results.put(part, _NO_REPLY[answer])
        else:
            results.put(part, answer.codes[0], answer.legs[0], answer.balances)

    async def _commit(
        self, parts: Sequence[Part], cluster: Cluster, results: Results, deadline_seconds: float
    ) -> None:
        answer = await self._committers.commit_attempts(
            parts,
            cluster.topology.version,
            deadline_seconds,
            with_balances=bool(len(results.balances)),
        )
        if isinstance(answer, NoReply):
            for part in parts:
                results.put(part, _NO_REPLY[answer])
            return
        for part, result in zip(parts, answer.results, strict=True):
            results.put(part, result.codes, result.legs, result.balances)
