"""What the ledger tells: plain immutable values, and how they come out of the contract's messages."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum
from typing import Any, Self

from google.protobuf.timestamp_pb2 import Timestamp

from tallystick import limits
from tallystick.errors import InvalidArgument
from tallystick.v1 import ledger_pb2


class EntryKind(IntEnum):
    """What made an entry; the numbers are the contract's. UNSPECIFIED is one newer than this client."""

    UNSPECIFIED = ledger_pb2.ENTRY_KIND_UNSPECIFIED
    TRANSFER = ledger_pb2.ENTRY_KIND_TRANSFER
    DEPOSIT = ledger_pb2.ENTRY_KIND_DEPOSIT
    WITHDRAWAL = ledger_pb2.ENTRY_KIND_WITHDRAWAL
    PURCHASE = ledger_pb2.ENTRY_KIND_PURCHASE
    REFUND = ledger_pb2.ENTRY_KIND_REFUND
    CAPTURE = ledger_pb2.ENTRY_KIND_CAPTURE
    JOURNAL = ledger_pb2.ENTRY_KIND_JOURNAL
    HOLD = ledger_pb2.ENTRY_KIND_HOLD
    VOID = ledger_pb2.ENTRY_KIND_VOID
    EXPIRY = ledger_pb2.ENTRY_KIND_EXPIRY
    FREEZE = ledger_pb2.ENTRY_KIND_FREEZE
    UNFREEZE = ledger_pb2.ENTRY_KIND_UNFREEZE
    CLOSE = ledger_pb2.ENTRY_KIND_CLOSE
    OPEN = ledger_pb2.ENTRY_KIND_OPEN


class EntryOrder(IntEnum):
    """In which order an account's entries come."""

    NEWEST_FIRST = ledger_pb2.ENTRY_ORDER_NEWEST_FIRST
    OLDEST_FIRST = ledger_pb2.ENTRY_ORDER_OLDEST_FIRST


_KINDS = {kind.value: kind for kind in EntryKind}


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of one account, as it was archived.

    Attributes:
        account_id: whose; a system account's ends in the name of its shard.
        version: rises by one with each entry of the account; 0 when it was opened.
        at: when, by the shard's clock (UTC).
        kind: what made it.
        transaction_id: empty for OPEN, FREEZE, UNFREEZE and CLOSE.
        counterparty: the other account; of more than two legs the deciding one has none.
        currency: an ISO 4217 code.
        delta: change of the balance, available and held together.
        held_delta: change of what is held.
        balance: available and held together, just after.
        reference: as it was given with the transaction.
        external_id: the order_id or bank_transaction_id.
        initiated_by: who had it done.
        related_transaction_id: a refund's purchase; a capture's or void's hold.
        leg: which leg of its transaction.
        leg_count: how many there are.
        shard_id: the shard that made it.
    """

    account_id: str
    version: int
    at: datetime
    kind: EntryKind
    transaction_id: str
    counterparty: str
    currency: str
    delta: Decimal
    held_delta: Decimal
    balance: Decimal
    reference: str
    external_id: str
    initiated_by: str
    related_transaction_id: str
    leg: int
    leg_count: int
    shard_id: str


@dataclass(frozen=True, slots=True)
class EntryPage:
    """Some of an account's entries, perhaps none; `next_token` is empty on the last page only.

    Of what happened up to `complete_until`, by the clock of the shards, nothing is missing; None: not known.
    """

    entries: tuple[Entry, ...]
    next_token: str
    complete_until: datetime | None = None


class TransactionEntries(tuple[Entry, ...]):  # noqa: SLOT001 - a tuple's class has none
    """The entries of a transaction, by leg.

    Attributes:
        complete_until: all of it that happened up to then is here; None: not known.
    """

    complete_until: datetime | None

    def __new__(cls, found: Iterable[Entry], complete_until: datetime | None) -> Self:
        """From the entries, and up to when they are complete."""
        made = super().__new__(cls, found)
        made.complete_until = complete_until
        return made


@dataclass(frozen=True, slots=True)
class BalanceAt:
    """An account at a moment.

    Attributes:
        account_id: which.
        currency: an ISO 4217 code.
        available: what could be spent, a credit line aside.
        held: what was reserved.
        balance: both together.
        version: of the last entry up to that moment.
        changed_at: the time of that entry (UTC).
        complete_until: nothing that happened up to then is missing; None: not known. Where it is before
            the moment that was asked for, the balance may have been another one.
    """

    account_id: str
    currency: str
    available: Decimal
    held: Decimal
    balance: Decimal
    version: int
    changed_at: datetime
    complete_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class News:
    """Entries as they were archived, perhaps none, and the cursor that goes on after them.

    `complete_until` is set when all that happened up to then has come, these included.
    """

    entries: tuple[Entry, ...]
    cursor: str
    complete_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule: which, in one word, where, and what was found and expected, in a sentence."""

    rule: str
    shard_id: str
    account_id: str
    transaction_id: str
    message: str


@dataclass(frozen=True, slots=True)
class ConsistencyReport:
    """What the quick check found.

    Attributes:
        consistent: whether no rule is broken and few entries wait. False without findings: not known.
        findings: the first thousand.
        findings_total: how many there are.
        accounts_checked: live accounts that were compared.
        entries_archived: how many the ledger has.
        entries_waiting: how many wait on the shards.
        in_flight: transactions committed and not yet finished everywhere.
        complete_until: nothing that happened up to then was missing in the archive; None: not known.
    """

    consistent: bool
    findings: tuple[Finding, ...]
    findings_total: int
    accounts_checked: int
    entries_archived: int
    entries_waiting: int
    in_flight: int
    complete_until: datetime | None = None


def entries(messages: Iterable[ledger_pb2.Entry]) -> tuple[Entry, ...]:
    """Entries as values."""
    return tuple(_entry(message) for message in messages)


def entry_page(message: ledger_pb2.ListEntriesResponse, _: object) -> EntryPage:
    """A page of entries as a value."""
    return EntryPage(entries(message.entries), message.next_page_token, complete_until(message))


def transaction_entries(message: ledger_pb2.LedgerTransfer, _: object) -> TransactionEntries:
    """The entries of a transaction as a value."""
    return TransactionEntries(entries(message.entries), complete_until(message))


def balance_at(message: ledger_pb2.BalanceAt, _: object) -> BalanceAt:
    """A balance as a value."""
    return BalanceAt(
        message.account_id,
        message.currency,
        Decimal(message.available),
        Decimal(message.held),
        Decimal(message.balance),
        message.version,
        message.changed_at.ToDatetime(tzinfo=UTC),
        complete_until(message),
    )


def consistency_report(message: ledger_pb2.ConsistencyCheckResponse) -> ConsistencyReport:
    """The last message of a check as a value."""
    result = message.result
    return ConsistencyReport(
        result.consistent,
        tuple(
            Finding(one.rule, one.shard_id, one.account_id, one.transaction_id, one.message)
            for one in result.findings
        ),
        result.findings_total,
        message.accounts_checked,
        result.entries_archived,
        result.entries_waiting,
        result.in_flight,
        complete_until(result),
    )


def complete_until(message: Any) -> datetime | None:
    """Up to when an answer is complete; None when it does not say."""
    return message.complete_until.ToDatetime(tzinfo=UTC) if message.HasField("complete_until") else None


def timestamp(time: datetime | None, field: str) -> Timestamp | None:
    """A moment as the contract has it; None where there is none.

    Raises:
        InvalidArgument: it is no datetime, or has no time zone: whose midnight would that be?
    """
    if time is None:
        return None
    if limits.instance(time, datetime, field).tzinfo is None:
        raise InvalidArgument(f"needs a time zone, such as datetime.UTC: {time!r}", field=field)
    made = Timestamp()
    try:
        made.FromDatetime(time.astimezone(UTC))
    except OverflowError:
        raise InvalidArgument(f"is out of the years 1 to 9999 in UTC: {time!r}", field=field) from None
    return made


def _entry(message: ledger_pb2.Entry) -> Entry:
    return Entry(
        message.account_id,
        message.version,
        message.at.ToDatetime(tzinfo=UTC),
        _KINDS.get(message.kind, EntryKind.UNSPECIFIED),
        message.transaction_id,
        message.counterparty,
        message.currency,
        Decimal(message.delta),
        Decimal(message.held_delta),
        Decimal(message.balance),
        message.reference,
        message.external_id,
        message.initiated_by,
        message.related_transaction_id,
        message.leg,
        message.leg_count,
        message.shard_id,
    )
