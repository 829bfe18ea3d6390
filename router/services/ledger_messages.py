"""Entries, balances and findings of the ledger as callers see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, overload

from google.protobuf.timestamp_pb2 import Timestamp

from shard_node.ledger.proof import Finding, id_text
from shard_node.money import to_text
from tallystick.v1 import ledger_pb2

if TYPE_CHECKING:
    from shard_node.ledger.questions import BalanceAt, History
    from shard_node.ledger.store import Entry


def entry_message(entry: Entry, history: History) -> ledger_pb2.Entry:
    """One entry. Asks the ledger for the names and exponents that are new: blocking."""
    digits = history.exponent(entry.currency)
    return ledger_pb2.Entry(
        account_id=entry.account_id,
        version=entry.version,
        at=timestamp(entry.at_ms),
        # A newer archiver's kind goes out as its number.
        kind=cast("ledger_pb2.EntryKind", entry.kind),
        transaction_id=id_text(entry.transaction_id),
        counterparty=entry.counterparty,
        currency=entry.currency,
        delta=to_text(entry.delta, digits),
        held_delta=to_text(entry.held_delta, digits),
        balance=to_text(entry.balance, digits),
        reference=entry.reference,
        external_id=entry.external_id,
        initiated_by=entry.initiated_by,
        related_transaction_id=id_text(entry.related_id),
        leg=entry.leg,
        leg_count=entry.leg_count,
        shard_id=history.shard_id(entry.entry_id),
    )


def balance_message(found: BalanceAt, history: History) -> ledger_pb2.BalanceAt:
    """A balance at a moment. Asks the ledger for an exponent that is new: blocking."""
    digits = history.exponent(found.currency)
    return ledger_pb2.BalanceAt(
        account_id=found.account_id,
        currency=found.currency,
        available=to_text(found.balance_minor - found.held_minor, digits),
        held=to_text(found.held_minor, digits),
        balance=to_text(found.balance_minor, digits),
        version=found.version,
        changed_at=timestamp(found.changed_at_ms),
    )


def finding_message(finding: Finding) -> ledger_pb2.Finding:
    """A broken rule."""
    return ledger_pb2.Finding(
        rule=finding.rule.value,
        shard_id=finding.shard_id,
        account_id=finding.account_id,
        transaction_id=finding.transaction_id,
        message=finding.message,
    )


@overload
def timestamp(at_ms: int) -> Timestamp: ...
@overload
def timestamp(at_ms: int | None) -> Timestamp | None: ...
def timestamp(at_ms: int | None) -> Timestamp | None:
    """Milliseconds since 1970 as a timestamp; None where there are none."""
    if at_ms is None:
        return None
    made = Timestamp()
    made.FromMilliseconds(at_ms)
    return made
