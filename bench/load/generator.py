"""Sends calls, in a closed or an open loop, and hands every answer to the tally.

Bytes in, bytes out: what gRPC carries are the bytes of `bench.transfers.wire`, and the answers go to
`bench.load.tally` as they are. Invariant: the clock of a call runs from when it was due. In a closed loop
that is when it is sent; in an open one the moment fixed in advance, however late the generator or the service
was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, Protocol

import grpc.aio

from bench.errors import BenchError
from bench.load.tally import Tally
from bench.transfers import Supply

# Longer than a router's own deadline for a call that brings none: its answer says more than our time-out.
CALL_TIMEOUT_SECONDS = 15.0
# How far an open loop may fall behind before the run has failed. With the time-out it is below a minute,
# which is the most that the histogram of latencies can tell.
LONGEST_LAG_SECONDS = 30.0
# The event loop's timers count in milliseconds; less than one would have it spin.
_SHORTEST_SLEEP_SECONDS = 0.001


class Method(Protocol):
    """A call to a service, of serialized messages."""

    def __call__(self, request: bytes, *, timeout: float) -> Coroutine[Any, Any, bytes]:
        """The serialized answer; raises AioRpcError."""


class Generator:
    """Drives the load of one process through one run.

    Args:
        methods: what to call, in turn: one a router.
        supply: where the calls come from.
        unary: whether a call is one Transfer, not a BatchTransfer.
        tally: where the answers go.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        supply: Supply,
        tally: Tally,
        *,
        unary: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._methods = methods
        self._supply = supply
        self._tally = tally
        self._unary = unary
        self._clock = clock

    async def closed(self, concurrency: int, sizes: Iterator[int]) -> None:
        """Sends a call after each answer, so many at a time, until the sizes are used up."""

        async def worker(method: Method) -> None:
            # The workers share the sizes.
            for size in sizes:
                await self._send(method, size, None)

        await _all_of(worker(self._methods[number % len(self._methods)]) for number in range(concurrency))

    async def open(self, concurrency: int, due: Iterable[tuple[float, int]]) -> None:
        """Sends a call of each size at its time, or as soon as fewer than ``concurrency`` are in flight.

        Raises BenchError when it is too late for one of them: it would have to leave out what was waited.
        """
        slots = asyncio.Semaphore(concurrency)

        async def send(method: Method, size: int, moment: float) -> None:
            try:
                await self._send(method, size, moment)
            finally:
                slots.release()

        async def schedule() -> None:
            async with asyncio.TaskGroup() as calls:
                for number, (moment, size) in enumerate(due):
                    await self._until(moment)
                    await slots.acquire()
                    if self._clock() - moment > LONGEST_LAG_SECONDS:
                        raise BenchError(
                            f"rate: a call was sent more than {LONGEST_LAG_SECONDS:.0f} s after it was due; "
                            "neither the cluster nor the generator may do less than is asked"
                        )
                    calls.create_task(send(self._methods[number % len(self._methods)], size, moment))

        await _all_of([schedule()])

    async def _until(self, moment: float) -> None:
        # A timer may fire a little early; a call that is sent before it is due would seem too fast.
        wait = moment - self._clock()
        while wait > 0:
            await asyncio.sleep(max(wait, _SHORTEST_SLEEP_SECONDS))
            wait = moment - self._clock()

    async def _send(self, method: Method, size: int, due: float | None) -> None:
        call = self._supply.next(size)
        now = self._clock()
        if due is None:
            due = now
        else:
            self._tally.sent(due, now)
        request = call.single_request() if self._unary else call.batch_request()
        try:
            answer = await method(request, timeout=CALL_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as status:
            if not self._unary:
                raise
            now = self._clock()
            self._tally.answered(due, now)
            self._tally.add_status(call, status, now)
            return
        now = self._clock()
        self._tally.answered(due, now)
        if self._unary:
            self._tally.add_single(call, answer, now)
        else:
            self._tally.add_batch(call, answer, now)


async def _all_of(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Does all at once; the first failure ends the others, and is what this raises."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as failures:
        # The others follow from the first, or say the same.
        first: Exception = failures.exceptions[0]
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        raise first from None
