"""Move money with Tallystick.

    async with Client("router-1:7000", "router-2:7000") as client:
        await client.open_account("alice", "EUR")
        await client.deposit("alice", "100.00", "EUR")
        result = await client.transfer("alice", "bob", Decimal("12.50"), "EUR")
        account = await client.get_account("alice")

Without asyncio, `SyncClient` has the same methods. Errors are either a `RetryableError`
(send the same transaction_id again) or a `Refused` (final): see `tallystick.errors`.
The messages and stubs of the contract itself are in `tallystick.v1`.
"""

from tallystick.client import Client
from tallystick.errors import (
    Aborted,
    AccountClosed,
    AccountExists,
    AccountFrozen,
    AccountNotFound,
    BalanceLimit,
    ClientClosed,
    CurrencyMismatch,
    InsufficientFunds,
    InvalidArgument,
    Outcome,
    OutcomeUnknown,
    Overloaded,
    Refused,
    RetryableError,
    TallystickError,
    TransactionIdExpired,
    TransactionIdReused,
    TransactionNotFound,
)
from tallystick.ids import new_transaction_id
from tallystick.settings import ClientSettings
from tallystick.sync import SyncClient
from tallystick.values import (
    Account,
    AccountResult,
    AccountState,
    Amount,
    NewAccount,
    Transfer,
    TransferRecord,
    TransferResult,
)

__all__ = [
    "Aborted",
    "Account",
    "AccountClosed",
    "AccountExists",
    "AccountFrozen",
    "AccountNotFound",
    "AccountResult",
    "AccountState",
    "Amount",
    "BalanceLimit",
    "Client",
    "ClientClosed",
    "ClientSettings",
    "CurrencyMismatch",
    "InsufficientFunds",
    "InvalidArgument",
    "NewAccount",
    "Outcome",
    "OutcomeUnknown",
    "Overloaded",
    "Refused",
    "RetryableError",
    "SyncClient",
    "TallystickError",
    "TransactionIdExpired",
    "TransactionIdReused",
    "TransactionNotFound",
    "Transfer",
    "TransferRecord",
    "TransferResult",
    "new_transaction_id",
]
