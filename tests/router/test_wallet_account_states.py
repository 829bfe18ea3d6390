"""Limits of accounts, and freezing, unfreezing and closing them, over gRPC."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tests.router.bank import Bank, Route, new_id, payment
from tests.router.contract import Refusal
from tests.router.test_wallet_journal_refusals import hold, money

pytestmark = pytest.mark.cluster

OPEN, FROZEN, CLOSED = 1, 2, 3
CHANGES = ["FreezeAccount", "UnfreezeAccount", "CloseAccount"]


def precondition(reason: str) -> Refusal:
    """How a change of state is refused."""
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, reason, "account_id")


def test_limits_are_kept(bank: Bank) -> None:
    """Limits are shown as they were given, in the currency's decimals; without any the fields are empty."""
    name = bank.name(bank.tags[0])
    asked = {"account_id": name, "currency": "EUR", "maximum_balance": "100", "maximum_transfer": "9.5"}
    for _ in range(2):
        account = bank.wallet.call("OpenAccount", **asked)
        assert (account.maximum_balance, account.maximum_transfer) == ("100.00", "9.50")
    read = bank.wallet.call("GetAccount", account_id=name)
    assert read == account
    plain = bank.wallet.call("GetAccount", account_id=bank.open(bank.tags[0]))
    assert (plain.maximum_balance, plain.maximum_transfer) == ("", "")


@pytest.mark.parametrize(
    "other", [{"maximum_balance": "100.01"}, {"maximum_transfer": "9.51"}, {"minimum_balance": "-1"}]
)
def test_limits_are_part_of_the_account(bank: Bank, other: dict[str, str]) -> None:
    """Opening with other limits is refused, checked or not, and changes none."""
    asked = {"currency": "EUR", "maximum_balance": "100", "maximum_transfer": "9.5"}
    asked["account_id"] = bank.name(bank.tags[1])
    before = bank.wallet.call("OpenAccount", **asked)
    expected = Refusal(grpc.StatusCode.ALREADY_EXISTS, "ACCOUNT_EXISTS", "account_id")
    for only_check in (True, False):
        assert bank.wallet.refused("OpenAccount", **(asked | other), validate_only=only_check) == expected
    assert bank.wallet.call("GetAccount", account_id=asked["account_id"]) == before


def test_opening_only_checked(bank: Bank) -> None:
    """A check opens nothing, and answers with the account as it would be, or as it stands."""
    asked = {"account_id": bank.name(bank.tags[0]), "currency": "JPY", "maximum_transfer": "7"}
    would_be = bank.wallet.call("OpenAccount", **asked, validate_only=True)
    assert bank.look(asked["account_id"]) == {asked["account_id"]: None}
    assert bank.wallet.call("OpenAccount", **asked) == would_be
    bank.fund(asked["account_id"], "5", "JPY")
    stands = bank.wallet.call("OpenAccount", **asked, validate_only=True)
    assert stands == bank.wallet.call("GetAccount", account_id=asked["account_id"])
    assert stands.available == "5"


def test_checked_and_real_openings_in_one_batch(bank: Bank) -> None:
    """In a batch each item is opened or only checked, as it asks."""
    names = [bank.name(bank.tags[n % 3]) for n in range(6)]
    accounts = [
        {"account_id": name, "currency": "EUR", "validate_only": n % 2 == 0} for n, name in enumerate(names)
    ]
    results = bank.wallet.call("BatchOpenAccounts", accounts=accounts).results
    assert [result.account.account_id for result in results] == names
    looks = bank.look(*names)
    assert [name for name in names if looks[name]] == names[1::2]


def test_freezing_and_unfreezing(bank: Bank, route: Route) -> None:
    """A frozen account neither pays nor is paid; doing it twice changes nothing more."""
    payer, payee = bank.pair(route, "10.00")
    for account_id, field in ((payer, "from_account"), (payee, "to_account")):
        frozen = [bank.wallet.call("FreezeAccount", account_id=account_id) for _ in range(2)]
        assert frozen[0] == frozen[1] == bank.wallet.call("GetAccount", account_id=account_id)
        assert frozen[0].state == FROZEN
        refused = bank.wallet.refused("Transfer", **payment(payer, payee))
        assert (refused.reason, refused.field) == ("ACCOUNT_FROZEN", field)
        thawed = [bank.wallet.call("UnfreezeAccount", account_id=account_id) for _ in range(2)]
        assert thawed[0] == thawed[1]
        assert (thawed[0].state, thawed[0].version) == (OPEN, frozen[0].version + 1)
    assert bank.wallet.call("Transfer", **payment(payer, payee)).to_available == "1.00"


def test_closing(bank: Bank, route: Route) -> None:
    """An empty account can be closed, for ever; one with money or a hold cannot."""
    payer, payee = bank.pair(route, "10.00")
    for only_check in (True, False):
        refused = bank.wallet.refused("CloseAccount", account_id=payer, validate_only=only_check)
        assert refused == precondition("ACCOUNT_NOT_EMPTY")
    bank.wallet.call("Transfer", **payment(payer, payee, "10.00"))
    closed = [bank.wallet.call("CloseAccount", account_id=payer) for _ in range(2)]
    assert closed[0] == closed[1] == bank.wallet.call("GetAccount", account_id=payer)
    assert closed[0].state == CLOSED
    for change in ("FreezeAccount", "UnfreezeAccount"):
        assert bank.wallet.refused(change, account_id=payer) == precondition("ACCOUNT_CLOSED")
    assert bank.wallet.refused("Transfer", **payment(payee, payer)).reason == "ACCOUNT_CLOSED"
    assert bank.available(payee) == "10.00"


def test_a_hold_keeps_an_account_open(bank: Bank, route: Route) -> None:
    """What is held is not available, and yet not gone."""
    (account,), held = hold(bank, route, "100.00")
    bank.wallet.call("Hold", **held)
    assert bank.available(account) == "0.00"
    assert bank.wallet.refused("CloseAccount", account_id=account) == precondition("ACCOUNT_NOT_EMPTY")
    asked = {"hold_transaction_id": held["transaction_id"], "account_id": account}
    bank.wallet.call("Void", transaction_id=new_id(), **asked)
    bank.wallet.call("Withdraw", **money("100.00", account_id=account))
    assert bank.wallet.call("CloseAccount", account_id=account).state == CLOSED


@pytest.mark.parametrize("change", CHANGES)
def test_changes_only_checked(bank: Bank, change: str) -> None:
    """A check answers with the account as it stands, and changes nothing."""
    account_id = bank.open(bank.tags[2])
    before = bank.wallet.call("GetAccount", account_id=account_id)
    assert bank.wallet.call(change, account_id=account_id, validate_only=True) == before
    assert bank.wallet.call("GetAccount", account_id=account_id) == before


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_nobody(bank: Bank, change: str) -> None:
    """An account that was never opened has no state to change."""
    expected: Any = Refusal(grpc.StatusCode.NOT_FOUND, "ACCOUNT_NOT_FOUND", "account_id")
    for only_check in (True, False):
        name = bank.name(bank.tags[0])
        assert bank.wallet.refused(change, account_id=name, validate_only=only_check) == expected
