"""Transactions that were read from requests, a value each, and how a batch of them is split into bundles.

The hot path has columns instead (:mod:`router.requests.transfer_columns`). What is read here is read by
message: single calls, short batches, and all that the hot path leaves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from router.requests.parts import Part
from router.requests.text_tables import Numbers
from shard_node.contract import BundleFlag, Transaction, bundle_of


@dataclass(frozen=True, slots=True)
class TransactionRequest:
    """A transaction to be carried out or checked.

    ``slots`` are those of its legs' accounts, ``fields`` name the part of the request that each account came
    from. ``places`` are the legs' places in the request, where they stand there as a list.
    """

    transaction: Transaction
    slots: tuple[int, ...]
    fields: tuple[str, ...]
    places: tuple[int, ...] = ()


class Transactions:
    """A batch of transactions, at most MAX_BATCH, and at most twice as many legs."""

    def __init__(self, requests: Sequence[TransactionRequest], *, with_balances: bool = True) -> None:
        self._requests = requests
        self._with_balances = with_balances

    def __len__(self) -> int:
        return len(self._requests)

    @cached_property
    def first_legs(self) -> list[int]:
        """Where the balances of each transaction begin in the batch's column; at last where they end."""
        ends = np.cumsum([0, *(len(request.slots) for request in self._requests)])
        firsts: list[int] = ends.tolist()
        return firsts

    @property
    def leg_count(self) -> int:
        """How many balances are asked for, one a leg of each transaction; 0 for none."""
        return self.first_legs[-1] if self._with_balances else 0

    def split(self, rows: Sequence[int] | Numbers, owner: Sequence[int], principal: str = "") -> list[Part]:
        """The given rows, each in one part. ``owner`` has the shard of each slot.

        The first leg's shard decides; the others that have a leg take part.
        """
        groups: defaultdict[tuple[int, tuple[int, ...], bool], list[int]] = defaultdict(list)
        for row in rows:
            request = self._requests[row]
            decider, *others = (owner[slot] for slot in request.slots)
            # Plain ones by themselves: their bundles are shorter, and shards work them off faster.
            is_plain = request.transaction.is_plain
            groups[decider, tuple(sorted({*others} - {decider})), is_plain].append(row)
        return [self._part(*key, group, owner, principal) for key, group in sorted(groups.items())]

    def _part(
        self,
        decider: int,
        participants: tuple[int, ...],
        is_plain: bool,  # noqa: FBT001 -- a key's third part
        rows: list[int],
        owner: Sequence[int],
        principal: str,
    ) -> Part:
        numbers = {decider: 0} | {shard: number for number, shard in enumerate(participants, start=1)}
        owners = [[numbers[owner[slot]] for slot in self._requests[row].slots] for row in rows]
        transactions = [self._requests[row].transaction for row in rows]
        # A plain bundle does not say who owns its legs.
        if not is_plain:
            transactions = [_owned(*one) for one in zip(transactions, owners, strict=True)]
        bundle = bundle_of(transactions, principal)
        legs = self._legs(rows, owners, bundle, len(participants)) if self._with_balances else ()
        return Part(decider, participants, np.array(rows, np.intp), bundle, legs)

    def _legs(
        self, rows: list[int], owners: list[list[int]], bundle: bytes, participants: int
    ) -> tuple[Numbers, ...]:
        """By owner where the balances of its legs belong, in the bundle's order of legs."""
        order = [(row, leg, owner) for i, row in enumerate(rows) for leg, owner in enumerate(owners[i])]
        if BundleFlag.PLAIN in BundleFlag(bundle[1]):
            # All payers, then all payees.
            order.sort(key=lambda one: one[1])
        places: list[list[int]] = [[] for _ in range(participants + 1)]
        for row, leg, owner in order:
            places[owner].append(self.first_legs[row] + leg)
        return tuple(np.array(one, np.intp) for one in places)


def _owned(transaction: Transaction, owners: list[int]) -> Transaction:
    """The transaction with the owners of its legs, which has none yet."""
    if not any(owners):
        return transaction
    legs = (
        replace(leg, owner=owner) if owner else leg
        for leg, owner in zip(transaction.legs, owners, strict=True)
    )
    return replace(transaction, legs=tuple(legs))
