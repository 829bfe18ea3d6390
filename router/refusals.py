"""Outcomes as callers see them: the proto enum, a sentence, and on unary calls a rich gRPC status.

Source of the rich form: google.rpc.Status with ErrorInfo, BadRequest and RetryInfo (AIP-193).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from shard_node.outcomes import PAYEE, Outcome, without_side
from tallystick.v1 import outcome_pb2, wallet_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from router.requests import BadField

DOMAIN: Final = "tallystick"
RETRY_AFTER_MS: Final = 200

_CODES = {
    Outcome.INSUFFICIENT_FUNDS: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.CURRENCY_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.ACCOUNT_FROZEN: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.ACCOUNT_CLOSED: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.BALANCE_LIMIT: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.TRANSACTION_ID_EXPIRED: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.ACCOUNT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Outcome.TRANSACTION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Outcome.TRANSACTION_ID_REUSED: grpc.StatusCode.ALREADY_EXISTS,
    Outcome.ACCOUNT_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Outcome.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    Outcome.ABORTED: grpc.StatusCode.ABORTED,
    Outcome.OUTCOME_UNKNOWN: grpc.StatusCode.UNAVAILABLE,
    Outcome.RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
}

_SENTENCES = {
    Outcome.INSUFFICIENT_FUNDS: "the available balance would fall below the account's minimum_balance",
    Outcome.CURRENCY_MISMATCH: "the account is held in another currency",
    Outcome.ACCOUNT_FROZEN: "the account is frozen",
    Outcome.ACCOUNT_CLOSED: "the account is closed",
    Outcome.BALANCE_LIMIT: "the balance, with what is in flight to it, would pass 2^53-1 minor units",
    Outcome.TRANSACTION_ID_EXPIRED: (
        "the id is older than the cluster remembers outcomes, so it cannot be told from a repetition; "
        "if it was never sent before, use a new id"
    ),
    Outcome.ACCOUNT_NOT_FOUND: "there is no such account: open it first",
    Outcome.TRANSACTION_NOT_FOUND: (
        "no outcome is remembered under this id: it was never sent, is under way, or is older than the "
        "deduplication window; sending the transfer again with the same id settles it"
    ),
    Outcome.TRANSACTION_ID_REUSED: "the id was used before with other contents; that transfer stands",
    Outcome.ACCOUNT_EXISTS: "the account exists with another currency or minimum_balance",
    Outcome.ABORTED: "a failure cut the transfer short, it was rolled back; use a new id",
    Outcome.OUTCOME_UNKNOWN: "the outcome is not known: send the transfer again with the same id",
    Outcome.RESOURCE_EXHAUSTED: "the cluster is at its limit, nothing was begun: send it again soon",
}

# The account that a refusal concerns when the shard does not say that it is the payee's.
_OF_PAYER = {
    Outcome.INSUFFICIENT_FUNDS,
    Outcome.CURRENCY_MISMATCH,
    Outcome.ACCOUNT_FROZEN,
    Outcome.ACCOUNT_CLOSED,
    Outcome.ACCOUNT_NOT_FOUND,
    Outcome.BALANCE_LIMIT,
}
_OF_ID = {Outcome.TRANSACTION_ID_REUSED, Outcome.TRANSACTION_ID_EXPIRED}


def wire_outcome(code: int) -> outcome_pb2.Outcome:
    """The public enum's value; whatever a shard says beyond it counts as not known."""
    outcome = without_side(code)
    if Outcome.COMMITTED <= outcome <= Outcome.TRANSACTION_NOT_FOUND:
        return cast("outcome_pb2.Outcome", outcome)
    return outcome_pb2.OUTCOME_OUTCOME_UNKNOWN


def refusal(
    code: int, payer_field: str = "from_account", payee_field: str = "to_account"
) -> wallet_pb2.Refusal:
    """Why a transfer was not done, with the field it concerns."""
    outcome = Outcome(wire_outcome(code))
    field = ""
    if code & PAYEE:
        field = payee_field
    elif outcome in _OF_PAYER:
        field = payer_field
    elif outcome in _OF_ID:
        field = "transaction_id"
    sentence = _SENTENCES[outcome]
    message = f"{field}: {sentence}" if field else sentence
    return wallet_pb2.Refusal(outcome=wire_outcome(code), message=message, field=field)


def invalid(bad: BadField) -> wallet_pb2.Refusal:
    """A request's field that does not fit."""
    return wallet_pb2.Refusal(outcome=outcome_pb2.OUTCOME_INVALID_ARGUMENT, message=str(bad), field=bad.field)


async def abort(context: Any, why: wallet_pb2.Refusal, **metadata: str) -> NoReturn:
    """Ends a unary call with the status and the details of a refusal."""
    outcome = Outcome(why.outcome)
    code = _CODES[outcome]
    if why.field:
        metadata["field"] = why.field
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=outcome.name, domain=DOMAIN, metadata=metadata)
    ]
    if outcome is Outcome.INVALID_ARGUMENT:
        violation = error_details_pb2.BadRequest.FieldViolation(field=why.field, description=why.message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if outcome in (Outcome.RESOURCE_EXHAUSTED, Outcome.OUTCOME_UNKNOWN):
        delay = Duration()
        delay.FromMilliseconds(RETRY_AFTER_MS)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    await _abort(context, code, why.message, details)


async def _abort(context: Any, code: grpc.StatusCode, message: str, details: list[Message]) -> NoReturn:
    packed = []
    for detail in details:
        holder = any_pb2.Any()
        holder.Pack(detail)
        packed.append(holder)
    status = status_pb2.Status(code=code.value[0], message=message, details=packed)
    await context.abort(code, message, (("grpc-status-details-bin", status.SerializeToString()),))
    raise AssertionError("abort raises")
