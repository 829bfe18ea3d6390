"""The load: the same for the same seed, and its accounts chosen just as asked."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.errors import BenchError
from bench.settings import Distribution, HotAccount, Shape
from bench.transfers.workload import AMOUNTS, Accounts, Payments, Workload, make_accounts, slot_owners
from shard_node.cluster.slots import SLOT_COUNT, slot
from tallystick.v1 import cluster_pb2

TOPOLOGY = cluster_pb2.Topology(
    shards=[
        cluster_pb2.Shard(slots=[cluster_pb2.SlotRange(first=0, last=8191)]),
        cluster_pb2.Shard(slots=[cluster_pb2.SlotRange(first=8192, last=16383)]),
    ]
)
OWNERS = slot_owners(TOPOLOGY)
SIXTEEN = [number * 16 // SLOT_COUNT for number in range(SLOT_COUNT)]
SHAPES = [
    Shape(),
    Shape(same_shard=0.0),
    Shape(same_shard=1.0),
    Shape(same_shard=0.3, distribution=Distribution.ZIPFIAN, rejections=0.1),
    Shape(hot=HotAccount.PAYEE, rejections=0.2),
    Shape(hot=HotAccount.PAYER, same_shard=0.5),
    Shape(hot=HotAccount.PAYEE, same_shard=0.5, rejections=0.5),
]


def workload(seed: str, shape: Shape, accounts: int = 500) -> Workload:
    """Payments among that many accounts on the two shards of TOPOLOGY."""
    shape = replace(shape, accounts=accounts)
    load = Workload(shape, make_accounts(shape), OWNERS)
    load.start(seed)
    return load


def rows(payments: Payments) -> list[tuple[Any, ...]]:
    """Payments as they can be compared."""
    columns = (payments.payers, payments.payees, payments.amounts, payments.refused)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def within_a_shard(payments: Payments, accounts: Accounts) -> int:
    """How many of the payments stay on one shard."""
    homes = [OWNERS[slot(account)] for account in accounts.ids]
    pairs = zip(payments.payers.tolist(), payments.payees.tolist(), strict=True)
    return sum(homes[payer] == homes[payee] for payer, payee in pairs)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_seed_draws_the_same_payments(shape: Shape) -> None:
    """In the same portions, also by a workload that drew others before; another seed draws others."""
    first, second = workload("1/0/1", shape), workload("1/0/2", shape)
    assert rows(first.draw(300)) != rows(second.draw(300))
    first.start("1/1/1")
    second.start("1/1/1")
    for count in (300, 10):
        assert rows(first.draw(count)) == rows(second.draw(count))


@pytest.mark.parametrize("shape", SHAPES)
def test_nobody_pays_himself(shape: Shape) -> None:
    """With six accounts many draws would, if they were not drawn again."""
    payments = workload("1", shape, accounts=6).draw(2000)
    assert not np.any(payments.payers == payments.payees)
    assert len(payments.payers) == len(payments.payees) == len(payments.amounts) == 2000


@pytest.mark.parametrize("hot", [None, *HotAccount])
@pytest.mark.parametrize("distribution", list(Distribution))
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_within_a_shard_is_as_asked(
    share: float, distribution: Distribution, hot: HotAccount | None
) -> None:
    """Nothing, all, or a quarter (within six standard deviations), whatever else is asked."""
    shape = Shape(same_shard=share, distribution=distribution, hot=hot)
    near = within_a_shard(workload("7", shape).draw(4000), make_accounts(replace(shape, accounts=500)))
    assert near == pytest.approx(4000 * share, abs=6 * (4000 * share * (1 - share)) ** 0.5)


def test_when_nothing_is_said_half_cross_two_shards() -> None:
    """As chance has it."""
    near = within_a_shard(workload("7", Shape()).draw(2000), make_accounts(Shape(accounts=500)))
    assert 865 < near < 1135


def test_payers_and_payees_are_uniform() -> None:
    """Each of 500 accounts is about 100 times in 50,000 (six standard deviations are 60)."""
    payments = workload("3", Shape()).draw(50_000)
    for column in (payments.payers, payments.payees):
        counts = Counter(column.tolist())
        assert len(counts) == 500
        assert 40 < min(counts.values()) < max(counts.values()) < 160


@pytest.mark.parametrize("rejections", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("hot", [None, HotAccount.PAYEE])
def test_transfers_to_be_refused_have_payers_without_funds(rejections: float, hot: HotAccount | None) -> None:
    """These and no others; and nobody ever pays the poor, or they would have funds."""
    shape = Shape(rejections=rejections, hot=hot)
    accounts = make_accounts(replace(shape, accounts=500))
    payments = workload("5", shape).draw(5000)
    poor = payments.payers >= accounts.rich
    assert np.array_equal(poor, payments.refused)
    assert np.all(payments.payees < accounts.rich)
    expected = 5000 * rejections
    assert poor.sum() == pytest.approx(expected, abs=6 * (expected * (1 - rejections)) ** 0.5)
    balances = accounts.minimum_balances
    assert {balances[payer] for payer in payments.payers[poor].tolist()} <= {"0"}
    assert all(balances[payer].startswith("-") for payer in payments.payers[~poor].tolist())


@pytest.mark.parametrize("hot", list(HotAccount))
def test_a_hot_account_is_in_every_transfer_on_one_side_only(hot: HotAccount) -> None:
    """With everybody else on the other side."""
    payments = workload("1", Shape(hot=hot), accounts=50).draw(500)
    sides = {HotAccount.PAYER: payments.payers, HotAccount.PAYEE: payments.payees}
    assert set(sides.pop(hot).tolist()) == {49}
    (other,) = sides.values()
    assert 49 not in other.tolist()
    assert len(set(other.tolist())) > 40


def test_account_ids_are_distinct_valid_and_of_one_length() -> None:
    """Hash tags do not make two accounts one, and the poor are not among the others."""
    for shape in (Shape(rejections=0.1), Shape(rejections=0.1, same_shard=0.5)):
        ids = make_accounts(replace(shape, accounts=10_000)).ids
        assert len(set(ids)) == len(ids) == 11_000
        assert len({len(account_id) for account_id in ids}) == 1
        assert len(ids[0]) <= 64
    assert len(make_accounts(Shape(accounts=10_000)).ids) == 10_000


def test_amounts_are_decimal_text_above_zero_of_one_length() -> None:
    """Every amount has the two decimals of a euro."""
    assert AMOUNTS[0] == "100.00"
    assert AMOUNTS[-1] == "999.99"
    assert all(len(amount) == 6 and amount[-3] == "." for amount in AMOUNTS)
    assert len(set(AMOUNTS)) == len(AMOUNTS)


def test_every_slot_has_an_owner() -> None:
    """Also where ranges of several shards take turns."""
    assert len(OWNERS) == SLOT_COUNT
    assert (OWNERS[0], OWNERS[8191], OWNERS[8192], OWNERS[-1]) == (0, 0, 1, 1)
    assert -1 not in OWNERS


@pytest.mark.parametrize(
    ("shape", "owners"),
    [
        # On one shard nothing crosses.
        (Shape(accounts=100, same_shard=0.0), [0] * SLOT_COUNT),
        (Shape(accounts=100, same_shard=0.9), [0] * SLOT_COUNT),
        (Shape(accounts=100, hot=HotAccount.PAYEE, same_shard=0.0), [0] * SLOT_COUNT),
        # Each of two accounts is alone on its shard, or nobody is on the hot one's.
        (Shape(accounts=2, same_shard=1.0), SIXTEEN),
        (Shape(accounts=2, hot=HotAccount.PAYER, same_shard=0.5), SIXTEEN),
    ],
)
def test_accounts_with_nobody_to_pay_are_refused(shape: Shape, owners: list[int]) -> None:
    """Drawing would never end."""
    with pytest.raises(BenchError, match="too few"):
        Workload(shape, make_accounts(shape), owners)
