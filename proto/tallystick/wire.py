"""Between the values of this package and the messages of the contract."""

from collections.abc import Callable, Iterable
from dataclasses import fields
from datetime import UTC
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

from tallystick import limits
from tallystick.errors import InvalidArgument, Outcome, OutcomeUnknown, TallystickError
from tallystick.ledger_values import EntryKind, EntryOrder, timestamp
from tallystick.limits import MessageT
from tallystick.status import from_refusal
from tallystick.v1 import outcome_pb2, wallet_pb2
from tallystick.values import (
    Account,
    AccountPage,
    AccountResult,
    AccountState,
    Amount,
    HoldResult,
    JournalLeg,
    JournalResult,
    NewAccount,
    TransferRecord,
    TransferResult,
)

# Far above any amount (2^53 minor units). Python refuses to make text of some thousand digits.
_MOST_BITS = 3 * limits.MAX_AMOUNT_BYTES
# What an expected version may be.
_OF_VERSIONS = (int, type(None))
_OUTCOMES = {outcome.value: outcome for outcome in Outcome}
_STATES = {state.value: state for state in AccountState}


class _MovesMoney(Protocol):
    """What the requests have in common that move money: fields of generated messages."""

    transaction_id: str
    validate_only: bool


def amount_text(amount: Amount, field: str = "amount") -> str:
    """Money as the contract's decimal text. What the text may hold is the service's to judge.

    Raises:
        InvalidArgument: the amount is a float, or anything else but Decimal, str or int; or far out of range.
    """
    if isinstance(amount, str):
        return amount
    if isinstance(amount, Decimal):
        if abs(amount.adjusted()) > limits.MAX_AMOUNT_BYTES:
            raise InvalidArgument(f"{amount!s:.80} is out of range", field=field)
        return format(amount, "f")
    # Not isinstance: True is no amount of money.
    if type(amount) is int:
        if amount.bit_length() > _MOST_BITS:
            raise InvalidArgument(f"an int of {amount.bit_length()} bits is out of range", field=field)
        return str(amount)
    kind = type(amount).__name__
    raise InvalidArgument(
        f"must be decimal.Decimal, str or int, is {kind}: {amount!r:.80} (12.50 is '12.50')", field=field
    )


def id_text(transaction_id: str | UUID, field: str = "transaction_id") -> str:
    """A transaction id as the contract's text, lower-case so that it equals its echo.

    Raises:
        InvalidArgument: it is neither str nor UUID.
    """
    if isinstance(transaction_id, str):
        return transaction_id.lower()
    if isinstance(transaction_id, UUID):
        return str(transaction_id)
    raise InvalidArgument(
        f"must be str or uuid.UUID, is {type(transaction_id).__name__}: {transaction_id!r:.80}", field=field
    )


def transfer_request(
    identity: str,
    from_account: str,
    to_account: str,
    amount: Amount,
    currency: str,
    reference: str,
    validate_only: bool,  # noqa: FBT001 - positional, as keywords cost time here
    expected_version: int | None,
) -> wallet_pb2.TransferRequest:
    """The message for one transfer.

    By `limits.request` the fields are looked at only when one may not fit: it costs as much as all else here.

    Raises:
        InvalidArgument: a field is of another type, or too long.
    """
    text = ""
    try:
        text = amount_text(amount)
        request = wallet_pb2.TransferRequest(
            transaction_id=identity,
            from_account=from_account,
            to_account=to_account,
            amount=text,
            currency=currency,
            reference=reference,
            validate_only=validate_only,
            expected_version=expected_version,
        )
        # Below 64 together is below 64 each; of a reference these are up to 252 bytes.
        if (
            len(from_account) | len(to_account) | len(text) | len(reference) < 64
            and len(identity) == 36
            and len(currency) == 3
            # protobuf also takes bytes for a text, and None for False.
            and from_account.__class__ is str
            and to_account.__class__ is str
            and reference.__class__ is str
            and currency.__class__ is str
            and expected_version.__class__ in _OF_VERSIONS
            and validate_only.__class__ is bool
        ):
            return request
    except InvalidArgument as error:
        raise error.concerning(identity[: limits.MAX_ID_BYTES]) from None
    except (TypeError, ValueError):
        # It is said below which field it is.
        pass
    return limits.request(
        wallet_pb2.TransferRequest,
        transaction_id=identity,
        from_account=from_account,
        to_account=to_account,
        amount=text,
        currency=currency,
        reference=reference,
        validate_only=validate_only,
        expected_version=expected_version,
    )


def open_account_request(new: NewAccount) -> wallet_pb2.OpenAccountRequest:
    """The message that opens one account. Raises InvalidArgument."""
    limits.instance(new, NewAccount, "accounts")
    return request_of(
        wallet_pb2.OpenAccountRequest, {field.name: getattr(new, field.name) for field in fields(new)}
    )


def request_of(kind: type[MessageT], arguments: dict[str, Any]) -> MessageT:
    """The message of that kind, from the arguments of a client's method.

    Raises:
        InvalidArgument: one is of another type, or too long.
    """
    for name, as_field in _AS_FIELDS.items():
        if name in arguments:
            arguments[name] = as_field(arguments[name], name)
    return limits.request(kind, **arguments)


def _journal_leg(leg: JournalLeg, name: str) -> wallet_pb2.JournalLeg:
    limits.instance(leg, JournalLeg, name)
    return limits.request(
        wallet_pb2.JournalLeg,
        f"{name}.",
        account_id=leg.account_id,
        amount=amount_text(leg.amount, f"{name}.amount"),
        currency=leg.currency,
        expected_version=leg.expected_version,
    )


def _journal_legs(legs: Iterable[JournalLeg], field: str) -> list[wallet_pb2.JournalLeg]:
    several = limits.several(legs, field, limits.MAX_LEGS)
    return [_journal_leg(leg, f"{field}[{place}]") for place, leg in enumerate(several)]


def _optional_text(amount: Amount | None, field: str) -> str | None:
    return None if amount is None else amount_text(amount, field)


def _kinds(kinds: Iterable[EntryKind] | None, field: str) -> list[int]:
    return [limits.instance(kind, EntryKind, field).value for kind in limits.chosen(kinds, field)]


# What of a method's arguments is not yet as its message has it.
_AS_FIELDS: dict[str, Callable[[Any, str], object]] = {
    "purchase_transaction_id": id_text,
    "hold_transaction_id": id_text,
    "amount": amount_text,
    "minimum_balance": amount_text,
    "maximum_balance": _optional_text,
    "maximum_transfer": _optional_text,
    "legs": _journal_legs,
    "from_time": timestamp,
    "to_time": timestamp,
    "time": timestamp,
    "wait_for": timestamp,
    "kinds": _kinds,
    "order": lambda order, field: limits.instance(order, EntryOrder, field).value,
}


def committed_result(response: wallet_pb2.TransferResponse, transaction_id: str) -> TransferResult:
    """The result, balances included, of a response that is COMMITTED and of the right id."""
    return TransferResult(
        transaction_id,
        Outcome.COMMITTED,
        Decimal(response.from_available) if response.HasField("from_available") else None,
        Decimal(response.to_available) if response.HasField("to_available") else None,
    )


def transfer_result(response: wallet_pb2.TransferResponse, request: _MovesMoney) -> TransferResult:
    """The result of a unary call, which answers every other outcome with a status.

    Raises:
        TallystickError: the response is not of this id, or not COMMITTED (or VALID, if asked for) after all.
    """
    if _outcome(response, request, response.refusal) is Outcome.VALID:
        return TransferResult(request.transaction_id, Outcome.VALID)
    return committed_result(response, request.transaction_id)


def hold_result(response: wallet_pb2.HoldResponse, request: _MovesMoney) -> HoldResult:
    """The result of a hold or void. Raises as `transfer_result`."""
    outcome = _outcome(response, request)
    available = Decimal(response.available) if response.HasField("available") else None
    return HoldResult(request.transaction_id, outcome, available)


def journal_result(response: wallet_pb2.PostJournalResponse, request: _MovesMoney) -> JournalResult:
    """The result of a journal. Raises as `transfer_result`."""
    outcome = _outcome(response, request)
    available = tuple(Decimal(text) if text else None for text in response.available)
    return JournalResult(request.transaction_id, outcome, available)


def _outcome(
    response: wallet_pb2.TransferResponse | wallet_pb2.HoldResponse | wallet_pb2.PostJournalResponse,
    request: _MovesMoney,
    refusal: wallet_pb2.Refusal | None = None,
) -> Outcome:
    """COMMITTED, or VALID when that was all that was asked for; anything else is raised."""
    if response.transaction_id != request.transaction_id:
        raise OutcomeUnknown("the router answered for another transaction_id", request.transaction_id)
    if response.outcome == outcome_pb2.OUTCOME_COMMITTED:
        return Outcome.COMMITTED
    if response.outcome == outcome_pb2.OUTCOME_VALID and request.validate_only:
        return Outcome.VALID
    why = refusal or wallet_pb2.Refusal()
    raise from_refusal(response.outcome, why.message, why.field, request.transaction_id)


def account(message: wallet_pb2.Account, _: object = None) -> Account:
    """An account as a value."""
    return Account(
        account_id=message.account_id,
        currency=message.currency,
        available=_decimal(message.available),
        held=_decimal(message.held),
        version=message.version,
        state=_STATES.get(message.state, AccountState.UNSPECIFIED),
        minimum_balance=_decimal(message.minimum_balance),
        maximum_balance=Decimal(message.maximum_balance) if message.maximum_balance else None,
        maximum_transfer=Decimal(message.maximum_transfer) if message.maximum_transfer else None,
    )


def account_page(message: wallet_pb2.ListAccountsResponse, _: object) -> AccountPage:
    """A page of accounts as a value."""
    return AccountPage(tuple(map(account, message.accounts)), message.next_page_token)


def account_result(message: wallet_pb2.AccountResult | None, account_id: str) -> AccountResult:
    """The answer to one item of a batch of accounts; None when the router left it out."""
    if message is None:
        return AccountResult(account_id, error=OutcomeUnknown("the router sent too few results"))
    if message.WhichOneof("result") == "account":
        if message.account.account_id != account_id:
            return AccountResult(account_id, error=OutcomeUnknown("the router answered for another account"))
        return AccountResult(account_id, account=account(message.account))
    refusal = message.refusal
    error: TallystickError = from_refusal(refusal.outcome, refusal.message, refusal.field)
    return AccountResult(account_id, error=error)


def transfer_record(message: wallet_pb2.GetTransferResponse) -> TransferRecord:
    """What the service remembers of a transfer, as a value."""
    decided = message.HasField("decided_at")
    return TransferRecord(
        transaction_id=message.transaction_id,
        from_account=message.from_account,
        # An outcome newer than this client is not known to it.
        outcome=_OUTCOMES.get(message.outcome, Outcome.OUTCOME_UNKNOWN),
        amount=Decimal(message.amount) if message.amount else None,
        currency=message.currency,
        decided_at=message.decided_at.ToDatetime(tzinfo=UTC) if decided else None,
    )


def _decimal(text: str) -> Decimal:
    """A field the service leaves empty when it is zero."""
    return Decimal(text or "0")
