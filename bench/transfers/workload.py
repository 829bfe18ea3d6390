"""What the load is made of: which accounts, and who pays whom how much.

The same seed gives the same transfers in the same order, so two runs can be compared. Only their ids are new
each time: an id used twice would be answered from memory instead of moving money.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bench.errors import BenchError
from bench.settings import Distribution, HotAccount, Shape
from bench.transfers.choices import BoolArray, Group, IntArray, zipf_weights
from shard_node.cluster import slot
from tallystick.v1 import cluster_pb2

CURRENCY = "EUR"
# A credit line that no run comes near: a transfer moves at most 999.99, and a run's transfers are bounded.
MINIMUM_BALANCE = "-1000000000000.00"
# So many that remembering the text of an amount helps nobody: real amounts are as varied. All of one width.
AMOUNTS = tuple(f"{cents // 100}.{cents % 100:02}" for cents in range(10_000, 100_000))
# Accounts that share a hash tag share a slot; so many tags spread over the slots of every shard.
HASH_TAGS = 4096
# Payers without funds, as a share of the others: the fewer, the more calls meet at one of them.
_POOR_SHARE = 10
_FEWEST_POOR = 64


@dataclass(frozen=True, slots=True)
class Accounts:
    """The ids of all accounts, each as long as the others: first those with a credit line, then the poor.

    The poor own nothing, have no credit line and are never paid: whatever they are asked for is too much.
    """

    ids: Sequence[str]
    rich: int

    @property
    def minimum_balances(self) -> Sequence[str]:
        """The minimum balance of each account."""
        return [MINIMUM_BALANCE] * self.rich + ["0"] * (len(self.ids) - self.rich)


@dataclass(frozen=True, slots=True)
class Payments:
    """Transfers as columns of equal length: positions of accounts and of amounts.

    ``refused`` marks those whose payer has not got the money.
    """

    payers: IntArray
    payees: IntArray
    amounts: IntArray
    refused: BoolArray

    def rows(self) -> Iterator[tuple[int, int, int]]:
        """Payer, payee and amount of each, by their positions."""
        return zip(self.payers.tolist(), self.payees.tolist(), self.amounts.tolist(), strict=True)


def make_accounts(shape: Shape, prefix: str = "bench") -> Accounts:
    """The accounts for a load, their ids with that prefix. Where the shard matters these carry hash tags."""
    tagged = shape.same_shard is not None
    poor = max(_FEWEST_POOR, shape.accounts // _POOR_SHARE) if shape.rejections else 0
    names = [f"{number:06}" for number in range(shape.accounts)] + [f"x{number:05}" for number in range(poor)]
    if tagged:
        ids = [f"{{{prefix}-{number % HASH_TAGS:04}}}:{name}" for number, name in enumerate(names)]
    else:
        ids = [f"{prefix}-{name}" for name in names]
    return Accounts(ids, shape.accounts)


def slot_owners(topology: cluster_pb2.Topology) -> list[int]:
    """The shard of each slot, as its position in the topology."""
    ranges = [(range_, index) for index, shard in enumerate(topology.shards) for range_ in shard.slots]
    owners = [-1] * (1 + max(range_.last for range_, _ in ranges))
    for range_, index in ranges:
        owners[range_.first : range_.last + 1] = [index] * (range_.last + 1 - range_.first)
    return owners


class Workload:
    """Draws payments, nobody paying himself.

    Args:
        shape: what is asked for.
        accounts: those that `make_accounts` gives for it.
        owners: the shard of each slot.

    Raises:
        BenchError: some payer would have nobody to pay.
    """

    def __init__(self, shape: Shape, accounts: Accounts, owners: Sequence[int]) -> None:
        self._shape = shape
        self._homes: IntArray = np.array([owners[slot(account)] for account in accounts.ids], dtype=np.intp)
        shards = max(owners) + 1
        # The hot account is the last of the rich; nothing else is drawn against it but the other side.
        self._hot = accounts.rich - 1
        drawn = accounts.rich if shape.hot is None else accounts.rich - 1
        weights = zipf_weights(drawn, shape.theta) if shape.distribution is Distribution.ZIPFIAN else None
        self._rich = Group(self._homes[:drawn], shards, weights)
        self._poor = Group(self._homes[accounts.rich :], shards, first=accounts.rich)
        self._check_partners(shards)
        self.start("")

    def start(self, seed: str) -> None:
        """Begins anew: from here on the draws depend on this seed alone."""
        # Of the text's bytes: Python's own hash of a text differs from process to process.
        self._rng = np.random.Generator(np.random.SFC64(list(seed.encode())))

    def draw(self, count: int) -> Payments:
        """The next payments."""
        shape, rng = self._shape, self._rng
        # Whole columns at a time: the load shares its processors with what it measures.
        refused: BoolArray = np.zeros(count, dtype=np.bool_)
        if shape.rejections:
            refused = rng.random(count) < shape.rejections
        hot: IntArray = np.full(count, self._hot, dtype=np.intp)
        if shape.hot is HotAccount.PAYER:
            payers, payees = hot, self._partners(self._rich, hot)
        elif shape.hot is HotAccount.PAYEE:
            payers, payees = self._partners(self._rich, hot), hot
            payers[refused] = self._partners(self._poor, hot[refused])
        else:
            payers = self._rich.any(rng, count)
            payers[refused] = self._poor.any(rng, int(refused.sum()))
            payees = self._partners(self._rich, payers)
        return Payments(payers, payees, rng.integers(0, len(AMOUNTS), count), refused)

    def _partners(self, group: Group, accounts: IntArray) -> IntArray:
        """Another account of the group for each one, on its shard or off it as the shape asks."""
        homes, rng = self._homes[accounts], self._rng
        same: BoolArray | None = None
        if self._shape.same_shard is not None:
            same = rng.random(len(accounts)) < self._shape.same_shard
        partners: IntArray = np.empty(len(accounts), dtype=np.intp)
        todo: IntArray = np.arange(len(accounts))
        while todo.size:
            if same is None:
                partners[todo] = group.any(rng, todo.size)
            else:
                near, far = todo[same[todo]], todo[~same[todo]]
                partners[near] = group.on(rng, homes[near])
                partners[far] = group.off(rng, homes[far])
            todo = todo[partners[todo] == accounts[todo]]
        return partners

    def _check_partners(self, shards: int) -> None:
        """Raises BenchError when a draw could find nobody, and so would never end."""
        # Who is drawn from, for accounts on which shard, and how many of those are the account itself.
        needs: list[tuple[Group, int, int]]
        if self._shape.hot is None:
            needs = [(self._rich, shard, 1) for shard in range(shards) if self._rich.on_shard(shard)]
            needs += [(self._rich, shard, 0) for shard in range(shards) if self._poor.on_shard(shard)]
        else:
            drawn = [group for group in (self._rich, self._poor) if len(group)]
            needs = [(group, int(self._homes[self._hot]), 0) for group in drawn]
        share = self._shape.same_shard
        for group, shard, itself in needs:
            near = group.on_shard(shard) - itself
            far = len(group) - group.on_shard(shard)
            if share is None:
                enough = near + far > 0
            else:
                enough = (near > 0 or share == 0.0) and (far > 0 or share == 1.0)
            if not enough:
                asked = "" if share is None else f" to have {share:.0%} of the transfers within a shard"
                raise BenchError(f"accounts: {len(self._homes):,} on {shards} shards are too few{asked}")
