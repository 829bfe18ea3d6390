"""Batches of transfers over gRPC: the answers' order, balances, and items that fail alone."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from shard_node.contract import AccountState
from tests.router.bank import Bank, Route, payment

pytestmark = pytest.mark.cluster

# Of two digits, of none and of three: what payers have of each.
CURRENCIES = {"EUR": "100.00", "JPY": "100", "BHD": "100.000"}


def test_order_and_balances(bank: Bank) -> None:
    """Answers come in the order asked, whatever crosses shards; with balances when they are asked for."""
    asked, expected = [], []
    for n in range(60):
        route = bank.routes["same shard" if n % 3 else "across shards"]
        payer, payee = bank.pair(route, "100.00")
        amount = f"{n + 1}.50"
        # Every fifth is malformed, every seventh lacks the money.
        if n % 5 == 4:
            amount, outcome = "0", "INVALID_ARGUMENT"
        elif n % 7 == 6:
            amount, outcome = "100.01", "INSUFFICIENT_FUNDS"
        else:
            outcome = "COMMITTED"
        asked.append(payment(payer, payee, amount))
        balances = (f"{98 - n}.50", amount) if outcome == "COMMITTED" else ("", "")
        expected.append((asked[-1]["transaction_id"], outcome, *balances))
    batch = bank.wallet.call("BatchTransfer", transfers=asked, return_balances=True)
    answers = [
        (result.transaction_id, bank.outcome(result), result.from_available, result.to_available)
        for result in batch.results
    ]
    assert answers == expected
    assert set(Counter(outcome for _, outcome, *_ in answers)) == {
        "COMMITTED",
        "INVALID_ARGUMENT",
        "INSUFFICIENT_FUNDS",
    }


def test_no_balances_unless_asked(bank: Bank, route: Route) -> None:
    """By default a result is the id and the outcome alone."""
    payer, payee = bank.pair(route)
    (result,) = bank.wallet.call("BatchTransfer", transfers=[payment(payer, payee)]).results
    assert [field.name for field, _ in result.ListFields()] == ["transaction_id", "outcome"]


def test_money_for_some(bank: Bank, route: Route) -> None:
    """When a payer cannot afford all of a batch, what it can is done and the rest is refused."""
    payer, payee = bank.pair(route, "10.00")
    asked = [payment(payer, payee, "3.00") for _ in range(5)]
    batch = bank.wallet.call("BatchTransfer", transfers=asked)
    assert Counter(bank.outcome(result) for result in batch.results) == {
        "COMMITTED": 3,
        "INSUFFICIENT_FUNDS": 2,
    }
    assert (bank.available(payer), bank.available(payee)) == ("1.00", "9.00")


def test_the_same_transfer_twice(bank: Bank, route: Route) -> None:
    """A new id that comes twice in one batch moves its money once; with other terms it is refused."""
    payer, payee = bank.pair(route)
    asked = payment(payer, payee, "5.00")
    other = {**asked, "amount": "6.00"}
    results = bank.wallet.call("BatchTransfer", transfers=[asked, other, asked], return_balances=True).results
    assert [bank.outcome(result) for result in results] == ["COMMITTED", "TRANSACTION_ID_REUSED", "COMMITTED"]
    assert [(result.from_available, result.to_available) for result in results] == [
        ("95.00", "5.00"),
        ("", ""),
        ("", ""),
    ]
    assert (bank.available(payer), bank.available(payee)) == ("95.00", "5.00")


def test_currencies_together(bank: Bank, route: Route) -> None:
    """Each item of a batch is in its own currency, and is refused when its account is not."""
    pairs = {code: bank.pair(route, funds, code) for code, funds in CURRENCIES.items()}
    codes = ["EUR", "JPY", "BHD", "EUR", "JPY"]
    asked = [payment(*pairs[code], "7", code) for code in codes]
    asked[3] = payment(*pairs["JPY"], "7", "EUR")
    asked[4] = payment(pairs["JPY"][0], pairs["EUR"][1], "7", "JPY")
    results = bank.wallet.call("BatchTransfer", transfers=asked, return_balances=True).results
    assert [(bank.outcome(result), result.from_available, result.to_available) for result in results] == [
        ("COMMITTED", "93.00", "7.00"),
        ("COMMITTED", "93", "7"),
        ("COMMITTED", "93.000", "7.000"),
        ("CURRENCY_MISMATCH", "", ""),
        ("CURRENCY_MISMATCH", "", ""),
    ]


def test_payees_that_refuse(bank: Bank, route: Route) -> None:
    """What one payee refuses is refused alone, and names the payee; the payer's money for it stays."""
    payer, payee = bank.pair(route, "10.00")
    frozen = bank.open(route.payee_tag)
    bank.set_state(frozen, AccountState.FROZEN)
    payees = [payee, frozen, payee, bank.name(route.payee_tag), payee]
    asked = [payment(payer, one, amount) for one, amount in zip(payees, "12345", strict=True)]
    results = bank.wallet.call("BatchTransfer", transfers=asked, return_balances=True).results
    assert [(bank.outcome(result), result.from_available, result.to_available) for result in results] == [
        ("COMMITTED", "9.00", "1.00"),
        ("ACCOUNT_FROZEN", "", ""),
        ("COMMITTED", "6.00", "4.00"),
        ("ACCOUNT_NOT_FOUND", "", ""),
        ("COMMITTED", "1.00", "9.00"),
    ]
    assert [result.refusal.field for result in results] == ["", "to_account", "", "to_account", ""]


def test_a_batch_sent_again(bank: Bank) -> None:
    """A whole batch sent again has the same outcomes, refusals included, and moves nothing."""
    random = Random(7)
    accounts = [bank.open(tag, "20.00") for tag in bank.tags * 3]
    asked = []
    for _ in range(200):
        payer, payee = random.sample(accounts, 2)
        asked.append(payment(payer, payee, f"{random.randint(1, 900) / 100:.2f}"))
    first = bank.wallet.call("BatchTransfer", transfers=asked)
    before = bank.look(*accounts)
    again = bank.wallet.call("BatchTransfer", transfers=asked, return_balances=True)
    outcomes = [bank.outcome(result) for result in first.results]
    assert [bank.outcome(result) for result in again.results] == outcomes
    assert set(outcomes) == {"COMMITTED", "INSUFFICIENT_FUNDS"}
    assert not any(result.HasField("from_available") for result in again.results)
    assert bank.look(*accounts) == before
    cents = [int(look.available.replace(".", "")) for look in before.values() if look]
    assert sum(cents) == 2000 * len(accounts)


def test_batches_at_once(bank: Bank) -> None:
    """Concurrent batches that share ids move each id's money once and agree on its outcome."""
    payer, payee = bank.pair(bank.routes["across shards"])
    asked = [payment(payer, payee, "1.00") for _ in range(40)]
    futures = [bank.wallet.future("BatchTransfer", transfers=asked[n : n + 20]) for n in (0, 10, 20, 15)]
    assert {bank.outcome(result) for future in futures for result in future.result().results} == {"COMMITTED"}
    assert (bank.available(payer), bank.available(payee)) == ("60.00", "40.00")
