"""Makes the payments file of the demo: the same file for the same seed and time.

Small payments, as services send them: most go to shops, and a few shops get most of those; some rows are
mistakes, some payers have too little, some rows come twice. What the cluster must answer to each kind is
known beforehand, so the demo can check it.

    python -m deploy.demo.payments FILE.csv --rows 50000 --seed 1
"""

from __future__ import annotations

import csv
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from deploy.importing import COLUMNS
from deploy.terminal import out
from tallystick import Outcome

DEFAULT_ROWS = 50_000
_ROWS_PER_CUSTOMER = 16
_MIN_CUSTOMERS = 100
# A customer's ordinary payments stay below what `tallystick import --open-accounts` gives each of them, 1000,
# in whatever order they are carried out; and an amount that it is never enough for.
_MAX_SPENT = Decimal(950)
_TOO_MUCH = "1000000"
_SHOPS = 20
_TO_A_SHOP_PERCENT = 70
# Rows before the first special one: those go wrong with accounts that are there.
_ORDINARY_START = 500
# A repetition follows its original at this distance: some within a batch, most in a later one.
_REPEAT_WITHIN_ROWS = 3_000
_ROW_MS = 2


class Kind(StrEnum):
    """What a row is meant to show."""

    ORDINARY = "ordinary"
    REPEATED = "an earlier row again"
    REUSED_ID = "an earlier id, another amount"
    NO_FUNDS = "more than the payer has"
    WRONG_CURRENCY = "not the accounts' currency"
    MALFORMED = "malformed"


EXPECTED = {
    Kind.ORDINARY: Outcome.COMMITTED,
    # Asked twice, done once.
    Kind.REPEATED: Outcome.COMMITTED,
    Kind.REUSED_ID: Outcome.TRANSACTION_ID_REUSED,
    Kind.NO_FUNDS: Outcome.INSUFFICIENT_FUNDS,
    Kind.WRONG_CURRENCY: Outcome.CURRENCY_MISMATCH,
    Kind.MALFORMED: Outcome.INVALID_ARGUMENT,
}
# So many of 1000 rows are of that kind; the rest are ordinary.
_PER_THOUSAND = {
    Kind.REPEATED: 10,
    Kind.REUSED_ID: 2,
    Kind.NO_FUNDS: 15,
    Kind.WRONG_CURRENCY: 3,
    Kind.MALFORMED: 8,
}


class Payment(NamedTuple):
    """One row, and what it is meant to show."""

    kind: Kind
    transaction_id: str
    from_account: str
    to_account: str
    amount: str
    currency: str
    reference: str

    @property
    def texts(self) -> tuple[str, ...]:
        """The six columns."""
        return self[1:]


class PaymentsGenerator:
    """Payments from a seed, the last of them made at ``now_ms`` (ms since 1970).

    Ids are UUIDv7 (RFC 9562, 5.7), so that importing the file is exactly-once for ever. They carry times
    before ``now_ms``, for a cluster refuses ids from the future.
    """

    def __init__(self, seed: int, now_ms: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a reproducible file, no secrets
        self._now_ms = now_ms
        self._first_ms = now_ms
        self._customers = _MIN_CUSTOMERS
        self._spent: dict[int, Decimal] = {}
        # Ordinary payments that no later row has repeated, the newest last.
        self._ordinary: list[Payment] = []

    def payments(self, rows: int) -> Iterator[Payment]:
        """That many payments."""
        self._customers = max(_MIN_CUSTOMERS, rows // _ROWS_PER_CUSTOMER)
        self._first_ms = self._now_ms - rows * _ROW_MS
        kinds = [*_PER_THOUSAND, Kind.ORDINARY]
        weights = [*_PER_THOUSAND.values(), 1000 - sum(_PER_THOUSAND.values())]
        for number in range(rows):
            kind = self._random.choices(kinds, weights)[0] if number >= _ORDINARY_START else Kind.ORDINARY
            if kind is Kind.ORDINARY:
                payment = self._ordinary_payment(number)
                self._ordinary.append(payment)
                yield payment
            else:
                yield self._special(kind, number)

    def _ordinary_payment(self, number: int) -> Payment:
        customer, currency, amount = self._purchase()
        if self._random.randrange(100) < _TO_A_SHOP_PERCENT:
            # The k-th shop gets 1/k of what the first one gets (Zipf's law).
            shops = [shop for shop in range(_SHOPS) if _currency(shop) == currency]
            shop = self._random.choices(shops, [1 / (rank + 1) for rank in range(len(shops))])[0]
            payee, reference = f"shop-{shop:02}", f"order {number}"
        else:
            payee, reference = self._friend(customer), f"thanks for {number}"
        return Payment(
            Kind.ORDINARY,
            self._transaction_id(number),
            _customer_id(customer),
            payee,
            amount,
            currency,
            reference,
        )

    def _purchase(self) -> tuple[int, str, str]:
        """A customer who can afford it, the currency, the amount."""
        while True:
            customer = self._random.randrange(self._customers)
            currency = _currency(customer)
            amount = self._amount(currency)
            spent = self._spent.get(customer, Decimal(0)) + Decimal(amount)
            if spent <= _MAX_SPENT:
                self._spent[customer] = spent
                return customer, currency, amount

    def _special(self, kind: Kind, number: int) -> Payment:
        if kind is Kind.REPEATED:
            return self._earlier()._replace(kind=kind)
        if kind is Kind.REUSED_ID:
            earlier = self._earlier()
            return earlier._replace(kind=kind, amount=f"{int(earlier.amount.partition('.')[0]) + 1}")
        # Between accounts that are there, and under an id of its own.
        p = self._random.choice(self._ordinary)
        p = p._replace(kind=kind, transaction_id=self._transaction_id(number))
        if kind is Kind.NO_FUNDS:
            return p._replace(amount=_TOO_MUCH)
        if kind is Kind.WRONG_CURRENCY:
            return p._replace(currency="USD" if p.currency == "EUR" else "EUR", amount="5")
        return self._malformed(p)

    def _malformed(self, p: Payment) -> Payment:
        return self._random.choice(
            [
                p._replace(amount="-5.00"),
                p._replace(amount="1e3"),
                p._replace(amount="12.345"),
                p._replace(amount="0"),
                p._replace(currency="EURO"),
                p._replace(to_account=p.from_account),
                p._replace(to_account="a shop with spaces"),
                p._replace(transaction_id="payment-17"),
                p._replace(reference="x" * 257),
            ]
        )

    def _earlier(self) -> Payment:
        """An earlier ordinary payment. Each is taken once, so that one id holds one surprise at most."""
        reach = min(_REPEAT_WITHIN_ROWS, len(self._ordinary))
        return self._ordinary.pop(-self._random.randint(1, reach))

    def _friend(self, customer: int) -> str:
        while True:
            other = self._random.randrange(self._customers)
            if other != customer and _currency(other) == _currency(customer):
                return _customer_id(other)

    def _amount(self, currency: str) -> str:
        # Small amounts are far more frequent than large ones.
        cents = max(100, min(20_000, round(self._random.lognormvariate(7.2, 0.9))))
        return str(cents // 100) if currency == "JPY" else f"{cents // 100}.{cents % 100:02}"

    def _transaction_id(self, number: int) -> str:
        time_ms = self._first_ms + number * _ROW_MS
        random_bits = self._random.getrandbits(74)
        high = (time_ms << 16) | (7 << 12) | (random_bits >> 62)
        low = (0b10 << 62) | (random_bits & ((1 << 62) - 1))
        return str(uuid.UUID(int=(high << 64) | low))


def write_payments(path: Path, payments: Iterator[Payment]) -> Counter[Kind]:
    """Writes the file; how many rows of each kind it has."""
    kinds: Counter[Kind] = Counter()
    with path.open("w", encoding="utf-8", newline="") as sink:
        writer = csv.writer(sink)
        writer.writerow(COLUMNS)
        for payment in payments:
            writer.writerow(payment.texts)
            kinds[payment.kind] += 1
    return kinds


def expected_outcomes(kinds: Counter[Kind]) -> Counter[Outcome]:
    """How many rows must have which outcome."""
    outcomes: Counter[Outcome] = Counter()
    for kind, count in kinds.items():
        outcomes[EXPECTED[kind]] += count
    return outcomes


def _customer_id(number: int) -> str:
    return f"customer-{number:05}"


def _currency(number: int) -> str:
    """What a customer or shop counts in: one of twenty in yen, two in dollars, the others in euros."""
    return {19: "JPY", 4: "USD", 14: "USD"}.get(number % 20, "EUR")


def main(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv")],
    *,
    rows: int = DEFAULT_ROWS,
    seed: int = 1,
) -> None:
    """Write a payments file for `tallystick import FILE.csv --open-accounts`."""
    now_ms = time.time_ns() // 1_000_000
    for kind, count in write_payments(file, PaymentsGenerator(seed, now_ms).payments(rows)).items():
        out.print(f"{count:8} {kind.value}")


if __name__ == "__main__":
    typer.run(main)
