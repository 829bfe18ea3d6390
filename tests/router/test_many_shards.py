"""Whatever is asked, of any kind, comes out on several shards as it does on one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.execution.dispatch import Results
from router.execution.validation import Verdict
from router.requests.transactions import TransactionRequest, Transactions
from shard_node.contract import Outcome
from shard_node.ledger.questions import Purchase
from tallystick.v1 import wallet_pb2
from tests.router.samples import NOW_MS, uuid7
from tests.router.transaction_cluster import (
    SHARDS,
    MakeShards,
    TransactionCluster,
    execute,
    fund,
    model_shards,
)

COMMITTED = Outcome.COMMITTED
# Two accounts a shard.
ACCOUNTS = 2 * SHARDS


class Asked(NamedTuple):
    """One operation between accounts, by their places; of a journal all that have a leg."""

    kind: str
    places: Sequence[int]
    minors: Sequence[int]
    # Which of the earlier purchases or holds it is about; the version expected.
    which: int
    flag: bool


KINDS = ("transfer", "purchase", "refund", "hold", "capture", "void", "deposit", "withdrawal")
operations = st.builds(
    Asked,
    st.sampled_from(KINDS),
    st.lists(st.integers(0, ACCOUNTS - 1), min_size=2, max_size=2, unique=True),
    st.lists(st.integers(1, 700), min_size=1, max_size=1),
    st.integers(0, 3),
    st.booleans(),
)


@st.composite
def journals(draw: st.DrawFn) -> Asked:
    """A journal of any legs that sum to zero; one leg may expect a version."""
    places = draw(st.permutations(range(ACCOUNTS)))
    minors = draw(
        st.lists(st.integers(-500, 500).filter(bool), min_size=1, max_size=ACCOUNTS - 1).filter(sum)
    )
    minors = [*minors, -sum(minors)]
    return Asked("journal", places[: len(minors)], minors, draw(st.integers(0, 3)), draw(st.booleans()))


def text(minor: int) -> str:
    """An amount of euros."""
    sign = "-" if minor < 0 else ""
    return f"{sign}{abs(minor) // 100}.{abs(minor) % 100:02}"


@dataclass(slots=True)
class Asker:
    """Makes transactions of operations, as a router does from requests; knows earlier holds and purchases."""

    cluster: TransactionCluster
    names: Sequence[str]
    holds: list[tuple[str, str]] = field(default_factory=list)
    purchases: list[tuple[str, TransactionRequest]] = field(default_factory=list)
    asked: int = 0

    def transaction(self, one: Asked) -> TransactionRequest | None:
        """The transaction; None when it is about a hold or purchase, and there was none."""
        self.asked += 1
        transaction_id = uuid7(NOW_MS, self.asked)
        common = {"transaction_id": transaction_id, "amount": text(one.minors[0]), "currency": "EUR"}
        return getattr(self, f"_{one.kind}")(one, common)  # type: ignore[no-any-return]

    def _transfer(self, one: Asked, common: dict[str, Any]) -> TransactionRequest:
        request = wallet_pb2.TransferRequest(
            **common, from_account=self.names[one.places[0]], to_account=self.names[one.places[1]]
        )
        if one.flag:
            request.expected_version = one.which
        return self.cluster.reader.transfer(request)

    def _purchase(self, one: Asked, common: dict[str, Any]) -> TransactionRequest:
        customer, merchant = (self.names[place] for place in one.places)
        request = wallet_pb2.PurchaseRequest(**common, customer_account=customer, merchant_account=merchant)
        purchase = self.cluster.reader.purchase(request)
        self.purchases.append((common["transaction_id"], purchase))
        return purchase

    def _refund(self, one: Asked, common: dict[str, Any]) -> TransactionRequest | None:
        if not self.purchases:
            return None
        purchase_id, purchase = self.purchases[one.which % len(self.purchases)]
        customer, merchant = purchase.transaction.legs
        request = wallet_pb2.RefundRequest(
            **common, purchase_transaction_id=purchase_id, customer_account=customer.account
        )
        terms = Purchase(merchant.account, merchant.amount_minor, "EUR")
        return self.cluster.reader.refund(request).transaction(terms, purchase.slots[1])

    def _hold(self, one: Asked, common: dict[str, Any]) -> TransactionRequest:
        name = self.names[one.places[0]]
        self.holds.append((common["transaction_id"], name))
        return self.cluster.reader.hold(wallet_pb2.HoldRequest(**common, account_id=name))

    def _capture(self, one: Asked, common: dict[str, Any]) -> TransactionRequest | None:
        if not self.holds:
            return None
        hold_id, holder = self.holds[one.which % len(self.holds)]
        payee = next(self.names[place] for place in one.places if self.names[place] != holder)
        return self.cluster.reader.capture(
            wallet_pb2.CaptureRequest(
                **common, hold_transaction_id=hold_id, account_id=holder, to_account=payee
            )
        )

    def _void(self, one: Asked, common: dict[str, Any]) -> TransactionRequest | None:
        if not self.holds:
            return None
        hold_id, holder = self.holds[one.which % len(self.holds)]
        request = wallet_pb2.VoidRequest(
            transaction_id=common["transaction_id"], hold_transaction_id=hold_id, account_id=holder
        )
        return self.cluster.reader.void(request).transaction("EUR")

    def _deposit(self, one: Asked, common: dict[str, Any]) -> TransactionRequest:
        request = wallet_pb2.DepositRequest(**common, account_id=self.names[one.places[0]])
        return self.cluster.reader.deposit(request)

    def _withdrawal(self, one: Asked, common: dict[str, Any]) -> TransactionRequest:
        request = wallet_pb2.WithdrawRequest(**common, account_id=self.names[one.places[0]])
        return self.cluster.reader.withdrawal(request)

    def _journal(self, one: Asked, common: dict[str, Any]) -> TransactionRequest:
        request = wallet_pb2.PostJournalRequest(transaction_id=common["transaction_id"])
        for place, minor in zip(one.places, one.minors, strict=True):
            request.legs.add(account_id=self.names[place], amount=text(minor), currency="EUR")
        if one.flag:
            decides = min(
                (leg for leg in request.legs if leg.amount[0] == "-"), key=lambda leg: leg.account_id
            )
            decides.expected_version = one.which
        return self.cluster.reader.journal(request)


def compare(many: TransactionCluster, names: Sequence[str], asked: Sequence[Asked]) -> None:
    """Asks one after the other of many shards and of one; what comes of each, and of all, is the same."""
    single = TransactionCluster.of(model_shards(1))
    for cluster in (many, single):
        fund(cluster, names)
    askers = [Asker(cluster, names) for cluster in (many, single)]
    for one in asked:
        first, second = (asker.transaction(one) for asker in askers)
        assert first == second
        if first is None:
            continue
        verdict = many.check(first)
        found, expected = (execute(cluster, Transactions([first])) for cluster in (many, single))
        assert_told(verdict, found)
        assert many.check(first) == (found.outcomes[0], found.legs[0])
        legs = first.transaction.legs
        both = (found.outcomes[0], found.legs[0]), (expected.outcomes[0], expected.legs[0])
        # Which of several refusals is told depends on which shard is asked first.
        if len(legs) <= 2 or COMMITTED in (both[0][0], both[1][0]):
            assert both[0] == both[1]
        # Of a system account each shard has its own.
        own = [number for number, leg in enumerate(legs) if not leg.account.startswith("@")]
        assert found.balances[own].tolist() == expected.balances[own].tolist()
        for name in names:
            assert many.account(name) == single.account(name)


def assert_told(verdict: Verdict, found: Results) -> None:
    """A check said beforehand what came then."""
    if verdict.outcome is Outcome.VALID:
        assert found.outcomes[0] == COMMITTED
    else:
        assert verdict == (found.outcomes[0], found.legs[0])


@settings(max_examples=60, deadline=None)
@given(st.lists(operations | journals(), min_size=1, max_size=15))
def test_several_shards_are_as_one(asked: list[Asked]) -> None:
    """Outcomes, legs, balances and accounts are those of one shard that has all of them."""
    many = TransactionCluster.of(model_shards(SHARDS))
    names = [name for shard in range(SHARDS) for name in islice(many.names(shard), 2)]
    compare(many, names, asked)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(operations | journals(), min_size=5, max_size=15))
@pytest.mark.parametrize("make_shards", ["engine"], indirect=True)
@pytest.mark.servers
def test_real_shards_are_as_one(make_shards: MakeShards, asked: list[Asked]) -> None:
    """The same through shards with the engine."""
    many = TransactionCluster.of(make_shards(SHARDS))
    names = [name for shard in range(SHARDS) for name in islice(many.names(shard), 2)]
    compare(many, names, asked)
