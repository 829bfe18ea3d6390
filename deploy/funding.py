"""Opens the accounts that a payments file names, and gives every payer something to pay with.

`tallystick import --open-accounts` is for trying things out: nobody's payments file says who has how much.
Invariant: a payer is funded once, also when the file is imported again long after: the deposit's id comes
from the payer's first row and carries that row's time, so it is remembered, or expired, just as the row is.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Iterable, Sequence
from typing import Protocol
from uuid import UUID

from deploy.errors import DeployError
from deploy.payments_file import Row
from tallystick import (
    AccountExists,
    AccountResult,
    Amount,
    InvalidArgument,
    NewAccount,
    Refused,
    RetryableError,
    Transfer,
    TransferResult,
)

# For ids without a time: then the deposit is exactly-once within the deduplication window, as the row is.
_NAMESPACE = UUID("6f4a1f0c-5a0e-5c53-9a5b-0f6d5d1f8a11")
# Deposits on their way at once: there is no batch call for them, and one call waits for a disk.
_DEPOSITS_IN_FLIGHT = 128
_V7 = 7
_VERSION_BITS = _V7 << 76
_VARIANT_BITS = 0b10 << 62
_TIME_MASK = ((1 << 48) - 1) << 80
_RANDOM_MASK = (((1 << 12) - 1) << 64) | ((1 << 62) - 1)


def deposit_id(row_transaction_id: str, account_id: str) -> str | None:
    """The id of the deposit that funds an account, from the first row it pays; None if that has no UUID."""
    try:
        row_id = UUID(row_transaction_id)
    except ValueError:
        return None
    if row_id.version != _V7:
        return str(uuid.uuid5(_NAMESPACE, f"{row_id}/{account_id}"))
    digest = hashlib.blake2b(f"{row_id}/{account_id}".encode(), digest_size=16, person=b"tallystick fund")
    random_bits = int.from_bytes(digest.digest()) & _RANDOM_MASK
    return str(UUID(int=(row_id.int & _TIME_MASK) | _VERSION_BITS | _VARIANT_BITS | random_bits))


class Wallet(Protocol):
    """What an import needs of `tallystick.Client`."""

    async def open_accounts(
        self, accounts: Iterable[NewAccount], *, timeout_s: float | None = None
    ) -> list[AccountResult]:
        """See `Client.open_accounts`."""

    async def deposit(
        self,
        account_id: str,
        amount: Amount,
        currency: str,
        *,
        transaction_id: str | UUID | None = None,
        reference: str = "",
        timeout_s: float | None = None,
    ) -> TransferResult:
        """See `Client.deposit`."""

    async def transfers(
        self, batch: Iterable[Transfer], *, timeout_s: float | None = None
    ) -> list[TransferResult]:
        """See `Client.transfers`."""


class Funding:
    """Opens and funds; keeps who was met in this run by their hashes, for a file may name very many."""

    def __init__(self, client: Wallet, amount: str, timeout_s: float) -> None:
        self._client = client
        self._amount = amount
        self._timeout_s = timeout_s
        self._opened: set[int] = set()
        self._funded: set[int] = set()
        self._places = asyncio.Semaphore(_DEPOSITS_IN_FLIGHT)

    def note(self, row: Row) -> None:
        """Takes note of a row that was carried out before: its accounts are open, its payer had enough."""
        self._opened.update((hash(row.from_account), hash(row.to_account)))
        self._funded.add(hash(row.from_account))

    async def prepare(self, rows: Iterable[Row]) -> None:
        """Opens and funds what these rows name for the first time. Refusals are left to the rows themselves.

        Raises DeployError when the cluster does not answer in time.
        """
        rows = [row for row in rows if not row.defect]
        try:
            await self._open(rows)
            await self._fund(rows)
        except RetryableError as error:
            raise DeployError(f"accounts could not be opened and funded: {error}") from error

    async def _open(self, rows: Sequence[Row]) -> None:
        # Every currency that the rows name for an account, in their order: the first may be a mistake.
        wanted: dict[str, dict[str, None]] = {}
        for row in rows:
            for account_id in (row.from_account, row.to_account):
                # Accounts of the system are there by themselves.
                if hash(account_id) not in self._opened and not account_id.startswith("@"):
                    wanted.setdefault(account_id, {})[row.currency] = None
        currencies = {account_id: iter(named) for account_id, named in wanted.items()}
        while currencies:
            asked = {account_id: next(left, None) for account_id, left in currencies.items()}
            new = [NewAccount(account_id, code) for account_id, code in asked.items() if code is not None]
            refused = await self._open_with(new)
            currencies = {account_id: currencies[account_id] for account_id in refused}

    async def _open_with(self, new: Sequence[NewAccount]) -> list[str]:
        """Opens accounts; the ids of those that were refused."""
        refused = []
        for result in await self._client.open_accounts(new, timeout_s=self._timeout_s):
            if isinstance(result.error, RetryableError):
                raise result.error
            if result.error is None or isinstance(result.error, AccountExists):
                self._opened.add(hash(result.account_id))
            else:
                refused.append(result.account_id)
        return refused

    async def _fund(self, rows: Sequence[Row]) -> None:
        deposits = {}
        for row in rows:
            key = hash(row.from_account)
            if key in self._funded or key not in self._opened:
                continue
            transaction_id = deposit_id(row.transaction_id, row.from_account)
            if transaction_id is not None:
                self._funded.add(key)
                deposits[transaction_id] = row
        await asyncio.gather(*(self._deposit(tid, row) for tid, row in deposits.items()))

    async def _deposit(self, transaction_id: str, row: Row) -> None:
        async with self._places:
            try:
                await self._client.deposit(
                    row.from_account,
                    self._amount,
                    row.currency,
                    transaction_id=transaction_id,
                    reference="funded by import",
                    timeout_s=self._timeout_s,
                )
            except InvalidArgument as error:
                if error.field == "amount":
                    # Our own mistake, not the row's: without funds its rows would be refused for good.
                    raise DeployError(f"{row.from_account} cannot be funded: {error.message}") from error
            except Refused:
                # Expired: funded, or not, long ago. Any other reason meets the row itself.
                return
