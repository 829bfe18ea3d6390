"""Statements from a router's LedgerService, as a table, as CSV and in JSON.

An archive grows while it is read. So the closing balance is asked for first, and entries after it are left
out: what is archived later belongs to the next statement.
"""

from __future__ import annotations

import csv
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import takewhile
from typing import Any

from deploy.cli.answers import document
from deploy.cli.completeness import TICK, until_document, until_text
from deploy.cli.entries import counterparty_name, kind_name
from deploy.cli.statement import Line, Position, statement_lines, unopened
from deploy.moments import local_text, moment_text, parse_moment, times
from deploy.terminal import Sink, Table, out, strong
from tallystick import AccountNotFound, SyncLedgerClient
from tallystick.ledger import BalanceAt, EntryOrder

CSV_COLUMNS = (
    "time",
    "version",
    "kind",
    "transaction_id",
    "counterparty",
    "amount",
    "held_change",
    "balance",
    "held",
    "currency",
    "reference",
    "external_id",
    "initiated_by",
    "related_transaction_id",
)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that adds up. ``from_time`` is included, ``to_time`` is not."""

    account_id: str
    currency: str
    from_time: datetime | None
    to_time: datetime
    opening: Position
    lines: list[Line]
    closing: Position
    # Nothing that happened up to then is missing; None: not known.
    complete_until: datetime | None


def read_statement(
    client: SyncLedgerClient,
    account_id: str,
    from_time: datetime | None,
    to_time: datetime | None,
    **waiting: Any,
) -> Statement:
    """An account's statement from its first entry, or ``from_time``, until now, or ``to_time``.

    ``waiting`` may be ``wait_for`` and ``timeout_s`` of the client's calls: then it begins once all is
    archived up to that moment, or raises NotYetArchived. Raises AccountNotFound when the account has no entry
    before its end, StatementError when it does not add up.
    """
    now = parse_moment("now", datetime.now(UTC))
    last = client.balance_at(account_id, None if to_time is None else to_time - TICK, **waiting)
    # What has happened by now is in it, also where a shard's clock is ahead of this one.
    end = to_time or max(now, last.changed_at + TICK)
    # Nothing, with the currency's decimals.
    closing, opening = _position(last), unopened(account_id, last.balance - last.balance)
    if from_time is not None:
        # Not there yet: it began with nothing.
        with suppress(AccountNotFound):
            opening = _position(client.balance_at(account_id, from_time - TICK))
    entries = client.entries(account_id, from_time=from_time, to_time=end, order=EntryOrder.OLDEST_FIRST)
    known = takewhile(lambda entry: entry.version <= closing.version, entries)
    lines = list(statement_lines(account_id, opening, known, closing))
    return Statement(account_id, last.currency, from_time, end, opening, lines, closing, last.complete_until)


def show_statement(made: Statement) -> None:
    """Prints a statement as a table."""
    begin = "its opening" if made.from_time is None else local_text(made.from_time)
    span = f"from {begin} to {local_text(made.to_time)}"
    out.print(strong(made.account_id), f", {made.currency}, {span}")
    table = Table(
        "time",
        "kind",
        "amount",
        "balance",
        "held",
        "with",
        "reference",
        right={"amount", "balance", "held"},
        folds={"with", "reference"},
    )
    opening, closing = made.opening, made.closing
    table.add_row("", "opening", "", f"{opening.balance:f}", _unless_zero(opening.held), "", "")
    table.add_section()
    for time, line in zip(times(line.entry.at for line in made.lines), made.lines, strict=True):
        entry = line.entry
        table.add_row(
            time,
            kind_name(entry.kind),
            f"{entry.delta:+f}" if entry.delta else "",
            f"{line.after.balance:f}",
            _unless_zero(line.after.held),
            counterparty_name(entry),
            entry.reference,
        )
    table.add_section()
    change = f"{closing.balance - opening.balance:+f}"
    balance = strong(f"{closing.balance:f}")
    table.add_row("", "closing", change, balance, _unless_zero(closing.held), "", "")
    out.table(table)
    out.print(until_text(made.complete_until))


def write_csv(made: Statement, sink: Sink) -> None:
    """Writes a statement as CSV: the opening balance, the entries, the closing balance.

    The data is what the ledger has, to the byte. Whoever pays writes the reference, so that a cell may be
    what a spreadsheet takes for a formula: who opens such a file in one imports its columns as text.
    """
    writer = csv.DictWriter(sink, CSV_COLUMNS, restval="", extrasaction="ignore")
    writer.writeheader()
    opened = "" if made.from_time is None else moment_text(made.from_time)
    writer.writerow(_bound_cells("opening balance", opened, made.opening, made.currency))
    for line in made.lines:
        cells = document(line.entry) | document(line.after, "balance", "held")
        renamed = {"time": cells["at"], "amount": cells["delta"], "held_change": cells["held_delta"]}
        writer.writerow(cells | renamed)
    writer.writerow(_bound_cells("closing balance", moment_text(made.to_time), made.closing, made.currency))


def statement_document(made: Statement) -> dict[str, Any]:
    """A statement in JSON."""
    return {
        "account_id": made.account_id,
        "currency": made.currency,
        "from": None if made.from_time is None else moment_text(made.from_time),
        "to": moment_text(made.to_time),
        "opening": document(made.opening, "balance", "held"),
        "entries": (document(line.entry) | {"held": f"{line.after.held:f}"} for line in made.lines),
        "closing": document(made.closing, "balance", "held"),
        "complete_until": until_document(made.complete_until),
    }


def _position(found: BalanceAt) -> Position:
    return Position(found.balance, found.held, found.version)


def _bound_cells(kind: str, time: str, position: Position, currency: str) -> dict[str, str]:
    return document(position, "balance", "held") | {"time": time, "kind": kind, "currency": currency}


def _unless_zero(held: Decimal) -> str:
    return f"{held:f}" if held else ""
