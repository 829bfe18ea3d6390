"""Concurrent single operations, gathered into batches.

A batch leaves as soon as the one before it is back, with all that waits by then; there is no fixed
delay. Under light load a batch is one transfer, under heavy load batches grow by themselves.

One at a time, because a batch costs its processes some milliseconds of CPU however few its items are: with
more on their way at once, each would be smaller, all would take longer, and those who wait longest too.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from shard_node.limits import MAX_BATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

# Batches on their way at once, where one takes long: a shard may be silent that others do not need.
MAX_BATCHES = 4
# For so long a batch keeps the next one back. Under any load one takes less if all shards answer.
PATIENCE_SECONDS = 0.25
# What waits at the most, in items of weight one: a second's worth.
MAX_WAITING = 4 * MAX_BATCH

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class OverloadedError(Exception):
    """More waits than the router will hold. Nothing was begun."""


def _one(_: object) -> int:
    return 1


class Coalescer(Generic[ItemT, ResultT]):
    """Gathers items; ``execute`` carries out a batch of them, and answers with a result an item, in order.

    ``weigh`` says how much of a batch an item fills, and of what may wait: at most MAX_BATCH.
    ``patience_seconds`` is how long a batch keeps the next one back, unless that one is full.
    """

    def __init__(
        self,
        execute: Callable[[list[ItemT]], Coroutine[Any, Any, Sequence[ResultT]]],
        weigh: Callable[[ItemT], int] = _one,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._execute = execute
        self._weigh = weigh
        self._patience_seconds = patience_seconds
        self._waiting: list[tuple[ItemT, asyncio.Future[ResultT]]] = []
        self._waiting_weight = 0
        self._batches: set[asyncio.Task[None]] = set()
        self._newest: asyncio.Task[None] | None = None
        # Set while the newest batch keeps the next one back.
        self._patience: asyncio.TimerHandle | None = None
        self._scheduled = False

    def __repr__(self) -> str:
        return f"Coalescer(waiting={len(self._waiting)}, batches={len(self._batches)})"

    def submit(self, item: ItemT) -> asyncio.Future[ResultT]:
        """The item's result, in time. Raises OverloadedError."""
        weight = self._weigh(item)
        if self._waiting_weight + weight > MAX_WAITING:
            raise OverloadedError
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ResultT] = loop.create_future()
        self._waiting.append((item, future))
        self._waiting_weight += weight
        if not self._scheduled and self._may_depart():
            # Not at once: whoever else is ready in this turn of the loop comes along.
            self._scheduled = True
            loop.call_soon(self._depart)
        return future

    async def finish_all(self) -> None:
        """Waits until nothing waits and nothing is on its way."""
        while self._batches or self._waiting:
            await asyncio.wait(self._batches) if self._batches else await asyncio.sleep(0)

    def _may_depart(self) -> bool:
        if not self._waiting or len(self._batches) >= MAX_BATCHES:
            return False
        # A full one would not grow by waiting.
        return self._patience is None or self._waiting_weight >= MAX_BATCH

    def _depart(self) -> None:
        self._scheduled = False
        while self._may_depart():
            self._newest = asyncio.ensure_future(self._carry(self._next_batch()))
            self._batches.add(self._newest)
            self._newest.add_done_callback(self._returned)
            self._end_patience()
            self._patience = asyncio.get_running_loop().call_later(self._patience_seconds, self._go_on)

    def _go_on(self) -> None:
        """The newest batch keeps nobody back any more."""
        self._end_patience()
        self._depart()

    def _end_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _next_batch(self) -> list[tuple[ItemT, asyncio.Future[ResultT]]]:
        """As much of what waits as fills a batch, taken out in order."""
        count = weight = 0
        for item, _ in self._waiting:
            more = self._weigh(item)
            if weight + more > MAX_BATCH:
                break
            weight += more
            count += 1
        batch = self._waiting[:count]
        del self._waiting[:count]
        self._waiting_weight -= weight
        return batch

    def _returned(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        if task is self._newest:
            self._newest = None
            self._end_patience()
        self._depart()

    async def _carry(self, batch: list[tuple[ItemT, asyncio.Future[ResultT]]]) -> None:
        try:
            results = await self._execute([item for item, _ in batch])
        except Exception as error:
            # Each waiting caller must hear of it; none may wait for ever.
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            raise
        for (_, future), result in zip(batch, results, strict=True):
            # Done already when its caller has hung up.
            if not future.done():
                future.set_result(result)
