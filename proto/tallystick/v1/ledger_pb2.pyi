import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EntryKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENTRY_KIND_UNSPECIFIED: _ClassVar[EntryKind]
    ENTRY_KIND_TRANSFER: _ClassVar[EntryKind]
    ENTRY_KIND_DEPOSIT: _ClassVar[EntryKind]
    ENTRY_KIND_WITHDRAWAL: _ClassVar[EntryKind]
    ENTRY_KIND_PURCHASE: _ClassVar[EntryKind]
    ENTRY_KIND_REFUND: _ClassVar[EntryKind]
    ENTRY_KIND_CAPTURE: _ClassVar[EntryKind]
    ENTRY_KIND_JOURNAL: _ClassVar[EntryKind]
    ENTRY_KIND_HOLD: _ClassVar[EntryKind]
    ENTRY_KIND_VOID: _ClassVar[EntryKind]
    ENTRY_KIND_EXPIRY: _ClassVar[EntryKind]
    ENTRY_KIND_FREEZE: _ClassVar[EntryKind]
    ENTRY_KIND_UNFREEZE: _ClassVar[EntryKind]
    ENTRY_KIND_CLOSE: _ClassVar[EntryKind]
    ENTRY_KIND_OPEN: _ClassVar[EntryKind]

class EntryOrder(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENTRY_ORDER_UNSPECIFIED: _ClassVar[EntryOrder]
    ENTRY_ORDER_NEWEST_FIRST: _ClassVar[EntryOrder]
    ENTRY_ORDER_OLDEST_FIRST: _ClassVar[EntryOrder]
ENTRY_KIND_UNSPECIFIED: EntryKind
ENTRY_KIND_TRANSFER: EntryKind
ENTRY_KIND_DEPOSIT: EntryKind
ENTRY_KIND_WITHDRAWAL: EntryKind
ENTRY_KIND_PURCHASE: EntryKind
ENTRY_KIND_REFUND: EntryKind
ENTRY_KIND_CAPTURE: EntryKind
ENTRY_KIND_JOURNAL: EntryKind
ENTRY_KIND_HOLD: EntryKind
ENTRY_KIND_VOID: EntryKind
ENTRY_KIND_EXPIRY: EntryKind
ENTRY_KIND_FREEZE: EntryKind
ENTRY_KIND_UNFREEZE: EntryKind
ENTRY_KIND_CLOSE: EntryKind
ENTRY_KIND_OPEN: EntryKind
ENTRY_ORDER_UNSPECIFIED: EntryOrder
ENTRY_ORDER_NEWEST_FIRST: EntryOrder
ENTRY_ORDER_OLDEST_FIRST: EntryOrder

class Entry(_message.Message):
    __slots__ = ("account_id", "version", "at", "kind", "transaction_id", "counterparty", "currency", "delta", "held_delta", "balance", "reference", "external_id", "initiated_by", "related_transaction_id", "leg", "leg_count", "shard_id")
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTERPARTY_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    HELD_DELTA_FIELD_NUMBER: _ClassVar[int]
    BALANCE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_ID_FIELD_NUMBER: _ClassVar[int]
    INITIATED_BY_FIELD_NUMBER: _ClassVar[int]
    RELATED_TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    LEG_FIELD_NUMBER: _ClassVar[int]
    LEG_COUNT_FIELD_NUMBER: _ClassVar[int]
    SHARD_ID_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    version: int
    at: _timestamp_pb2.Timestamp
    kind: EntryKind
    transaction_id: str
    counterparty: str
    currency: str
    delta: str
    held_delta: str
    balance: str
    reference: str
    external_id: str
    initiated_by: str
    related_transaction_id: str
    leg: int
    leg_count: int
    shard_id: str
    def __init__(self, account_id: _Optional[str] = ..., version: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[_Union[EntryKind, str]] = ..., transaction_id: _Optional[str] = ..., counterparty: _Optional[str] = ..., currency: _Optional[str] = ..., delta: _Optional[str] = ..., held_delta: _Optional[str] = ..., balance: _Optional[str] = ..., reference: _Optional[str] = ..., external_id: _Optional[str] = ..., initiated_by: _Optional[str] = ..., related_transaction_id: _Optional[str] = ..., leg: _Optional[int] = ..., leg_count: _Optional[int] = ..., shard_id: _Optional[str] = ...) -> None: ...

class ListEntriesRequest(_message.Message):
    __slots__ = ("account_id", "from_time", "to_time", "kinds", "order", "page_size", "page_token", "wait_for")
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_TIME_FIELD_NUMBER: _ClassVar[int]
    TO_TIME_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    WAIT_FOR_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    from_time: _timestamp_pb2.Timestamp
    to_time: _timestamp_pb2.Timestamp
    kinds: _containers.RepeatedScalarFieldContainer[EntryKind]
    order: EntryOrder
    page_size: int
    page_token: str
    wait_for: _timestamp_pb2.Timestamp
    def __init__(self, account_id: _Optional[str] = ..., from_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., to_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kinds: _Optional[_Iterable[_Union[EntryKind, str]]] = ..., order: _Optional[_Union[EntryOrder, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., wait_for: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListEntriesResponse(_message.Message):
    __slots__ = ("entries", "next_page_token", "complete_until")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_UNTIL_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    next_page_token: str
    complete_until: _timestamp_pb2.Timestamp
    def __init__(self, entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., complete_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetLedgerTransferRequest(_message.Message):
    __slots__ = ("transaction_id", "from_account", "wait_for")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    WAIT_FOR_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    from_account: str
    wait_for: _timestamp_pb2.Timestamp
    def __init__(self, transaction_id: _Optional[str] = ..., from_account: _Optional[str] = ..., wait_for: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class LedgerTransfer(_message.Message):
    __slots__ = ("transaction_id", "entries", "complete_until")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_UNTIL_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    complete_until: _timestamp_pb2.Timestamp
    def __init__(self, transaction_id: _Optional[str] = ..., entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., complete_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetBalanceAtRequest(_message.Message):
    __slots__ = ("account_id", "time", "wait_for")
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    WAIT_FOR_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    time: _timestamp_pb2.Timestamp
    wait_for: _timestamp_pb2.Timestamp
    def __init__(self, account_id: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., wait_for: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class BalanceAt(_message.Message):
    __slots__ = ("account_id", "currency", "available", "held", "balance", "version", "changed_at", "complete_until")
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    BALANCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHANGED_AT_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_UNTIL_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    currency: str
    available: str
    held: str
    balance: str
    version: int
    changed_at: _timestamp_pb2.Timestamp
    complete_until: _timestamp_pb2.Timestamp
    def __init__(self, account_id: _Optional[str] = ..., currency: _Optional[str] = ..., available: _Optional[str] = ..., held: _Optional[str] = ..., balance: _Optional[str] = ..., version: _Optional[int] = ..., changed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., complete_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class WatchEntriesRequest(_message.Message):
    __slots__ = ("account_ids", "cursor", "from_beginning")
    ACCOUNT_IDS_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    FROM_BEGINNING_FIELD_NUMBER: _ClassVar[int]
    account_ids: _containers.RepeatedScalarFieldContainer[str]
    cursor: str
    from_beginning: bool
    def __init__(self, account_ids: _Optional[_Iterable[str]] = ..., cursor: _Optional[str] = ..., from_beginning: _Optional[bool] = ...) -> None: ...

class WatchEntriesResponse(_message.Message):
    __slots__ = ("entries", "cursor", "complete_until")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_UNTIL_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    cursor: str
    complete_until: _timestamp_pb2.Timestamp
    def __init__(self, entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., cursor: _Optional[str] = ..., complete_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ConsistencyCheckRequest(_message.Message):
    __slots__ = ("max_backlog",)
    MAX_BACKLOG_FIELD_NUMBER: _ClassVar[int]
    max_backlog: int
    def __init__(self, max_backlog: _Optional[int] = ...) -> None: ...

class ConsistencyCheckResponse(_message.Message):
    __slots__ = ("accounts_checked", "accounts_total", "result")
    ACCOUNTS_CHECKED_FIELD_NUMBER: _ClassVar[int]
    ACCOUNTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    accounts_checked: int
    accounts_total: int
    result: ConsistencyResult
    def __init__(self, accounts_checked: _Optional[int] = ..., accounts_total: _Optional[int] = ..., result: _Optional[_Union[ConsistencyResult, _Mapping]] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("rule", "shard_id", "account_id", "transaction_id", "message")
    RULE_FIELD_NUMBER: _ClassVar[int]
    SHARD_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    rule: str
    shard_id: str
    account_id: str
    transaction_id: str
    message: str
    def __init__(self, rule: _Optional[str] = ..., shard_id: _Optional[str] = ..., account_id: _Optional[str] = ..., transaction_id: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class ConsistencyResult(_message.Message):
    __slots__ = ("consistent", "findings", "findings_total", "entries_archived", "entries_waiting", "in_flight", "complete_until")
    CONSISTENT_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_ARCHIVED_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_WAITING_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_UNTIL_FIELD_NUMBER: _ClassVar[int]
    consistent: bool
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    findings_total: int
    entries_archived: int
    entries_waiting: int
    in_flight: int
    complete_until: _timestamp_pb2.Timestamp
    def __init__(self, consistent: _Optional[bool] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., findings_total: _Optional[int] = ..., entries_archived: _Optional[int] = ..., entries_waiting: _Optional[int] = ..., in_flight: _Optional[int] = ..., complete_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
