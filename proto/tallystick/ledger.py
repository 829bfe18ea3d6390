"""History and audit: the asyncio client of the ledger service.

    async with LedgerClient("router-1:7000", "router-2:7000") as ledger:
        async for entry in ledger.entries("alice"):
            print(entry.at, entry.delta, entry.balance)
        async for news in ledger.watch(cursor=saved_cursor):
            handle(news.entries)
            save(news.cursor)

Everything here only reads, so every call may be made again, and is, at another router if need be.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Self, TypeVar
from uuid import UUID

import grpc
import grpc.aio

from tallystick import ledger_values, limits
from tallystick.connecting import Connection, LoopClient
from tallystick.errors import ClientClosed, RetryableError, TallystickError, Unavailable
from tallystick.ledger_values import (
    BalanceAt,
    ConsistencyReport,
    Entry,
    EntryKind,
    EntryOrder,
    EntryPage,
    Finding,
    News,
    TransactionEntries,
)
from tallystick.retry import of_question
from tallystick.rotation import RouterState
from tallystick.status import from_rpc_error
from tallystick.transport import CallFailed, GrpcTransport, Method
from tallystick.v1 import ledger_pb2, ledger_pb2_grpc

__all__ = [
    "BalanceAt",
    "ConsistencyReport",
    "Entry",
    "EntryKind",
    "EntryOrder",
    "EntryPage",
    "EntryStream",
    "Finding",
    "LedgerClient",
    "News",
    "TransactionEntries",
]

ItemT = TypeVar("ItemT")

PAGE_SIZE = 500
"""Entries in a page of `entries` (the service gives 1000 at the most)."""
SILENCE_S = 30.0
"""A watched router says something every few seconds; one that is silent for so long is gone."""
PATIENCE_S = 60.0
"""How long `watch` and `consistency_check` go without any answer before they give up."""

_LIST = Method("ListEntries", ledger_pb2.ListEntriesRequest, ledger_pb2.ListEntriesResponse, only_asks=True)
_GET_TRANSFER = Method(
    "GetTransfer", ledger_pb2.GetLedgerTransferRequest, ledger_pb2.LedgerTransfer, only_asks=True
)
_GET_BALANCE = Method("GetBalanceAt", ledger_pb2.GetBalanceAtRequest, ledger_pb2.BalanceAt, only_asks=True)


class _LedgerTransport(GrpcTransport):
    """The ledger service on the routers' channels."""

    def _stub(self, channel: grpc.aio.Channel) -> Any:
        return ledger_pb2_grpc.LedgerServiceStub(channel)

    async def stream(self, router: int, name: str, request: Any) -> Any:
        """Begin a call whose responses are a stream. A fork does not wait for its end; it is cut off."""
        try:
            await self.ready()
        except CallFailed as failed:
            raise failed.failure.error from None
        return getattr(self._stubs[router], name)(request)


class EntryStream:
    """An account's entries, read page by page while it is iterated.

    Attributes:
        complete_until: once the first page is read, up to when the entries are complete; None: not known.
    """

    def __init__(self, read_page: Callable[[str], Awaitable[EntryPage]]) -> None:
        self.complete_until: datetime | None = None
        self._entries = self._read(read_page)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Entry:
        return await anext(self._entries)

    async def aclose(self) -> None:
        """Ends it early."""
        await self._entries.aclose()

    async def _read(self, read_page: Callable[[str], Awaitable[EntryPage]]) -> AsyncGenerator[Entry, None]:
        page = await read_page("")
        # Later pages can only be more complete.
        self.complete_until = page.complete_until
        while True:
            for entry in page.entries:
                yield entry
            if not page.next_token:
                return
            page = await read_page(page.next_token)


class LedgerClient(LoopClient[Connection[_LedgerTransport]]):
    """A ledger client for one event loop. Any number of tasks may share it.

    It connects at the first call. Unary methods take `timeout_s`, the seconds they may
    take in all (`settings.timeout_s` when None). All raise a RetryableError, mostly Unavailable, when no
    answer came in time, or a Refused when the answer is no: InvalidArgument with the field's name,
    AccountNotFound or TransactionNotFound when nothing of it is archived, Refused when the
    router has no ledger.

    Entries are archived a moment after they are made, so every answer, those two errors too, has
    `complete_until`: what happened up to then, by the shards' clocks, is all in it. With `wait_for`
    an answer is given once the archive is complete up to that moment (a shard's clock may differ by
    a minute); `datetime.max.replace(tzinfo=UTC)` means all that happened before the call, whatever
    clocks say. NotYetArchived when that takes longer than `timeout_s`.

    Args:
        addresses: "host:port" of the routers, one by one or as lists.
        settings: limits and waits.
        surroundings: time and chance, for tests.
    """

    def _connect(self, addresses: Sequence[str]) -> Connection[_LedgerTransport]:
        return Connection(_LedgerTransport(addresses), self._settings, self._world, len(addresses))

    async def page(  # noqa: PLR0913 - the contract's own fields
        self,
        account_id: str,
        *,
        from_time: datetime | None = None,
        to_time: datetime | None = None,
        kinds: Iterable[EntryKind] | None = None,
        order: EntryOrder = EntryOrder.NEWEST_FIRST,
        page_size: int = PAGE_SIZE,
        page_token: str = "",
        wait_for: datetime | None = None,
        timeout_s: float | None = None,
    ) -> EntryPage:
        """One page of an account's entries. It may be short, even empty, and not be the last.

        Args:
            account_id: whose.
            from_time: included.
            to_time: not included.
            kinds: only these; all when None.
            order: by version.
            page_size: at most so many, 1 to 1000.
            page_token: the `next_token` of the page before, with all else but page_size as it was; the
                first page when empty.
            wait_for: answer once the archive is complete up to then; None: at once.
            timeout_s: seconds in all, retries included.
        """
        return await self._ask(_LIST, locals(), ledger_values.entry_page)

    def entries(
        self,
        account_id: str,
        *,
        from_time: datetime | None = None,
        to_time: datetime | None = None,
        kinds: Iterable[EntryKind] | None = None,
        order: EntryOrder = EntryOrder.NEWEST_FIRST,
        wait_for: datetime | None = None,
        timeout_s: float | None = None,
    ) -> EntryStream:
        """All of an account's entries, page by page. Arguments as for `page`; `timeout_s` is a page's."""
        wanted = None if kinds is None else limits.several(kinds, "kinds")

        def read_page(token: str) -> Awaitable[EntryPage]:
            return self.page(
                account_id,
                from_time=from_time,
                to_time=to_time,
                kinds=wanted,
                order=order,
                page_token=token,
                # What the first page has waited for stays archived.
                wait_for=None if token else wait_for,
                timeout_s=timeout_s,
            )

        return EntryStream(read_page)

    async def transfer(
        self,
        transaction_id: str | UUID,
        from_account: str | None = None,
        *,
        wait_for: datetime | None = None,
        timeout_s: float | None = None,
    ) -> TransactionEntries:
        """All entries of one transaction, by leg, however old it is.

        Args:
            transaction_id: its id.
            from_account: only what this account sent under the id, which several may have used; None for all.
            wait_for: answer once the archive is complete up to then; None: at once.
            timeout_s: seconds in all, retries included.
        """
        return await self._ask(_GET_TRANSFER, locals(), ledger_values.transaction_entries)

    async def balance_at(
        self,
        account_id: str,
        time: datetime | None = None,
        *,
        wait_for: datetime | None = None,
        timeout_s: float | None = None,
    ) -> BalanceAt:
        """The balance that an account had at a moment, that moment included; the newest when None."""
        return await self._ask(_GET_BALANCE, locals(), ledger_values.balance_at)

    async def watch(
        self,
        account_ids: Iterable[str] | None = None,
        *,
        cursor: str | None = None,
        from_beginning: bool = False,
        patience_s: float = PATIENCE_S,
    ) -> AsyncIterator[News]:
        """Entries as they are archived, without end: each at least once, those of an account in order.

        Goes on by itself, from the last cursor, when a router stops, or cuts it off for being slow.

        Args:
            account_ids: only these, 1000 at the most; all when None.
            cursor: go on after what was received up to there; from now on when None.
            from_beginning: without a cursor, from the very first entry, not from now on.
            patience_s: give up with a RetryableError after so long without any answer.
        """
        accounts, last = limits.chosen(account_ids, "account_ids", limits.MAX_WATCHED_ACCOUNTS), cursor
        for account_id in accounts:
            limits.text(account_id, "account_ids", limits.MAX_LEDGER_ACCOUNT_ID_BYTES)

        def begin() -> ledger_pb2.WatchEntriesRequest:
            return limits.request(
                ledger_pb2.WatchEntriesRequest,
                account_ids=accounts,
                cursor=last,
                from_beginning=from_beginning and last is None,
            )

        async for message in self._stream("WatchEntries", begin, patience_s):
            last = message.cursor
            until = ledger_values.complete_until(message)
            yield News(ledger_values.entries(message.entries), message.cursor, until)

    async def consistency_check(
        self,
        on_progress: Callable[[int, int], None] | None = None,
        *,
        max_backlog: int = 0,
        patience_s: float = PATIENCE_S,
    ) -> ConsistencyReport:
        """The quick check, while everything runs.

        Args:
            on_progress: called with accounts checked and accounts in all.
            max_backlog: when more entries wait to be archived, nothing is called consistent; 0 for the
                service's own limit.
            patience_s: give up with a RetryableError after so long without any answer.
        """

        def begin() -> ledger_pb2.ConsistencyCheckRequest:
            return limits.request(ledger_pb2.ConsistencyCheckRequest, max_backlog=max_backlog)

        async for message in self._stream("ConsistencyCheck", begin, patience_s):
            if message.HasField("result"):
                return ledger_values.consistency_report(message)
            if on_progress is not None:
                on_progress(message.accounts_checked, message.accounts_total)
        raise AssertionError("a stream that ends early is begun again")

    # ------------------------------------------------------------------ within

    async def _stream(self, name: str, begin: Callable[[], Any], patience_s: float) -> AsyncIterator[Any]:
        """The messages of a stream that is begun again whenever it ends, at another router."""
        attempts, heard_s = 0, self._clock()
        longest_s = limits.seconds(patience_s, "patience_s")
        while True:
            connection = self._connected()
            router = connection.rotation.pick(self._clock())
            call = await connection.transport.stream(router, name, begin())
            try:
                while (message := await _next_message(call)) is not None:
                    connection.rotation.succeeded(router)
                    yield message
                    attempts, heard_s = 0, self._clock()
                error: TallystickError = Unavailable("the router ended the stream")
                state = RouterState.ANSWERED
            except grpc.RpcError as failed:
                failure = from_rpc_error(failed, router=self._addresses[router])
                error, state = of_question(failure.error), failure.router
            except TimeoutError:
                error, state = (
                    Unavailable(f"{self._addresses[router]} said nothing for {SILENCE_S:g} s"),
                    RouterState.SILENT,
                )
            finally:
                call.cancel()
                # It would keep its channel alive.
                del call
            if self._closed:
                raise ClientClosed
            connection.rotation.failed(router, state, self._clock())
            attempts += 1
            delay_s = connection.policy.delay_s(attempts, error)
            if not isinstance(error, RetryableError) or self._clock() + delay_s > heard_s + longest_s:
                raise error
            await self._world.sleep(delay_s)


async def _next_message(call: Any) -> Any:
    """The next message of a stream; None at its end. Raises grpc.RpcError, and TimeoutError after silence."""
    try:
        async with asyncio.timeout(SILENCE_S):
            message = await call.read()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Not we but the call was cancelled: its channel was closed under it.
        return None
    return None if message is grpc.aio.EOF else message
