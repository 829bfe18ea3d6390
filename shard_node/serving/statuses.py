"""How a server ends a call that it does not carry out: a gRPC status with details.

Source: google.rpc.Status with ErrorInfo, BadRequest and RetryInfo (AIP-193). The status's message stands
alone, so it begins with the field that it is about; the details have field and sentence apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from shard_node.contract import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.message import Message

DOMAIN: Final = "tallystick"
RETRY_AFTER_MS: Final = 200


async def abort(
    context: Any,
    code: grpc.StatusCode,
    reason: str,
    message: str,
    *,
    field: str = "",
    metadata: Mapping[str, str] | None = None,
    details: Iterable[Message] = (),
) -> NoReturn:
    """Ends a call. One that may be made again (RESOURCE_EXHAUSTED, UNAVAILABLE) also hears how soon.

    Args:
        context: the call's gRPC context.
        code: the status.
        reason: the outcome's name, or another word in UPPER_SNAKE_CASE.
        message: a sentence, without the field's name.
        field: the field that it concerns; empty for none.
        metadata: values for programs, beside the field.
        details: further details.
    """
    values = {**(metadata or {}), **({"field": field} if field else {})}
    info: Message = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=values)
    found = [info, *details]
    if code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
        delay = Duration()
        delay.FromMilliseconds(RETRY_AFTER_MS)
        found.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in found:
        holder = any_pb2.Any()
        holder.Pack(detail)
        packed.append(holder)
    text = f"{field}: {message}" if field else message
    status = status_pb2.Status(code=code.value[0], message=text, details=packed)
    await context.abort(code, text, (("grpc-status-details-bin", status.SerializeToString()),))
    raise AssertionError("abort raises")


async def abort_invalid(
    context: Any, field: str, message: str, metadata: Mapping[str, str] | None = None
) -> NoReturn:
    """Ends a call whose request is malformed; the field is empty when it is the message as a whole."""
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
    await abort(
        context,
        grpc.StatusCode.INVALID_ARGUMENT,
        Outcome.INVALID_ARGUMENT.name,
        message,
        field=field,
        metadata=metadata,
        details=[error_details_pb2.BadRequest(field_violations=[violation])],
    )
