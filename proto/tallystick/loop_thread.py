"""An event loop in a thread of its own, for clients of code that does not use asyncio."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


class LoopThread:
    """Runs coroutines for any number of threads, each of which waits for its own.

    Not for use inside a coroutine: it would stop the caller's event loop.

    Args:
        owner: who is closed when it is closed, for the error that says so.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_on_loop_error)
        # A daemon, so that a client somebody forgot to close does not keep the process alive.
        self._thread = threading.Thread(target=self._serve, name="tallystick-client", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._loop.is_closed()

    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def run(self, call: Coroutine[Any, Any, ResultT]) -> ResultT:
        """The coroutine's result, or its error.

        Raises:
            RuntimeError: it was closed.
        """
        if self._loop.is_closed():
            call.close()
            raise RuntimeError(f"this {self._owner} is closed")
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            # Ctrl-C stops the wait; the call must not go on behind the caller's back.
            future.cancel()
            raise

    def close(self) -> None:
        """Ends the loop and its thread. A second call does nothing."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # With loops in several threads gRPC wakes them all for one event: the late ones find nothing
    # to read and raise this, harmlessly (https://github.com/grpc/grpc/issues/25364).
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)
