"""What a batch is split into: one bundle for each deciding shard and set of participants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from router.requests.text_tables import Numbers


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Transactions of a batch that go together, as one packed bundle.

    Shards are indices in the topology: ``decider`` is the deciding shard, ``participants`` those that the
    bundle's owners 1, 2, ... name; () when all accounts are on the deciding shard. ``rows`` are the
    transactions' places in the batch, in the bundle's order. ``legs`` say, by owner, where the balances of
    its legs belong in the batch's column of balances, in the bundle's order of legs; () when nobody asks.
    """

    decider: int
    participants: tuple[int, ...]
    rows: Numbers
    bundle: bytes
    legs: tuple[Numbers, ...] = ()


class Batch(Protocol):
    """Transactions that were read and checked, at most MAX_BATCH."""

    @property
    def leg_count(self) -> int:
        """How many balances are asked for, one a leg of each transaction; 0 for none."""

    def __len__(self) -> int:
        """How many transactions there are."""

    def split(self, rows: Sequence[int] | Numbers, owner: Sequence[int], principal: str = "") -> list[Part]:
        """The given rows, each in one part. ``owner`` has the shard of each slot."""
