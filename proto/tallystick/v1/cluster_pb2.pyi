from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MemberKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMBER_KIND_UNSPECIFIED: _ClassVar[MemberKind]
    MEMBER_KIND_SHARD_NODE: _ClassVar[MemberKind]
    MEMBER_KIND_COORDINATOR: _ClassVar[MemberKind]
    MEMBER_KIND_ROUTER: _ClassVar[MemberKind]
    MEMBER_KIND_ARCHIVER: _ClassVar[MemberKind]

class InDoubtState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IN_DOUBT_STATE_UNSPECIFIED: _ClassVar[InDoubtState]
    IN_DOUBT_STATE_PREPARED: _ClassVar[InDoubtState]
    IN_DOUBT_STATE_UNSETTLED: _ClassVar[InDoubtState]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_BALANCED: _ClassVar[Verdict]
    VERDICT_BROKEN: _ClassVar[Verdict]
    VERDICT_BUSY: _ClassVar[Verdict]
MEMBER_KIND_UNSPECIFIED: MemberKind
MEMBER_KIND_SHARD_NODE: MemberKind
MEMBER_KIND_COORDINATOR: MemberKind
MEMBER_KIND_ROUTER: MemberKind
MEMBER_KIND_ARCHIVER: MemberKind
IN_DOUBT_STATE_UNSPECIFIED: InDoubtState
IN_DOUBT_STATE_PREPARED: InDoubtState
IN_DOUBT_STATE_UNSETTLED: InDoubtState
VERDICT_UNSPECIFIED: Verdict
VERDICT_BALANCED: Verdict
VERDICT_BROKEN: Verdict
VERDICT_BUSY: Verdict

class GetTopologyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SlotRange(_message.Message):
    __slots__ = ("first", "last")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class Shard(_message.Message):
    __slots__ = ("shard_id", "epoch", "primary", "slots", "slot_count")
    SHARD_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOT_COUNT_FIELD_NUMBER: _ClassVar[int]
    shard_id: str
    epoch: int
    primary: str
    slots: _containers.RepeatedCompositeFieldContainer[SlotRange]
    slot_count: int
    def __init__(self, shard_id: _Optional[str] = ..., epoch: _Optional[int] = ..., primary: _Optional[str] = ..., slots: _Optional[_Iterable[_Union[SlotRange, _Mapping]]] = ..., slot_count: _Optional[int] = ...) -> None: ...

class Topology(_message.Message):
    __slots__ = ("cluster_id", "version", "shards")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    version: int
    shards: _containers.RepeatedCompositeFieldContainer[Shard]
    def __init__(self, cluster_id: _Optional[str] = ..., version: _Optional[int] = ..., shards: _Optional[_Iterable[_Union[Shard, _Mapping]]] = ...) -> None: ...

class ListMembersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Member(_message.Message):
    __slots__ = ("name", "kind", "address", "pid", "problem")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: MemberKind
    address: str
    pid: int
    problem: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[MemberKind, str]] = ..., address: _Optional[str] = ..., pid: _Optional[int] = ..., problem: _Optional[str] = ...) -> None: ...

class ListMembersResponse(_message.Message):
    __slots__ = ("members",)
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[Member]
    def __init__(self, members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ...) -> None: ...

class ListBacklogsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Backlog(_message.Message):
    __slots__ = ("shard_id", "unknown", "entries_waiting", "entries_limit", "archived_batch")
    SHARD_ID_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_WAITING_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_LIMIT_FIELD_NUMBER: _ClassVar[int]
    ARCHIVED_BATCH_FIELD_NUMBER: _ClassVar[int]
    shard_id: str
    unknown: bool
    entries_waiting: int
    entries_limit: int
    archived_batch: int
    def __init__(self, shard_id: _Optional[str] = ..., unknown: _Optional[bool] = ..., entries_waiting: _Optional[int] = ..., entries_limit: _Optional[int] = ..., archived_batch: _Optional[int] = ...) -> None: ...

class ListBacklogsResponse(_message.Message):
    __slots__ = ("backlogs",)
    BACKLOGS_FIELD_NUMBER: _ClassVar[int]
    backlogs: _containers.RepeatedCompositeFieldContainer[Backlog]
    def __init__(self, backlogs: _Optional[_Iterable[_Union[Backlog, _Mapping]]] = ...) -> None: ...

class ListInDoubtRequest(_message.Message):
    __slots__ = ("minimum_age_ms", "limit")
    MINIMUM_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    minimum_age_ms: int
    limit: int
    def __init__(self, minimum_age_ms: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class InDoubtTransfer(_message.Message):
    __slots__ = ("transaction_id", "state", "shard_id", "from_account", "to_account", "amount", "currency", "age_ms")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SHARD_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    TO_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    state: InDoubtState
    shard_id: str
    from_account: str
    to_account: str
    amount: str
    currency: str
    age_ms: int
    def __init__(self, transaction_id: _Optional[str] = ..., state: _Optional[_Union[InDoubtState, str]] = ..., shard_id: _Optional[str] = ..., from_account: _Optional[str] = ..., to_account: _Optional[str] = ..., amount: _Optional[str] = ..., currency: _Optional[str] = ..., age_ms: _Optional[int] = ...) -> None: ...

class ListInDoubtResponse(_message.Message):
    __slots__ = ("transfers", "truncated")
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    transfers: _containers.RepeatedCompositeFieldContainer[InDoubtTransfer]
    truncated: bool
    def __init__(self, transfers: _Optional[_Iterable[_Union[InDoubtTransfer, _Mapping]]] = ..., truncated: _Optional[bool] = ...) -> None: ...

class VerifyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VerifyResponse(_message.Message):
    __slots__ = ("accounts_read", "accounts_total", "result")
    ACCOUNTS_READ_FIELD_NUMBER: _ClassVar[int]
    ACCOUNTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    accounts_read: int
    accounts_total: int
    result: VerifyResult
    def __init__(self, accounts_read: _Optional[int] = ..., accounts_total: _Optional[int] = ..., result: _Optional[_Union[VerifyResult, _Mapping]] = ...) -> None: ...

class VerifyResult(_message.Message):
    __slots__ = ("verdict", "currencies", "accounts", "prepared", "unsettled", "alarms")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    CURRENCIES_FIELD_NUMBER: _ClassVar[int]
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    UNSETTLED_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    currencies: _containers.RepeatedCompositeFieldContainer[CurrencySum]
    accounts: int
    prepared: int
    unsettled: int
    alarms: int
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., currencies: _Optional[_Iterable[_Union[CurrencySum, _Mapping]]] = ..., accounts: _Optional[int] = ..., prepared: _Optional[int] = ..., unsettled: _Optional[int] = ..., alarms: _Optional[int] = ...) -> None: ...

class CurrencySum(_message.Message):
    __slots__ = ("currency", "customers", "system", "in_flight", "total", "accounts")
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    CUSTOMERS_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    currency: str
    customers: str
    system: str
    in_flight: str
    total: str
    accounts: int
    def __init__(self, currency: _Optional[str] = ..., customers: _Optional[str] = ..., system: _Optional[str] = ..., in_flight: _Optional[str] = ..., total: _Optional[str] = ..., accounts: _Optional[int] = ...) -> None: ...
