"""Which waiting transfers leave together, when, to which router, and what their answers mean.

Plain decisions without I/O, timers or tasks. Events go in (`submit`, `answered`,
`failed`); `advance` does all that follows and returns what the client then has to do.
A batch leaves as soon as there is room for it: there is no fixed delay, and while all
places are taken the waiting transfers grow into larger batches by themselves.

Invariants:
- A ticket is in one place at a time: waiting, resting (to be tried again later), or in
  one batch in flight.
- Every ticket that is not cancelled is settled once, at its deadline at the latest.
- A ticket is settled as not begun only when no try of it may have done the work.
"""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from tallystick.errors import (
    ClientClosed,
    Outcome,
    OutcomeUnknown,
    Overloaded,
    RetryableError,
    TallystickError,
)
from tallystick.retry import RetryPolicy, closing_error, is_verdict, may_have_begun
from tallystick.rotation import Rotation, RouterState
from tallystick.settings import ClientSettings
from tallystick.status import Failure, from_refusal
from tallystick.tickets import Ticket
from tallystick.v1 import outcome_pb2, wallet_pb2
from tallystick.values import TransferResult
from tallystick.wire import committed_result

# Looking up a member of an enum costs more than a local constant: these are on the hot path.
_COMMITTED = Outcome.COMMITTED
_DEADLINE_S = attrgetter("deadline_s")
# Sweeps read every ticket: with many different deadlines they must not follow one another at once.
_SWEEP_PAUSE_S = 0.005


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Transfers on their way to one router.

    Attributes:
        router: its place in the rotation.
        tickets: in the order of the request.
        timeout_s: how long the call may take.
    """

    router: int
    tickets: list[Ticket]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Todo:
    """What the client does next.

    Attributes:
        departures: batches to send now.
        wake_at_s: when to call `advance` again if nothing else happens; infinite
            when there is nothing to wait for.
    """

    departures: list[Batch]
    wake_at_s: float


class Coalescer:
    """Tickets on their way from `submit` to their outcome.

    Args:
        settings: the limits.
        rotation: the routers; this is the only one to take places in it.
        policy: how long failed tickets rest.
    """

    def __init__(self, settings: ClientSettings, rotation: Rotation, policy: RetryPolicy) -> None:
        self._settings = settings
        self._rotation = rotation
        self._policy = policy
        self._waiting: deque[Ticket] = deque()
        # (when they may leave, tie-breaker, tickets), a heap.
        self._resting: list[tuple[float, int, list[Ticket]]] = []
        self._resting_count = 0
        self._tie_breaker = itertools.count()
        self._flying: set[Batch] = set()
        self._sweep_at_s = math.inf
        self._closed = False

    def __repr__(self) -> str:
        flying = sorted(len(batch.tickets) for batch in self._flying)
        return f"<Coalescer waiting={len(self._waiting)} resting={self._resting_count} in_flight={flying}>"

    def submit(self, ticket: Ticket) -> None:
        """Take in a single transfer.

        Raises:
            Overloaded: the queue is full.
            ClientClosed: no more is taken in.
        """
        if self._closed:
            raise ClientClosed(transaction_id=ticket.transaction_id)
        if len(self._waiting) + self._resting_count >= self._settings.queue_limit:
            limit = self._settings.queue_limit
            raise Overloaded(f"{limit} transfers wait in this client already", ticket.transaction_id)
        self._waiting.append(ticket)
        self._sweep_at_s = min(self._sweep_at_s, ticket.deadline_s)

    def submit_all(self, tickets: Sequence[Ticket]) -> None:
        """Take in the tickets of a piece, whose number the client bounds by itself.

        Raises:
            ClientClosed: no more is taken in.
        """
        if self._closed:
            raise ClientClosed
        self._waiting.extend(tickets)
        self._sweep_at_s = min(self._sweep_at_s, *(ticket.deadline_s for ticket in tickets))

    def advance(self, now_s: float) -> Todo:
        """Do what is due: expire, wake what has rested, and form the batches there is room for."""
        if now_s >= self._sweep_at_s:
            self._sweep(now_s)
        while self._resting and self._resting[0][0] <= now_s:
            _, _, tickets = heapq.heappop(self._resting)
            self._resting_count -= len(tickets)
            # In front: they have waited before.
            self._waiting.extendleft(reversed(tickets))
        departures = self._form_batches(now_s)
        wake_at_s = self._sweep_at_s
        if self._resting:
            wake_at_s = min(wake_at_s, self._resting[0][0])
        return Todo(departures, wake_at_s)

    def answered(self, batch: Batch, responses: Sequence[wallet_pb2.TransferResponse], now_s: float) -> None:
        """A batch came back with one response for each of its tickets."""
        if len(responses) != len(batch.tickets):
            count = f"{len(responses)} results for {len(batch.tickets)} transfers"
            self.failed(batch, Failure(OutcomeUnknown(f"the router sent {count}"), RouterState.BROKEN), now_s)
            return
        again: list[tuple[Ticket, TallystickError]] = []
        for ticket, response in zip(batch.tickets, responses, strict=True):
            transaction_id = ticket.transaction_id
            if response.transaction_id != transaction_id:
                # Whatever it says is of another transfer.
                again.append((ticket, OutcomeUnknown("the router answered for another transaction_id")))
            elif response.outcome != outcome_pb2.OUTCOME_COMMITTED:
                if response.outcome == outcome_pb2.OUTCOME_VALID and ticket.request.validate_only:
                    ticket.settle(TransferResult(transaction_id, Outcome.VALID))
                    continue
                refusal = response.refusal
                error = from_refusal(response.outcome, refusal.message, refusal.field, transaction_id)
                if isinstance(error, RetryableError):
                    again.append((ticket, error))
                elif is_verdict(error):
                    ticket.fail(error)
                else:
                    self._give_up(ticket, error)
            elif ticket.return_balances:
                ticket.settle(committed_result(response, transaction_id))
            else:
                ticket.settle(TransferResult(transaction_id, _COMMITTED))
        # Last, so that after a fault above the batch can still be failed as a whole.
        self._land(batch)
        self._rotation.succeeded(batch.router)
        self._rest(again, now_s)

    def failed(self, batch: Batch, failure: Failure, now_s: float) -> None:
        """A batch came back without responses. That says nothing final of any of its tickets' ids."""
        self._land(batch)
        full_time = batch.timeout_s >= self._settings.attempt_timeout_s
        self._rotation.failed(batch.router, failure.router, now_s, had_full_time=full_time)
        if isinstance(failure.error, RetryableError):
            self._rest([(ticket, failure.error) for ticket in batch.tickets], now_s)
            return
        for ticket in batch.tickets:
            self._give_up(ticket, failure.error)

    def close(self) -> None:
        """Take in no more, and settle what is not in flight; that is tried no further either."""
        self._closed = True
        idle = itertools.chain(self._waiting, *(tickets for _, _, tickets in self._resting))
        for ticket in idle:
            self._give_up(ticket, ClientClosed())
        self._waiting.clear()
        self._resting.clear()
        self._resting_count = 0

    def abandon(self) -> None:
        """Settle what is in flight: its answers will not be waited for."""
        for batch in self._flying:
            for ticket in batch.tickets:
                self._give_up(ticket, OutcomeUnknown("the client was closed during the call"))

    def _form_batches(self, now_s: float) -> list[Batch]:
        departures: list[Batch] = []
        waiting = self._waiting
        if not waiting:
            return departures
        # Spread over the free places, so that the cluster works on one batch while we read another.
        places = max(1, self._rotation.free_places(now_s))
        size = max(self._settings.batch_floor, math.ceil(len(waiting) / places))
        size = min(size, self._settings.batch_limit)
        while waiting:
            router = self._rotation.take(now_s)
            if router is None:
                break
            next_ones = (waiting.popleft() for _ in range(min(size, len(waiting))))
            tickets = [ticket for ticket in next_ones if not ticket.done()]
            if not tickets:
                self._rotation.give_back(router)
                continue
            latest_s = max(map(_DEADLINE_S, tickets))
            batch = Batch(router, tickets, min(self._settings.attempt_timeout_s, latest_s - now_s))
            self._flying.add(batch)
            departures.append(batch)
        return departures

    def _land(self, batch: Batch) -> None:
        self._flying.remove(batch)
        self._rotation.give_back(batch.router)

    def _rest(self, failed: Iterable[tuple[Ticket, TallystickError]], now_s: float) -> None:
        """Try these again later, or give up those that have no time left."""
        # One wait for all that failed equally often, so that they stay one batch.
        groups: dict[tuple[int, bool], list[tuple[Ticket, TallystickError]]] = {}
        for ticket, error in failed:
            if ticket.done():
                continue
            ticket.attempts += 1
            groups.setdefault((ticket.attempts, may_have_begun(error)), []).append((ticket, error))
        for (attempts, begun), group in groups.items():
            ready_at_s = now_s + self._policy.delay_s(attempts, group[0][1])
            resting: list[Ticket] = []
            for ticket, error in group:
                if self._closed or ready_at_s >= ticket.deadline_s:
                    self._give_up(ticket, error)
                else:
                    ticket.begun |= begun
                    resting.append(ticket)
            if resting:
                heapq.heappush(self._resting, (ready_at_s, next(self._tie_breaker), resting))
                self._resting_count += len(resting)

    def _give_up(self, ticket: Ticket, error: TallystickError) -> None:
        ticket.fail(closing_error(error, begun_before=ticket.begun, transaction_id=ticket.transaction_id))

    def _sweep(self, now_s: float) -> None:
        """Settle what is past its deadline, and find the next deadline."""
        late_in_flight = OutcomeUnknown("no answer within the deadline")
        late_at_home = Overloaded("not sent within the deadline")
        earliest_s = math.inf
        places: list[tuple[Iterable[Ticket], TallystickError]] = [
            (batch.tickets, late_in_flight) for batch in self._flying
        ]
        places.append((self._waiting, late_at_home))
        places.extend((tickets, late_at_home) for _, _, tickets in self._resting)
        for tickets, error in places:
            for ticket in tickets:
                if ticket.done():
                    continue
                if ticket.deadline_s <= now_s:
                    self._give_up(ticket, error)
                else:
                    earliest_s = min(earliest_s, ticket.deadline_s)
        # What nobody waits for any more must not count towards the queue's limit.
        self._waiting = deque(ticket for ticket in self._waiting if not ticket.done())
        self._sweep_at_s = max(earliest_s, now_s + _SWEEP_PAUSE_S)
