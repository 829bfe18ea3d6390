"""What goes into the client and what comes out of it: plain immutable values.

Money is `decimal.Decimal` on the way out, and Decimal, str or int on the way in;
never float, which cannot say 0.10. Amounts are in the currency's own unit ("12.50"
is twelve euros fifty), not in minor units.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import IntEnum
from typing import NamedTuple
from uuid import UUID

from tallystick.errors import Outcome, TallystickError
from tallystick.v1 import wallet_pb2

Amount = Decimal | str | int
"""What a caller may give as money."""


class AccountState(IntEnum):
    """Whether an account takes part in transfers; the numbers are the contract's."""

    UNSPECIFIED = wallet_pb2.ACCOUNT_STATE_UNSPECIFIED
    OPEN = wallet_pb2.ACCOUNT_STATE_OPEN
    FROZEN = wallet_pb2.ACCOUNT_STATE_FROZEN
    CLOSED = wallet_pb2.ACCOUNT_STATE_CLOSED


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to open.

    Attributes:
        account_id: 1-64 characters of letters, digits and . _ : @ { } -
        currency: an ISO 4217 code.
        minimum_balance: the lowest balance allowed; negative for a credit line.
        maximum_balance: the most it may hold; None for no limit of its own.
        maximum_transfer: the most that one transfer, hold or journal may take; None for no limit.
        validate_only: check all of this, and open nothing.
    """

    account_id: str
    currency: str
    minimum_balance: Amount = "0"
    maximum_balance: Amount | None = None
    maximum_transfer: Amount | None = None
    validate_only: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """An account as it stood when it was read.

    Attributes:
        account_id: its id.
        currency: an ISO 4217 code.
        available: what can be spent, down to minimum_balance.
        held: what is reserved and cannot be spent.
        version: how many changes it has seen.
        state: whether it takes part in transfers.
        minimum_balance: the lowest `available` allowed.
        maximum_balance: the most that `available` and `held` may be together; None for no limit of its own.
        maximum_transfer: the most that one transfer, hold or journal may take; None for no limit.
    """

    account_id: str
    currency: str
    available: Decimal
    held: Decimal
    version: int
    state: AccountState
    minimum_balance: Decimal
    maximum_balance: Decimal | None = None
    maximum_transfer: Decimal | None = None


@dataclass(frozen=True, slots=True)
class AccountResult:
    """The answer to one item of a batch of accounts: an account or an error, never both."""

    account_id: str
    account: Account | None = None
    error: TallystickError | None = None


@dataclass(frozen=True, slots=True)
class AccountPage:
    """Some of all accounts, perhaps none; `next_token` is empty on the last page only."""

    accounts: tuple[Account, ...]
    next_token: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """Money to move, as an item of `transfers`.

    Attributes:
        from_account: the payer.
        to_account: the payee.
        amount: above zero, in the currency's unit.
        currency: the ISO 4217 code of both accounts.
        transaction_id: a UUID; a new UUIDv7 when None. Give your own to be able to
            send the same transfer again after a crash.
        reference: up to 256 bytes, kept in the ledger only.
        validate_only: check it, and move nothing.
        expected_version: move it only while the payer is at that version; None for any.
    """

    from_account: str
    to_account: str
    amount: Amount
    currency: str
    transaction_id: str | UUID | None = None
    reference: str = ""
    validate_only: bool = False
    expected_version: int | None = None


@dataclass(frozen=True, slots=True)
class JournalLeg:
    """One account's part in a journal.

    Attributes:
        account_id: whose; each account at most once in a journal.
        amount: in the currency's unit; below zero it is a debit.
        currency: the ISO 4217 code of the account.
        expected_version: make the journal only while the account is at that version; None for any. For the
            debited account whose id comes first, and for others in its slot, as by a hash tag.
    """

    account_id: str
    amount: Amount
    currency: str
    expected_version: int | None = None


class TransferResult(NamedTuple):
    """What became of one transfer, deposit, withdrawal, purchase, refund or capture.

    The one value that is not a dataclass: a frozen one takes a microsecond to make,
    a tenth of all that a transfer costs in the client.

    Attributes:
        transaction_id: its id; the one to use when asking again.
        outcome: COMMITTED; VALID when it was only checked; or what `error` stands for.
        from_available: the payer's balance just after, when asked for and known.
        to_available: the payee's balance just after, when asked for and known.
        error: None when committed or valid. In a batch a result carries its error; a single
            transfer raises it.
    """

    transaction_id: str
    outcome: Outcome
    from_available: Decimal | None = None
    to_available: Decimal | None = None
    error: TallystickError | None = None

    @property
    def committed(self) -> bool:
        """Whether the money moved, durably. False also when that is not known yet: see `error`."""
        return self.outcome is Outcome.COMMITTED


@dataclass(frozen=True, slots=True)
class HoldResult:
    """What became of a hold, or of its end.

    Attributes:
        transaction_id: its id; that of a hold names it to `capture` and `void`.
        outcome: COMMITTED; VALID when it was only checked.
        available: the account's balance just after, when known: not for a repetition.
    """

    transaction_id: str
    outcome: Outcome
    available: Decimal | None = None


@dataclass(frozen=True, slots=True)
class JournalResult:
    """What became of a journal.

    Attributes:
        transaction_id: its id; the one to use when asking again.
        outcome: COMMITTED; VALID when it was only checked.
        available: each leg's account just after, in the order of the legs, None where not known.
    """

    transaction_id: str
    outcome: Outcome
    available: tuple[Decimal | None, ...] = ()


@dataclass(frozen=True, slots=True)
class TransferRecord:
    """What the service remembers of a transfer.

    Attributes:
        transaction_id: its id.
        from_account: the payer; for a deposit or withdrawal, the account.
        outcome: what was decided.
        amount: in the currency's unit; None when not remembered.
        currency: an ISO 4217 code; empty when not remembered.
        decided_at: when, by the deciding shard's clock (UTC); None when not remembered.
    """

    transaction_id: str
    from_account: str
    outcome: Outcome
    amount: Decimal | None
    currency: str
    decided_at: datetime | None
