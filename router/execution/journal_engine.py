"""Carries out a batch of journals, as :mod:`router.execution.engine` does with transfers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol

from router.execution.engine import NO_REPLY, UNKNOWN, Carrier, final_or_unknown
from shard_node.client import NoReply, ask
from shard_node.contract import PostJournals
from shard_node.limits import NO_BALANCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.execution.maps import Maps
    from shard_node.client import Cluster
    from shard_node.contract import Journals
    from tallystick.v1 import coordinator_pb2


class JournalCommitters(Protocol):
    """Who commits journals across shards: :class:`router.execution.coordinators.Coordinators`."""

    async def commit_journals(
        self, batch: Journals, topology_version: int, deadline_seconds: float
    ) -> coordinator_pb2.CommitJournalsResponse | NoReply:
        """Has a batch committed by the map of that version or a newer one."""


class JournalResult(NamedTuple):
    """What became of one journal.

    ``outcome`` is a shard's code; ``leg`` is the number of the leg that a refusal concerns; ``balances`` are
    available minor units after, one a leg, NO_BALANCE where not known.
    """

    outcome: int
    leg: int
    balances: Sequence[int]


@dataclass(slots=True)
class JournalResults:
    """A value a row, as of :class:`JournalResult`."""

    outcomes: list[int]
    legs: list[int]
    balances: list[Sequence[int]]

    @classmethod
    def unknown(cls, batch: Journals) -> JournalResults:
        """Nothing is known yet."""
        count = len(batch)
        return cls(
            [UNKNOWN] * count, [0] * count, [(NO_BALANCE,) * len(journal.legs) for journal in batch.journals]
        )

    def put(
        self, rows: Sequence[int], outcomes: Sequence[int], legs: Sequence[int], balances: Sequence[int]
    ) -> None:
        """Fills in the results of some rows; the balances of all their legs come one after the other."""
        first = 0
        for i, row in enumerate(rows):
            last = first + len(self.balances[row])
            self.outcomes[row] = outcomes[i]
            self.legs[row] = legs[i]
            self.balances[row] = tuple(balances[first:last])
            first = last

    def so_far(self) -> JournalResults:
        """A copy of what is known while the work goes on: what may still change is unknown."""
        return JournalResults(final_or_unknown(self.outcomes), self.legs.copy(), self.balances.copy())

    def rows(self) -> list[JournalResult]:
        """One result a journal."""
        columns = zip(self.outcomes, self.legs, self.balances, strict=True)
        return [JournalResult(*row) for row in columns]


def split_journals(
    rows: Sequence[int], shards: Sequence[Sequence[int]]
) -> tuple[dict[int, list[int]], list[int]]:
    """Rows whose legs are all on one shard, by shard, and rows that cross. ``shards`` are those of legs."""
    local: dict[int, list[int]] = {}
    cross: list[int] = []
    for row in rows:
        legs = shards[row]
        if all(one == other for one, other in pairwise(legs)):
            local.setdefault(legs[0], []).append(row)
        else:
            cross.append(row)
    return local, cross


class JournalEngine(Carrier):
    """Carries out batches of validated journals."""

    def __init__(self, directory: Maps, coordinators: JournalCommitters) -> None:
        super().__init__(directory)
        self._coordinators = coordinators

    async def execute(self, batch: Journals, deadline_seconds: float) -> JournalResults:
        """One batch, each journal with an outcome. ``deadline_seconds`` is of the monotonic clock.

        Answers by the deadline: what has no answer by then is OUTCOME_UNKNOWN, and goes on.
        """
        results = JournalResults.unknown(batch)

        async def attempt(rows: Sequence[int], cluster: Cluster) -> None:
            await self._attempt(batch, rows, cluster, results, deadline_seconds)

        return await self._by_deadline(results, attempt, deadline_seconds)

    async def _attempt(
        self,
        batch: Journals,
        rows: Sequence[int],
        cluster: Cluster,
        results: JournalResults,
        deadline_seconds: float,
    ) -> None:
        owner = cluster.owner
        shards = [[owner[leg.slot] for leg in journal.legs] for journal in batch.journals]
        local, cross = split_journals(rows, shards)
        work = [self._post(batch, group, cluster, shard, results) for shard, group in local.items()]
        if cross:
            work.append(self._commit(batch, cross, cluster, results, deadline_seconds))
        await asyncio.gather(*work)

    async def _post(
        self, batch: Journals, rows: list[int], cluster: Cluster, shard: int, results: JournalResults
    ) -> None:
        answer = await ask(cluster.shards[shard], PostJournals(batch.select(rows)))
        if isinstance(answer, NoReply):
            for row in rows:
                results.outcomes[row] = NO_REPLY[answer]
        else:
            results.put(rows, answer.codes, answer.legs, answer.balances)

    async def _commit(
        self,
        batch: Journals,
        rows: list[int],
        cluster: Cluster,
        results: JournalResults,
        deadline_seconds: float,
    ) -> None:
        version = cluster.topology.version
        answer = await self._coordinators.commit_journals(batch.select(rows), version, deadline_seconds)
        if isinstance(answer, NoReply):
            for row in rows:
                results.outcomes[row] = NO_REPLY[answer]
        else:
            results.put(rows, answer.outcomes, answer.legs, answer.balances_minor)
