"""Ledger entries for people and for programs: table rows, lines, JSON documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from deploy.moments import moment_text, times
from tallystick.ledger import Entry, EntryKind


def kind_name(kind: EntryKind) -> str:
    """The kind as it is typed and shown: "purchase"."""
    return kind.name.lower()


def counterparty_name(entry: Entry) -> str:
    """The other account, for people: money comes from outside and goes there through system accounts."""
    return "outside" if entry.counterparty.startswith("@world:") else entry.counterparty


def entry_document(entry: Entry) -> dict[str, Any]:
    """An entry in JSON: the contract's field names, amounts as decimal text."""
    return {
        "account_id": entry.account_id,
        "version": entry.version,
        "at": moment_text(entry.at),
        "kind": kind_name(entry.kind),
        "transaction_id": entry.transaction_id,
        "counterparty": entry.counterparty,
        "currency": entry.currency,
        "delta": f"{entry.delta:f}",
        "held_delta": f"{entry.held_delta:f}",
        "balance": f"{entry.balance:f}",
        "reference": entry.reference,
        "external_id": entry.external_id,
        "initiated_by": entry.initiated_by,
        "related_transaction_id": entry.related_transaction_id,
        "leg": entry.leg,
        "leg_count": entry.leg_count,
        "shard_id": entry.shard_id,
    }


def entry_columns(*columns: tuple[str, Literal["left", "right", "fold"]]) -> Table:
    """A table of entries: where it is narrow, columns that may "fold" get several lines, the others stay."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name, justify in columns:
        if justify == "fold":
            table.add_column(name, overflow="fold", min_width=len(name))
        else:
            table.add_column(name, justify=justify, no_wrap=True)
    return table


def entries_table(entries: Sequence[Entry]) -> Table:
    """Entries of one account, a row each."""
    table = entry_columns(
        ("time", "left"),
        ("no", "right"),
        ("kind", "left"),
        ("amount", "right"),
        ("held", "right"),
        ("balance", "right"),
        ("with", "fold"),
        ("reference", "fold"),
    )
    for time, entry in zip(times(entry.at for entry in entries), entries, strict=True):
        table.add_row(
            time,
            str(entry.version),
            kind_name(entry.kind),
            f"{entry.delta:+f}" if entry.delta else "",
            f"{entry.held_delta:+f}" if entry.held_delta else "",
            f"{entry.balance:f}",
            escape(counterparty_name(entry)),
            escape(entry.reference),
        )
    return table


def entry_line(entry: Entry) -> str:
    """An entry of any account in one line, for a stream of them."""
    changes = [f"{entry.delta:+f} {entry.currency}"] if entry.delta else []
    if entry.held_delta:
        changes.append(f"held {entry.held_delta:+f}")
    counterparty = f" with {entry.counterparty}" if entry.counterparty else ""
    text = (
        f"{moment_text(entry.at)} {entry.account_id} {kind_name(entry.kind)}{counterparty}: "
        f"{', '.join(changes) or 'nothing moved'}; balance {entry.balance:f}, version {entry.version}"
    )
    return escape(text)
