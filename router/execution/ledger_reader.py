"""Questions to the ledger's database from the event loop: in threads, and only so many.

A question that is being asked goes on when its caller leaves, and counts until it has ended: a database that
hangs is not asked ever more. Its callers are told in time, and its threads keep no process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any, Final, TypeVar

from shard_node.errors import LedgerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Each may hold a connection to the database: fewer than SQLAlchemy's pool has.
MAX_THREADS: Final = 4
# Questions that are asked or wait for a thread. They take milliseconds, so this is about a second's wait.
MAX_WAITING: Final = 256
# For the wait and the answer. Above the time that the database itself gives a statement.
DEADLINE_SECONDS: Final = 15.0


class TooManyQuestionsError(Exception):
    """More questions wait than are taken on."""


class LedgerReader:
    """Runs blocking questions in threads of its own, which end with the process."""

    def __init__(
        self,
        max_threads: int = MAX_THREADS,
        max_waiting: int = MAX_WAITING,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._max_threads = max_threads
        self._max_waiting = max_waiting
        self._deadline_seconds = deadline_seconds
        self._waiting = 0
        self._threads: list[Thread] = []
        self._asked = Condition()
        # Questions that no thread has taken yet, and what becomes of their answers.
        self._questions: deque[Callable[[], None]] = deque()
        self._closed = False

    def __repr__(self) -> str:
        return f"LedgerReader({self._waiting} waiting)"

    async def ask(self, question: Callable[[], T]) -> T:
        """The answer, and the question's own errors.

        Raises TooManyQuestionsError at once, and LedgerUnavailableError when there is no answer in time.
        """
        if self._waiting >= self._max_waiting:
            raise TooManyQuestionsError
        self._waiting += 1
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        # Not cancelled with whoever asked: the thread is busy all the same.
        future.add_done_callback(self._answered)

        def run() -> None:
            answer: Any = None
            failed: BaseException | None = None
            try:
                answer = question()
            except BaseException as error:  # noqa: BLE001 -- it is the asker's
                failed = error
            # The loop may have ended meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, future, answer, failed)

        self._put(run)
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await asyncio.shield(future)
        except TimeoutError:
            raise LedgerUnavailableError(
                f"the ledger gave no answer within {self._deadline_seconds:g} s"
            ) from None

    def close(self) -> None:
        """Takes no more questions; those being asked end by themselves, or with the process."""
        with self._asked:
            self._closed = True
            self._questions.clear()
            self._asked.notify_all()

    def _put(self, run: Callable[[], None]) -> None:
        with self._asked:
            self._questions.append(run)
            self._asked.notify()
        if len(self._threads) < min(self._max_threads, self._waiting):
            # A daemon: the interpreter waits for the threads of a ThreadPoolExecutor, however long they hang.
            thread = Thread(target=self._work, name=f"ledger-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while True:
            with self._asked:
                self._asked.wait_for(lambda: self._questions or self._closed)
                if self._closed:
                    return
                run = self._questions.popleft()
            run()

    def _answered(self, future: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        if not future.cancelled():
            # Whoever asked may be gone: an error then concerns nobody.
            future.exception()


def _settle(future: asyncio.Future[T], answer: T, failed: BaseException | None) -> None:
    if future.done():
        return
    if failed is not None:
        future.set_exception(failed)
    else:
        future.set_result(answer)
