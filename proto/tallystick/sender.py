"""Carries out what the coalescer decides: sends its batches and wakes it when it asked to be woken.

No task and no timer for a single transfer: one task a batch in flight, one timer in all.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence

from tallystick.coalescer import Batch, Coalescer
from tallystick.errors import OutcomeUnknown
from tallystick.rotation import RouterState
from tallystick.status import Failure
from tallystick.tickets import Ticket
from tallystick.transport import TRANSFERS, CallFailed, Transport
from tallystick.v1 import wallet_pb2

_log = logging.getLogger(__name__)


class Sender:
    """The coalescer's I/O.

    Args:
        coalescer: decides.
        transport: the way to the routers.
        clock: monotonic seconds.
    """

    def __init__(self, coalescer: Coalescer, transport: Transport, clock: Callable[[], float]) -> None:
        self._coalescer = coalescer
        self._transport = transport
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._advance_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = math.inf
        # The loop keeps only weak references to tasks.
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Sender {self._coalescer!r}>"

    def submit(self, ticket: Ticket) -> None:
        """Take in one transfer; raises what Coalescer.submit raises."""
        self._coalescer.submit(ticket)
        if not self._advance_is_due:
            self._advance_soon()

    def submit_all(self, tickets: Sequence[Ticket]) -> None:
        """Take in a piece of a batch; raises what Coalescer.submit_all raises."""
        self._coalescer.submit_all(tickets)
        self._advance_soon()

    async def close(self, grace_s: float) -> None:
        """Settle all that waits, give what is in flight so long to land, and stop."""
        self._coalescer.close()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace_s)
            self._coalescer.abandon()
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()

    def _advance_soon(self) -> None:
        # In the loop's next turn: all that is submitted in this one leaves together.
        if not self._advance_is_due:
            self._advance_is_due = True
            self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        self._advance_is_due = False
        todo = self._coalescer.advance(self._clock())
        for batch in todo.departures:
            task = self._loop.create_task(self._carry(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        # A timer that is too early costs one idle call; moving it each time would cost more.
        if todo.wake_at_s < self._timer_at_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at_s = todo.wake_at_s
            self._timer = self._loop.call_later(todo.wake_at_s - self._clock(), self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_at_s = None, math.inf
        self._advance()

    async def _carry(self, batch: Batch) -> None:
        """Send one batch and hand its answer to the coalescer, whatever happens."""
        try:
            request = wallet_pb2.BatchTransferRequest(
                transfers=[ticket.request for ticket in batch.tickets],
                return_balances=any(ticket.return_balances for ticket in batch.tickets),
            )
            response = await self._transport.call(batch.router, TRANSFERS, request, batch.timeout_s)
            self._coalescer.answered(batch, response.results, self._clock())
        except CallFailed as failed:
            self._coalescer.failed(batch, failed.failure, self._clock())
        except Exception as error:  # noqa: BLE001 - it is logged, and passed on as what it is: unknown
            # A fault of ours must leave nobody waiting, nor call anything refused.
            _log.exception("a batch of %d transfers could not be carried", len(batch.tickets))
            failure = Failure(OutcomeUnknown(f"fault in the client: {error!r}"), RouterState.ANSWERED)
            self._coalescer.failed(batch, failure, self._clock())
        finally:
            self._advance_soon()
