"""A statement adds up, or it is not shown."""

from __future__ import annotations

import csv
import io
from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from deploy.cli.statement import Line, Position, StatementError, statement_lines, unopened
from deploy.cli.statement_view import Statement, write_csv
from tallystick.ledger import Entry, EntryKind

_AT = datetime(2026, 3, 1, tzinfo=UTC)


def _entry(version: int, delta: str, held_delta: str, balance: str, **texts: str) -> Entry:
    values: dict[str, Any] = {field.name: "" for field in fields(Entry)}
    values |= {"at": _AT, "version": version, "kind": EntryKind.TRANSFER, **texts}
    amounts = {"delta": Decimal(delta), "held_delta": Decimal(held_delta), "balance": Decimal(balance)}
    return Entry(**values | amounts)


_OPENING = Position(Decimal("10.00"), Decimal("1.00"), 4)
_ENTRIES = [
    _entry(5, "5.00", "0.00", "15.00"),
    _entry(6, "0.00", "3.00", "15.00"),
    _entry(7, "-2.50", "-3.00", "12.50"),
]
_CLOSING = Position(Decimal("12.50"), Decimal("1.00"), 7)


def test_balances_run_from_opening_to_closing() -> None:
    """Held money counts in the balance, and is told beside it."""
    lines = list(statement_lines("alice", _OPENING, _ENTRIES, _CLOSING))
    assert [line.entry for line in lines] == _ENTRIES
    assert [line.after.balance for line in lines] == [Decimal(15), Decimal(15), Decimal("12.5")]
    assert [line.after.held for line in lines] == [Decimal(1), Decimal(4), Decimal(1)]
    assert lines[1].after.available == Decimal(11)


def test_a_time_in_which_nothing_happened_closes_as_it_opened() -> None:
    """Also before the account was there."""
    assert list(statement_lines("alice", _OPENING, [], _OPENING)) == []
    assert list(statement_lines("alice", unopened("alice"), [], unopened("alice"))) == []


def test_an_account_s_first_entry_is_its_opening() -> None:
    """Version 0 follows nothing at all."""
    opened = _entry(0, "0", "0", "0")
    first = Position(Decimal(0), Decimal(0), 0)
    assert len(list(statement_lines("alice", unopened("alice"), [opened], first))) == 1
    assert unopened("@world:EUR:shard-0") == first


@pytest.mark.parametrize("place", range(len(_ENTRIES)))
@pytest.mark.parametrize(
    "fault",
    [
        lambda e: [replace(e, delta=e.delta + Decimal("0.01"))],
        lambda e: [replace(e, balance=e.balance - Decimal("0.01"))],
        lambda e: [replace(e, held_delta=e.held_delta + Decimal("0.01"))],
        lambda e: [replace(e, version=e.version + 1)],
        lambda e: [],
        lambda e: [e, e],
    ],
    ids=["delta", "balance", "held", "version", "removed", "twice"],
)
def test_a_single_wrong_figure_is_found(place: int, fault: object) -> None:
    """In any entry: nothing that does not add up is passed off as a statement."""
    assert callable(fault)
    entries = [*_ENTRIES[:place], *fault(_ENTRIES[place]), *_ENTRIES[place + 1 :]]
    with pytest.raises(StatementError, match=r"alice.*tallystick audit"):
        list(statement_lines("alice", _OPENING, entries, _CLOSING))
    with pytest.raises(StatementError, match="version 3"):
        list(statement_lines("alice", replace(_OPENING, version=3), [], _OPENING))


def test_csv_has_the_data_as_it_is() -> None:
    """What is read back is what the ledger has, also where a spreadsheet or a terminal would act on it."""
    texts = {
        "reference": '=HYPERLINK(1)\x1b[31m, "\u202e"\r\n',
        "external_id": "+1",
        "initiated_by": ":rent:",
    }
    entry = _entry(1, "-2.50", "0", "-2.50", **texts)
    after = Position(Decimal("-2.50"), Decimal(0), 1)
    made = Statement("alice", "EUR", None, _AT, unopened("alice"), [Line(entry, after)], after, _AT)
    sink = io.StringIO()
    write_csv(made, sink)
    row = list(csv.DictReader(io.StringIO(sink.getvalue())))[1]
    assert {name: row[name] for name in texts} == texts
    assert (row["amount"], row["balance"]) == ("-2.50", "-2.50")
