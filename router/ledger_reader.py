"""Questions to the ledger's database from the event loop: in threads, and only so many.

A question that is being asked goes on when its caller leaves, and counts until it has ended.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Each may hold a connection to the database: fewer than SQLAlchemy's pool has.
MAX_THREADS: Final = 4
# Questions that are asked or wait for a thread. They take milliseconds, so this is about a second's wait.
MAX_WAITING: Final = 256


class TooManyQuestionsError(Exception):
    """More questions wait than are taken on."""


class LedgerReader:
    """Runs blocking questions in threads of its own."""

    def __init__(self, max_threads: int = MAX_THREADS, max_waiting: int = MAX_WAITING) -> None:
        self._threads = ThreadPoolExecutor(max_threads, thread_name_prefix="ledger")
        self._max_waiting = max_waiting
        self._waiting = 0

    def __repr__(self) -> str:
        return f"LedgerReader({self._waiting} waiting)"

    async def ask(self, question: Callable[[], T]) -> T:
        """The answer, and the question's own errors. Raises TooManyQuestionsError at once."""
        if self._waiting >= self._max_waiting:
            raise TooManyQuestionsError
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, question)
        future.add_done_callback(self._answered)
        return await asyncio.shield(future)

    def close(self) -> None:
        """Takes no more questions; those being asked end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answered(self, future: asyncio.Future[T]) -> None:
        self._waiting -= 1
        if not future.cancelled():
            # Whoever asked may be gone: an error then concerns nobody.
            future.exception()
