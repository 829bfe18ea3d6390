"""Answers from the archive that say up to which moment they are complete, and may wait until they are.

Every shard is asked how far it is by one cheap call, which all questions share that came before it began.
Then the archive is read, for how complete it is and for the answer, on one connection. A shard that is silent
holds no answer up for long: of one that does not answer, only what is archived is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from router.execution.ledger_reader import TooManyQuestionsError
from shard_node.errors import ShardNodeError
from shard_node.ledger.questions import Completeness, completeness
from shard_node.ledger.store import stream_place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from router.execution.ledger_reader import LedgerReader
    from shard_node.client import LedgerState, Shard
    from shard_node.ledger.questions import History, Reach

T = TypeVar("T")

# For a shard's word on how far it is: a thousand times what it takes, and little beside a call's deadline.
ANSWER_SECONDS: Final = 0.5
# Between two looks of a question that waits. Archivers look three times a second when little happens.
FIRST_PAUSE_SECONDS: Final = 0.05
LAST_PAUSE_SECONDS: Final = 0.8
# The longest wait that is taken on, and how many at once: each looks at the archive at every pause.
MAX_WAIT_SECONDS: Final = 60.0
MAX_WAITING: Final = 256


class NotYetArchivedError(Exception):
    """The archive did not become as complete as was asked for in time.

    ``lacking`` are the shards that held it up; none when the service is stopping.
    """

    def __init__(self, found: Completeness, lacking: list[Reach]) -> None:
        super().__init__(found)
        self.found = found
        self.lacking = lacking

    def __str__(self) -> str:
        if not self.lacking:
            return "the router is stopping"
        return "; ".join(map(_why, self.lacking))


def _why(reach: Reach) -> str:
    if not reach.answered:
        return f"{reach.shard_id} does not answer"
    if reach.waiting:
        return f"{reach.shard_id} has {reach.waiting:,} entries that are not archived yet"
    return f"the archive of {reach.shard_id} is not that of what it has now"


@dataclass(slots=True)
class _Line:
    """The calls to one shard: one under way at most, and the next for those who came meanwhile."""

    shard: Shard
    upcoming: asyncio.Future[LedgerState | None] | None = None
    calling: asyncio.Task[None] | None = None
    since_seconds: float = field(default_factory=time.monotonic)
    # The oldest entry that waits, and the epoch and batch after which it is: the same till the next batch.
    oldest_after: tuple[str, int] | None = None
    oldest_ms: int | None = None

    @property
    def hangs(self) -> bool:
        """Whether a call is under way for so long that it is no use to wait for the next."""
        return self.calling is not None and time.monotonic() - self.since_seconds > ANSWER_SECONDS


class LedgerStates:
    """Asks shards how far their ledgers are. ``shards`` gives those of the newest map."""

    def __init__(self, shards: Callable[[], Sequence[Shard]]) -> None:
        self._shards = shards
        self._lines: dict[str, _Line] = {}

    def __repr__(self) -> str:
        return f"LedgerStates({len(self._lines)} shards)"

    async def ask(self) -> dict[str, LedgerState | None]:
        """What each says, as of some moment after this call; None where there is no answer soon."""
        lines = [self._joined(shard) for shard in self._shards()]
        awaited = {line.shard.shard_id: line.upcoming for line in lines}
        waiting = [line.upcoming for line in lines if line.upcoming is not None and not line.hangs]
        if waiting:
            # Not cancelled when time is up: a call to a shard never is, and its answer is for the next.
            await asyncio.wait(waiting, timeout=ANSWER_SECONDS)
        return {
            shard_id: upcoming.result() if upcoming is not None and upcoming.done() else None
            for shard_id, upcoming in awaited.items()
        }

    def close(self) -> None:
        """Asks no more."""
        for line in self._lines.values():
            if line.calling is not None:
                line.calling.cancel()

    def _joined(self, shard: Shard) -> _Line:
        line = self._lines.setdefault(shard.shard_id, _Line(shard))
        line.shard = shard
        if line.upcoming is None:
            line.upcoming = asyncio.get_running_loop().create_future()
        if line.calling is None:
            line.since_seconds = time.monotonic()
            line.calling = asyncio.ensure_future(self._call(line))
        return line

    @staticmethod
    async def _call(line: _Line) -> None:
        """Calls as long as anybody came after the last call had begun."""
        try:
            while line.upcoming is not None:
                upcoming, line.upcoming = line.upcoming, None
                state = None
                with contextlib.suppress(ShardNodeError):
                    state = await _state(line)
                upcoming.set_result(state)
                line.since_seconds = time.monotonic()
        finally:
            line.calling = None


async def _state(line: _Line) -> LedgerState:
    """What the shard says, and when the oldest entry that waits there was made.

    That entry may be large, so it is read once for each batch that is archived before it.
    """
    shard = line.shard
    state = await shard.ledger_state()
    if not state.length:
        return state
    place = (shard.fence, state.number)
    if line.oldest_after != place:
        first = await shard.ledger_after(state.stream_id, 1)
        if not first or (await shard.ledger_state()).number != state.number:
            # Archived meanwhile: what was read may be a later one.
            return state
        line.oldest_after, line.oldest_ms = place, stream_place(first[0][0])[0]
    return replace(state, oldest_ms=line.oldest_ms)


class CompleteAnswers:
    """Asks the archive. ``shards`` gives those of the newest map."""

    def __init__(self, history: History, shards: Callable[[], Sequence[Shard]], reader: LedgerReader) -> None:
        self._history = history
        self._reader = reader
        self._states = LedgerStates(shards)
        self._waiting = 0
        self._closing = asyncio.Event()

    def __repr__(self) -> str:
        return f"CompleteAnswers({self._waiting} waiting)"

    def close(self) -> None:
        """Ends every wait, soon, and asks shards no more."""
        self._closing.set()
        self._states.close()

    async def look(self) -> Completeness:
        """How far the archive is complete, and its newest batches."""
        states = await self._states.ask()
        return await self._reader.ask(partial(completeness, self._history, states))

    async def ask(
        self, question: Callable[[], T], wait_for_ms: int | None, deadline_seconds: float
    ) -> tuple[T, Completeness]:
        """The answer to a blocking question, and how far it is complete.

        With ``wait_for_ms`` once the archive is complete up to that moment. Raises NotYetArchivedError when
        it is not by the deadline (monotonic clock), TooManyQuestionsError when too many questions wait, and
        the question's own errors.
        """
        if wait_for_ms is None:
            states = await self._states.ask()
            return await self._reader.ask(lambda: self._answer(question, states))
        if self._waiting >= MAX_WAITING:
            raise TooManyQuestionsError
        self._waiting += 1
        try:
            return await self._wait(question, wait_for_ms, deadline_seconds)
        finally:
            self._waiting -= 1

    async def _wait(
        self, question: Callable[[], T], wait_for_ms: int, deadline_seconds: float
    ) -> tuple[T, Completeness]:
        arrived: dict[str, LedgerState] = {}
        # However late it is, one look is taken: without it there is nothing to say.
        answer, found = await self._look(question, arrived, wait_for_ms)
        pause = FIRST_PAUSE_SECONDS
        while answer is None:
            left = deadline_seconds - time.monotonic()
            if self._closing.is_set() and left > 0:
                raise NotYetArchivedError(found, [])
            if left < FIRST_PAUSE_SECONDS:
                raise NotYetArchivedError(found, found.lacking(wait_for_ms))
            with contextlib.suppress(TimeoutError):
                # By halves towards the end, so that the last looks have time to be taken.
                async with asyncio.timeout(min(pause, left / 2)):
                    await self._closing.wait()
            pause = min(2 * pause, LAST_PAUSE_SECONDS)
            with contextlib.suppress(TimeoutError):
                # A shard that is silent, or a slow database, must not hold the answer up past the deadline:
                # then nobody would hear what the look before has found.
                async with asyncio.timeout(deadline_seconds - time.monotonic()):
                    answer, found = await self._look(question, arrived, wait_for_ms)
        return answer[0], found

    async def _look(
        self, question: Callable[[], T], arrived: dict[str, LedgerState], wait_for_ms: int
    ) -> tuple[tuple[T] | None, Completeness]:
        """The answer, in a tuple of one, if the archive is complete by now; ``arrived`` is added to."""
        states = await self._states.ask()
        for shard_id, state in states.items():
            if state is not None:
                arrived.setdefault(shard_id, state)
        return await self._reader.ask(
            partial(self._answer_if_complete, question, states, arrived, wait_for_ms)
        )

    # ------------------------------------------------------------------ in a thread

    def _answer(
        self, question: Callable[[], T], states: Mapping[str, LedgerState | None]
    ) -> tuple[T, Completeness]:
        with self._history.reading():
            found = completeness(self._history, states)
            return question(), found

    def _answer_if_complete(
        self,
        question: Callable[[], T],
        states: Mapping[str, LedgerState | None],
        arrived: Mapping[str, LedgerState],
        wait_for_ms: int,
    ) -> tuple[tuple[T] | None, Completeness]:
        with self._history.reading():
            found = completeness(self._history, states, arrived)
            return (None if found.lacking(wait_for_ms) else (question(),)), found
