from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_COMMITTED: _ClassVar[Outcome]
    OUTCOME_INSUFFICIENT_FUNDS: _ClassVar[Outcome]
    OUTCOME_CURRENCY_MISMATCH: _ClassVar[Outcome]
    OUTCOME_ACCOUNT_FROZEN: _ClassVar[Outcome]
    OUTCOME_ACCOUNT_CLOSED: _ClassVar[Outcome]
    OUTCOME_BALANCE_LIMIT: _ClassVar[Outcome]
    OUTCOME_ACCOUNT_NOT_FOUND: _ClassVar[Outcome]
    OUTCOME_TRANSACTION_ID_REUSED: _ClassVar[Outcome]
    OUTCOME_TRANSACTION_ID_EXPIRED: _ClassVar[Outcome]
    OUTCOME_ABORTED: _ClassVar[Outcome]
    OUTCOME_ACCOUNT_EXISTS: _ClassVar[Outcome]
    OUTCOME_INVALID_ARGUMENT: _ClassVar[Outcome]
    OUTCOME_OUTCOME_UNKNOWN: _ClassVar[Outcome]
    OUTCOME_RESOURCE_EXHAUSTED: _ClassVar[Outcome]
    OUTCOME_TRANSACTION_NOT_FOUND: _ClassVar[Outcome]
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_COMMITTED: Outcome
OUTCOME_INSUFFICIENT_FUNDS: Outcome
OUTCOME_CURRENCY_MISMATCH: Outcome
OUTCOME_ACCOUNT_FROZEN: Outcome
OUTCOME_ACCOUNT_CLOSED: Outcome
OUTCOME_BALANCE_LIMIT: Outcome
OUTCOME_ACCOUNT_NOT_FOUND: Outcome
OUTCOME_TRANSACTION_ID_REUSED: Outcome
OUTCOME_TRANSACTION_ID_EXPIRED: Outcome
OUTCOME_ABORTED: Outcome
OUTCOME_ACCOUNT_EXISTS: Outcome
OUTCOME_INVALID_ARGUMENT: Outcome
OUTCOME_OUTCOME_UNKNOWN: Outcome
OUTCOME_RESOURCE_EXHAUSTED: Outcome
OUTCOME_TRANSACTION_NOT_FOUND: Outcome
