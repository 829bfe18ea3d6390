"""Concurrent single transfers, gathered into batches.

A batch leaves as soon as there is room for it, with all that waits by then; there is no fixed
delay. Under light load a batch is one transfer, under heavy load batches grow by themselves.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shard_node.limits import MAX_BATCH

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from router.engine import Results
    from shard_node.transfers import Row

# Batches on their way at once. Two keep the shards busy while one returns; more only make each smaller.
MAX_BATCHES = 4
# Single transfers that wait at the most: a second's worth.
MAX_WAITING = 4 * MAX_BATCH

# outcome, payer's balance, payee's balance
Single = tuple[int, int, int]


class OverloadedError(Exception):
    """More waits than the router will hold. Nothing was begun."""


class Coalescer:
    """Gathers rows; ``execute`` carries out a batch of them."""

    def __init__(self, execute: Callable[[list[Row]], Awaitable[Results]]) -> None:
        self._execute = execute
        self._waiting: list[tuple[Row, asyncio.Future[Single]]] = []
        self._batches: set[asyncio.Task[None]] = set()
        self._scheduled = False

    def __repr__(self) -> str:
        return f"Coalescer(waiting={len(self._waiting)}, batches={len(self._batches)})"

    def submit(self, row: Row) -> asyncio.Future[Single]:
        """The row's result, in time. Raises OverloadedError."""
        if len(self._waiting) >= MAX_WAITING:
            raise OverloadedError
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Single] = loop.create_future()
        self._waiting.append((row, future))
        if not self._scheduled and len(self._batches) < MAX_BATCHES:
            # Not at once: whoever else is ready in this turn of the loop comes along.
            self._scheduled = True
            loop.call_soon(self._depart)
        return future

    async def finish_all(self) -> None:
        """Waits until nothing waits and nothing is on its way."""
        while self._batches or self._waiting:
            await asyncio.wait(self._batches) if self._batches else await asyncio.sleep(0)

    def _depart(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._batches) < MAX_BATCHES:
            batch = self._waiting[:MAX_BATCH]
            del self._waiting[:MAX_BATCH]
            task = asyncio.ensure_future(self._carry(batch))
            self._batches.add(task)
            task.add_done_callback(self._returned)

    def _returned(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._depart()

    async def _carry(self, batch: list[tuple[Row, asyncio.Future[Single]]]) -> None:
        try:
            results = await self._execute([row for row, _ in batch])
        except Exception as error:
            # Each waiting caller must hear of it; none may wait for ever.
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            raise
        triples = zip(results.outcomes, results.payer_balances, results.payee_balances, strict=True)
        for (_, future), triple in zip(batch, triples, strict=True):
            # Done already when its caller has hung up.
            if not future.done():
                future.set_result(triple)
