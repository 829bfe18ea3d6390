"""Outcomes as callers see them: the proto enum, a sentence, and on unary calls a rich gRPC status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import grpc

from router.requests import BadField, UnknownCurrency
from shard_node.contract import Kind, Outcome
from shard_node.errors import ExponentUnknownError, RegistryError, ShardFullError
from shard_node.limits import MAX_BATCH
from shard_node.serving import statuses
from tallystick.v1 import outcome_pb2, wallet_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.execution import KeptTasks
    from router.requests import TransactionRequest
    from shard_node.cluster import Currencies
    from shard_node.errors import ShardNodeError

T = TypeVar("T")
RequestT = TypeVar("RequestT")

_CODES = {
    Outcome.INSUFFICIENT_FUNDS: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.CURRENCY_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.ACCOUNT_FROZEN: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.ACCOUNT_CLOSED: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.BALANCE_LIMIT: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.TRANSACTION_ID_EXPIRED: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.REFUND_EXCEEDS_PURCHASE: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.HOLD_NOT_ACTIVE: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.CAPTURE_EXCEEDS_HOLD: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.TRANSFER_LIMIT: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.ACCOUNT_NOT_EMPTY: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.ACCOUNT_IN_USE: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.PURCHASE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Outcome.ACCOUNT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Outcome.TRANSACTION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Outcome.TRANSACTION_ID_REUSED: grpc.StatusCode.ALREADY_EXISTS,
    Outcome.ACCOUNT_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Outcome.ABORTED: grpc.StatusCode.ABORTED,
    Outcome.VERSION_MISMATCH: grpc.StatusCode.ABORTED,
    Outcome.OUTCOME_UNKNOWN: grpc.StatusCode.UNAVAILABLE,
    Outcome.RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
}

_SENTENCES = {
    Outcome.INSUFFICIENT_FUNDS: (
        "insufficient funds: the available balance would fall below the account's minimum_balance"
    ),
    Outcome.CURRENCY_MISMATCH: "the account is held in another currency",
    Outcome.ACCOUNT_FROZEN: "the account is frozen",
    Outcome.ACCOUNT_CLOSED: "the account is closed",
    Outcome.BALANCE_LIMIT: (
        "the balance, with what is in flight to it, would pass the account's maximum_balance, "
        "or 2^53-1 minor units"
    ),
    Outcome.TRANSACTION_ID_EXPIRED: (
        "the id is older than the cluster remembers outcomes, so it cannot be told from a repetition; "
        "if it was never sent before, use a new id"
    ),
    Outcome.ACCOUNT_NOT_FOUND: "account not found: open it first",
    Outcome.TRANSACTION_NOT_FOUND: (
        "no outcome is remembered under this id: it was never sent, is under way, or is older than the "
        "deduplication window; sending the transfer again with the same id settles it, unless that is no "
        "UUIDv7 and older than the window: then it may move again, and only the ledger tells whether it has"
    ),
    Outcome.TRANSACTION_ID_REUSED: "the id was used before with other contents; that transfer stands",
    Outcome.ACCOUNT_EXISTS: "the account exists with other attributes: currency, minimum_balance, a maximum",
    Outcome.ABORTED: "a failure cut the transfer short, it was rolled back; use a new id",
    Outcome.OUTCOME_UNKNOWN: "the outcome is not known; send it again with the same transaction_id",
    Outcome.RESOURCE_EXHAUSTED: "the cluster is at its limit and nothing was begun; send it again soon",
    Outcome.REFUND_EXCEEDS_PURCHASE: "it is more than the refunds before it have left of the purchase",
    Outcome.PURCHASE_NOT_FOUND: "no committed purchase of this customer is known under the id",
    Outcome.HOLD_NOT_ACTIVE: (
        "the account has no such hold: it was never made, was captured or voided, or has expired"
    ),
    Outcome.CAPTURE_EXCEEDS_HOLD: "it is more than the hold reserves",
    Outcome.TRANSFER_LIMIT: "it is more than the account's maximum_transfer",
    Outcome.ACCOUNT_NOT_EMPTY: (
        "the balance is not zero, or a hold is active: empty the account first, and capture or void its holds"
    ),
    Outcome.VERSION_MISMATCH: (
        "the account is at another version: read it again, and send what is to happen then under a new id"
    ),
    Outcome.ACCOUNT_IN_USE: "money is on its way to or from the account: try again soon",
}

# Those that concern one account.
_OF_ACCOUNT = {
    Outcome.INSUFFICIENT_FUNDS,
    Outcome.CURRENCY_MISMATCH,
    Outcome.ACCOUNT_FROZEN,
    Outcome.ACCOUNT_CLOSED,
    Outcome.ACCOUNT_NOT_FOUND,
    Outcome.BALANCE_LIMIT,
    Outcome.TRANSFER_LIMIT,
}
# Those that concern one field of every request that can get them.
_FIELDS = {
    Outcome.TRANSACTION_ID_REUSED: "transaction_id",
    Outcome.TRANSACTION_ID_EXPIRED: "transaction_id",
    Outcome.REFUND_EXCEEDS_PURCHASE: "amount",
    Outcome.PURCHASE_NOT_FOUND: "purchase_transaction_id",
    Outcome.HOLD_NOT_ACTIVE: "hold_transaction_id",
    Outcome.CAPTURE_EXCEEDS_HOLD: "amount",
    Outcome.ACCOUNT_EXISTS: "account_id",
    Outcome.ACCOUNT_NOT_EMPTY: "account_id",
    Outcome.ACCOUNT_IN_USE: "account_id",
}


def wire_outcome(code: int) -> outcome_pb2.Outcome:
    """The public enum's value; whatever a shard says beyond it counts as not known."""
    if Outcome.COMMITTED <= code <= Outcome.VERSION_MISMATCH:
        return cast("outcome_pb2.Outcome", code)
    return outcome_pb2.OUTCOME_OUTCOME_UNKNOWN


def refusal(code: int, account_field: str = "", why: str = "") -> wallet_pb2.Refusal:
    """Why something was not done, with the field it concerns; ``why`` adds to the usual sentence.

    ``account_field`` is the field of the account, of several of the one that the refusal concerns.
    """
    number = wire_outcome(code)
    outcome = Outcome(number)
    if outcome in _OF_ACCOUNT:
        field = account_field
    elif outcome is Outcome.VERSION_MISMATCH:
        # It stands beside the account in the request.
        field = f"{account_field.rpartition('.')[0]}.expected_version".removeprefix(".")
    else:
        field = _FIELDS.get(outcome, "")
    sentence = f"{_SENTENCES[outcome]}: {why}" if why else _SENTENCES[outcome]
    return wallet_pb2.Refusal(outcome=number, message=sentence, field=field)


def _world_is_full(account: str, *, is_payer: bool) -> wallet_pb2.Refusal:
    deposits, other = ("Deposits", "withdraw") if is_payer else ("Withdrawals", "deposit")
    return wallet_pb2.Refusal(
        outcome=outcome_pb2.OUTCOME_BALANCE_LIMIT,
        message=(
            f"the system account {account} of this account's shard would pass 2^53-1 minor units; the "
            f"account itself is in order. {deposits} on this shard are refused until others {other} as much "
            "there; meanwhile an operator can use an account on another shard and transfer from or to it"
        ),
    )


def of_transaction(request: TransactionRequest, code: int, leg: int) -> wallet_pb2.Refusal:
    """Why a transaction was not done. ``leg`` is the number of the leg that the refusal concerns.

    A system account is nobody's field: what it cannot take is the operator's business, not the customer's.
    """
    account = request.transaction.legs[leg].account
    if account[0] == "@" and code == Outcome.BALANCE_LIMIT:
        return _world_is_full(account, is_payer=leg == 0)
    field = request.account_field(leg)
    why = refusal(code, field)
    if request.transaction.kind is Kind.REFUND and leg == 0 and why.field == field:
        why.message += " (the merchant's account)"
    return why


def no_answer(error: ShardNodeError) -> wallet_pb2.Refusal:
    """A shard, or the ledger, that was asked did not answer, or is full."""
    full = isinstance(error, ShardFullError)
    why = refusal(Outcome.RESOURCE_EXHAUSTED if full else Outcome.OUTCOME_UNKNOWN)
    why.message = str(error)
    return why


def invalid(bad: BadField) -> wallet_pb2.Refusal:
    """A request's field that does not fit."""
    return wallet_pb2.Refusal(
        outcome=outcome_pb2.OUTCOME_INVALID_ARGUMENT, message=bad.message, field=bad.field
    )


async def read_again(
    read: Callable[[RequestT], T], request: RequestT, bad: BadField, currencies: Currencies, context: Any
) -> T:
    """Reads once more what was refused; ends the call unless that was for a currency known by now."""
    if isinstance(bad, UnknownCurrency):
        try:
            await currencies.require_exponents((bad.currency,))
        except ExponentUnknownError:
            pass
        except RegistryError as error:
            await abort(context, no_answer(error))
    try:
        return read(request)
    except BadField as still:
        await abort(context, invalid(still))


async def abort(context: Any, why: wallet_pb2.Refusal, **metadata: str) -> NoReturn:
    """Ends a unary call with the status and the details of a refusal."""
    outcome = Outcome(why.outcome)
    if outcome is Outcome.INVALID_ARGUMENT:
        await statuses.abort_invalid(context, why.field, why.message, metadata)
    await statuses.abort(
        context,
        _CODES[outcome],
        outcome.name,
        why.message,
        field=why.field,
        metadata=metadata,
    )


async def check_size(field: str, count: int, context: Any) -> None:
    """Ends the call when one of its fields has too many items."""
    if count > MAX_BATCH:
        bad = BadField(field, f"a batch has at most {MAX_BATCH} items, this one has {count}")
        await abort(context, invalid(bad))


async def check_room(kept: KeptTasks, items: int, context: Any) -> None:
    """Ends the call when the router has too much in hand already."""
    if not kept.has_room(items):
        await abort(context, refusal(Outcome.RESOURCE_EXHAUSTED))
