"""Work that goes on whatever becomes of those who wait for it.

A client that hangs up cancels its handler; a call to a shard must never be cancelled, and what may be past
its commit point must end. So such work runs in tasks of its own, kept here until they end.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

from shard_node.limits import MAX_BATCH

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

# For calls that bring no deadline, and the most that a longer one counts for.
DEFAULT_DEADLINE_SECONDS = 10.0
# Items in a router's hands at once, but for single transfers and journals: some eight of the largest batches.
MAX_IN_HAND = 8 * MAX_BATCH

# What work gets whose deadline has passed when it comes: its one try, if shards answer as usual.
LEAST_SECONDS = 0.05


class KeptTasks:
    """Tasks under way, and how many items they have in hand together."""

    def __init__(self) -> None:
        self._items = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    def has_room(self, items: int) -> bool:
        """Whether so many items more may be taken in hand."""
        return self._items + items <= MAX_IN_HAND

    async def run(self, work: Coroutine[Any, Any, T], items: int = 0) -> T:
        """The result of the work, which goes on should the caller be cancelled."""
        return await asyncio.shield(self._start(work, items))

    async def done_by(self, work: Coroutine[Any, Any, None], deadline_seconds: float) -> bool:
        """Whether the work ended by the deadline (monotonic clock); else it goes on. Raises its errors."""
        task = self._start(work, 0)
        await asyncio.wait((task,), timeout=max(deadline_seconds - time.monotonic(), LEAST_SECONDS))
        if not task.done():
            return False
        task.result()
        return True

    async def finish_all(self) -> None:
        """Waits for everything under way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: Coroutine[Any, Any, T], items: int) -> asyncio.Task[T]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        self._items += items

        def done(_: asyncio.Task[T]) -> None:
            # Not when the caller leaves: work that goes on without it counts all the same.
            self._tasks.discard(task)
            self._items -= items

        task.add_done_callback(done)
        return task


def deadline_of(context: Any, longest_seconds: float = DEFAULT_DEADLINE_SECONDS) -> float:
    """When a call must be answered, on the monotonic clock, by its gRPC context."""
    remaining = context.time_remaining()
    remaining = DEFAULT_DEADLINE_SECONDS if remaining is None else min(remaining, longest_seconds)
    # A little before the caller gives up, so that it gets the outcomes that are known.
    return float(time.monotonic() + remaining * 0.9)
