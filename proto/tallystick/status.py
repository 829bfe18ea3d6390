"""The boundary where gRPC's errors and the contract's refusals become this package's own.

Nothing else in the package looks at a gRPC status. The rule for every doubtful
case: a code that the gRPC library itself may produce says nothing of the transfer,
so it is OutcomeUnknown; a code that only an application produces is a refusal
(https://grpc.io/docs/guides/status-codes lists which is which).
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tallystick.errors import (
    ERROR_TYPES,
    Aborted,
    AccountNotFound,
    InvalidArgument,
    NotYetArchived,
    Outcome,
    OutcomeUnknown,
    Overloaded,
    Refused,
    TallystickError,
    TransactionNotFound,
)
from tallystick.retry import is_verdict
from tallystick.rotation import RouterState

ERROR_DOMAIN = "tallystick"
NOT_YET_ARCHIVED = "NOT_YET_ARCHIVED"
"""The reason of the ledger's "not yet", which is no outcome of a transfer."""

_REFUSING_CODES: dict[grpc.StatusCode, type[Refused]] = {
    # Only applications produce these.
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.NOT_FOUND: Refused,
    grpc.StatusCode.ALREADY_EXISTS: Refused,
    grpc.StatusCode.FAILED_PRECONDITION: Refused,
    grpc.StatusCode.OUT_OF_RANGE: Refused,
    # The library answers these before any handler has run.
    grpc.StatusCode.UNIMPLEMENTED: Refused,
    grpc.StatusCode.PERMISSION_DENIED: Refused,
    grpc.StatusCode.UNAUTHENTICATED: Refused,
}


# gRPC's own words, in C and in Go, when a request is too large to be sent, or to be received; of an answer it
# says "SERVER: Sent" and "CLIENT: Received".
_OVERSIZED_REQUEST = re.compile(r"(CLIENT: Sent|SERVER: Received|grpc: received) message larger than max")


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that brought no response.

    Attributes:
        error: what it means to the caller.
        router: what it says of the router: another one may do better.
        verdict: whether it is the service's final word on the id that was sent, so
            that earlier tries of the same id do not matter.
    """

    error: TallystickError
    router: RouterState
    verdict: bool = False


@dataclass(frozen=True, slots=True)
class _Details:
    outcome: int
    field: str
    message: str
    transaction_id: str
    retry_after_s: float | None
    reason: str
    complete_until: datetime | None


def from_rpc_error(error: grpc.RpcError, transaction_id: str = "", *, router: str = "") -> Failure:
    """Say what a failed call means, from its google.rpc.Status details or, without them, its code.

    Args:
        error: as raised by a grpc or grpc.aio call.
        transaction_id: the transfer it concerns; empty when none or many.
        router: the address that was called; empty when it is not known.
    """
    call = cast("grpc.Call", error)
    code, text = call.code(), call.details() or ""
    details = _details(call)
    if details is None:
        return _without_details(code, text, transaction_id, router)
    transaction_id = transaction_id or details.transaction_id
    # The status's message begins with the field, the details' own do not.
    text = details.message or text.removeprefix(f"{details.field}: ")
    kind = ERROR_TYPES.get(details.outcome)
    if kind is Overloaded:
        return Failure(
            Overloaded(text, transaction_id, details.field, details.retry_after_s), RouterState.ANSWERED
        )
    if details.reason == NOT_YET_ARCHIVED:
        late = NotYetArchived(text, transaction_id, complete_until=details.complete_until)
        return Failure(late, RouterState.ANSWERED)
    if kind is AccountNotFound or kind is TransactionNotFound:
        absent = kind(text, transaction_id, details.field, details.complete_until)
        return Failure(absent, RouterState.ANSWERED, verdict=True)
    if kind is None:
        # A reason newer than this client: the code still tells a refusal from an unknown.
        kind = _REFUSING_CODES.get(code, OutcomeUnknown)
    meaning = kind(text, transaction_id, details.field)
    return Failure(meaning, RouterState.ANSWERED, verdict=is_verdict(meaning))


def from_refusal(outcome: int, message: str, field: str, transaction_id: str = "") -> TallystickError:
    """Make the error for one item of a batch whose outcome is not COMMITTED.

    An outcome that this client does not know is OutcomeUnknown: it may be a newer
    service's word for anything.
    """
    kind = ERROR_TYPES.get(outcome)
    if kind is None:
        return OutcomeUnknown(f"the service answered with outcome {outcome}. {message}", transaction_id)
    return kind(message, transaction_id, field)


def _without_details(code: grpc.StatusCode, text: str, transaction_id: str, router: str) -> Failure:
    kind = _REFUSING_CODES.get(code)
    if _OVERSIZED_REQUEST.match(text):
        kind = InvalidArgument
    if kind is None:
        # RESOURCE_EXHAUSTED too: gRPC says it of an answer too large to receive, after the work was done.
        silent = code is grpc.StatusCode.DEADLINE_EXCEEDED
        state = RouterState.SILENT if silent else RouterState.BROKEN
        why = f"no answer from {router or 'the router'} ({code.name}: {text})"
        return Failure(OutcomeUnknown(why, transaction_id), state)
    return Failure(kind(f"{code.name}: {text}", transaction_id), RouterState.ANSWERED)


def _details(call: grpc.Call) -> _Details | None:
    """The service's own details, or None when there are none that can be read."""
    try:
        status = rpc_status.from_call(call)
    except (ValueError, DecodeError):
        # Details that contradict the status, or are not a Status, come from something between us.
        return None
    return None if status is None else _unpack(status)


def _unpack(status: status_pb2.Status) -> _Details | None:
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    retry_after_s: float | None = None
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(bad.DESCRIPTOR):
            detail.Unpack(bad)
        elif detail.Is(retry.DESCRIPTOR) and detail.Unpack(retry):
            retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    if info.domain != ERROR_DOMAIN:
        return None
    violation = bad.field_violations[0] if bad.field_violations else None
    known = Outcome.__members__.get(info.reason, Outcome.UNSPECIFIED)
    return _Details(
        outcome=known.value,
        field=violation.field if violation else info.metadata.get("field", ""),
        message=violation.description if violation else "",
        transaction_id=info.metadata.get("transaction_id", ""),
        retry_after_s=retry_after_s,
        reason=info.reason,
        complete_until=_moment(info.metadata.get("complete_until", "")),
    )


def _moment(text: str) -> datetime | None:
    """A time in RFC 3339; None when it is none."""
    moment = Timestamp()
    try:
        moment.FromJsonString(text)
        return moment.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
