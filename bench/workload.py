"""What the load is made of: which accounts, and who pays whom how much.

The same seed gives the same transfers in the same order, so two runs can be compared. Only their ids are new
each time: an id used twice would be answered from memory instead of moving money.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.errors import BenchError
from shard_node.slots import slot
from tallystick.v1 import cluster_pb2

CURRENCY = "EUR"
# A credit line that no run comes near: a transfer moves at most 999.99, and a run's transfers are bounded.
MINIMUM_BALANCE = "-1000000000000.00"
# So many that remembering the text of an amount helps nobody: real amounts are as varied.
AMOUNTS = tuple(f"{cents // 100}.{cents % 100:02}" for cents in range(1, 100_000))
# Accounts that share a hash tag share a slot; so many tags spread over the slots of every shard.
HASH_TAGS = 4096


class CrossShare(StrEnum):
    """Which transfers cross shards: as chance has it, all of them, or none."""

    ANY = "any"
    CROSS = "cross"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Payments:
    """Transfers as columns of equal length; amounts are decimal text."""

    payers: Sequence[str]
    payees: Sequence[str]
    amounts: Sequence[str]


def account_ids(count: int, cross_share: CrossShare) -> list[str]:
    """The ids of the accounts. Where the shard matters they carry hash tags."""
    if cross_share is CrossShare.ANY:
        return [f"bench-{number:06}" for number in range(count)]
    return [f"{{bench-{number % HASH_TAGS}}}:{number:06}" for number in range(count)]


def slot_owners(topology: cluster_pb2.Topology) -> list[int]:
    """The shard of each slot, as its position in the topology."""
    ranges = [(range_, index) for index, shard in enumerate(topology.shards) for range_ in shard.slots]
    owners = [-1] * (1 + max(range_.last for range_, _ in ranges))
    for range_, index in ranges:
        owners[range_.first : range_.last + 1] = [index] * (range_.last + 1 - range_.first)
    return owners


def possible_payees(
    accounts: Sequence[str], owners: Sequence[int], cross_share: CrossShare
) -> Mapping[str, Sequence[str]] | None:
    """For each account those that it may pay, itself perhaps among them; None when it may pay all.

    Raises BenchError when some account has nobody to pay.
    """
    by_shard: dict[int, list[str]] = {}
    for account in accounts:
        by_shard.setdefault(owners[slot(account)], []).append(account)
    allowed: Mapping[int, Sequence[str]] = by_shard
    if cross_share is CrossShare.ANY:
        allowed = dict.fromkeys(by_shard, accounts)
    elif cross_share is CrossShare.CROSS:
        allowed = {
            home: [account for shard, group in by_shard.items() if shard != home for account in group]
            for home in by_shard
        }
    if any(set(allowed[home]) <= {group[0]} for home, group in by_shard.items()):
        raise BenchError(
            f"{len(accounts)} accounts on {len(by_shard)} shards are too few for --cross-share {cross_share}"
        )
    if cross_share is CrossShare.ANY:
        return None
    return {account: allowed[home] for home, group in by_shard.items() for account in group}


class Workload:
    """Draws payments, uniformly over the payers and over the payees of each, or all to one payee."""

    def __init__(
        self,
        seed: str,
        accounts: Sequence[str],
        payees: Mapping[str, Sequence[str]] | None = None,
        *,
        hot_payee: bool = False,
    ) -> None:
        self._random = random.Random(seed)
        # The hot one is the last account; it pays nobody.
        self._hot = accounts[-1] if hot_payee else None
        self._accounts = accounts[:-1] if hot_payee else accounts
        self._payees = payees

    def draw(self, count: int) -> Payments:
        """The next payments, nobody paying himself."""
        # Whole columns at a time: the load process shares two cores with what it measures.
        payers = self._random.choices(self._accounts, k=count)
        if self._hot is not None:
            return Payments(payers, [self._hot] * count, self._random.choices(AMOUNTS, k=count))
        if self._payees is None:
            payees = self._random.choices(self._accounts, k=count)
        else:
            payees = [self._one_of(self._payees[payer]) for payer in payers]
        for position, payer in enumerate(payers):
            while payees[position] == payer:
                payees[position] = self._one_of(
                    self._accounts if self._payees is None else self._payees[payer]
                )
        return Payments(payers, payees, self._random.choices(AMOUNTS, k=count))

    def _one_of(self, accounts: Sequence[str]) -> str:
        # A third of the cost of random.choice(), and as even for so few.
        return accounts[int(self._random.random() * len(accounts))]
