"""Opening and reading accounts over gRPC, one by one and in batches."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from shard_node.contract import AccountState
from tests.router.bank import Bank
from tests.router.contract import Refusal

pytestmark = pytest.mark.cluster


def shown(account: Any) -> tuple[Any, ...]:
    """All fields of an account."""
    return (
        account.account_id,
        account.currency,
        account.available,
        account.held,
        account.version,
        account.state,
        account.minimum_balance,
    )


@pytest.mark.parametrize(
    ("currency", "asked", "zero", "floor"),
    [
        ("EUR", "0", "0.00", "0.00"),
        ("EUR", "-100", "0.00", "-100.00"),
        ("EUR", "-90071992547409.90", "0.00", "-90071992547409.90"),
        ("JPY", "-1", "0", "-1"),
        ("BHD", "-0.001", "0.000", "-0.001"),
    ],
)
def test_open_account(bank: Bank, currency: str, asked: str, zero: str, floor: str) -> None:
    """A new account is open and empty, at version 0, and can be read again as it was answered."""
    account_id = bank.name(bank.tags[0])
    opened = bank.wallet.call("OpenAccount", account_id=account_id, currency=currency, minimum_balance=asked)
    assert shown(opened) == (account_id, currency, zero, zero, 0, 1, floor)
    assert shown(bank.wallet.call("GetAccount", account_id=account_id)) == shown(opened)


def test_opening_again(bank: Bank) -> None:
    """Opening with the same attributes, however spelled, answers with the account as it stands."""
    account_id = bank.open(bank.tags[0], "5.00", minimum_balance="-1.00")
    again = bank.wallet.call("OpenAccount", account_id=account_id, currency="EUR", minimum_balance="-1")
    assert shown(again) == (account_id, "EUR", "5.00", "0.00", 1, 1, "-1.00")


@pytest.mark.parametrize(("currency", "minimum_balance"), [("USD", "-1.00"), ("EUR", "-2.00"), ("EUR", "0")])
def test_account_exists(bank: Bank, currency: str, minimum_balance: str) -> None:
    """Opening with other attributes is refused each time, and changes nothing."""
    account_id = bank.open(bank.tags[0], "5.00", minimum_balance="-1.00")
    before = shown(bank.wallet.call("GetAccount", account_id=account_id))
    asked = {"account_id": account_id, "currency": currency, "minimum_balance": minimum_balance}
    expected = Refusal(grpc.StatusCode.ALREADY_EXISTS, "ACCOUNT_EXISTS", "account_id")
    for _ in range(2):
        assert bank.wallet.refused("OpenAccount", **asked) == expected
    (item,) = bank.wallet.call("BatchOpenAccounts", accounts=[asked]).results
    assert (bank.outcome(item.refusal), item.refusal.field) == ("ACCOUNT_EXISTS", "account_id")
    assert shown(bank.wallet.call("GetAccount", account_id=account_id)) == before


def test_account_not_found(bank: Bank) -> None:
    """An account that was never opened is not found."""
    expected = Refusal(grpc.StatusCode.NOT_FOUND, "ACCOUNT_NOT_FOUND", "account_id")
    for tag in bank.tags:
        assert bank.wallet.refused("GetAccount", account_id=bank.name(tag)) == expected


@pytest.mark.parametrize(
    ("state", "name", "available"),
    [(AccountState.FROZEN, "FROZEN", "5.00"), (AccountState.CLOSED, "CLOSED", "0.00")],
)
def test_states_are_shown(bank: Bank, state: AccountState, name: str, available: str) -> None:
    """A frozen or closed account can be read, and says so."""
    account_id = bank.open(bank.tags[1], "5.00")
    bank.set_state(account_id, state)
    account = bank.wallet.call("GetAccount", account_id=account_id)
    assert account.state == bank.contract.number("AccountState", f"ACCOUNT_STATE_{name}")
    assert account.available == available


def test_batch_open_answers_in_order(bank: Bank) -> None:
    """Accounts on all shards are opened in one batch; a bad item fails alone."""
    names = [bank.name(tag) for tag in bank.tags * 3]
    asked: list[dict[str, str]] = [{"account_id": name, "currency": "EUR"} for name in names]
    asked[2] = {"account_id": "no such id", "currency": "EUR"}
    asked[4] = {"account_id": names[4], "currency": "XAU"}
    asked[7] = {"account_id": names[7], "currency": "EUR", "minimum_balance": "1.00"}
    results = bank.wallet.call("BatchOpenAccounts", accounts=asked).results
    refused = {n: result.refusal for n, result in enumerate(results) if result.HasField("refusal")}
    assert {n: refusal.field for n, refusal in refused.items()} == {
        2: "account_id",
        4: "currency",
        7: "minimum_balance",
    }
    assert {bank.outcome(refusal) for refusal in refused.values()} == {"INVALID_ARGUMENT"}
    opened = [n for n in range(9) if n not in refused]
    assert [results[n].account.account_id for n in opened] == [names[n] for n in opened]
    looks = bank.look(*names)
    assert [name for name in names if looks[name] is None] == [names[n] for n in refused]


def test_one_account_twice_in_a_batch(bank: Bank) -> None:
    """The same account twice in a batch is opened once; with other attributes the second is refused."""
    name = bank.name(bank.tags[0])
    same = {"account_id": name, "currency": "EUR"}
    results = bank.wallet.call(
        "BatchOpenAccounts", accounts=[same, same, {**same, "currency": "USD"}]
    ).results
    assert [result.account.currency for result in results[:2]] == ["EUR", "EUR"]
    assert bank.outcome(results[2].refusal) == "ACCOUNT_EXISTS"


def test_batch_get_answers_in_order(bank: Bank) -> None:
    """Accounts of all shards are read in one batch, missing and malformed ones among them."""
    names = [bank.open(tag, f"{n}.00") for n, tag in enumerate(bank.tags * 2, 1)]
    missing = bank.name(bank.tags[0])
    results = bank.wallet.call(
        "BatchGetAccounts", account_ids=[*names, missing, "@world:EUR", names[0], ""]
    ).results
    assert [result.account.account_id for result in results[:6]] == names
    assert [result.account.available for result in results[:6]] == [f"{n}.00" for n in range(1, 7)]
    assert bank.outcome(results[6].refusal) == "ACCOUNT_NOT_FOUND"
    assert results[8].account.account_id == names[0]
    for bad in (results[7], results[9]):
        assert (bank.outcome(bad.refusal), bad.refusal.field) == ("INVALID_ARGUMENT", "account_id")


def test_empty_batches(bank: Bank) -> None:
    """An empty batch has an empty answer."""
    assert len(bank.wallet.call("BatchOpenAccounts").results) == 0
    assert len(bank.wallet.call("BatchGetAccounts").results) == 0
    assert len(bank.wallet.call("BatchTransfer").results) == 0
