"""The legs of a journal as people write them: `alice=-10.00` on the command line, or a CSV file.

Only the form is looked at here; whether the legs sum to zero, and all else, is the cluster's to say.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import DeployError

COLUMNS = ("account_id", "amount", "currency")
# More than a journal may have: a payments file typed by mistake is not read to its end.
MAX_LEGS = 1000
_LEG = re.compile(r"(?P<account>[^=\s]+)=(?P<amount>[+-]?[0-9.]+)(?::(?P<currency>[A-Za-z]+))?")


class LegsError(DeployError):
    """A leg that cannot be understood; the text says which, and how one looks."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One account's part: ``amount`` is decimal text, a leading "-" makes it a debit."""

    account_id: str
    amount: str
    currency: str


def parse_legs(words: Sequence[str], currency: str) -> list[Leg]:
    """Legs from ACCOUNT=AMOUNT or ACCOUNT=AMOUNT:CURRENCY; ``currency`` is that of those without one.

    Raises LegsError at the first that is neither.
    """
    legs = []
    for word in words:
        found = _LEG.fullmatch(word)
        if found is None:
            raise LegsError(f"{word!r} is no leg: write ACCOUNT=AMOUNT, as in alice=-10.00 or bob=10.00:EUR")
        legs.append(_leg(found["account"], found["amount"], found["currency"] or currency, word))
    return legs


def read_legs(file: Path, currency: str) -> list[Leg]:
    """Legs from a CSV file with the columns account_id, amount and, unless ``currency`` serves all, currency.

    Raises LegsError when a column is missing or a row is too short or too long.
    """
    with file.open(encoding="utf-8-sig", newline="") as source:
        rows = csv.DictReader(source)
        present = rows.fieldnames or ()
        needed = COLUMNS[:2] if currency else COLUMNS
        if missing := [name for name in needed if name not in present]:
            raise LegsError(f"{file} has no column {' and no '.join(missing)}")
        legs: list[Leg] = []
        for row in rows:
            where = f"{file}, line {rows.line_num}"
            if None in row or any(row[name] is None for name in needed):
                raise LegsError(f"{where} has another number of columns than the first line")
            if len(legs) == MAX_LEGS:
                raise LegsError(f"{file} has more than {MAX_LEGS} legs")
            legs.append(_leg(row["account_id"], row["amount"], row.get("currency") or currency, where))
        return legs


def _leg(account_id: str, amount: str, currency: str, where: str) -> Leg:
    if not currency:
        raise LegsError(f"{where}: in which currency? Give --currency, or write alice=-10.00:EUR")
    return Leg(account_id.strip(), amount.strip().removeprefix("+"), currency.strip())
