"""The demo's payments: reproducible, and with a known outcome for every kind of row."""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from deploy.cli.import_payments import DEFAULT_FUND
from deploy.demo.payments import Kind, Payment, PaymentsGenerator, expected_outcomes, write_payments
from deploy.importing.payments_file import PaymentsFile
from tallystick import Outcome

_NOW_MS = 1_800_000_000_000
_ROWS = 6_000


@pytest.fixture(scope="module")
def payments() -> list[Payment]:
    """A small file's worth."""
    return list(PaymentsGenerator(7, _NOW_MS).payments(_ROWS))


def test_the_same_seed_gives_the_same_payments(payments: list[Payment]) -> None:
    """And another seed gives others."""
    assert list(PaymentsGenerator(7, _NOW_MS).payments(_ROWS)) == payments
    assert list(PaymentsGenerator(8, _NOW_MS).payments(_ROWS)) != payments


def test_every_kind_of_row_is_there(payments: list[Payment]) -> None:
    """Mostly ordinary ones."""
    kinds = Counter(payment.kind for payment in payments)
    assert set(kinds) == set(Kind)
    assert kinds[Kind.ORDINARY] > 0.9 * _ROWS
    assert expected_outcomes(kinds).total() == _ROWS
    assert expected_outcomes(kinds)[Outcome.COMMITTED] == kinds[Kind.ORDINARY] + kinds[Kind.REPEATED]


def test_ids_are_of_the_past_and_only_repetitions_share_one(payments: list[Payment]) -> None:
    """A cluster refuses ids from the future."""
    ids = [UUID(p.transaction_id) for p in payments if p.transaction_id != "payment-17"]
    assert {made.version for made in ids} == {7}
    assert all(_NOW_MS - 60_000 < made.int >> 80 < _NOW_MS for made in ids)
    twice = [made for made, count in Counter(ids).items() if count > 1]
    kinds = Counter(payment.kind for payment in payments)
    assert len(twice) == kinds[Kind.REPEATED] + kinds[Kind.REUSED_ID]


def test_what_repeats_an_id_says_the_same_or_something_else(payments: list[Payment]) -> None:
    """A repetition is the row itself; a reused id has another amount."""
    first = {p.transaction_id: p for p in reversed(payments) if p.kind is Kind.ORDINARY}
    for payment in payments:
        if payment.kind is Kind.REPEATED:
            assert payment.texts == first[payment.transaction_id].texts
        if payment.kind is Kind.REUSED_ID:
            assert payment.amount != first[payment.transaction_id].amount


def test_special_rows_use_accounts_that_ordinary_rows_opened(payments: list[Payment]) -> None:
    """So what is wrong with a row is what it is meant to show."""
    currency: dict[str, str] = {}
    for payment in payments:
        if payment.kind is Kind.ORDINARY:
            for account in (payment.from_account, payment.to_account):
                assert currency.setdefault(account, payment.currency) == payment.currency
        else:
            assert payment.from_account in currency


def test_no_ordinary_payment_lacks_funds(payments: list[Payment]) -> None:
    """Whatever the order: what the import gives a payer is enough for those, and never for the others."""
    spent: dict[str, Decimal] = defaultdict(Decimal)
    received: dict[str, Decimal] = defaultdict(Decimal)
    for payment in payments:
        if payment.kind is Kind.ORDINARY:
            spent[payment.from_account] += Decimal(payment.amount)
            received[payment.to_account] += Decimal(payment.amount)
    fund = Decimal(DEFAULT_FUND)
    assert max(spent.values()) <= fund
    for payment in payments:
        if payment.kind is Kind.NO_FUNDS:
            assert fund + received[payment.from_account] < Decimal(payment.amount)


def test_a_few_shops_get_most_of_the_money(payments: list[Payment]) -> None:
    """Hot accounts are what the cluster must cope with."""
    payees = Counter(payment.to_account for payment in payments)
    assert payees["shop-00"] > _ROWS * 0.1
    assert sum(payees[f"shop-{n:02}"] for n in range(20)) > _ROWS * 0.6


def test_the_file_has_a_row_for_every_payment(tmp_path: Path, payments: list[Payment]) -> None:
    """As an import reads it."""
    path = tmp_path / "p.csv"
    kinds = write_payments(path, iter(payments))
    assert kinds == Counter(payment.kind for payment in payments)
    with path.open("rb") as source:
        assert [row.instruction.texts for row in PaymentsFile("p.csv", source)] == [p.texts for p in payments]
