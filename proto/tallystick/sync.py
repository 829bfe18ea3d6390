"""The same client for code that does not use asyncio."""

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from typing import Any, Self, TypeVar
from uuid import UUID

from tallystick.client import Client
from tallystick.settings import ClientSettings
from tallystick.values import (
    Account,
    AccountResult,
    Amount,
    NewAccount,
    Transfer,
    TransferRecord,
    TransferResult,
)

ResultT = TypeVar("ResultT")


class SyncClient:
    """A `Client` that runs in a thread of its own, with the same methods, each of which waits.

    Any number of threads may share one; their transfers leave together in batches.
    Use it with `with`, or `close` it. Not for use inside a coroutine: it would stop
    the caller's event loop.

    Args:
        addresses: "host:port" of the routers, one by one or as lists.
        settings: limits and waits.
    """

    def __init__(self, *addresses: str | Iterable[str], settings: ClientSettings | None = None) -> None:
        self._client = Client(*addresses, settings=settings)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_on_loop_error)
        # A daemon, so that a client somebody forgot to close does not keep the process alive.
        self._thread = threading.Thread(target=self._serve, name="tallystick-client", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Sync{repr(self._client)[1:]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """As `Client.close`; then the thread ends. A second call does nothing."""
        if self._loop.is_closed():
            return
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def open_account(
        self,
        account_id: str,
        currency: str,
        minimum_balance: Amount = "0",
        *,
        timeout_s: float | None = None,
    ) -> Account:
        """As `Client.open_account`."""
        return self._run(
            self._client.open_account(account_id, currency, minimum_balance, timeout_s=timeout_s)
        )

    def open_accounts(
        self, accounts: Iterable[NewAccount], *, timeout_s: float | None = None
    ) -> list[AccountResult]:
        """As `Client.open_accounts`."""
        return self._run(self._client.open_accounts(accounts, timeout_s=timeout_s))

    def get_account(self, account_id: str, *, timeout_s: float | None = None) -> Account:
        """As `Client.get_account`."""
        return self._run(self._client.get_account(account_id, timeout_s=timeout_s))

    def get_accounts(
        self, account_ids: Iterable[str], *, timeout_s: float | None = None
    ) -> list[AccountResult]:
        """As `Client.get_accounts`."""
        return self._run(self._client.get_accounts(account_ids, timeout_s=timeout_s))

    def transfer(
        self,
        from_account: str,
        to_account: str,
        amount: Amount,
        currency: str,
        *,
        transaction_id: str | UUID | None = None,
        reference: str = "",
        timeout_s: float | None = None,
        return_balances: bool = False,
    ) -> TransferResult:
        """As `Client.transfer`."""
        return self._run(
            self._client.transfer(
                from_account,
                to_account,
                amount,
                currency,
                transaction_id=transaction_id,
                reference=reference,
                timeout_s=timeout_s,
                return_balances=return_balances,
            )
        )

    def transfers(
        self, batch: Iterable[Transfer], *, timeout_s: float | None = None, return_balances: bool = False
    ) -> list[TransferResult]:
        """As `Client.transfers`."""
        return self._run(self._client.transfers(batch, timeout_s=timeout_s, return_balances=return_balances))

    def get_transfer(
        self, transaction_id: str | UUID, from_account: str, *, timeout_s: float | None = None
    ) -> TransferRecord:
        """As `Client.get_transfer`."""
        return self._run(self._client.get_transfer(transaction_id, from_account, timeout_s=timeout_s))

    def deposit(
        self,
        account_id: str,
        amount: Amount,
        currency: str,
        *,
        transaction_id: str | UUID | None = None,
        reference: str = "",
        timeout_s: float | None = None,
    ) -> TransferResult:
        """As `Client.deposit`."""
        return self._run(
            self._client.deposit(
                account_id,
                amount,
                currency,
                transaction_id=transaction_id,
                reference=reference,
                timeout_s=timeout_s,
            )
        )

    def withdraw(
        self,
        account_id: str,
        amount: Amount,
        currency: str,
        *,
        transaction_id: str | UUID | None = None,
        reference: str = "",
        timeout_s: float | None = None,
    ) -> TransferResult:
        """As `Client.withdraw`."""
        return self._run(
            self._client.withdraw(
                account_id,
                amount,
                currency,
                transaction_id=transaction_id,
                reference=reference,
                timeout_s=timeout_s,
            )
        )

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _run(self, call: Coroutine[Any, Any, ResultT]) -> ResultT:
        if self._loop.is_closed():
            call.close()
            raise RuntimeError("this SyncClient is closed")
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            # Ctrl-C stops the wait; the call must not go on behind the caller's back.
            future.cancel()
            raise


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # With loops in several threads gRPC wakes them all for one event: the late ones find nothing
    # to read and raise this, harmlessly (https://github.com/grpc/grpc/issues/25364).
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)
