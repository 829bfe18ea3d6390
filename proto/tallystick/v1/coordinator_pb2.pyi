from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

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
