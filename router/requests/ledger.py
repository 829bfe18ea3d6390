"""What a request to the ledger must be, and what it asks for. No I/O. Raises BadField."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from router.requests.fields import BadField, FieldReader, shown
from shard_node.contract import Kind
from shard_node.ledger.questions import DEFAULT_PAGE, MAX_PAGE, BadTokenError, Cursor, HistoryQuery
from tallystick.v1 import ledger_pb2

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

# Accounts that one watcher may name: each look at the ledger sends them along.
MAX_WATCHED_ACCOUNTS: Final = 1000
# More than wait while all is well, unless very much happens.
DEFAULT_MAX_BACKLOG: Final = 10_000

# The system's own are longer than a customer's: they end in the name of their shard.
_MAX_ACCOUNT_CHARS: Final = 160
_ACCOUNT_ID = re.compile(rf"[A-Za-z0-9._:@{{}}\-]{{1,{_MAX_ACCOUNT_CHARS}}}")

_KINDS = frozenset(int(kind) for kind in Kind)

# The years 1 to 9999, as google.protobuf.Timestamp allows.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_NANOS_A_MS = 1_000_000

_NEWEST_FIRST = {
    ledger_pb2.ENTRY_ORDER_UNSPECIFIED: True,
    ledger_pb2.ENTRY_ORDER_NEWEST_FIRST: True,
    ledger_pb2.ENTRY_ORDER_OLDEST_FIRST: False,
}


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page to read: of which entries, how many at the most, after which token."""

    query: HistoryQuery
    page_size: int
    token: str


Waiting = ledger_pb2.ListEntriesRequest | ledger_pb2.GetLedgerTransferRequest | ledger_pb2.GetBalanceAtRequest


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What to watch: the accounts, all when empty, after a cursor; from now on when it is None."""

    accounts: tuple[str, ...]
    cursor: Cursor | None


def account_id(text: str, field: str = "account_id") -> str:
    """An account's id; the system's own are shown too, with their shard."""
    if not _ACCOUNT_ID.fullmatch(text):
        raise BadField(
            field,
            f"must be 1-{_MAX_ACCOUNT_CHARS} characters of letters, digits and . _ : @ {{ }} -, "
            f"is {shown(text)}",
        )
    return text


def page_request(request: ledger_pb2.ListEntriesRequest) -> PageRequest:
    """A page of an account's entries."""
    account = account_id(request.account_id)
    from_ms = to_ms = None
    # Entries have whole milliseconds: what is not before a time is not before the next of them.
    if request.HasField("from_time"):
        from_ms = -(-_nanos(request.from_time, "from_time") // _NANOS_A_MS)
    if request.HasField("to_time"):
        to_ms = -(-_nanos(request.to_time, "to_time") // _NANOS_A_MS)
    if from_ms is not None and to_ms is not None and to_ms < from_ms:
        raise BadField("to_time", "is before from_time")
    for kind in request.kinds:
        if int(kind) not in _KINDS:
            raise BadField("kinds", f"{kind} is no kind of entry: see EntryKind")
    if request.order not in _NEWEST_FIRST:
        raise BadField("order", f"{request.order} is no order: see EntryOrder")
    page_size = request.page_size if request.HasField("page_size") else DEFAULT_PAGE
    if not 1 <= page_size <= MAX_PAGE:
        raise BadField(
            "page_size", f"must be 1 to {MAX_PAGE}, or left out for {DEFAULT_PAGE}, is {page_size}"
        )
    query = HistoryQuery(
        account, from_ms, to_ms, frozenset(request.kinds), newest_first=_NEWEST_FIRST[request.order]
    )
    if request.page_token:
        try:
            query.version_of(request.page_token)
        except BadTokenError as error:
            raise BadField("page_token", str(error)) from None
    return PageRequest(query, page_size, request.page_token)


def transaction_request(
    request: ledger_pb2.GetLedgerTransferRequest, reader: FieldReader
) -> tuple[bytes, str]:
    """The id's 16 bytes, and the payer; empty for every one."""
    transaction_id = reader.transaction_id(request.transaction_id)
    has_payer = request.HasField("from_account")
    payer = account_id(request.from_account, "from_account") if has_payer else ""
    return transaction_id, payer


def balance_request(request: ledger_pb2.GetBalanceAtRequest) -> tuple[str, int | None]:
    """The account, and the time in ms since 1970; None for now."""
    account = account_id(request.account_id)
    if not request.HasField("time"):
        return account, None
    return account, _nanos(request.time, "time") // _NANOS_A_MS


def wait_for(request: Waiting) -> int | None:
    """Up to which moment the archive must be complete, in ms since 1970; None when nothing waits."""
    if not request.HasField("wait_for"):
        return None
    return _nanos(request.wait_for, "wait_for") // _NANOS_A_MS


def max_backlog(request: ledger_pb2.ConsistencyCheckRequest) -> int:
    """How many entries may wait for the ledger to be called consistent."""
    if request.max_backlog < 0:
        raise BadField("max_backlog", f"must be 0 or more, is {request.max_backlog}")
    return request.max_backlog or DEFAULT_MAX_BACKLOG


def watch_request(request: ledger_pb2.WatchEntriesRequest) -> WatchRequest:
    """What to watch."""
    if len(request.account_ids) > MAX_WATCHED_ACCOUNTS:
        raise BadField(
            "account_ids",
            f"at most {MAX_WATCHED_ACCOUNTS} may be named, these are {len(request.account_ids)}",
        )
    accounts = tuple(account_id(account, "account_ids") for account in request.account_ids)
    if request.HasField("cursor"):
        if request.from_beginning:
            raise BadField("from_beginning", "cannot be asked for together with a cursor")
        try:
            return WatchRequest(accounts, Cursor.parse(request.cursor))
        except BadTokenError as error:
            raise BadField("cursor", str(error)) from None
    return WatchRequest(accounts, Cursor({}) if request.from_beginning else None)


def _nanos(time: Timestamp, field: str) -> int:
    """Nanoseconds since 1970."""
    if not _FIRST_SECOND <= time.seconds <= _LAST_SECOND or not 0 <= time.nanos < 1_000_000_000:
        raise BadField(field, "is no time: seconds from the year 1 to 9999, nanos 0 to 999,999,999")
    return int(time.seconds) * 1_000_000_000 + int(time.nanos)
