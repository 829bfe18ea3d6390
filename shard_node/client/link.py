"""One connection to a Redis for the transfer path.

Calls go out one after the other, and answers come back in that order.
redis-py takes a connection from a pool for each call, waits for its answer and gives it back, which costs
some hundred microseconds. A Redis answers what comes over one connection in order, and runs it one by one
anyway, so here all calls share one, and none waits for another's answer to be sent. All else goes through
redis-py.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

# What the parser gives when no answer is complete. Its own sign for it, False, may be an answer too.
_NOT_YET = object()


class Link:
    """A connection that is made by the first call, and made anew by the next one after it broke.

    Raises what redis-py raises: its ConnectionError when the connection cannot be made or breaks before the
    answer (the call may have been carried out), TimeoutError when no answer comes in time, ResponseError for
    an error that Redis answers. Never cancel a call: its answer would still come.
    """

    def __init__(self, host: str, port: int, timeout_seconds: float) -> None:
        self._host = host
        self._port = port
        self._timeout_seconds = timeout_seconds
        self._wire: _Wire | None = None
        self._connecting = asyncio.Lock()

    async def call(self, *arguments: bytes | int | str) -> Any:
        """The answer to one command."""
        wire = self._wire
        if wire is None or wire.is_closed:
            wire = await self._connect()
        # Its stub names one argument only.
        return await wire.send(hiredis.pack_command(arguments))  # type: ignore[arg-type]

    def close(self) -> None:
        """Closes the connection; calls under way fail."""
        if self._wire is not None:
            self._wire.close(RedisConnectionError("closed"))

    async def _connect(self) -> _Wire:
        loop = asyncio.get_running_loop()
        try:
            # The wait for others' tries counts too: behind each other, calls would time out one by one.
            async with asyncio.timeout(self._timeout_seconds), self._connecting:
                if self._wire is None or self._wire.is_closed:
                    _, self._wire = await loop.create_connection(
                        lambda: _Wire(loop, self._timeout_seconds), self._host, self._port
                    )
                return self._wire
        except TimeoutError as error:
            raise RedisTimeoutError(f"no connection to {self._host}:{self._port} in time") from error
        except OSError as error:
            raise RedisConnectionError(str(error)) from error


class _Wire(asyncio.Protocol):
    """One connection while it lasts."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_seconds: float) -> None:
        self._loop = loop
        self._timeout_seconds = timeout_seconds
        self._reader = hiredis.Reader(replyError=ResponseError, notEnoughData=_NOT_YET)
        # Calls that wait for their answers, in order, and when each has waited too long.
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._transport: asyncio.Transport | None = None
        # One timer for all: an answer that comes late holds up those behind it.
        self._timer: asyncio.TimerHandle | None = None
        self.is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        # A cast, not a check: uvloop's transports are of no class of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def send(self, packed: bytes) -> asyncio.Future[Any]:
        """Sends a packed command; its answer, in time."""
        if self._transport is None or self.is_closed:
            raise RedisConnectionError("the connection is closed")
        future: asyncio.Future[Any] = self._loop.create_future()
        deadline = self._loop.time() + self._timeout_seconds
        self._waiting.append((future, deadline))
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._look_at_time)
        self._transport.write(packed)
        return future

    def data_received(self, data: bytes) -> None:
        """Some bytes of answers."""
        reader = self._reader
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not _NOT_YET:
                future, _ = self._waiting.popleft()
                if future.done():
                    continue
                if isinstance(answer, ResponseError):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        except (hiredis.ProtocolError, IndexError) as error:
            self.close(RedisConnectionError(f"what came is no answer: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        """The other side is gone."""
        self.close(RedisConnectionError(str(error or "the connection was closed by Redis")))

    def close(self, error: Exception) -> None:
        """Fails all that wait, and closes."""
        self.is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)

    def _look_at_time(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        _, deadline = self._waiting[0]
        if deadline <= self._loop.time():
            # Those behind it came later, but what holds up the first holds up them all.
            self.close(RedisTimeoutError(f"no answer within {self._timeout_seconds:g} s"))
        else:
            self._timer = self._loop.call_at(deadline, self._look_at_time)
