"""Every refusal that a purchase, refund, hold, capture, void or journal can meet, with the field it concerns.

Each is met first by the request that only checks, which must know it beforehand, and then by the real one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from shard_node.contract import AccountState
from tests.router.bank import Bank, Route, new_id, wait_for
from tests.router.contract import Refusal
from tests.router.samples import uuid7, wall_ms

pytestmark = pytest.mark.cluster

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND
EXISTS = grpc.StatusCode.ALREADY_EXISTS
TWO_HOURS_MS = 2 * 3600 * 1000

# The accounts to look at, and the request.
Scene = tuple[list[str], dict[str, Any]]
MakeScene = Callable[[Bank, Route], Scene]


def money(amount: str, currency: str = "EUR", **fields: Any) -> dict[str, Any]:
    """The fields that all requests with an amount have."""
    return {"transaction_id": new_id(), "amount": amount, "currency": currency, **fields}


def purchase(bank: Bank, route: Route, amount: str = "30.00", **more: Any) -> Scene:
    """A purchase of a customer with 100 euros."""
    customer, merchant = bank.pair(route)
    return [customer, merchant], money(amount, customer_account=customer, merchant_account=merchant, **more)


def refund(bank: Bank, route: Route, amount: str = "30.00", paid: str = "30.00", **more: Any) -> Scene:
    """A refund of a purchase that was made."""
    accounts, bought = purchase(bank, route, paid)
    bank.wallet.call("Purchase", **bought)
    asked = money(
        amount, purchase_transaction_id=bought["transaction_id"], customer_account=accounts[0], **more
    )
    return accounts, asked


def hold(bank: Bank, route: Route, amount: str = "30.00", **more: Any) -> Scene:
    """A hold of an account with 100 euros."""
    account = bank.open(route.payer_tag, "100.00")
    return [account], money(amount, account_id=account, **more)


def capture(bank: Bank, route: Route, amount: str = "30.00", **more: Any) -> Scene:
    """A capture of a hold of 30 euros that was made."""
    (account,), held = hold(bank, route)
    bank.wallet.call("Hold", **held)
    payee = bank.open(route.payee_tag)
    asked = {"hold_transaction_id": held["transaction_id"], "account_id": account, "to_account": payee}
    return [account, payee], money(amount, **(asked | more))


def void(bank: Bank, route: Route, **more: Any) -> Scene:
    """The end of a hold of 30 euros that was made."""
    (account, _), captured = capture(bank, route)
    asked = {"transaction_id": new_id(), "hold_transaction_id": captured["hold_transaction_id"]}
    return [account], asked | {"account_id": account} | more


def journal(bank: Bank, _: Route, *changes: tuple[str, str]) -> Scene:
    """Three euros from an account on the first shard to two on the others, with changes to the accounts."""
    accounts = [bank.open(bank.tags[1]), bank.open(bank.tags[0], "100.00"), bank.open(bank.tags[2])]
    legs = [
        {"account_id": account, "amount": amount, "currency": "EUR"}
        for account, amount in zip(accounts, ("1.00", "-3.00", "2.00"), strict=True)
    ]
    for place, account in enumerate(dict(changes).items()):
        legs[place]["account_id"] = account[1]
    return accounts, {"transaction_id": new_id(), "legs": legs}


def in_state(make: MakeScene, side: int, state: AccountState = AccountState.FROZEN) -> MakeScene:
    """The scene with one of its accounts frozen or closed."""

    def scene(bank: Bank, route: Route) -> Scene:
        accounts, asked = make(bank, route)
        bank.set_state(accounts[side], state)
        return accounts, asked

    return scene


def with_fields(make: MakeScene, **fields: Any) -> MakeScene:
    """The scene with other values in the request; those that are callables are asked for theirs."""

    def scene(bank: Bank, route: Route) -> Scene:
        accounts, asked = make(bank, route)
        values = {name: value(bank, route) if callable(value) else value for name, value in fields.items()}
        return accounts, asked | values

    return scene


def after(make: MakeScene, method: str, **fields: Any) -> MakeScene:
    """The scene after a call with the same request, and another id for the one that will be refused."""

    def scene(bank: Bank, route: Route) -> Scene:
        accounts, asked = make(bank, route)
        known = {field.name for field in bank.wallet.descriptor.methods_by_name[method].input_type.fields}
        first = {name: value for name, value in (asked | fields).items() if name in known}
        bank.wallet.call(method, **(first | {"transaction_id": new_id()}))
        return accounts, asked

    return scene


def used_before(make: MakeScene, method: str, **fields: Any) -> MakeScene:
    """The scene after the same id was used with other values."""

    def scene(bank: Bank, route: Route) -> Scene:
        accounts, asked = make(bank, route)
        bank.wallet.call(method, **(asked | fields))
        return accounts, asked

    return scene


def limited(bank: Bank, route: Route) -> str:
    """An account with 100 euros that pays 20 at the most, and holds 120 at the most."""
    account_id = bank.name(route.payer_tag)
    bank.wallet.call(
        "OpenAccount", account_id=account_id, currency="EUR", maximum_transfer="20.00", maximum_balance="120"
    )
    for _ in range(2):
        bank.fund(account_id, "50.00")
    return account_id


def nobody(bank: Bank, route: Route) -> str:
    """An account that was never opened, where the payee is."""
    return bank.name(route.payee_tag)


def no_payer(bank: Bank, route: Route) -> str:
    """An account that was never opened, where the payer is."""
    return bank.name(route.payer_tag)


def neighbour(bank: Bank, route: Route) -> str:
    """Another account in the payer's own slot."""
    return bank.open(route.payer_tag, "50.00")


def dollars(bank: Bank, route: Route) -> str:
    """An account held in dollars, where the payee is."""
    return bank.open(route.payee_tag, currency="USD")


def plain_transfer(bank: Bank, route: Route) -> Scene:
    """A refund of what was no purchase."""
    customer, merchant = bank.pair(route)
    paid = money("30.00", from_account=customer, to_account=merchant)
    bank.wallet.call("Transfer", **paid)
    bought = paid["transaction_id"]
    return [customer, merchant], money("1.00", purchase_transaction_id=bought, customer_account=customer)


def refused_purchase(bank: Bank, route: Route) -> Scene:
    """A refund of a purchase for which the money did not suffice."""
    accounts, bought = purchase(bank, route, "100.01")
    assert bank.wallet.refused("Purchase", **bought).reason == "INSUFFICIENT_FUNDS"
    fields = {"purchase_transaction_id": bought["transaction_id"], "customer_account": accounts[0]}
    return accounts, money("1.00", **fields)


def spent_by_the_merchant(bank: Bank, route: Route) -> Scene:
    """A refund after the merchant has taken the money out."""
    accounts, asked = refund(bank, route)
    bank.wallet.call("Withdraw", **money("30.00", account_id=accounts[1]))
    return accounts, asked


def expired_hold(bank: Bank, route: Route) -> Scene:
    """A capture after the hold's one second."""
    (account,), held = hold(bank, route, life_seconds=1)
    bank.wallet.call("Hold", **held)
    payee = bank.open(route.payee_tag)
    wait_for(lambda: True if bank.available(account) == "100.00" else None, "expiry")
    asked = {"hold_transaction_id": held["transaction_id"], "account_id": account, "to_account": payee}
    return [account, payee], money("1.00", **asked)


def journal_with(place: int, make: Callable[[Bank, Route], str]) -> MakeScene:
    """The journal with another account in one leg, and a tag of that leg's shard."""

    def scene(bank: Bank, route: Route) -> Scene:
        accounts, asked = journal(bank, route)
        asked["legs"][place]["account_id"] = make(bank, route)
        return accounts, asked

    return scene


def refused(code: grpc.StatusCode, reason: str, field: str) -> Refusal:
    """A refusal with a field."""
    return Refusal(code, reason, field)


OLD = {"transaction_id": lambda *_: uuid7(wall_ms() - TWO_HOURS_MS)}
UNKNOWN_ID = {"hold_transaction_id": lambda *_: new_id()}
USED = refused(EXISTS, "TRANSACTION_ID_REUSED", "transaction_id")
EXPIRED = refused(PRECONDITION, "TRANSACTION_ID_EXPIRED", "transaction_id")
NO_PURCHASE = refused(NOT_FOUND, "PURCHASE_NOT_FOUND", "purchase_transaction_id")
NO_HOLD = refused(PRECONDITION, "HOLD_NOT_ACTIVE", "hold_transaction_id")


def account_refusals(
    method: str, make: MakeScene, side: int, field: str
) -> list[tuple[str, str, MakeScene, Refusal]]:
    """What an account's state can bring about."""
    return [
        (method, f"{field} frozen", in_state(make, side), refused(PRECONDITION, "ACCOUNT_FROZEN", field)),
        (
            method,
            f"{field} closed",
            in_state(make, side, AccountState.CLOSED),
            refused(PRECONDITION, "ACCOUNT_CLOSED", field),
        ),
    ]


SCENES: list[tuple[str, str, MakeScene, Refusal]] = [
    *account_refusals("Purchase", purchase, 0, "customer_account"),
    *account_refusals("Purchase", purchase, 1, "merchant_account"),
    (
        "Purchase",
        "poor",
        with_fields(purchase, amount="100.01"),
        refused(PRECONDITION, "INSUFFICIENT_FUNDS", "customer_account"),
    ),
    (
        "Purchase",
        "above the limit",
        with_fields(purchase, customer_account=limited),
        refused(PRECONDITION, "TRANSFER_LIMIT", "customer_account"),
    ),
    (
        "Purchase",
        "no merchant",
        with_fields(purchase, merchant_account=nobody),
        refused(NOT_FOUND, "ACCOUNT_NOT_FOUND", "merchant_account"),
    ),
    (
        "Purchase",
        "merchant in dollars",
        with_fields(purchase, merchant_account=dollars),
        refused(PRECONDITION, "CURRENCY_MISMATCH", "merchant_account"),
    ),
    ("Purchase", "used id", used_before(purchase, "Purchase", order_id="another"), USED),
    ("Purchase", "old id", with_fields(purchase, **OLD), EXPIRED),
    *account_refusals("Refund", refund, 0, "customer_account"),
    *account_refusals("Refund", refund, 1, "purchase_transaction_id"),
    (
        "Refund",
        "too much",
        with_fields(refund, amount="30.01"),
        refused(PRECONDITION, "REFUND_EXCEEDS_PURCHASE", "amount"),
    ),
    (
        "Refund",
        "too much of what is left",
        after(refund, "Refund", amount="0.01"),
        refused(PRECONDITION, "REFUND_EXCEEDS_PURCHASE", "amount"),
    ),
    ("Refund", "no purchase", with_fields(refund, purchase_transaction_id=lambda *_: new_id()), NO_PURCHASE),
    ("Refund", "a neighbour's purchase", with_fields(refund, customer_account=neighbour), NO_PURCHASE),
    ("Refund", "no customer", with_fields(refund, customer_account=no_payer), NO_PURCHASE),
    ("Refund", "a plain transfer", plain_transfer, NO_PURCHASE),
    ("Refund", "a refused purchase", refused_purchase, NO_PURCHASE),
    (
        "Refund",
        "other currency",
        with_fields(refund, currency="USD"),
        refused(PRECONDITION, "CURRENCY_MISMATCH", "currency"),
    ),
    (
        "Refund",
        "poor merchant",
        spent_by_the_merchant,
        refused(PRECONDITION, "INSUFFICIENT_FUNDS", "purchase_transaction_id"),
    ),
    ("Refund", "used id", used_before(refund, "Refund", amount="1.00"), USED),
    ("Refund", "old id", with_fields(refund, **OLD), EXPIRED),
    *account_refusals("Hold", hold, 0, "account_id"),
    (
        "Hold",
        "poor",
        with_fields(hold, amount="100.01"),
        refused(PRECONDITION, "INSUFFICIENT_FUNDS", "account_id"),
    ),
    (
        "Hold",
        "above the limit",
        with_fields(hold, account_id=limited),
        refused(PRECONDITION, "TRANSFER_LIMIT", "account_id"),
    ),
    (
        "Hold",
        "nobody",
        with_fields(hold, account_id=no_payer),
        refused(NOT_FOUND, "ACCOUNT_NOT_FOUND", "account_id"),
    ),
    (
        "Hold",
        "other currency",
        with_fields(hold, currency="USD"),
        refused(PRECONDITION, "CURRENCY_MISMATCH", "account_id"),
    ),
    ("Hold", "used id", used_before(hold, "Hold", life_seconds=60), USED),
    ("Hold", "old id", with_fields(hold, **OLD), EXPIRED),
    # One with a hold cannot be closed.
    *account_refusals("Capture", capture, 0, "account_id")[:1],
    *account_refusals("Capture", capture, 1, "to_account"),
    (
        "Capture",
        "too much",
        with_fields(capture, amount="30.01"),
        refused(PRECONDITION, "CAPTURE_EXCEEDS_HOLD", "amount"),
    ),
    ("Capture", "no hold", with_fields(capture, **UNKNOWN_ID), NO_HOLD),
    ("Capture", "captured", after(capture, "Capture", amount="0.01"), NO_HOLD),
    ("Capture", "voided", after(capture, "Void"), NO_HOLD),
    ("Capture", "expired", expired_hold, NO_HOLD),
    ("Capture", "a neighbour's hold", with_fields(capture, account_id=neighbour), NO_HOLD),
    (
        "Capture",
        "nobody",
        with_fields(capture, account_id=no_payer),
        refused(NOT_FOUND, "ACCOUNT_NOT_FOUND", "account_id"),
    ),
    (
        "Capture",
        "no payee",
        with_fields(capture, to_account=nobody),
        refused(NOT_FOUND, "ACCOUNT_NOT_FOUND", "to_account"),
    ),
    (
        "Capture",
        "payee in dollars",
        with_fields(capture, to_account=dollars),
        refused(PRECONDITION, "CURRENCY_MISMATCH", "to_account"),
    ),
    ("Capture", "used id", used_before(capture, "Capture", amount="1.00"), USED),
    ("Capture", "old id", with_fields(capture, **OLD), EXPIRED),
    ("Void", "no hold", with_fields(void, **UNKNOWN_ID), NO_HOLD),
    ("Void", "voided", after(void, "Void"), NO_HOLD),
    ("Void", "a neighbour's hold", with_fields(void, account_id=neighbour), NO_HOLD),
    (
        "Void",
        "nobody",
        with_fields(void, account_id=no_payer),
        refused(NOT_FOUND, "ACCOUNT_NOT_FOUND", "account_id"),
    ),
    ("Void", "used id", used_before(void, "Void", reference="another"), USED),
    ("Void", "old id", with_fields(void, **OLD), EXPIRED),
    *account_refusals("PostJournal", journal, 0, "legs[0].account_id"),
    *account_refusals("PostJournal", journal, 1, "legs[1].account_id"),
    *account_refusals("PostJournal", journal, 2, "legs[2].account_id"),
    (
        "PostJournal",
        "nobody",
        journal_with(2, nobody),
        refused(NOT_FOUND, "ACCOUNT_NOT_FOUND", "legs[2].account_id"),
    ),
    (
        "PostJournal",
        "dollars",
        journal_with(0, dollars),
        refused(PRECONDITION, "CURRENCY_MISMATCH", "legs[0].account_id"),
    ),
    (
        "PostJournal",
        "poor",
        journal_with(1, lambda bank, _: bank.open(bank.tags[0])),
        refused(PRECONDITION, "INSUFFICIENT_FUNDS", "legs[1].account_id"),
    ),
    ("PostJournal", "used id", used_before(journal, "PostJournal", reference="another"), USED),
    ("PostJournal", "old id", with_fields(journal, **OLD), EXPIRED),
]


@pytest.mark.parametrize(
    ("method", "make", "expected"),
    [(method, make, expected) for method, _, make, expected in SCENES],
    ids=[f"{method}: {name}" for method, name, _, _ in SCENES],
)
def test_refusal(bank: Bank, route: Route, method: str, make: MakeScene, expected: Refusal) -> None:
    """A refusal says why and what it concerns, is known beforehand, is final, and changes no account."""
    accounts, asked = make(bank, route)
    before = bank.look(*accounts)
    for only_check in (True, False, False, True):
        assert bank.wallet.refused(method, **asked, validate_only=only_check) == expected
    assert bank.look(*accounts) == before


def test_limits_hold_for_credits_too(bank: Bank, route: Route) -> None:
    """Nobody can be paid beyond the maximum balance, on its way or arrived; held money counts."""
    account_id = limited(bank, route)
    bank.wallet.call("Hold", **money("20.00", account_id=account_id))
    payer = bank.open(route.payee_tag, "100.00")
    asked = money("20.01", from_account=payer, to_account=account_id)
    expected = refused(PRECONDITION, "BALANCE_LIMIT", "to_account")
    for only_check in (True, False):
        assert bank.wallet.refused("Transfer", **asked, validate_only=only_check) == expected
    fits = money("20.00", from_account=payer, to_account=account_id)
    assert bank.outcome(bank.wallet.call("Transfer", **fits, validate_only=True)) == "VALID"
    assert bank.outcome(bank.wallet.call("Transfer", **fits)) == "COMMITTED"
    over = money("20.01", from_account=account_id, to_account=payer)
    expected = refused(PRECONDITION, "TRANSFER_LIMIT", "from_account")
    for only_check in (True, False):
        assert bank.wallet.refused("Transfer", **over, validate_only=only_check) == expected
