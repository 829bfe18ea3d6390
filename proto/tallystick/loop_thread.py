"""An event loop in a thread of its own, for clients of code that does not use asyncio."""

import asyncio
import concurrent.futures
import functools
import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, Self, TypeVar

from tallystick.connecting import LoopClient
from tallystick.errors import ClientClosed, OutcomeUnknown
from tallystick.forking import require_same_process
from tallystick.settings import ClientSettings

ResultT = TypeVar("ResultT")
ClientT = TypeVar("ClientT", bound=LoopClient[Any])
Given = ParamSpec("Given")

# How long a fork waits for a client to disconnect, and the end of a client's thread for calls that were cut
# off.
_LAST_CALLS_S = 1.5


class LoopThread:
    """Runs coroutines for any number of threads, each of which waits for its own.

    Not for use inside a coroutine: it would stop the caller's event loop.
    """

    def __init__(self) -> None:
        self._process_id = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_on_loop_error)
        # A daemon, so that a client somebody forgot to close does not keep the process alive.
        self._thread = threading.Thread(target=self._serve, name="tallystick-client", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether it was closed, here or by not surviving a fork."""
        return self._closed or self._process_id != os.getpid()

    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def run(self, call: Coroutine[Any, Any, ResultT]) -> ResultT:
        """The coroutine's result, or its error.

        Raises:
            ClientClosed: it was closed.
            ForkedClient: it was made in another process.
            OutcomeUnknown: it was closed, and the call did not end by that.
        """
        try:
            require_same_process(self._process_id)
            with self._lock:
                if self._closed:
                    raise ClientClosed  # noqa: TRY301 - with the lock held, or it might close in between
                future = asyncio.run_coroutine_threadsafe(call, self._loop)
        except BaseException:
            call.close()
            raise
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise OutcomeUnknown("the client was closed during the call") from None
        except KeyboardInterrupt:
            # Ctrl-C stops the wait; the call must not go on behind the caller's back.
            future.cancel()
            raise

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Run this, then end the loop and its thread. Done again, or in a fork, it does nothing."""
        if self._process_id == os.getpid():
            with self._lock:
                closed, self._closed = self._closed, True
            if not closed:
                future = asyncio.run_coroutine_threadsafe(last, self._loop)
                try:
                    future.result()
                finally:
                    self._loop.call_soon_threadsafe(self._loop.stop)
                    self._thread.join()
                return
        last.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._end_calls())
        finally:
            self._loop.close()

    async def _end_calls(self) -> None:
        """Let those who still wait for a call hear how it ended."""
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        if calls:
            _, late = await asyncio.wait(calls, timeout=_LAST_CALLS_S)
            for call in late:
                call.cancel()
            await asyncio.gather(*late, return_exceptions=True)


class ThreadedClient(Generic[ClientT]):
    """An asyncio client that runs in a thread of its own.

    Args:
        addresses: "host:port" of the routers, one by one or as lists.
        settings: limits and waits.
    """

    _kind: ClassVar[type[LoopClient[Any]]]

    def __init__(self, *addresses: str | Iterable[str], settings: ClientSettings | None = None) -> None:
        self._client: ClientT = self._kind(*addresses, settings=settings)  # type: ignore[assignment]
        self._thread = LoopThread()

    def __repr__(self) -> str:
        return f"<Sync{repr(self._client)[1:]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """As the asyncio client's; then the thread ends. A second call does nothing."""
        self._thread.close(self._client.close())


def waiting(
    method: Callable[Concatenate[Any, Given], Coroutine[Any, Any, ResultT]],
) -> Callable[Concatenate[Any, Given], ResultT]:
    """The same method for callers that wait, with the same arguments, results and errors."""

    @functools.wraps(method)
    def wait(client: ThreadedClient[Any], /, *args: Given.args, **kwargs: Given.kwargs) -> ResultT:
        return client._thread.run(method(client._client, *args, **kwargs))  # noqa: SLF001 - its own class

    return wait


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # With loops in several threads gRPC wakes them all for one event: the late ones find nothing
    # to read and raise this, harmlessly (https://github.com/grpc/grpc/issues/25364).
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)
