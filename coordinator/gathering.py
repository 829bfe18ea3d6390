"""Small bundles of several batches, gathered into larger ones.

An attempt has a price of its own on both of its shards, whatever its size. In a cluster of many shards a
batch falls into a few transfers a pair of them, so batches that come while others are under way wait a
moment, and what goes from the same shard to the same shard becomes one attempt. Batches of large bundles
gain nothing by that, and go by themselves.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coordinator.protocol import Part
from shard_node.bundles import Bundle
from shard_node.calls import ATTEMPT_BYTES, Attempt
from shard_node.limits import MAX_BATCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinator.driver import Driver
    from shard_node.directory import Cluster

# Transfers a bundle from which on its attempt's own price no longer counts.
LARGE = 512
# Gathered batches under way at once: while one waits for the disks of shards, the other keeps them busy.
MAX_UNDER_WAY = 2
# No batch waits longer than this for those under way: a shard that is silent must not hold up the others.
PATIENCE_SECONDS = 0.05

_BALANCE_BYTES = 8


@dataclass(frozen=True, slots=True)
class Request:
    """What of a batch goes from one shard to another."""

    payer_shard: int
    payee_shard: int
    bundle: Bundle


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a request: as in :class:`coordinator.protocol.Part`."""

    outcomes: bytes
    payer_balances: bytes
    payee_balances: bytes


@dataclass(frozen=True, slots=True)
class _Batch:
    """The requests of one batch, and where their answers go."""

    requests: Sequence[Request]
    cluster: Cluster
    with_balances: bool
    future: asyncio.Future[list[Told]]


class Gatherer:
    """Has batches committed, small ones together."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._waiting: list[_Batch] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def commit(
        self, requests: Sequence[Request], cluster: Cluster, *, with_balances: bool
    ) -> Sequence[Told]:
        """One batch, split by that cluster's map; what became of each request. Never cancel it."""
        if sum(request.bundle.count for request in requests) >= LARGE * len(requests):
            parts = [_part(r.payer_shard, r.payee_shard, r.bundle) for r in requests]
            await self._driver.commit(parts, cluster, with_balances=with_balances)
            return [Told(part.outcomes, part.payer_balances, part.payee_balances) for part in parts]
        future: asyncio.Future[list[Told]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Batch(requests, cluster, with_balances, future))
        self._depart(MAX_UNDER_WAY)
        return await future

    def _depart(self, most: int) -> None:
        """Sends what waits while fewer are under way; more when one returns, or when patience ends."""
        while self._waiting and len(self._under_way) < most:
            task = asyncio.ensure_future(self._carry(self._together()))
            self._under_way.add(task)
            task.add_done_callback(self._returned)
        if self._timer is not None and not self._waiting:
            self._timer.cancel()
            self._timer = None
        elif self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._lose_patience)

    def _returned(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._depart(MAX_UNDER_WAY)

    def _lose_patience(self) -> None:
        self._timer = None
        self._depart(len(self._under_way) + len(self._waiting))

    def _together(self) -> list[_Batch]:
        """Batches from the front of those that wait, taken out.

        They are of one map, and together no more for any shard than one batch may be.
        """
        first = self._waiting[0]
        paying: Counter[int] = Counter()
        paid: Counter[int] = Counter()
        taken = 0
        for batch in self._waiting:
            if batch.cluster is not first.cluster or batch.with_balances != first.with_balances:
                break
            for r in batch.requests:
                paying[r.payer_shard] += r.bundle.count
                paid[r.payee_shard] += r.bundle.count
            if taken and max(*paying.values(), *paid.values()) > MAX_BATCH:
                break
            taken += 1
        batches = self._waiting[:taken]
        del self._waiting[:taken]
        return batches

    async def _carry(self, batches: Sequence[_Batch]) -> None:
        try:
            told = await self._commit(batches)
        except Exception as error:
            # Each waiting router must hear of it; none may wait for ever.
            for batch in batches:
                batch.future.set_exception(error)
            raise
        for batch, answers in zip(batches, told, strict=True):
            batch.future.set_result(answers)

    async def _commit(self, batches: Sequence[_Batch]) -> list[list[Told]]:
        """What became of each request of each batch."""
        bundles: dict[tuple[int, int], list[Bundle]] = {}
        for batch in batches:
            for r in batch.requests:
                bundles.setdefault((r.payer_shard, r.payee_shard), []).append(r.bundle)
        parts = {pair: _part(*pair, Bundle.joined(several)) for pair, several in bundles.items()}
        await self._driver.commit(
            list(parts.values()), batches[0].cluster, with_balances=batches[0].with_balances
        )
        answers = {pair: iter(_shares(part, bundles[pair])) for pair, part in parts.items()}
        return [[next(answers[r.payer_shard, r.payee_shard]) for r in batch.requests] for batch in batches]


def _part(payer_shard: int, payee_shard: int, bundle: Bundle) -> Part:
    return Part(payer_shard, payee_shard, Attempt(os.urandom(ATTEMPT_BYTES), bundle))


def _shares(part: Part, bundles: Sequence[Bundle]) -> list[Told]:
    """What became of each of the bundles that a part was joined from."""
    shares, at = [], 0
    one_for_all = len(part.outcomes) == 1
    for bundle in bundles:
        end = at + bundle.count
        numbers = slice(_BALANCE_BYTES * at, _BALANCE_BYTES * end)
        outcomes = part.outcomes if one_for_all else part.outcomes[at:end]
        shares.append(Told(outcomes, part.payer_balances[numbers], part.payee_balances[numbers]))
        at = end
    return shares
