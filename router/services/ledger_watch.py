"""Watchers of the ledger: one look at its heads for all of them, and a bounded piece at a time for each.

Nothing is buffered for a reader but the piece it is being sent. One that does not take a piece in time is
told to come back with its last cursor, and its stream ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from router.execution import TooManyQuestionsError
from router.requests import BadField
from router.services.ledger_messages import entry_message, timestamp
from shard_node.errors import ShardNodeError
from shard_node.ledger.questions import BadTokenError, Cursor, Follower, checked
from tallystick.v1 import ledger_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from router.execution import CompleteAnswers, LedgerReader
    from router.requests import WatchRequest
    from shard_node.ledger.questions import Completeness, Head, History
    from shard_node.ledger.store import Entry


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How watchers are served.

    Attributes:
        poll_seconds: between two looks at the ledger; the archiver's own delay is of that order.
        heartbeat_seconds: a watcher hears its cursor at least so often, entries or none.
        write_seconds: how long a reader may take to make room for one piece.
        max_watchers: at once in one process; each may hold a piece of about a mebibyte.
    """

    poll_seconds: float = 0.2
    heartbeat_seconds: float = 5.0
    write_seconds: float = 10.0
    max_watchers: int = 100


class WatchEndedError(Exception):
    """A watch that the reader may begin again from its last cursor. The text says why it ended."""


class SlowReaderError(WatchEndedError):
    """The reader did not take its entries in time."""


class TooManyWatchersError(WatchEndedError):
    """There is no room for another."""


class Sink(Protocol):
    """Where a watcher's messages go: the context of its call."""

    async def write(self, message: ledger_pb2.WatchEntriesResponse) -> None:
        """Sends one; returns when there was room for it."""


class Watchers:
    """Serves every watcher of one process."""

    def __init__(
        self, history: History, reader: LedgerReader, answers: CompleteAnswers, settings: WatchSettings
    ) -> None:
        self._history = history
        self._reader = reader
        self._answers = answers
        self._settings = settings
        self._watching = 0
        # The next look, and the task that looks while there are watchers.
        self._upcoming: asyncio.Future[Completeness]
        self._looking: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def __repr__(self) -> str:
        return f"Watchers({self._watching} watching)"

    @property
    def watching(self) -> int:
        """How many there are."""
        return self._watching

    def close(self) -> None:
        """Ends every watch, soon."""
        self._closing.set()

    async def serve(self, request: WatchRequest, sink: Sink) -> None:
        """Sends entries until the watch ends, by an error or by being cancelled.

        Raises WatchEndedError, ShardNodeError when the ledger does not answer, and BadField for a cursor
        that is not of this ledger.
        """
        if self._watching >= self._settings.max_watchers:
            raise TooManyWatchersError(f"there are {self._watching} watchers already: try another router")
        self._watching += 1
        try:
            async for message in self._messages(request):
                await self._send(sink, message)
        finally:
            self._watching -= 1

    async def _messages(self, request: WatchRequest) -> AsyncIterator[ledger_pb2.WatchEntriesResponse]:
        found = await self._answers.look()
        heads = _sequences(found.heads)
        if request.cursor is None:
            follower = Follower(self._history, Cursor(dict(heads)), request.accounts)
            # The reader can go on from here even when it is cut off before anything happens.
            yield self._message([], follower, found)
        else:
            try:
                cursor = checked(request.cursor, heads)
            except BadTokenError as error:
                raise BadField("cursor", str(error)) from None
            follower = Follower(self._history, cursor, request.accounts)
        told_at = time.monotonic()
        while True:
            now = time.monotonic()
            if follower.behind(heads):
                message = await self._reader.ask(partial(self._advance, follower, found))
                if message.entries or now - told_at >= self._settings.heartbeat_seconds:
                    told_at = now
                    yield message
                if self._closing.is_set():
                    raise _stopping()
            elif (wait_seconds := told_at + self._settings.heartbeat_seconds - now) > 0:
                found = await self._next_look(wait_seconds) or found
                heads = _sequences(found.heads)
            else:
                told_at = now
                yield self._message([], follower, found)

    def _advance(self, follower: Follower, found: Completeness) -> ledger_pb2.WatchEntriesResponse:
        """The follower's next piece. Blocks."""
        return self._message(follower.advance(_sequences(found.heads)), follower, found)

    def _message(
        self, entries: Sequence[Entry], follower: Follower, found: Completeness
    ) -> ledger_pb2.WatchEntriesResponse:
        """Some entries and the cursor after them; up to when that is all, once it is."""
        behind = follower.behind(_sequences(found.heads))
        return ledger_pb2.WatchEntriesResponse(
            entries=[entry_message(entry, self._history) for entry in entries],
            cursor=follower.cursor.text(),
            complete_until=None if behind else timestamp(found.until_ms),
        )

    async def _send(self, sink: Sink, message: ledger_pb2.WatchEntriesResponse) -> None:
        # Never cancelled: gRPC would lose track of the message it is sending.
        write = asyncio.ensure_future(sink.write(message))
        write.add_done_callback(_retrieve)
        done, _ = await asyncio.wait({write}, timeout=self._settings.write_seconds)
        if not done:
            raise SlowReaderError(
                f"the reader took no entries for {self._settings.write_seconds:g} s: "
                "go on from the last cursor received"
            )
        write.result()

    # ------------------------------------------------------------------ looking

    async def _next_look(self, timeout_seconds: float) -> Completeness | None:
        """What the next look at the archive finds; None when there is none in that time. Raises its error."""
        if self._looking is None:
            self._upcoming = asyncio.get_running_loop().create_future()
            self._looking = asyncio.ensure_future(self._look_while_watched())
        upcoming = self._upcoming
        # Not cancelled with whoever waits: it is everybody's.
        done, _ = await asyncio.wait({upcoming}, timeout=timeout_seconds)
        return upcoming.result() if done else None

    async def _look_while_watched(self) -> None:
        """Looks again and again, for all watchers together."""
        try:
            while self._watching and not self._closing.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), self._settings.poll_seconds)
                await self._look()
        finally:
            self._looking = None

    async def _look(self) -> None:
        upcoming, self._upcoming = self._upcoming, asyncio.get_running_loop().create_future()
        try:
            if self._closing.is_set():
                raise _stopping()
            upcoming.set_result(await self._answers.look())
        except (ShardNodeError, WatchEndedError, TooManyQuestionsError) as error:
            upcoming.set_exception(error)
            # Perhaps nobody waits at this moment.
            upcoming.exception()


def _stopping() -> WatchEndedError:
    return WatchEndedError("the router is stopping: go on from the last cursor, at another router")


def _sequences(heads: Mapping[int, Head]) -> dict[int, int]:
    return {number: head.sequence for number, head in heads.items()}


def _retrieve(write: asyncio.Future[None]) -> None:
    """The error of a write that nobody waits for any more says only that the reader is gone."""
    if not write.cancelled():
        write.exception()
