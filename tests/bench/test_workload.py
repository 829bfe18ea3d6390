"""The load: the same for the same seed, uniform, and across shards just as asked."""

from collections import Counter

import pytest

from bench.errors import BenchError
from bench.workload import (
    AMOUNTS,
    CrossShare,
    Workload,
    account_ids,
    possible_payees,
    slot_owners,
)
from shard_node.slots import SLOT_COUNT, slot
from tallystick.v1 import cluster_pb2

TOPOLOGY = cluster_pb2.Topology(
    shards=[
        cluster_pb2.Shard(slots=[cluster_pb2.SlotRange(first=0, last=8191)]),
        cluster_pb2.Shard(slots=[cluster_pb2.SlotRange(first=8192, last=16383)]),
    ]
)
OWNERS = slot_owners(TOPOLOGY)


def workload(seed: str, cross_share: CrossShare, accounts: int = 500) -> Workload:
    """Payments among that many accounts on the two shards of TOPOLOGY."""
    ids = account_ids(accounts, cross_share)
    return Workload(seed, ids, possible_payees(ids, OWNERS, cross_share))


@pytest.mark.parametrize("cross_share", list(CrossShare))
def test_the_same_seed_draws_the_same_payments(cross_share: CrossShare) -> None:
    """Also when they are asked for in other portions; another seed draws others."""
    first, second = workload("1/1", cross_share), workload("1/1", cross_share)
    assert [first.draw(300), first.draw(10)] == [second.draw(300), second.draw(10)]
    assert workload("1/1", cross_share).draw(300) != workload("1/2", cross_share).draw(300)


@pytest.mark.parametrize("cross_share", list(CrossShare))
def test_nobody_pays_himself(cross_share: CrossShare) -> None:
    """With four accounts every second draw would, if it were not drawn again."""
    payments = workload("1", cross_share, accounts=4).draw(2000)
    assert all(payer != payee for payer, payee in zip(payments.payers, payments.payees, strict=True))
    assert len(payments.payers) == len(payments.payees) == len(payments.amounts) == 2000


def crossing(cross_share: CrossShare) -> int:
    """How many of 2000 payments cross shards."""
    payments = workload("7", cross_share).draw(2000)
    homes = [
        (OWNERS[slot(payer)], OWNERS[slot(payee)])
        for payer, payee in zip(payments.payers, payments.payees, strict=True)
    ]
    return sum(payer != payee for payer, payee in homes)


def test_cross_share_decides_how_many_cross() -> None:
    """All, none, or on two shards about half."""
    assert crossing(CrossShare.CROSS) == 2000
    assert crossing(CrossShare.SAME) == 0
    assert 900 < crossing(CrossShare.ANY) < 1100


def test_payers_are_uniform() -> None:
    """Each of 500 accounts pays about 100 of 50,000 times (six standard deviations are 60)."""
    payers = Counter(workload("3", CrossShare.ANY).draw(50_000).payers)
    assert len(payers) == 500
    assert 40 < min(payers.values()) < max(payers.values()) < 160


def test_account_ids_are_distinct_and_valid() -> None:
    """Hash tags do not make two accounts one."""
    for cross_share in CrossShare:
        ids = account_ids(10_000, cross_share)
        assert len(set(ids)) == 10_000
        assert all(len(account_id) <= 64 for account_id in ids)


def test_amounts_are_decimal_text_above_zero() -> None:
    """A cent is the least, and every amount has the two decimals of a euro."""
    assert AMOUNTS[0] == "0.01"
    assert AMOUNTS[-1] == "999.99"
    assert all(amount[-3] == "." for amount in AMOUNTS)
    assert len(set(AMOUNTS)) == len(AMOUNTS)


def test_every_slot_has_an_owner() -> None:
    """Also where ranges of several shards take turns."""
    assert len(OWNERS) == SLOT_COUNT
    assert (OWNERS[0], OWNERS[8191], OWNERS[8192], OWNERS[-1]) == (0, 0, 1, 1)
    assert -1 not in OWNERS


def test_accounts_with_nobody_to_pay_are_refused() -> None:
    """On one shard nothing can cross; drawing would never end."""
    ids = account_ids(100, CrossShare.CROSS)
    with pytest.raises(BenchError, match="too few"):
        possible_payees(ids, [0] * SLOT_COUNT, CrossShare.CROSS)
    with pytest.raises(BenchError, match="too few"):
        possible_payees(ids[:1], [0] * SLOT_COUNT, CrossShare.ANY)


def test_a_hot_payee_is_paid_by_everybody_else() -> None:
    """With a hot payee one account is paid in every transfer, and pays nobody."""
    ids = account_ids(50, CrossShare.ANY)
    payments = Workload("1", ids, hot_payee=True).draw(500)
    assert set(payments.payees) == {ids[-1]}
    assert ids[-1] not in payments.payers
    assert len(set(payments.payers)) > 40
