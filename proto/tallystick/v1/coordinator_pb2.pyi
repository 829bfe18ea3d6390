from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class CommitRequest(_message.Message):
    __slots__ = ("topology_version", "keys", "payers", "payees", "amounts_minor", "currencies", "bodies", "payer_slots", "payee_slots")
    TOPOLOGY_VERSION_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    PAYERS_FIELD_NUMBER: _ClassVar[int]
    PAYEES_FIELD_NUMBER: _ClassVar[int]
    AMOUNTS_MINOR_FIELD_NUMBER: _ClassVar[int]
    CURRENCIES_FIELD_NUMBER: _ClassVar[int]
    BODIES_FIELD_NUMBER: _ClassVar[int]
    PAYER_SLOTS_FIELD_NUMBER: _ClassVar[int]
    PAYEE_SLOTS_FIELD_NUMBER: _ClassVar[int]
    topology_version: int
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    payers: _containers.RepeatedScalarFieldContainer[str]
    payees: _containers.RepeatedScalarFieldContainer[str]
    amounts_minor: _containers.RepeatedScalarFieldContainer[int]
    currencies: _containers.RepeatedScalarFieldContainer[str]
    bodies: _containers.RepeatedScalarFieldContainer[bytes]
    payer_slots: _containers.RepeatedScalarFieldContainer[int]
    payee_slots: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, topology_version: _Optional[int] = ..., keys: _Optional[_Iterable[bytes]] = ..., payers: _Optional[_Iterable[str]] = ..., payees: _Optional[_Iterable[str]] = ..., amounts_minor: _Optional[_Iterable[int]] = ..., currencies: _Optional[_Iterable[str]] = ..., bodies: _Optional[_Iterable[bytes]] = ..., payer_slots: _Optional[_Iterable[int]] = ..., payee_slots: _Optional[_Iterable[int]] = ...) -> None: ...

class CommitResponse(_message.Message):
    __slots__ = ("outcomes", "payer_balances_minor", "payee_balances_minor")
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    PAYER_BALANCES_MINOR_FIELD_NUMBER: _ClassVar[int]
    PAYEE_BALANCES_MINOR_FIELD_NUMBER: _ClassVar[int]
    outcomes: bytes
    payer_balances_minor: _containers.RepeatedScalarFieldContainer[int]
    payee_balances_minor: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, outcomes: _Optional[bytes] = ..., payer_balances_minor: _Optional[_Iterable[int]] = ..., payee_balances_minor: _Optional[_Iterable[int]] = ...) -> None: ...

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
