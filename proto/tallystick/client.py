"""The asyncio client of the wallet service.

Concurrent single transfers are coalesced into batches (`coalescer`, `sender`), because
a call costs as much as some hundred transfers. What says nothing final is sent again
under the same transaction_id, within the call's deadline, to the next router.
"""

import asyncio
from asyncio import get_running_loop
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar
from uuid import UUID

from tallystick import connecting, limits, wire
from tallystick import transport as wallet
from tallystick.coalescer import Coalescer
from tallystick.errors import ClientClosed, InvalidArgument
from tallystick.operations import MoneyOperations
from tallystick.sender import Sender
from tallystick.settings import SERVICE_BATCH_LIMIT, ClientSettings
from tallystick.surroundings import Surroundings
from tallystick.tickets import Piece, PieceTicket, SingleTicket
from tallystick.transport import Transport
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

GivenT = TypeVar("GivenT")
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

ACCOUNTS_PAGE_SIZE = 500
"""Accounts in a page of `accounts` (the service gives 1000 at the most)."""


class _Connection(connecting.Connection[Transport]):
    """With the way that transfers take."""

    __slots__ = ("bulk_places", "sender")

    def __init__(self, addresses: Sequence[str], settings: ClientSettings, world: Surroundings) -> None:
        super().__init__(world.connect(addresses), settings, world, len(addresses))
        self.sender = Sender(Coalescer(settings, self.rotation, self.policy), self.transport, world.clock)
        # Batches of transfers and of accounts, in pieces: no more at work than the routers have places for.
        self.bulk_places = asyncio.Semaphore(self.rotation.capacity)

    async def close(self, grace_s: float) -> None:
        """As the base does, after the transfers."""
        self.caller.close()
        await self.sender.close(grace_s)
        await super().close(grace_s)


class Client(MoneyOperations[_Connection]):
    """A wallet client for one event loop. Any number of tasks may share it; make one and keep it.

    It connects at the first call. Every method takes `timeout_s`, the seconds it may
    take in all (`settings.timeout_s` when None), and raises a RetryableError when no
    final answer came within them, or a Refused when there is one and it is no.
    Where an answer may have been lost, that is OutcomeUnknown with the transaction_id
    to ask again with; of what only reads, Unavailable. An argument of another type, or
    longer than the contract allows, raises InvalidArgument before anything is sent.

    Args:
        addresses: "host:port" of the routers, one by one or as lists.
        settings: limits and waits.
        surroundings: time, chance and the way to the routers, for tests.
    """

    def _connect(self, addresses: Sequence[str]) -> _Connection:
        return _Connection(addresses, self._settings, self._world)

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
        return await self._ask(wallet.OPEN_ACCOUNT, locals(), wire.account)

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
        caller = self._connected().caller
        given = limits.several(accounts, "accounts")
        requests, bad = _read(given, wire.open_account_request)

        async def run(
            piece: Sequence[wallet_pb2.OpenAccountRequest], deadline_s: float
        ) -> list[AccountResult]:
            return await caller.call_for_accounts(
                wallet.OPEN_ACCOUNTS,
                lambda places: wallet_pb2.BatchOpenAccountsRequest(accounts=[piece[at] for at in places]),
                [request.account_id for request in piece],
                deadline_s,
            )

        results = await self._in_pieces(requests, SERVICE_BATCH_LIMIT, timeout_s, run)
        names = {place: getattr(given[place], "account_id", "") for place in bad}
        return _woven(
            results, {place: AccountResult(names[place], error=error) for place, error in bad.items()}
        )

    async def get_account(self, account_id: str, *, timeout_s: float | None = None) -> Account:
        """Read an account.

        Raises:
            AccountNotFound: no account has this id.
        """
        return await self._ask(wallet.GET_ACCOUNT, locals(), wire.account)

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
        caller = self._connected().caller
        asked = limits.several(account_ids, "account_ids")
        names, bad = _read(asked, lambda name: limits.text(name, "account_id", limits.MAX_ACCOUNT_ID_BYTES))

        async def run(piece: Sequence[str], deadline_s: float) -> list[AccountResult]:
            return await caller.call_for_accounts(
                wallet.GET_ACCOUNTS,
                lambda places: wallet_pb2.BatchGetAccountsRequest(account_ids=[piece[at] for at in places]),
                piece,
                deadline_s,
            )

        results = await self._in_pieces(names, SERVICE_BATCH_LIMIT, timeout_s, run)
        return _woven(
            results, {place: AccountResult(asked[place], error=error) for place, error in bad.items()}
        )

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
        return await self._ask(wallet.LIST_ACCOUNTS, locals(), wire.account_page)

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
        expected_version: int | None = None,
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
            expected_version: move it only while the payer is at that version, as `get_account` told it.

        Raises:
            Refused: nothing moved. VersionMismatch, which is one: the payer is at another version.
            Overloaded: nothing was begun.
            OutcomeUnknown: it may have moved; send the same transaction_id again.
        """
        connection = self._connection
        if connection is None or connection.loop is not get_running_loop():
            connection = self._connected()
        request = wire.transfer_request(
            identity := self._identity(transaction_id),
            from_account,
            to_account,
            amount,
            currency,
            reference,
            validate_only,
            expected_version,
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
            batch: any number of transfers.
            timeout_s: for each piece of `settings.batch_limit`, from when its turn comes.
            return_balances: also answer with the balances after each transfer.

        Returns:
            One result for each, in order, with its own outcome and its own error.
        """
        connection = self._connected()
        requests, bad = _read(limits.several(batch, "batch"), self._transfer_request)

        async def run(piece: Sequence[wallet_pb2.TransferRequest], deadline_s: float) -> list[TransferResult]:
            waiting = Piece(len(piece), connection.loop.create_future())
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

        results = await self._in_pieces(requests, self._settings.batch_limit, timeout_s, run)
        refused = {
            place: TransferResult(error.transaction_id, error.outcome, error=error)
            for place, error in bad.items()
        }
        return _woven(results, refused)

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
        request = limits.request(
            wallet_pb2.GetTransferRequest, transaction_id=identity, from_account=from_account
        )
        return wire.transfer_record(await self._call(wallet.GET_TRANSFER, request, timeout_s, identity))

    def _transfer_request(self, transfer: Transfer) -> wallet_pb2.TransferRequest:
        try:
            return wire.transfer_request(
                self._identity(transfer.transaction_id),
                transfer.from_account,
                transfer.to_account,
                transfer.amount,
                transfer.currency,
                transfer.reference,
                transfer.validate_only,
                transfer.expected_version,
            )
        except AttributeError:
            limits.instance(transfer, Transfer, "batch")
            raise

    async def _in_pieces(
        self,
        items: Sequence[ItemT],
        size: int,
        timeout_s: float | None,
        run: Callable[[Sequence[ItemT], float], Awaitable[list[ResultT]]],
    ) -> list[ResultT]:
        """Run pieces of the items, several at a time, each until its deadline; the results in their order."""
        places = self._connected().bulk_places
        # What is wrong with the timeout is said of the call, not of each piece.
        self._deadline_s(timeout_s)

        async def run_in_turn(piece: Sequence[ItemT]) -> list[ResultT]:
            async with places:
                return await run(piece, self._deadline_s(timeout_s))

        pieces = [items[first : first + size] for first in range(0, len(items), size)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run_in_turn(piece)) for piece in pieces]
        return [result for task in tasks for result in task.result()]


def _read(
    given: Iterable[GivenT], read: Callable[[GivenT], ItemT]
) -> tuple[list[ItemT], dict[int, InvalidArgument]]:
    """What can be sent, in order; and what is wrong with the others, by their places."""
    good: list[ItemT] = []
    bad: dict[int, InvalidArgument] = {}
    for place, one in enumerate(given):
        try:
            good.append(read(one))
        except InvalidArgument as error:
            bad[place] = error
    return good, bad


def _woven(results: list[ResultT], others: Mapping[int, ResultT]) -> list[ResultT]:
    """The results in order, with the others at their places."""
    if not others:
        return results
    rest = iter(results)
    return [others[place] if place in others else next(rest) for place in range(len(results) + len(others))]
