"""Move money with Tallystick.

    async with Client("router-1:7000", "router-2:7000") as client:
        await client.open_account("alice", "EUR")
        await client.deposit("alice", "100.00", "EUR")
        result = await client.transfer("alice", "bob", Decimal("12.50"), "EUR")
        account = await client.get_account("alice")

Without asyncio, `SyncClient` has the same methods. `LedgerClient` and `SyncLedgerClient` read history,
and watch it (see `tallystick.ledger`). Errors are either a `RetryableError`
(send the same transaction_id again) or a `Refused` (final): see `tallystick.errors`.
The messages and stubs of the contract itself are in `tallystick.v1`.
"""

from tallystick.client import Client
from tallystick.errors import (
    Aborted,
    AccountClosed,
    AccountExists,
    AccountFrozen,
    AccountInUse,
    AccountNotEmpty,
    AccountNotFound,
    BalanceLimit,
    CaptureExceedsHold,
    ClientClosed,
    CurrencyMismatch,
    ForkedClient,
    HoldNotActive,
    InsufficientFunds,
    InvalidArgument,
    NotYetArchived,
    Outcome,
    OutcomeUnknown,
    Overloaded,
    PurchaseNotFound,
    RefundExceedsPurchase,
    Refused,
    RetryableError,
    TallystickError,
    TransactionIdExpired,
    TransactionIdReused,
    TransactionNotFound,
    TransferLimit,
    Unavailable,
    VersionMismatch,
    WrongEventLoop,
)
from tallystick.ids import new_transaction_id
from tallystick.ledger import LedgerClient
from tallystick.ledger_sync import SyncLedgerClient
from tallystick.settings import ClientSettings
from tallystick.sync import SyncClient
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
    Transfer,
    TransferRecord,
    TransferResult,
)

__version__ = "0.1.0"

__all__ = [
    "Aborted",
    "Account",
    "AccountClosed",
    "AccountExists",
    "AccountFrozen",
    "AccountInUse",
    "AccountNotEmpty",
    "AccountNotFound",
    "AccountPage",
    "AccountResult",
    "AccountState",
    "Amount",
    "BalanceLimit",
    "CaptureExceedsHold",
    "Client",
    "ClientClosed",
    "ClientSettings",
    "CurrencyMismatch",
    "ForkedClient",
    "HoldNotActive",
    "HoldResult",
    "InsufficientFunds",
    "InvalidArgument",
    "JournalLeg",
    "JournalResult",
    "LedgerClient",
    "NewAccount",
    "NotYetArchived",
    "Outcome",
    "OutcomeUnknown",
    "Overloaded",
    "PurchaseNotFound",
    "RefundExceedsPurchase",
    "Refused",
    "RetryableError",
    "SyncClient",
    "SyncLedgerClient",
    "TallystickError",
    "TransactionIdExpired",
    "TransactionIdReused",
    "TransactionNotFound",
    "Transfer",
    "TransferLimit",
    "TransferRecord",
    "TransferResult",
    "Unavailable",
    "VersionMismatch",
    "WrongEventLoop",
    "__version__",
    "new_transaction_id",
]
