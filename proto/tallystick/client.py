"""The asyncio client of the wallet service.

Concurrent single transfers are coalesced into batches (`coalescer`, `sender`), because
a call costs as much as some hundred transfers. What says nothing final is sent again
under the same transaction_id, within the call's deadline, to the next router.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Self, TypeVar
from uuid import UUID

from tallystick import transport as wallet
from tallystick import wire
from tallystick.caller import Caller
from tallystick.coalescer import Coalescer
from tallystick.errors import ClientClosed
from tallystick.operations import MoneyOperations
from tallystick.retry import RetryPolicy
from tallystick.rotation import Rotation
from tallystick.sender import Sender
from tallystick.settings import SERVICE_BATCH_LIMIT, ClientSettings
from tallystick.surroundings import Surroundings
from tallystick.tickets import Piece, PieceTicket, SingleTicket
from tallystick.transport import Method, RequestT, ResponseT, Transport
from tallystick.v1 import wallet_pb2
from tallystick.values import (
    Account,
    AccountPage,
    AccountResult,
    Amount,
    NewAccount,
    Transfer,
    TransferRecord,
    TransferResult,
)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

ACCOUNTS_PAGE_SIZE = 500
"""Accounts in a page of `accounts` (the service gives 1000 at the most)."""


class _Connection:
    """What a client has once it runs inside an event loop."""

    __slots__ = ("bulk_places", "caller", "loop", "sender", "transport")

    def __init__(self, addresses: Sequence[str], settings: ClientSettings, world: Surroundings) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport: Transport = world.connect(addresses)
        rotation = Rotation(
            len(addresses),
            settings.batches_in_flight,
            settings.router_rest_s,
            settings.longest_router_rest_s,
        )
        policy = RetryPolicy(settings.first_retry_delay_s, settings.longest_retry_delay_s, world.jitter)
        self.sender = Sender(Coalescer(settings, rotation, policy), self.transport, world.clock)
        self.caller = Caller(self.transport, rotation, policy, world, settings.attempt_timeout_s)
        # Batches of transfers and of accounts, in pieces: no more at work than the routers have places for.
        self.bulk_places = asyncio.Semaphore(rotation.capacity)


class Client(MoneyOperations):
    """A wallet client for one event loop. Any number of tasks may share it; make one and keep it.

    It connects at the first call. Every method takes `timeout_s`, the seconds it may
    take in all (`settings.timeout_s` when None), and raises a RetryableError when no
    final answer came within them, or a Refused when there is one and it is no.
    Where an answer may have been lost, that is OutcomeUnknown with the transaction_id
    to ask again with.

    Args:
        addresses: "host:port" of the routers, one by one or as lists.
        settings: limits and waits.
        surroundings: time, chance and the way to the routers, for tests.
    """

    def __init__(
        self,
        *addresses: str | Iterable[str],
        settings: ClientSettings | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self._addresses: list[str] = []
        for entry in addresses:
            self._addresses.extend([entry] if isinstance(entry, str) else entry)
        if not self._addresses:
            raise ValueError("a client needs the address of at least one router")
        self._settings = settings or ClientSettings()
        self._world = surroundings or Surroundings()
        self._clock = self._world.clock
        self._connection: _Connection | None = None
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._connection else "not connected"
        return f"<Client {', '.join(self._addresses)} {state}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Settle what waits, give calls in flight a moment (`settings.close_grace_s`), and disconnect."""
        self._closed = True
        connection = self._connection
        if connection is None:
            return
        connection.caller.close()
        await connection.sender.close(self._settings.close_grace_s)
        await connection.transport.close()

    async def open_account(
        self,
        account_id: str,
        currency: str,
        minimum_balance: Amount = "0",
        *,
        maximum_balance: Amount | None = None,
        maximum_transfer: Amount | None = None,
        validate_only: bool = False,
        timeout_s: float | None = None,
    ) -> Account:
        """Open an account, or get it as it stands when it was opened before with the same attributes.

        Args:
            account_id: 1-64 characters of letters, digits and . _ : @ { } -
            currency: an ISO 4217 code.
            minimum_balance: the lowest balance allowed; negative for a credit line.
            maximum_balance: the most it may hold; None for no limit of its own.
            maximum_transfer: the most that one transfer, hold or journal may take; None for no limit.
            validate_only: open nothing; answers with the account as it would stand.
            timeout_s: seconds in all, retries included.

        Raises:
            AccountExists: it was opened with other attributes.
        """
        new = NewAccount(
            account_id, currency, minimum_balance, maximum_balance, maximum_transfer, validate_only
        )
        return wire.account(await self._call(wallet.OPEN_ACCOUNT, wire.open_account_request(new), timeout_s))

    async def open_accounts(
        self, accounts: Iterable[NewAccount], *, timeout_s: float | None = None
    ) -> list[AccountResult]:
        """Open any number of accounts.

        Args:
            accounts: what to open.
            timeout_s: for each piece of 8192, from when its turn comes.

        Returns:
            One result for each, in order, with the account or the error.
        """
        requests = [wire.open_account_request(new) for new in accounts]

        async def run(piece: Sequence[wallet_pb2.OpenAccountRequest]) -> list[AccountResult]:
            return await self._connected().caller.call_for_accounts(
                wallet.OPEN_ACCOUNTS,
                lambda places: wallet_pb2.BatchOpenAccountsRequest(accounts=[piece[at] for at in places]),
                [request.account_id for request in piece],
                self._deadline_s(timeout_s),
            )

        return await self._in_pieces(requests, SERVICE_BATCH_LIMIT, run)

    async def get_account(self, account_id: str, *, timeout_s: float | None = None) -> Account:
        """Read an account.

        Raises:
            AccountNotFound: no account has this id.
        """
        request = wallet_pb2.GetAccountRequest(account_id=account_id)
        return wire.account(await self._call(wallet.GET_ACCOUNT, request, timeout_s))

    async def get_accounts(
        self, account_ids: Iterable[str], *, timeout_s: float | None = None
    ) -> list[AccountResult]:
        """Read any number of accounts.

        Args:
            account_ids: which.
            timeout_s: for each piece of 8192, from when its turn comes.

        Returns:
            One result for each, in order, with the account or the error.
        """

        async def run(piece: Sequence[str]) -> list[AccountResult]:
            return await self._connected().caller.call_for_accounts(
                wallet.GET_ACCOUNTS,
                lambda places: wallet_pb2.BatchGetAccountsRequest(account_ids=[piece[at] for at in places]),
                piece,
                self._deadline_s(timeout_s),
            )

        return await self._in_pieces(list(account_ids), SERVICE_BATCH_LIMIT, run)

    async def list_accounts(
        self,
        prefix: str = "",
        *,
        page_size: int = ACCOUNTS_PAGE_SIZE,
        page_token: str = "",
        timeout_s: float | None = None,
    ) -> AccountPage:
        """One page of all accounts. It may be short, even empty, and not be the last.

        In order of slot, then of id by its bytes. Closed accounts are among them, the system's own are not.

        Args:
            prefix: only accounts whose id begins with it.
            page_size: at most so many, 1 to 1000.
            page_token: the `next_token` of the page before, with the same prefix.
            timeout_s: seconds in all, retries included.
        """
        request = wallet_pb2.ListAccountsRequest(prefix=prefix, page_size=page_size, page_token=page_token)
        response = await self._call(wallet.LIST_ACCOUNTS, request, timeout_s)
        return AccountPage(tuple(map(wire.account, response.accounts)), response.next_page_token)

    async def accounts(self, prefix: str = "", *, timeout_s: float | None = None) -> AsyncIterator[Account]:
        """All accounts whose id begins with a prefix, page by page; `timeout_s` is a page's.

        One that is opened meanwhile comes once or not at all; every other comes once.
        """
        token = ""
        while True:
            page = await self.list_accounts(prefix, page_token=token, timeout_s=timeout_s)
            for account in page.accounts:
                yield account
            token = page.next_token
            if not token:
                return

    async def transfer(  # noqa: PLR0913 - the fields of the contract's message
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
        validate_only: bool = False,
    ) -> TransferResult:
        """Move money between two accounts.

        Concurrent calls leave together in batches. Cancelling one disturbs no other;
        whether a cancelled one happened, `get_transfer` or the same id can tell.

        Args:
            from_account: the payer.
            to_account: the payee.
            amount: above zero, in the currency's unit.
            currency: the ISO 4217 code of both accounts.
            transaction_id: a UUID; a new UUIDv7 when None.
            reference: up to 256 bytes, kept in the ledger only.
            timeout_s: seconds in all, retries included.
            return_balances: also answer with both balances just after.
            validate_only: check it, and move nothing: the outcome is VALID, or the error that it would get.

        Raises:
            Refused: nothing moved.
            Overloaded: nothing was begun.
            OutcomeUnknown: it may have moved; send the same transaction_id again.
            TypeError: the amount is a float.
        """
        connection = self._connection or self._connected()
        identity = self._world.new_id() if transaction_id is None else wire.id_text(transaction_id)
        request = wallet_pb2.TransferRequest(
            transaction_id=identity,
            from_account=from_account,
            to_account=to_account,
            amount=wire.amount_text(amount),
            currency=currency,
            reference=reference,
            validate_only=validate_only,
        )
        future: asyncio.Future[TransferResult] = connection.loop.create_future()
        deadline_s = self._deadline_s(timeout_s)
        connection.sender.submit(SingleTicket(request, identity, deadline_s, return_balances, future))
        return await future

    async def transfers(
        self, batch: Iterable[Transfer], *, timeout_s: float | None = None, return_balances: bool = False
    ) -> list[TransferResult]:
        """Move money many times: each transfer is atomic, the batch is not, and it has no order.

        Args:
            batch: any number of transfers; all are checked for type before any is sent.
            timeout_s: for each piece of `settings.batch_limit`, from when its turn comes.
            return_balances: also answer with the balances after each transfer.

        Returns:
            One result for each, in order, with its own outcome and its own error.

        Raises:
            TypeError: an amount is a float.
        """
        requests = [wire.transfer_request(transfer, self._world.new_id) for transfer in batch]

        async def run(piece: Sequence[wallet_pb2.TransferRequest]) -> list[TransferResult]:
            connection = self._connected()
            waiting = Piece(len(piece), connection.loop.create_future())
            deadline_s = self._deadline_s(timeout_s)
            tickets = [
                PieceTicket(request, deadline_s, return_balances, waiting, index)
                for index, request in enumerate(piece)
            ]
            try:
                connection.sender.submit_all(tickets)
            except ClientClosed as closed:
                for ticket in tickets:
                    ticket.fail(closed.concerning(ticket.transaction_id))
            return await waiting.wait()

        return await self._in_pieces(requests, self._settings.batch_limit, run)

    async def get_transfer(
        self, transaction_id: str | UUID, from_account: str, *, timeout_s: float | None = None
    ) -> TransferRecord:
        """What became of any operation that has a transaction id.

        Args:
            transaction_id: its id.
            from_account: the payer; for a deposit, withdrawal, hold, capture or void, the account; for a
                refund, the merchant; for a journal, of its
                debited accounts the one that comes first by its bytes.
            timeout_s: seconds in all, retries included.

        Raises:
            TransactionNotFound: no outcome is remembered under this id.
        """
        identity = wire.id_text(transaction_id)
        request = wallet_pb2.GetTransferRequest(transaction_id=identity, from_account=from_account)
        return wire.transfer_record(await self._call(wallet.GET_TRANSFER, request, timeout_s, identity))

    async def _call(
        self,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        timeout_s: float | None,
        transaction_id: str = "",
    ) -> ResponseT:
        caller, deadline_s = self._connected().caller, self._deadline_s(timeout_s)
        return await caller.call(method, request, deadline_s, transaction_id)

    def _identity(self, transaction_id: str | UUID | None) -> str:
        return self._world.new_id() if transaction_id is None else wire.id_text(transaction_id)

    def _connected(self) -> _Connection:
        if self._connection is None:
            if self._closed:
                raise ClientClosed
            self._connection = _Connection(self._addresses, self._settings, self._world)
        return self._connection

    def _deadline_s(self, timeout_s: float | None) -> float:
        if timeout_s is None:
            return self._clock() + self._settings.timeout_s
        if not timeout_s > 0:
            raise ValueError(f"timeout_s is {timeout_s}, not above zero")
        return self._clock() + timeout_s

    async def _in_pieces(
        self,
        items: Sequence[ItemT],
        size: int,
        run: Callable[[Sequence[ItemT]], Awaitable[list[ResultT]]],
    ) -> list[ResultT]:
        """Run pieces of the items, several at a time; the results in the order of the items."""
        places = self._connected().bulk_places

        async def run_in_turn(piece: Sequence[ItemT]) -> list[ResultT]:
            async with places:
                return await run(piece)

        pieces = [items[first : first + size] for first in range(0, len(items), size)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run_in_turn(piece)) for piece in pieces]
        return [result for task in tasks for result in task.result()]
