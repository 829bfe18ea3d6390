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

from tallystick import ledger_values, wire
from tallystick.caller import Caller
from tallystick.errors import ClientClosed, OutcomeUnknown, RetryableError, TallystickError
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
from tallystick.retry import RetryPolicy
from tallystick.rotation import Rotation, RouterState
from tallystick.settings import ClientSettings
from tallystick.status import from_rpc_error
from tallystick.surroundings import Surroundings
from tallystick.transport import GrpcTransport, Method, RequestT, ResponseT
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

_LIST: Method[ledger_pb2.ListEntriesRequest, ledger_pb2.ListEntriesResponse] = Method("ListEntries")
_GET_TRANSFER: Method[ledger_pb2.GetLedgerTransferRequest, ledger_pb2.LedgerTransfer] = Method("GetTransfer")
_GET_BALANCE: Method[ledger_pb2.GetBalanceAtRequest, ledger_pb2.BalanceAt] = Method("GetBalanceAt")


class _LedgerTransport(GrpcTransport):
    """The ledger service on the routers' channels."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(addresses)
        self._stubs = [ledger_pb2_grpc.LedgerServiceStub(channel) for channel in self._channels]

    def stream(self, router: int, name: str, request: Any) -> Any:
        """Begin a call whose responses are a stream."""
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


class _Connection:
    """What a client has once it runs inside an event loop."""

    __slots__ = ("caller", "policy", "rotation", "transport")

    def __init__(self, addresses: Sequence[str], settings: ClientSettings, world: Surroundings) -> None:
        self.transport = _LedgerTransport(addresses)
        self.rotation = Rotation(
            len(addresses),
            settings.batches_in_flight,
            settings.router_rest_s,
            settings.longest_router_rest_s,
        )
        self.policy = RetryPolicy(settings.first_retry_delay_s, settings.longest_retry_delay_s, world.jitter)
        self.caller = Caller(self.transport, self.rotation, self.policy, world, settings.attempt_timeout_s)


class LedgerClient:
    """A ledger client for one event loop. Any number of tasks may share it.

    It connects at the first call. Unary methods take `timeout_s`, the seconds they may
    take in all (`settings.timeout_s` when None). All raise a RetryableError when no answer
    came in time, or a Refused when the answer is no: InvalidArgument with the field's name,
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
        self._connection: _Connection | None = None
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._connection else "not connected"
        return f"<LedgerClient {', '.join(self._addresses)} {state}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect; calls in flight fail."""
        self._closed = True
        if self._connection is not None:
            self._connection.caller.close()
            await self._connection.transport.close()

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
        request = ledger_pb2.ListEntriesRequest(
            account_id=account_id,
            from_time=ledger_values.timestamp(from_time, "from_time"),
            to_time=ledger_values.timestamp(to_time, "to_time"),
            kinds=[kind.value for kind in _named("kinds", kinds)],
            order=order.value,
            page_size=page_size,
            page_token=page_token,
            wait_for=ledger_values.timestamp(wait_for, "wait_for"),
        )
        response = await self._call(_LIST, request, timeout_s)
        return EntryPage(
            ledger_values.entries(response.entries),
            response.next_page_token,
            ledger_values.complete_until(response),
        )

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
        wanted = None if kinds is None else tuple(kinds)

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
        identity = wire.id_text(transaction_id)
        request = ledger_pb2.GetLedgerTransferRequest(
            transaction_id=identity,
            from_account=from_account,
            wait_for=ledger_values.timestamp(wait_for, "wait_for"),
        )
        response = await self._call(_GET_TRANSFER, request, timeout_s, identity)
        found = ledger_values.entries(response.entries)
        return TransactionEntries(found, ledger_values.complete_until(response))

    async def balance_at(
        self,
        account_id: str,
        time: datetime | None = None,
        *,
        wait_for: datetime | None = None,
        timeout_s: float | None = None,
    ) -> BalanceAt:
        """The balance that an account had at a moment, that moment included; the newest when None."""
        request = ledger_pb2.GetBalanceAtRequest(
            account_id=account_id,
            time=ledger_values.timestamp(time, "time"),
            wait_for=ledger_values.timestamp(wait_for, "wait_for"),
        )
        return ledger_values.balance_at(await self._call(_GET_BALANCE, request, timeout_s))

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
        accounts, last = _named("account_ids", account_ids), cursor

        def begin() -> ledger_pb2.WatchEntriesRequest:
            return ledger_pb2.WatchEntriesRequest(
                account_ids=accounts, cursor=last, from_beginning=from_beginning and last is None
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
            return ledger_pb2.ConsistencyCheckRequest(max_backlog=max_backlog)

        async for message in self._stream("ConsistencyCheck", begin, patience_s):
            if message.HasField("result"):
                return ledger_values.consistency_report(message)
            if on_progress is not None:
                on_progress(message.accounts_checked, message.accounts_total)
        raise AssertionError("a stream that ends early is begun again")

    # ------------------------------------------------------------------ within

    def _connected(self) -> _Connection:
        if self._closed:
            raise ClientClosed
        if self._connection is None:
            self._connection = _Connection(self._addresses, self._settings, self._world)
        return self._connection

    async def _call(
        self,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        timeout_s: float | None,
        transaction_id: str = "",
    ) -> ResponseT:
        wait_s = self._settings.timeout_s if timeout_s is None else timeout_s
        if not wait_s > 0:
            raise ValueError(f"timeout_s is {wait_s}, not above zero")
        return await self._connected().caller.call(
            method, request, self._world.clock() + wait_s, transaction_id
        )

    async def _stream(self, name: str, begin: Callable[[], Any], patience_s: float) -> AsyncIterator[Any]:
        """The messages of a stream that is begun again whenever it ends, at another router."""
        attempts, heard_s = 0, self._world.clock()
        while True:
            connection = self._connected()
            router = connection.rotation.pick(self._world.clock())
            call = connection.transport.stream(router, name, begin())
            try:
                while (message := await _next_message(call)) is not None:
                    connection.rotation.succeeded(router)
                    yield message
                    attempts, heard_s = 0, self._world.clock()
                error: TallystickError = OutcomeUnknown("the router ended the stream")
                state = RouterState.ANSWERED
            except grpc.RpcError as failed:
                failure = from_rpc_error(failed)
                error, state = failure.error, failure.router
            except TimeoutError:
                error, state = (
                    OutcomeUnknown(f"the router said nothing for {SILENCE_S:g} s"),
                    RouterState.SILENT,
                )
            finally:
                call.cancel()
            if self._closed:
                raise ClientClosed
            connection.rotation.failed(router, state, self._world.clock())
            attempts += 1
            delay_s = connection.policy.delay_s(attempts, error)
            if not isinstance(error, RetryableError) or self._world.clock() + delay_s > heard_s + patience_s:
                raise error
            await self._world.sleep(delay_s)


def _named(argument: str, items: Iterable[ItemT] | None) -> list[ItemT]:
    """What is asked for. To the service nothing named means all, so an empty list is no such request."""
    named = [] if items is None else list(items)
    if items is not None and not named:
        raise ValueError(f"{argument} is empty: leave it out for all")
    return named


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
