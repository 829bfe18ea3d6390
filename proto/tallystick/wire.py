"""Between the values of this package and the messages of the contract."""

from collections.abc import Callable
from datetime import UTC
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

from tallystick.errors import InvalidArgument, Outcome, OutcomeUnknown, TallystickError
from tallystick.status import from_refusal
from tallystick.v1 import outcome_pb2, wallet_pb2
from tallystick.values import (
    Account,
    AccountResult,
    AccountState,
    Amount,
    HoldResult,
    JournalLeg,
    JournalResult,
    NewAccount,
    Transfer,
    TransferRecord,
    TransferResult,
)

# Far above any amount (2^53 minor units), far below what would make a large text of "1E+999999".
_MOST_DIGITS = 64
# Requests that TransferResponse answers, in a unary call.
MoneyRequestT = TypeVar(
    "MoneyRequestT",
    wallet_pb2.DepositRequest,
    wallet_pb2.WithdrawRequest,
    wallet_pb2.PurchaseRequest,
    wallet_pb2.RefundRequest,
    wallet_pb2.CaptureRequest,
)
_OUTCOMES = {outcome.value: outcome for outcome in Outcome}
_STATES = {state.value: state for state in AccountState}


def amount_text(amount: Amount, field: str = "amount") -> str:
    """Money as the contract's decimal text. What the text may hold is the service's to judge.

    Raises:
        TypeError: the amount is a float, or anything else but Decimal, str or int.
        InvalidArgument: a Decimal with an absurd exponent.
    """
    if isinstance(amount, str):
        return amount
    if isinstance(amount, Decimal):
        if abs(amount.adjusted()) > _MOST_DIGITS:
            raise InvalidArgument(f"{amount} is out of range", field=field)
        return format(amount, "f")
    # Not isinstance: True is no amount of money.
    if type(amount) is int:
        return str(amount)
    kind = type(amount).__name__
    raise TypeError(f"{field} must be decimal.Decimal, str or int, not {kind}: {amount!r} (12.50 is '12.50')")


def id_text(transaction_id: str | UUID) -> str:
    """A transaction id as the contract's text, lower-case so that it equals its echo."""
    if isinstance(transaction_id, str):
        return transaction_id.lower()
    if isinstance(transaction_id, UUID):
        return str(transaction_id)
    raise TypeError(f"transaction_id must be str or uuid.UUID, not {type(transaction_id).__name__}")


def transfer_request(transfer: Transfer, new_id: Callable[[], str]) -> wallet_pb2.TransferRequest:
    """The message for one transfer; `new_id` makes its id when it has none."""
    given = transfer.transaction_id
    return wallet_pb2.TransferRequest(
        transaction_id=new_id() if given is None else id_text(given),
        from_account=transfer.from_account,
        to_account=transfer.to_account,
        amount=amount_text(transfer.amount),
        currency=transfer.currency,
        reference=transfer.reference,
        validate_only=transfer.validate_only,
    )


def open_account_request(new: NewAccount) -> wallet_pb2.OpenAccountRequest:
    """The message that opens one account."""
    return wallet_pb2.OpenAccountRequest(
        account_id=new.account_id,
        currency=new.currency,
        minimum_balance=amount_text(new.minimum_balance, "minimum_balance"),
        maximum_balance=_optional_text(new.maximum_balance, "maximum_balance"),
        maximum_transfer=_optional_text(new.maximum_transfer, "maximum_transfer"),
        validate_only=new.validate_only,
    )


def journal_leg(leg: JournalLeg, place: int) -> wallet_pb2.JournalLeg:
    """The message for one leg of a journal, the one at that place."""
    return wallet_pb2.JournalLeg(
        account_id=leg.account_id,
        amount=amount_text(leg.amount, f"legs[{place}].amount"),
        currency=leg.currency,
    )


def committed_result(response: wallet_pb2.TransferResponse, transaction_id: str) -> TransferResult:
    """The result, balances included, of a response that is COMMITTED and of the right id."""
    return TransferResult(
        transaction_id,
        Outcome.COMMITTED,
        Decimal(response.from_available) if response.HasField("from_available") else None,
        Decimal(response.to_available) if response.HasField("to_available") else None,
    )


def unary_result(
    response: wallet_pb2.TransferResponse, transaction_id: str, *, validate_only: bool = False
) -> TransferResult:
    """The result of a unary call, which answers every other outcome with a status.

    Raises:
        TallystickError: the response is not of this id, or not COMMITTED (or VALID, if asked for) after all.
    """
    if _outcome(response, transaction_id, response.refusal, validate_only=validate_only) is Outcome.VALID:
        return TransferResult(transaction_id, Outcome.VALID)
    return committed_result(response, transaction_id)


def hold_result(
    response: wallet_pb2.HoldResponse, request: wallet_pb2.HoldRequest | wallet_pb2.VoidRequest
) -> HoldResult:
    """The result of a hold or void. Raises as `unary_result`."""
    identity = request.transaction_id
    outcome = _outcome(response, identity, validate_only=request.validate_only)
    available = Decimal(response.available) if response.HasField("available") else None
    return HoldResult(identity, outcome, available)


def journal_result(
    response: wallet_pb2.PostJournalResponse, request: wallet_pb2.PostJournalRequest
) -> JournalResult:
    """The result of a journal. Raises as `unary_result`."""
    identity = request.transaction_id
    outcome = _outcome(response, identity, validate_only=request.validate_only)
    return JournalResult(
        identity, outcome, tuple(Decimal(text) if text else None for text in response.available)
    )


def _outcome(
    response: wallet_pb2.TransferResponse | wallet_pb2.HoldResponse | wallet_pb2.PostJournalResponse,
    transaction_id: str,
    refusal: wallet_pb2.Refusal | None = None,
    *,
    validate_only: bool,
) -> Outcome:
    """COMMITTED, or VALID when that was all that was asked for; anything else is raised."""
    if response.transaction_id != transaction_id:
        raise OutcomeUnknown("the router answered for another transaction_id", transaction_id)
    if response.outcome == outcome_pb2.OUTCOME_COMMITTED:
        return Outcome.COMMITTED
    if response.outcome == outcome_pb2.OUTCOME_VALID and validate_only:
        return Outcome.VALID
    why = refusal or wallet_pb2.Refusal()
    raise from_refusal(response.outcome, why.message, why.field, transaction_id)


def account(message: wallet_pb2.Account) -> Account:
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


def _optional_text(amount: Amount | None, field: str) -> str | None:
    return None if amount is None else amount_text(amount, field)


def _decimal(text: str) -> Decimal:
    """A field the service leaves empty when it is zero."""
    return Decimal(text or "0")
