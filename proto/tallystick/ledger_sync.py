"""The ledger client for code that does not use asyncio."""

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from typing import Concatenate, ParamSpec, Self, TypeVar

from tallystick.errors import RetryableError
from tallystick.ledger import EntryStream, LedgerClient
from tallystick.ledger_values import Entry
from tallystick.loop_thread import ThreadedClient, waiting

ItemT = TypeVar("ItemT")
Given = ParamSpec("Given")


def _iterating(
    method: Callable[Concatenate[LedgerClient, Given], AsyncIterator[ItemT]],
) -> "Callable[Concatenate[SyncLedgerClient, Given], Iterator[ItemT]]":
    """The same method as an iterator that waits for each item."""

    @functools.wraps(method)
    def iterate(client: "SyncLedgerClient", /, *args: Given.args, **kwargs: Given.kwargs) -> Iterator[ItemT]:
        return client._iterate(method(client._client, *args, **kwargs))  # noqa: SLF001 - its own class

    return iterate


def _streaming(
    method: Callable[Concatenate[LedgerClient, Given], EntryStream],
) -> "Callable[Concatenate[SyncLedgerClient, Given], SyncEntryStream]":
    """The same method as a stream that waits for each entry."""

    @functools.wraps(method)
    def stream(client: "SyncLedgerClient", /, *args: Given.args, **kwargs: Given.kwargs) -> SyncEntryStream:
        found = method(client._client, *args, **kwargs)  # noqa: SLF001 - its own class
        return SyncEntryStream(found, client._iterate(found))  # noqa: SLF001 - its own class

    return stream


class SyncEntryStream:
    """An `EntryStream` for code that waits for each entry."""

    def __init__(self, stream: EntryStream, entries: Iterator[Entry]) -> None:
        self._stream = stream
        self._entries = entries

    @property
    def complete_until(self) -> datetime | None:
        """Once the first page is read, up to when the entries are complete; None: not known."""
        return self._stream.complete_until

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Entry:
        return next(self._entries)


class SyncLedgerClient(ThreadedClient[LedgerClient]):
    """A `LedgerClient` that runs in a thread of its own, with the same methods, each of which waits.

    `entries` and `watch` are iterators; leave one early, and it ends. Any number of threads may
    share a client. Use it with `with`, or `close` it. Not for use inside a coroutine.

    Args:
        addresses: "host:port" of the routers, one by one or as lists.
        settings: limits and waits.
    """

    _kind = LedgerClient

    page = waiting(LedgerClient.page)
    transfer = waiting(LedgerClient.transfer)
    balance_at = waiting(LedgerClient.balance_at)
    consistency_check = waiting(LedgerClient.consistency_check)
    entries = _streaming(LedgerClient.entries)
    watch = _iterating(LedgerClient.watch)

    def _iterate(self, items: AsyncIterator[ItemT]) -> Iterator[ItemT]:
        async def following() -> tuple[ItemT, ...]:
            async for item in items:
                return (item,)
            return ()

        async def ended() -> None:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()

        try:
            while found := self._thread.run(following()):
                yield found[0]
        finally:
            if not self._thread.closed:
                # Of a client that is closed meanwhile, or was forked, nothing is left to end.
                with contextlib.suppress(RetryableError):
                    self._thread.run(ended())
