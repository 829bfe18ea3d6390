from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CommitRequest(_message.Message):
    __slots__ = ("topology_version", "parts", "with_balances")
    TOPOLOGY_VERSION_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    WITH_BALANCES_FIELD_NUMBER: _ClassVar[int]
    topology_version: int
    parts: _containers.RepeatedCompositeFieldContainer[CommitPart]
    with_balances: bool
    def __init__(self, topology_version: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[CommitPart, _Mapping]]] = ..., with_balances: _Optional[bool] = ...) -> None: ...

class CommitPart(_message.Message):
    __slots__ = ("payer_shard", "payee_shard", "count", "oldest_ms", "newest_ms", "decisions", "terms", "payers", "payees", "amounts", "currencies", "bodies")
    PAYER_SHARD_FIELD_NUMBER: _ClassVar[int]
    PAYEE_SHARD_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    OLDEST_MS_FIELD_NUMBER: _ClassVar[int]
    NEWEST_MS_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    PAYERS_FIELD_NUMBER: _ClassVar[int]
    PAYEES_FIELD_NUMBER: _ClassVar[int]
    AMOUNTS_FIELD_NUMBER: _ClassVar[int]
    CURRENCIES_FIELD_NUMBER: _ClassVar[int]
    BODIES_FIELD_NUMBER: _ClassVar[int]
    payer_shard: int
    payee_shard: int
    count: int
    oldest_ms: int
    newest_ms: int
    decisions: bytes
    terms: bytes
    payers: bytes
    payees: bytes
    amounts: bytes
    currencies: bytes
    bodies: bytes
    def __init__(self, payer_shard: _Optional[int] = ..., payee_shard: _Optional[int] = ..., count: _Optional[int] = ..., oldest_ms: _Optional[int] = ..., newest_ms: _Optional[int] = ..., decisions: _Optional[bytes] = ..., terms: _Optional[bytes] = ..., payers: _Optional[bytes] = ..., payees: _Optional[bytes] = ..., amounts: _Optional[bytes] = ..., currencies: _Optional[bytes] = ..., bodies: _Optional[bytes] = ...) -> None: ...

class CommitResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[CommitResult]
    def __init__(self, results: _Optional[_Iterable[_Union[CommitResult, _Mapping]]] = ...) -> None: ...

class CommitResult(_message.Message):
    __slots__ = ("outcomes", "payer_balances", "payee_balances")
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    PAYER_BALANCES_FIELD_NUMBER: _ClassVar[int]
    PAYEE_BALANCES_FIELD_NUMBER: _ClassVar[int]
    outcomes: bytes
    payer_balances: bytes
    payee_balances: bytes
    def __init__(self, outcomes: _Optional[bytes] = ..., payer_balances: _Optional[bytes] = ..., payee_balances: _Optional[bytes] = ...) -> None: ...

class CommitJournalsRequest(_message.Message):
    __slots__ = ("topology_version", "transaction_ids", "bodies")
    TOPOLOGY_VERSION_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_IDS_FIELD_NUMBER: _ClassVar[int]
    BODIES_FIELD_NUMBER: _ClassVar[int]
    topology_version: int
    transaction_ids: _containers.RepeatedScalarFieldContainer[bytes]
    bodies: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, topology_version: _Optional[int] = ..., transaction_ids: _Optional[_Iterable[bytes]] = ..., bodies: _Optional[_Iterable[bytes]] = ...) -> None: ...

class CommitJournalsResponse(_message.Message):
    __slots__ = ("outcomes", "legs", "balances_minor")
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    LEGS_FIELD_NUMBER: _ClassVar[int]
    BALANCES_MINOR_FIELD_NUMBER: _ClassVar[int]
    outcomes: bytes
    legs: _containers.RepeatedScalarFieldContainer[int]
    balances_minor: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, outcomes: _Optional[bytes] = ..., legs: _Optional[_Iterable[int]] = ..., balances_minor: _Optional[_Iterable[int]] = ...) -> None: ...

class CommitAttemptsRequest(_message.Message):
    __slots__ = ("topology_version", "attempts", "with_balances")
    TOPOLOGY_VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    WITH_BALANCES_FIELD_NUMBER: _ClassVar[int]
    topology_version: int
    attempts: _containers.RepeatedCompositeFieldContainer[AttemptRequest]
    with_balances: bool
    def __init__(self, topology_version: _Optional[int] = ..., attempts: _Optional[_Iterable[_Union[AttemptRequest, _Mapping]]] = ..., with_balances: _Optional[bool] = ...) -> None: ...

class AttemptRequest(_message.Message):
    __slots__ = ("decider", "participants", "bundle")
    DECIDER_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    decider: int
    participants: _containers.RepeatedScalarFieldContainer[int]
    bundle: bytes
    def __init__(self, decider: _Optional[int] = ..., participants: _Optional[_Iterable[int]] = ..., bundle: _Optional[bytes] = ...) -> None: ...

class CommitAttemptsResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[AttemptResult]
    def __init__(self, results: _Optional[_Iterable[_Union[AttemptResult, _Mapping]]] = ...) -> None: ...

class AttemptResult(_message.Message):
    __slots__ = ("codes", "legs", "balances")
    CODES_FIELD_NUMBER: _ClassVar[int]
    LEGS_FIELD_NUMBER: _ClassVar[int]
    BALANCES_FIELD_NUMBER: _ClassVar[int]
    codes: bytes
    legs: bytes
    balances: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, codes: _Optional[bytes] = ..., legs: _Optional[bytes] = ..., balances: _Optional[_Iterable[bytes]] = ...) -> None: ...
