"""Purchases, refunds, holds, captures, voids and journals over gRPC: what they do, and that only once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from uuid import UUID

import grpc
import pytest

from shard_node.cluster.slots import slot
from shard_node.contract import unpack_outcomes
from shard_node.limits import MAX_LEGS
from tests.router.bank import Bank, Route, new_id, wait_for
from tests.router.contract import Client, read_refusal
from tests.router.test_wallet_journal_refusals import (
    MakeScene,
    capture,
    hold,
    journal,
    money,
    purchase,
    refund,
    void,
)

pytestmark = pytest.mark.cluster


def balances(bank: Bank, *account_ids: str) -> list[tuple[str, str]]:
    """What is available and what is held."""
    looks = bank.look(*account_ids)
    return [(look.available, look.held) for name in account_ids if (look := looks[name])]


def total(bank: Bank, account_ids: list[str]) -> Decimal:
    """All the money of some accounts."""
    found = balances(bank, *account_ids)
    return sum((Decimal(available) + Decimal(held) for available, held in found), Decimal(0))


def test_purchase(bank: Bank, route: Route) -> None:
    """A purchase moves its amount like a transfer, and is found under its id."""
    accounts, asked = purchase(bank, route, "30.00", order_id="order 7", reference="shoes")
    paid = bank.wallet.call("Purchase", **asked)
    assert (paid.from_available, paid.to_available) == ("70.00", "30.00")
    assert balances(bank, *accounts) == [("70.00", "0.00"), ("30.00", "0.00")]
    again = bank.wallet.call("Purchase", **asked)
    assert (bank.outcome(again), again.HasField("from_available")) == ("COMMITTED", False)
    assert balances(bank, *accounts) == [("70.00", "0.00"), ("30.00", "0.00")]


def test_refunds(bank: Bank, route: Route) -> None:
    """A purchase is refunded in parts, down to nothing left; the same refund again moves nothing."""
    accounts, first = refund(bank, route, "10.00")
    second = first | {"transaction_id": new_id(), "amount": "20.00"}
    done = bank.wallet.call("Refund", **first)
    assert (done.from_available, done.to_available) == ("20.00", "80.00")
    assert bank.outcome(bank.wallet.call("Refund", **first)) == "COMMITTED"
    assert balances(bank, *accounts) == [("80.00", "0.00"), ("20.00", "0.00")]
    too_much = first | {"transaction_id": new_id(), "amount": "20.01"}
    assert bank.wallet.refused("Refund", **too_much).reason == "REFUND_EXCEEDS_PURCHASE"
    assert bank.wallet.call("Refund", **second).to_available == "100.00"
    bank.fund(accounts[1], "50.00")
    one_more = first | {"transaction_id": new_id(), "amount": "0.01"}
    assert bank.wallet.refused("Refund", **one_more).reason == "REFUND_EXCEEDS_PURCHASE"
    assert balances(bank, *accounts) == [("100.00", "0.00"), ("50.00", "0.00")]


def test_a_refund_that_failed_leaves_room(bank: Bank, route: Route) -> None:
    """A refund that the merchant could not pay does not count against the purchase."""
    accounts, asked = refund(bank, route, "30.00")
    taken = money("30.00", account_id=accounts[1])
    bank.wallet.call("Withdraw", **taken)
    assert bank.wallet.refused("Refund", **asked).reason == "INSUFFICIENT_FUNDS"
    bank.fund(accounts[1], "30.00")
    again = asked | {"transaction_id": new_id()}
    assert bank.wallet.call("Refund", **again).to_available == "100.00"


def test_concurrent_refunds_never_exceed_the_purchase(bank: Bank, route: Route) -> None:
    """Of forty refunds at once, each sent twice, exactly as many succeed as the purchase has room for."""
    (customer, merchant), first = refund(bank, route, "7.00", paid="100.00")
    bank.fund(merchant, "500.00")
    asked = [first | {"transaction_id": new_id()} for _ in range(40)]

    def ask(fields: dict[str, Any]) -> str:
        try:
            return bank.outcome(bank.wallet.call("Refund", **fields))
        except grpc.RpcError as error:
            return read_refusal(error).reason

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(ask, [*asked, *asked]))
    assert outcomes[:40] == outcomes[40:]
    assert sorted(set(outcomes)) == ["COMMITTED", "REFUND_EXCEEDS_PURCHASE"]
    succeeded = outcomes[:40].count("COMMITTED")
    assert 1 <= succeeded <= 14
    assert balances(bank, customer) == [(f"{7 * succeeded}.00", "0.00")]
    # What refunds on their way reserved, and then did not need, is free again.
    left = 14 - succeeded
    for _ in range(left):
        bank.wallet.call("Refund", **(first | {"transaction_id": new_id()}))
    one_more = first | {"transaction_id": new_id()}
    assert bank.wallet.refused("Refund", **one_more).reason == "REFUND_EXCEEDS_PURCHASE"
    assert balances(bank, customer, merchant) == [("98.00", "0.00"), ("502.00", "0.00")]


def test_a_purchase_of_long_ago(bank: Bank, operators: Client, route: Route, ledger: Client) -> None:
    """A purchase that the shard has forgotten is refunded by the archive's word, within the same bounds."""
    accounts, first = refund(bank, route, "10.00")
    customer, bought = accounts[0], first["purchase_transaction_id"]

    def archived() -> bool | None:
        try:
            found = ledger.call("GetTransfer", transaction_id=bought, from_account=customer)
        except grpc.RpcError:
            return None
        # Across shards the merchant's entry may come first.
        return True if customer in [entry.account_id for entry in found.entries] else None

    wait_for(archived, "purchase in the archive")
    decision = UUID(bought).bytes + slot(customer).to_bytes(2, "little")
    shards = {bank.shard_of(account) for account in accounts}

    def rotate() -> bool:
        """Forgets what is in the older generation; whether the purchase is remembered."""
        for shard in shards:
            bank.command(shard, "rotate", 0, 0)
        (found,) = unpack_outcomes(bank.command(bank.shard_of(customer), "outcomes", decision))
        return found is not None

    # What is not settled is carried over.
    wait_for(lambda: True if not operators.call("ListInDoubt").transfers else None, "settlement")
    # The refund is younger than the purchase by a generation.
    assert rotate()
    bank.wallet.call("Refund", **first)
    assert not rotate()
    # What was done before the shard forgot is still known as done.
    assert bank.outcome(bank.wallet.call("Refund", **first)) == "COMMITTED"
    assert balances(bank, *accounts) == [("80.00", "0.00"), ("20.00", "0.00")]
    too_much = first | {"transaction_id": new_id(), "amount": "20.01"}
    assert bank.wallet.refused("Refund", **too_much).reason == "REFUND_EXCEEDS_PURCHASE"
    assert bank.wallet.call("Refund", **(too_much | {"transaction_id": new_id(), "amount": "20.00"}))
    assert balances(bank, *accounts) == [("100.00", "0.00"), ("0.00", "0.00")]
    stranger = first | {"transaction_id": new_id(), "customer_account": accounts[1]}
    assert bank.wallet.refused("Refund", **stranger).reason == "PURCHASE_NOT_FOUND"


def test_hold_and_capture(bank: Bank, route: Route) -> None:
    """A hold moves available to held; a capture pays a part of it, and the rest is available again."""
    (account,), held = hold(bank, route, "30.00")
    assert bank.wallet.call("Hold", **held).available == "70.00"
    again = bank.wallet.call("Hold", **held)
    assert (bank.outcome(again), again.HasField("available")) == ("COMMITTED", False)
    assert balances(bank, account) == [("70.00", "30.00")]
    payee = bank.open(route.payee_tag)
    fields = {"hold_transaction_id": held["transaction_id"], "account_id": account, "to_account": payee}
    asked = money("12.50", **fields)
    captured = bank.wallet.call("Capture", **asked)
    assert (captured.from_available, captured.to_available) == ("87.50", "12.50")
    assert bank.outcome(bank.wallet.call("Capture", **asked)) == "COMMITTED"
    assert balances(bank, account, payee) == [("87.50", "0.00"), ("12.50", "0.00")]
    other = asked | {"transaction_id": new_id()}
    assert bank.wallet.refused("Capture", **other).reason == "HOLD_NOT_ACTIVE"


def test_capture_of_all(bank: Bank, route: Route) -> None:
    """A hold can be captured to its last cent."""
    accounts, asked = capture(bank, route, "30.00")
    bank.wallet.call("Capture", **asked)
    assert balances(bank, *accounts) == [("70.00", "0.00"), ("30.00", "0.00")]


def test_void(bank: Bank, route: Route) -> None:
    """A voided hold is available again, once; also while the account is frozen."""
    accounts, asked = void(bank, route)
    bank.wallet.call("FreezeAccount", account_id=accounts[0])
    done = bank.wallet.call("Void", **asked)
    assert (bank.outcome(done), done.available) == ("COMMITTED", "100.00")
    again = bank.wallet.call("Void", **asked)
    assert (bank.outcome(again), again.HasField("available")) == ("COMMITTED", False)
    assert balances(bank, *accounts) == [("100.00", "0.00")]


def test_a_hold_ends_by_itself(bank: Bank, route: Route) -> None:
    """After its life what was held is available again, without anybody's doing."""
    (account,), held = hold(bank, route, "30.00", life_seconds=1)
    bank.wallet.call("Hold", **held)
    assert balances(bank, account) == [("70.00", "30.00")]
    wait_for(lambda: True if bank.available(account) == "100.00" else None, "expiry")
    assert balances(bank, account) == [("100.00", "0.00")]
    # The id remains used: sent again, it does not hold anew.
    assert bank.outcome(bank.wallet.call("Hold", **held)) == "COMMITTED"
    assert balances(bank, account) == [("100.00", "0.00")]


def test_one_of_many_captures_wins(bank: Bank, route: Route) -> None:
    """Captures of one hold at the same time: one is paid, the others find it gone."""
    (account, payee), first = capture(bank, route, "5.00")
    asked = [first | {"transaction_id": new_id()} for _ in range(20)]

    def ask(fields: dict[str, Any]) -> str:
        try:
            return bank.outcome(bank.wallet.call("Capture", **fields))
        except grpc.RpcError as error:
            return read_refusal(error).reason

    with ThreadPoolExecutor(10) as pool:
        outcomes = list(pool.map(ask, asked))
    assert sorted(outcomes) == ["COMMITTED"] + ["HOLD_NOT_ACTIVE"] * 19
    assert balances(bank, account, payee) == [("95.00", "0.00"), ("5.00", "0.00")]


def test_journal_over_three_shards(bank: Bank, route: Route) -> None:
    """All legs happen; the answer has their balances in the order of the request."""
    accounts, asked = journal(bank, route)
    done = bank.wallet.call("PostJournal", **asked)
    assert list(done.available) == ["1.00", "97.00", "2.00"]
    again = bank.wallet.call("PostJournal", **asked)
    assert (bank.outcome(again), list(again.available)) == ("COMMITTED", ["", "", ""])
    assert balances(bank, *accounts) == [("1.00", "0.00"), ("97.00", "0.00"), ("2.00", "0.00")]


def test_journal_with_two_debits_and_two_currencies(bank: Bank) -> None:
    """Each currency is balanced for itself, and any leg may be a debit."""
    first, second, third = bank.tags
    euros, dollars = bank.open(first, "10.00"), bank.open(second, "10.00", "USD")
    takes_euros, takes_dollars = bank.open(third), bank.open(first, currency="USD")
    legs = [
        {"account_id": takes_dollars, "amount": "4.00", "currency": "USD"},
        {"account_id": dollars, "amount": "-4.00", "currency": "USD"},
        {"account_id": takes_euros, "amount": "3.00", "currency": "EUR"},
        {"account_id": euros, "amount": "-3.00", "currency": "EUR"},
    ]
    done = bank.wallet.call("PostJournal", transaction_id=new_id(), legs=legs, initiated_by="treasury")
    assert list(done.available) == ["4.00", "6.00", "3.00", "7.00"]


def test_the_largest_journal(bank: Bank) -> None:
    """A hundred legs over all shards happen at once, or, when one cannot, none of them."""
    payer = bank.open(bank.tags[0], "100.00")
    names = [bank.open(bank.tags[n % 3]) for n in range(MAX_LEGS - 1)]
    legs = [{"account_id": payer, "amount": "-99.00", "currency": "EUR"}]
    legs += [{"account_id": name, "amount": "1.00", "currency": "EUR"} for name in names]
    bank.wallet.call("FreezeAccount", account_id=names[57])
    asked = {"transaction_id": new_id(), "legs": legs}
    refused = bank.wallet.refused("PostJournal", **asked)
    assert (refused.reason, refused.field) == ("ACCOUNT_FROZEN", "legs[58].account_id")
    assert total(bank, names) == 0
    bank.wallet.call("UnfreezeAccount", account_id=names[57])
    assert bank.wallet.refused("PostJournal", **asked) == refused
    done = bank.wallet.call("PostJournal", **(asked | {"transaction_id": new_id()}))
    assert list(done.available) == ["1.00"] * MAX_LEGS
    assert total(bank, [payer, *names]) == 100


MAKERS: dict[str, MakeScene] = {
    "Purchase": purchase,
    "Refund": refund,
    "Hold": hold,
    "Capture": capture,
    "Void": void,
    "PostJournal": journal,
}


@pytest.mark.parametrize("method", MAKERS)
def test_only_checked(bank: Bank, route: Route, method: str) -> None:
    """A check moves nothing and uses no id; once the id is used, it tells what the id was used for."""
    accounts, asked = MAKERS[method](bank, route)
    before = bank.look(*accounts)
    for _ in range(2):
        assert bank.outcome(bank.wallet.call(method, **asked, validate_only=True)) == "VALID"
    assert bank.look(*accounts) == before
    assert bank.outcome(bank.wallet.call(method, **asked)) == "COMMITTED"
    after = bank.look(*accounts)
    assert after != before
    checked = bank.wallet.call(method, **asked, validate_only=True)
    assert bank.outcome(checked) == "COMMITTED"
    other = bank.wallet.refused(method, **(asked | {"reference": "another"}), validate_only=True)
    assert (other.reason, other.field) == ("TRANSACTION_ID_REUSED", "transaction_id")
    assert bank.look(*accounts) == after


@pytest.mark.parametrize("method", ["Deposit", "Withdraw"])
def test_only_checked_at_the_border(bank: Bank, method: str) -> None:
    """Deposits and withdrawals can be checked like everything else."""
    account = bank.open(bank.tags[0], "10.00")
    asked = money("10.00", account_id=account, bank_transaction_id="b", initiated_by="teller")
    assert bank.outcome(bank.wallet.call(method, **asked, validate_only=True)) == "VALID"
    assert bank.available(account) == "10.00"
    bank.wallet.call(method, **asked)
    assert bank.outcome(bank.wallet.call(method, **asked, validate_only=True)) == "COMMITTED"
    reused = bank.wallet.refused(method, **(asked | {"initiated_by": "another"}))
    assert reused.reason == "TRANSACTION_ID_REUSED"
    if method == "Withdraw":
        poor = money("0.01", account_id=account)
        assert bank.wallet.refused(method, **poor, validate_only=True).reason == "INSUFFICIENT_FUNDS"


def test_checked_items_of_a_batch(bank: Bank, route: Route) -> None:
    """Items that are only checked are checked, each for itself; the others around them are carried out."""
    payer, payee = bank.pair(route, "10.00")
    fields = {"from_account": payer, "to_account": payee}
    asked = [
        # Fits before and after the others: a batch has no order.
        money("7.00", **fields, validate_only=True),
        money("1.00", **fields),
        money("10.01", **fields, validate_only=True),
        money("nonsense", **fields, validate_only=True),
        money("2.00", **fields),
        money("10.00", from_account=payer, to_account=bank.name(route.payee_tag), validate_only=True),
    ]
    results = bank.wallet.call("BatchTransfer", transfers=asked, return_balances=True).results
    assert [bank.outcome(result) for result in results] == [
        "VALID",
        "COMMITTED",
        "INSUFFICIENT_FUNDS",
        "INVALID_ARGUMENT",
        "COMMITTED",
        "ACCOUNT_NOT_FOUND",
    ]
    assert [result.transaction_id for result in results] == [one["transaction_id"] for one in asked]
    assert [result.refusal.field for result in results] == [
        "",
        "",
        "from_account",
        "amount",
        "",
        "to_account",
    ]
    assert [result.HasField("refusal") for result in results] == [False, False, True, True, False, True]
    assert balances(bank, payer, payee) == [("7.00", "0.00"), ("3.00", "0.00")]
    # Nothing of a check is remembered: its id is free for the real one.
    real = asked[0] | {"validate_only": False}
    assert bank.outcome(bank.wallet.call("Transfer", **real)) == "COMMITTED"


@pytest.mark.parametrize("method", MAKERS)
def test_every_kind_can_be_looked_up(bank: Bank, route: Route, method: str) -> None:
    """GetTransfer tells outcome, amount and time of every kind, under the account that decides."""
    accounts, asked = MAKERS[method](bank, route)
    deciding = {"Refund": 1, "PostJournal": 1}.get(method, 0)
    look_up = {"transaction_id": asked["transaction_id"], "from_account": accounts[deciding]}
    assert bank.wallet.refused("GetTransfer", **look_up).reason == "TRANSACTION_NOT_FOUND"
    bank.wallet.call(method, **asked)
    found = bank.wallet.call("GetTransfer", **look_up)
    amount = {"PostJournal": "3.00", "Void": "0.00"}.get(method, "30.00")
    assert (bank.outcome(found), found.amount, found.currency) == ("COMMITTED", amount, "EUR")
    assert found.decided_at.seconds > 0


def test_a_refused_journal_can_be_looked_up(bank: Bank, route: Route) -> None:
    """A refusal is remembered like any outcome."""
    accounts, asked = refund(bank, route, "30.01")
    bank.wallet.refused("Refund", **asked)
    found = bank.wallet.call("GetTransfer", transaction_id=asked["transaction_id"], from_account=accounts[1])
    assert (bank.outcome(found), found.amount) == ("REFUND_EXCEEDS_PURCHASE", "30.01")
