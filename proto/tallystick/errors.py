"""What can go wrong, as types a caller can act on.

    TallystickError
    ├── RetryableError               nothing final is known: send it again with the same transaction_id
    │   ├── OutcomeUnknown           it may have happened
    │   ├── Unavailable              a question got no answer; nothing moved
    │   ├── Overloaded               it was not begun; `retry_after_s` when the service said so
    │   ├── NotYetArchived           the ledger is complete up to `complete_until` only
    │   ├── ClientClosed             it was not sent: the client is closed
    │   ├── WrongEventLoop           it was not sent: the client belongs to another event loop
    │   └── ForkedClient             it was not sent: the client, or gRPC, did not survive a fork
    └── Refused                      final: nothing moved, and the same id gets the same answer
        ├── InsufficientFunds
        ├── CurrencyMismatch
        ├── AccountFrozen
        ├── AccountClosed
        ├── BalanceLimit
        ├── AccountNotFound
        ├── AccountExists
        ├── TransactionIdReused
        ├── TransactionIdExpired
        ├── TransactionNotFound
        ├── RefundExceedsPurchase
        ├── PurchaseNotFound
        ├── HoldNotActive
        ├── CaptureExceedsHold
        ├── TransferLimit
        ├── AccountNotEmpty
        ├── AccountInUse
        ├── VersionMismatch
        ├── Aborted
        └── InvalidArgument          its value, type or size: `field` names the part of the request

The text of each names the field, the case and the transaction, each once. The invariant kept here and in
`status`: an outcome that is not known is never called refused, and never called done. gRPC's own errors do
not leave the package: `status` turns each into one of these.
"""

# ruff: noqa: N818 - the names say what happened, in the contract's own words

from datetime import datetime
from enum import IntEnum
from typing import ClassVar, Self

from tallystick.v1 import outcome_pb2


class Outcome(IntEnum):
    """What became of a request item; the numbers are those of the contract's enum.

    UNSPECIFIED stands for "the service gave no outcome": the error says why.
    """

    UNSPECIFIED = outcome_pb2.OUTCOME_UNSPECIFIED
    COMMITTED = outcome_pb2.OUTCOME_COMMITTED
    INSUFFICIENT_FUNDS = outcome_pb2.OUTCOME_INSUFFICIENT_FUNDS
    CURRENCY_MISMATCH = outcome_pb2.OUTCOME_CURRENCY_MISMATCH
    ACCOUNT_FROZEN = outcome_pb2.OUTCOME_ACCOUNT_FROZEN
    ACCOUNT_CLOSED = outcome_pb2.OUTCOME_ACCOUNT_CLOSED
    BALANCE_LIMIT = outcome_pb2.OUTCOME_BALANCE_LIMIT
    ACCOUNT_NOT_FOUND = outcome_pb2.OUTCOME_ACCOUNT_NOT_FOUND
    TRANSACTION_ID_REUSED = outcome_pb2.OUTCOME_TRANSACTION_ID_REUSED
    TRANSACTION_ID_EXPIRED = outcome_pb2.OUTCOME_TRANSACTION_ID_EXPIRED
    ABORTED = outcome_pb2.OUTCOME_ABORTED
    ACCOUNT_EXISTS = outcome_pb2.OUTCOME_ACCOUNT_EXISTS
    INVALID_ARGUMENT = outcome_pb2.OUTCOME_INVALID_ARGUMENT
    OUTCOME_UNKNOWN = outcome_pb2.OUTCOME_OUTCOME_UNKNOWN
    RESOURCE_EXHAUSTED = outcome_pb2.OUTCOME_RESOURCE_EXHAUSTED
    TRANSACTION_NOT_FOUND = outcome_pb2.OUTCOME_TRANSACTION_NOT_FOUND
    REFUND_EXCEEDS_PURCHASE = outcome_pb2.OUTCOME_REFUND_EXCEEDS_PURCHASE
    PURCHASE_NOT_FOUND = outcome_pb2.OUTCOME_PURCHASE_NOT_FOUND
    HOLD_NOT_ACTIVE = outcome_pb2.OUTCOME_HOLD_NOT_ACTIVE
    CAPTURE_EXCEEDS_HOLD = outcome_pb2.OUTCOME_CAPTURE_EXCEEDS_HOLD
    TRANSFER_LIMIT = outcome_pb2.OUTCOME_TRANSFER_LIMIT
    ACCOUNT_NOT_EMPTY = outcome_pb2.OUTCOME_ACCOUNT_NOT_EMPTY
    ACCOUNT_IN_USE = outcome_pb2.OUTCOME_ACCOUNT_IN_USE
    VALID = outcome_pb2.OUTCOME_VALID
    VERSION_MISMATCH = outcome_pb2.OUTCOME_VERSION_MISMATCH


ERROR_TYPES: dict[int, type["TallystickError"]] = {}
"""The error that stands for each outcome but UNSPECIFIED, COMMITTED and VALID, by its number."""


class TallystickError(Exception):
    """The root. Catch RetryableError or Refused, or one of their kinds.

    Attributes:
        outcome: the outcome of the contract that this error stands for.
        message: a sentence about this case, in the place of the kind's own; may be empty.
        transaction_id: which transfer it concerns; empty when none.
        field: which field of the request it concerns; empty when none.
    """

    outcome: ClassVar[Outcome] = Outcome.UNSPECIFIED
    summary: ClassVar[str] = "the request failed"

    def __init_subclass__(cls) -> None:
        # The first of an outcome: one that is derived from it, by whomever, stands for no outcome itself.
        if "outcome" in vars(cls):
            ERROR_TYPES.setdefault(cls.outcome.value, cls)

    def __init__(self, message: str = "", transaction_id: str = "", field: str = "") -> None:
        # All of them go to `args`, so that a pickled error keeps its fields.
        super().__init__(message, transaction_id, field)
        self.message = message
        self.transaction_id = transaction_id
        self.field = field

    def __str__(self) -> str:
        sentence = self.message or self.summary
        if self.field:
            sentence = f"{self.field}: {sentence}"
        advice = self._advice()
        if advice not in sentence:
            sentence += f"; {advice}"
        if self.transaction_id:
            sentence += f" (transaction {self.transaction_id})"
        return sentence

    def _advice(self) -> str:
        """What to do, unless the sentence says so already; empty for nothing."""
        return ""

    def concerning(self, transaction_id: str) -> Self:
        """The same error, said of one transfer of a batch that failed as a whole."""
        message, _, *others = self.args
        return type(self)(message, transaction_id, *others)


class RetryableError(TallystickError):
    """Nothing final is known: it may be sent again with the same transaction_id."""

    summary = "no final answer"


class OutcomeUnknown(RetryableError):
    """It may have happened. Ask again with the same transaction_id; never read this as "failed"."""

    outcome = Outcome.OUTCOME_UNKNOWN
    summary = "the outcome is not known"

    def _advice(self) -> str:
        # Opening, freezing and closing an account have no id: done again, they do nothing.
        return f"send it again{' with the same transaction_id' if self.transaction_id else ''}"


class Unavailable(RetryableError):
    """A question (an account, a transfer's outcome, the ledger) got no answer. Ask again."""

    summary = "no answer"

    def _advice(self) -> str:
        return "nothing moved, ask again"


class Overloaded(RetryableError):
    """More load than is taken at the moment; it was not begun.

    Attributes:
        retry_after_s: seconds the service asks to wait; None when it did not say.
    """

    outcome = Outcome.RESOURCE_EXHAUSTED
    summary = "too much load"

    def __init__(
        self, message: str = "", transaction_id: str = "", field: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, transaction_id, field)
        self.args = (message, transaction_id, field, retry_after_s)
        self.retry_after_s = retry_after_s

    def _advice(self) -> str:
        return "nothing was begun"


class ClientClosed(RetryableError):
    """The client was closed before this was sent. Another client may send it."""

    summary = "the client is closed, nothing was sent"


class WrongEventLoop(RetryableError):
    """The client connected in another event loop than the one that runs now. Nothing was sent."""

    summary = "the client belongs to another event loop, nothing was sent; make one in each asyncio.run"


class ForkedClient(RetryableError):
    """The client was made before this process was forked, or gRPC was at work then. Nothing was sent."""

    summary = (
        "the client was made before this process was forked, nothing was sent; make one in each process: in "
        "gunicorn's post_fork, Celery's worker_process_init or a Pool's initializer"
    )


class _UpTo(TallystickError):
    """What a ledger client raises of the archive, which knows the past up to a moment only.

    Attributes:
        complete_until: what happened up to then is known (UTC); None when that is not known, and
            where no archive was asked.
    """

    def __init__(
        self,
        message: str = "",
        transaction_id: str = "",
        field: str = "",
        complete_until: datetime | None = None,
    ) -> None:
        super().__init__(message, transaction_id, field)
        self.args = (message, transaction_id, field, complete_until)
        self.complete_until = complete_until


class NotYetArchived(_UpTo, RetryableError):
    """The ledger did not become complete up to `wait_for` in time. The message names the shards that lag."""

    summary = "not archived yet"


class Refused(TallystickError):
    """Final: nothing moved, and the same transaction_id will get the same answer."""

    summary = "refused"


class InsufficientFunds(Refused):
    """The payer's available balance would fall below its minimum balance."""

    outcome = Outcome.INSUFFICIENT_FUNDS
    summary = "insufficient funds"


class CurrencyMismatch(Refused):
    """The account is held in another currency than the request names."""

    outcome = Outcome.CURRENCY_MISMATCH
    summary = "the account is held in another currency"


class AccountFrozen(Refused):
    """The account takes part in no transfer until it is unfrozen."""

    outcome = Outcome.ACCOUNT_FROZEN
    summary = "the account is frozen"


class AccountClosed(Refused):
    """The account is closed for ever."""

    outcome = Outcome.ACCOUNT_CLOSED
    summary = "the account is closed"


class BalanceLimit(Refused):
    """The payee's balance would pass its maximum balance, or 2^53 - 1 minor units.

    With an empty `field` it is not the payee's: the system account through which money enters and leaves
    the account's shard is at that bound.
    """

    outcome = Outcome.BALANCE_LIMIT
    summary = "a balance would pass its limit"


class AccountNotFound(_UpTo, Refused):
    """No account has this id; from a ledger client, none had by `complete_until`."""

    outcome = Outcome.ACCOUNT_NOT_FOUND
    summary = "account not found"


class AccountExists(Refused):
    """The account exists with another currency, minimum balance or maximum."""

    outcome = Outcome.ACCOUNT_EXISTS
    summary = "the account exists with other attributes"


class TransactionIdReused(Refused):
    """The same transaction_id was used before with other contents; that first use stands."""

    outcome = Outcome.TRANSACTION_ID_REUSED
    summary = "the transaction_id was used for something else"


class TransactionIdExpired(Refused):
    """A UUIDv7 older than the deduplication window: it can no longer be told from a repetition.

    Nothing moved now. Whether it did when the id was new, only the ledger can tell.
    """

    outcome = Outcome.TRANSACTION_ID_EXPIRED
    summary = "the transaction_id is too old"


class TransactionNotFound(_UpTo, Refused):
    """No outcome is remembered under this id; from a ledger client, nothing moved by `complete_until`."""

    outcome = Outcome.TRANSACTION_NOT_FOUND
    summary = "transaction not found"


class RefundExceedsPurchase(Refused):
    """The refund and those before it would be more than the purchase."""

    outcome = Outcome.REFUND_EXCEEDS_PURCHASE
    summary = "more than is left of the purchase"


class PurchaseNotFound(Refused):
    """No committed purchase of that customer is known under the id."""

    outcome = Outcome.PURCHASE_NOT_FOUND
    summary = "purchase not found"


class HoldNotActive(Refused):
    """The hold was never made, or was captured or voided, or has expired."""

    outcome = Outcome.HOLD_NOT_ACTIVE
    summary = "the hold is not active"


class CaptureExceedsHold(Refused):
    """The amount is more than the hold reserves."""

    outcome = Outcome.CAPTURE_EXCEEDS_HOLD
    summary = "more than the hold"


class TransferLimit(Refused):
    """The amount is more than the account's maximum_transfer."""

    outcome = Outcome.TRANSFER_LIMIT
    summary = "more than the account's maximum for one transfer"


class AccountNotEmpty(Refused):
    """The account to be closed has a balance that is not zero, or an active hold."""

    outcome = Outcome.ACCOUNT_NOT_EMPTY
    summary = "the account is not empty"


class AccountInUse(Refused):
    """Something is on its way to the account to be closed. Try again soon."""

    outcome = Outcome.ACCOUNT_IN_USE
    summary = "something is on its way to the account"


class VersionMismatch(Refused):
    """The account is at another version than expected. Read it again; what is to happen then has a new id."""

    outcome = Outcome.VERSION_MISMATCH
    summary = "the account is at another version"


class Aborted(Refused):
    """A failure cut the transfer short and it was rolled back. Make a new one, with a new id."""

    outcome = Outcome.ABORTED
    summary = "aborted and rolled back"


class InvalidArgument(Refused):
    """The request is malformed: `field` names the part, `message` the limit."""

    outcome = Outcome.INVALID_ARGUMENT
    summary = "invalid argument"
