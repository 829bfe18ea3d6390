"""The legs of a journal as people write them: `alice=-10.00` on the command line, or a CSV file.

Only the form is looked at here; whether the legs sum to zero, and all else, is the cluster's to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from deploy.errors import DeployError
from deploy.importing import CsvTable
from tallystick import JournalLeg

COLUMNS = ("account_id", "amount", "currency")
# More than a journal may have: the cluster's answer to a payments file typed by mistake would say less.
MAX_LEGS = 1000
_LEG = re.compile(r"(?P<account>[^=\s]+)=(?P<amount>[+-]?[0-9.]+)(?::(?P<currency>[A-Za-z]+))?")


class LegsError(DeployError):
    """A leg that cannot be understood; the text says which, and how one looks."""


def parse_legs(words: Sequence[str], currency: str) -> list[JournalLeg]:
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


def read_legs(file: Path, currency: str) -> list[JournalLeg]:
    """Legs from a CSV file with the columns account_id, amount and, unless ``currency`` serves all, currency.

    Raises TableError when the file cannot be read without guessing, LegsError at the first wrong row.
    """
    with file.open("rb") as source:
        needed = COLUMNS[:2] if currency else COLUMNS
        table = CsvTable(str(file), source, needed, COLUMNS[len(needed) :])
        if table.rows_total > MAX_LEGS:
            raise LegsError(f"{file} has {table.rows_total} legs, more than {MAX_LEGS}")
        legs: list[JournalLeg] = []
        for row in table:
            where = f"{file}, line {row.line}"
            if row.defect:
                raise LegsError(f"{where}: {row.defect}")
            account_id, amount, own_currency = row.cells
            legs.append(_leg(account_id, amount, own_currency or currency, where))
        return legs


def _leg(account_id: str, amount: str, currency: str, where: str) -> JournalLeg:
    if not currency:
        raise LegsError(f"{where}: in which currency? Give --currency, or write alice=-10.00:EUR")
    amount = amount.strip()
    if amount[:1] == "+":
        # A sign that the contract does not know: an amount without one is a credit.
        amount = amount[1:]
        if amount[:1] in {"+", "-"}:
            raise LegsError(f"{where}: the amount {'+' + amount!r} has two signs")
    return JournalLeg(account_id.strip(), amount, currency.strip())
