"""Ledger entries for people and for programs: table rows, lines, JSON documents."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.moments import local_text, times
from deploy.terminal import Table
from tallystick.ledger import Entry, EntryKind


def kind_name(kind: EntryKind) -> str:
    """The kind as it is typed and shown: "purchase"."""
    return kind.name.lower()


def counterparty_name(entry: Entry) -> str:
    """The other account, for people: money comes from outside and goes there through system accounts."""
    return "outside" if entry.counterparty.startswith("@world:") else entry.counterparty


def entries_table(entries: Sequence[Entry]) -> Table:
    """Entries of one account, a row each."""
    table = Table(
        "time",
        "no",
        "kind",
        "amount",
        "held",
        "balance",
        "with",
        "reference",
        right={"no", "amount", "held", "balance"},
        folds={"with", "reference"},
    )
    for time, entry in zip(times(entry.at for entry in entries), entries, strict=True):
        table.add_row(
            time,
            str(entry.version),
            kind_name(entry.kind),
            f"{entry.delta:+f}" if entry.delta else "",
            f"{entry.held_delta:+f}" if entry.held_delta else "",
            f"{entry.balance:f}",
            counterparty_name(entry),
            entry.reference,
        )
    return table


def entry_line(entry: Entry) -> str:
    """An entry of any account in one line, for a stream of them."""
    changes = [f"{entry.delta:+f} {entry.currency}"] if entry.delta else []
    if entry.held_delta:
        changes.append(f"held {entry.held_delta:+f}")
    counterparty = f" with {entry.counterparty}" if entry.counterparty else ""
    return (
        f"{local_text(entry.at)} {entry.account_id} {kind_name(entry.kind)}{counterparty}: "
        f"{', '.join(changes) or 'nothing moved'}; balance {entry.balance:f}, version {entry.version}"
    )
