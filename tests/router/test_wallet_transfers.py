"""Transfers, deposits and withdrawals over gRPC: they move money once, whatever is sent again."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.router.bank import Bank, Look, Route, new_id, payment
from tests.router.samples import uuid7, wall_ms

pytestmark = pytest.mark.cluster

OPEN = 1


def uuid7_now() -> str:
    """A UUIDv7 that was never used."""
    return uuid7(wall_ms(), time.time_ns())


@pytest.mark.parametrize("make_id", [new_id, uuid7_now, lambda: uuid7_now().upper()])
def test_transfer(bank: Bank, route: Route, make_id: Callable[[], str]) -> None:
    """Money moves from payer to payee; the answer has both balances and the id as it was sent."""
    payer, payee = bank.pair(route)
    transaction_id = make_id()
    response = bank.wallet.call("Transfer", **payment(payer, payee, "12.5", transaction_id=transaction_id))
    assert response.transaction_id == transaction_id
    assert bank.outcome(response) == "COMMITTED"
    assert (response.from_available, response.to_available) == ("87.50", "12.50")
    assert not response.HasField("refusal")
    assert bank.look(payer, payee) == {
        payer: Look("87.50", "0.00", 2, OPEN),
        payee: Look("12.50", "0.00", 1, OPEN),
    }


@pytest.mark.parametrize(
    ("currency", "funds", "amount", "left"),
    [
        ("JPY", "100", "7", "93"),
        ("BHD", "100.000", "0.001", "99.999"),
        ("CLF", "100", "0.0001", "99.9999"),
        ("USD", "100", "100.00", "0.00"),
    ],
)
def test_every_currency_has_its_decimals(
    bank: Bank, route: Route, currency: str, funds: str, amount: str, left: str
) -> None:
    """Amounts are exact in the currency's own minor units, to the last one."""
    payer, payee = bank.pair(route, funds, currency)
    response = bank.wallet.call("Transfer", **payment(payer, payee, amount, currency))
    assert response.from_available == left
    assert response.to_available == amount


def test_repeated_transfer(bank: Bank, route: Route) -> None:
    """The same id again, alone or in a batch, is COMMITTED again and moves nothing."""
    payer, payee = bank.pair(route)
    asked = payment(payer, payee, "5.00")
    bank.wallet.call("Transfer", **asked)
    before = bank.look(payer, payee)
    again = bank.wallet.call("Transfer", **asked)
    assert bank.outcome(again) == "COMMITTED"
    # The balances of then are not known any more, those of now would mislead.
    assert not again.HasField("from_available")
    assert not again.HasField("to_available")
    batch = bank.wallet.call("BatchTransfer", transfers=[asked, asked], return_balances=True)
    assert [bank.outcome(result) for result in batch.results] == ["COMMITTED", "COMMITTED"]
    assert bank.look(payer, payee) == before


def test_repeated_in_another_spelling(bank: Bank, route: Route) -> None:
    """An id in capitals and an amount without its zeros are the same transfer."""
    payer, payee = bank.pair(route)
    asked = payment(payer, payee, "5.00")
    bank.wallet.call("Transfer", **asked)
    other = {**asked, "transaction_id": asked["transaction_id"].upper(), "amount": "5"}
    assert bank.outcome(bank.wallet.call("Transfer", **other)) == "COMMITTED"
    assert bank.available(payer) == "95.00"


def test_sent_many_times_at_once(bank: Bank, route: Route) -> None:
    """Twenty concurrent calls with one id move money once, and all hear of it."""
    payer, payee = bank.pair(route)
    asked = payment(payer, payee, "5.00")
    futures = [bank.wallet.future("Transfer", **asked) for _ in range(20)]
    assert {bank.outcome(future.result()) for future in futures} == {"COMMITTED"}
    assert bank.look(payer, payee) == {
        payer: Look("95.00", "0.00", 2, OPEN),
        payee: Look("5.00", "0.00", 1, OPEN),
    }


def test_many_at_once(bank: Bank) -> None:
    """Concurrent transfers in a ring over all shards each get their own answer, and keep the sum."""
    ring = [bank.open(tag, "10.00") for tag in bank.tags * 4]
    asked = [
        payment(payer, payee, "0.01")
        for payer, payee in zip(ring, ring[1:] + ring[:1], strict=True)
        for _ in range(20)
    ]
    futures = [bank.wallet.future("Transfer", **one) for one in asked]
    for one, future in zip(asked, futures, strict=True):
        response = future.result()
        assert response.transaction_id == one["transaction_id"]
        assert bank.outcome(response) == "COMMITTED"
    # A deposit, twenty payments and twenty receipts each.
    assert set(bank.look(*ring).values()) == {Look("10.00", "0.00", 41, OPEN)}


def test_a_credit_line_can_be_used(bank: Bank, route: Route) -> None:
    """A payer with a minimum_balance below zero may go down to it."""
    payer = bank.open(route.payer_tag, "10.00", minimum_balance="-5.00")
    payee = bank.open(route.payee_tag)
    response = bank.wallet.call("Transfer", **payment(payer, payee, "15.00"))
    assert response.from_available == "-5.00"
    assert response.to_available == "15.00"


def test_deposit_and_withdrawal(bank: Bank) -> None:
    """Money enters and leaves an account; the answer tells the account's side only."""
    account = bank.open(bank.tags[0])
    fields = {"account_id": account, "currency": "EUR", "reference": "cash"}
    put = bank.wallet.call("Deposit", transaction_id=new_id(), amount="20.00", **fields)
    assert (bank.outcome(put), put.to_available) == ("COMMITTED", "20.00")
    assert not put.HasField("from_available")
    took = bank.wallet.call("Withdraw", transaction_id=new_id(), amount="7.50", **fields)
    assert (bank.outcome(took), took.from_available) == ("COMMITTED", "12.50")
    assert not took.HasField("to_available")
    assert bank.look(account) == {account: Look("12.50", "0.00", 2, OPEN)}


@pytest.mark.parametrize("method", ["Deposit", "Withdraw"])
def test_repeated_deposit_or_withdrawal(bank: Bank, method: str) -> None:
    """A deposit or withdrawal sent again is COMMITTED again and moves nothing."""
    account = bank.open(bank.tags[1], "50.00")
    fields = {"transaction_id": new_id(), "account_id": account, "amount": "1.00", "currency": "EUR"}
    bank.wallet.call(method, **fields)
    before = bank.look(account)
    again = bank.wallet.call(method, **fields)
    assert bank.outcome(again) == "COMMITTED"
    assert not again.HasField("from_available")
    assert not again.HasField("to_available")
    assert bank.look(account) == before


def test_ids_are_the_payers_own(bank: Bank) -> None:
    """Two payers may use the same id by chance: the transfers have nothing to do with each other."""
    first, second, third = (bank.open(tag, "10.00") for tag in bank.tags)
    shared = new_id()
    for payer, payee in ((first, second), (second, third)):
        response = bank.wallet.call("Transfer", **payment(payer, payee, transaction_id=shared))
        assert bank.outcome(response) == "COMMITTED"
    looks = bank.look(first, second, third).values()
    assert [look.available for look in looks if look] == ["9.00", "10.00", "11.00"]


def get_transfer(bank: Bank, transaction_id: str, payer: str) -> Any:
    """What the payer's shard remembers."""
    return bank.wallet.call("GetTransfer", transaction_id=transaction_id, from_account=payer)


def test_get_transfer(bank: Bank, route: Route) -> None:
    """A transfer's outcome, amount and time can be asked for by its id and payer."""
    payer, payee = bank.pair(route)
    asked = payment(payer, payee, "5")
    started = time.time()
    bank.wallet.call("Transfer", **asked)
    found = get_transfer(bank, asked["transaction_id"], payer)
    assert (found.transaction_id, found.from_account) == (asked["transaction_id"], payer)
    assert (bank.outcome(found), found.amount, found.currency) == ("COMMITTED", "5.00", "EUR")
    decided_at = found.decided_at.seconds + found.decided_at.nanos / 1e9
    assert started - 0.01 <= decided_at <= time.time() + 0.01


@pytest.mark.parametrize("method", ["Deposit", "Withdraw"])
def test_get_transfer_of_a_deposit_or_withdrawal(bank: Bank, method: str) -> None:
    """Deposits and withdrawals are asked for by their account."""
    account = bank.open(bank.tags[2], "5.000", "BHD")
    asked = {"transaction_id": new_id(), "account_id": account, "amount": "0.1", "currency": "BHD"}
    bank.wallet.call(method, **asked)
    found = get_transfer(bank, asked["transaction_id"], account)
    assert (bank.outcome(found), found.amount, found.currency) == ("COMMITTED", "0.100", "BHD")


def test_get_transfer_of_a_refusal(bank: Bank, route: Route) -> None:
    """A refusal is remembered and found as well."""
    payer, payee = bank.pair(route, "1.00")
    asked = payment(payer, payee, "1.01")
    assert bank.wallet.refused("Transfer", **asked).reason == "INSUFFICIENT_FUNDS"
    found = get_transfer(bank, asked["transaction_id"], payer)
    assert (bank.outcome(found), found.amount) == ("INSUFFICIENT_FUNDS", "1.01")


def test_there_and_back(bank: Bank) -> None:
    """Money sent through every shard comes back whole, with one version for each change."""
    accounts = [bank.open(tag) for tag in bank.tags]
    bank.fund(accounts[0], "1.00")
    for payer, payee in itertools.pairwise([*accounts, *accounts, accounts[0]]):
        bank.wallet.call("Transfer", **payment(payer, payee))
    looks = list(bank.look(*accounts).values())
    assert [look.available for look in looks if look] == ["1.00", "0.00", "0.00"]
    assert [look.version for look in looks if look] == [5, 4, 4]
