"""The coalescer under any sequence of events: each transfer settled once, in time, and never wrongly.

A model keeps, for every transfer, whether any try of it may have moved the money. What
the coalescer tells the caller must never contradict it.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from tallystick.coalescer import Batch, Coalescer
from tallystick.errors import ClientClosed, Outcome, OutcomeUnknown, Overloaded, Refused
from tallystick.retry import RetryPolicy
from tallystick.rotation import Rotation, RouterState
from tallystick.settings import ClientSettings
from tallystick.status import Failure
from tallystick.v1 import wallet_pb2
from tests.client.test_coalescer import Recorded

LIMITS = ClientSettings(
    batch_limit=3,
    batch_floor=1,
    batches_in_flight=2,
    queue_limit=6,
    first_retry_delay_s=0.5,
    longest_retry_delay_s=2,
)
PLACES = LIMITS.batches_in_flight * 2
# A sweep may be put off by this much.
TOLERANCE_S = 0.006
FAILURES = [
    Failure(OutcomeUnknown("lost"), RouterState.BROKEN),
    Failure(OutcomeUnknown("late"), RouterState.SILENT),
    Failure(Overloaded("busy", retry_after_s=0.3), RouterState.ANSWERED),
    Failure(Refused("not allowed"), RouterState.ANSWERED),
]
ITEM_OUTCOMES = [
    Outcome.COMMITTED,
    Outcome.INSUFFICIENT_FUNDS,
    Outcome.OUTCOME_UNKNOWN,
    Outcome.RESOURCE_EXHAUSTED,
    # Said without looking at what became of the id.
    Outcome.INVALID_ARGUMENT,
]
NOT_BEGUN = (Overloaded, ClientClosed)


class Machine(RuleBasedStateMachine):
    """Submits, answers, loses, cancels and lets time pass, in any order."""

    flying = Bundle("flying")

    @initialize(jitter=st.floats(0, 1))
    def begin(self, jitter: float) -> None:
        """A coalescer with two routers and small limits."""
        policy = RetryPolicy(LIMITS.first_retry_delay_s, LIMITS.longest_retry_delay_s, lambda: jitter)
        self.coalescer = Coalescer(LIMITS, Rotation(2, LIMITS.batches_in_flight, 0.25, 1.0), policy)
        self.now_s = 0.0
        self.tickets: list[Recorded] = []
        self.maybe_moved: set[str] = set()
        self.verdicts: dict[str, set[Outcome]] = {}
        self.in_flight: list[Batch] = []

    @rule(patience_s=st.floats(0.01, 5))
    def submit(self, patience_s: float) -> None:
        """One more transfer, if the queue takes it."""
        ticket = Recorded(f"id-{len(self.tickets)}", self.now_s + patience_s)
        try:
            self.coalescer.submit(ticket)
        except Overloaded:
            return
        self.tickets.append(ticket)

    @rule(target=flying, passed_s=st.floats(0, 1))
    def advance(self, passed_s: float) -> object:
        """Time passes, and what is due leaves."""
        self.now_s += passed_s
        departures = self.coalescer.advance(self.now_s).departures
        for batch in departures:
            assert 0 < len(batch.tickets) <= LIMITS.batch_limit
        self.in_flight.extend(departures)
        return multiple(*departures)

    @rule(batch=consumes(flying), outcomes=st.lists(st.sampled_from(ITEM_OUTCOMES), min_size=3, max_size=3))
    def answer(self, batch: Batch, outcomes: list[Outcome]) -> None:
        """A batch comes back with an outcome for each item."""
        responses = []
        for ticket, outcome in zip(batch.tickets, outcomes, strict=False):
            name = ticket.transaction_id
            responses.append(wallet_pb2.TransferResponse(transaction_id=name, outcome=outcome.value))
            if outcome is Outcome.OUTCOME_UNKNOWN:
                self.maybe_moved.add(name)
            elif outcome is not Outcome.RESOURCE_EXHAUSTED:
                self.verdicts.setdefault(name, set()).add(outcome)
        self.in_flight.remove(batch)
        self.coalescer.answered(batch, responses, self.now_s)

    @rule(batch=consumes(flying), failure=st.sampled_from(FAILURES))
    def lose(self, batch: Batch, failure: Failure) -> None:
        """A batch fails as a whole."""
        if isinstance(failure.error, OutcomeUnknown):
            self.maybe_moved.update(ticket.transaction_id for ticket in batch.tickets)
        self.in_flight.remove(batch)
        self.coalescer.failed(batch, failure, self.now_s)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A caller leaves."""
        waiting = [ticket for ticket in self.tickets if not ticket.done()]
        if waiting:
            data.draw(st.sampled_from(waiting)).left = True

    @invariant()
    def nobody_is_told_what_may_be_false(self) -> None:
        """Committed and refused are the service's words; "not begun" holds for every try."""
        on_their_way = {ticket.transaction_id for batch in self.in_flight for ticket in batch.tickets}
        for ticket in self.tickets:
            name = ticket.transaction_id
            assert len(ticket.results) <= 1
            for result in ticket.results:
                assert result.transaction_id == name
                if result.outcome in (Outcome.COMMITTED, Outcome.INSUFFICIENT_FUNDS):
                    assert result.outcome in self.verdicts[name]
                elif isinstance(result.error, (*NOT_BEGUN, Refused)):
                    assert name not in self.maybe_moved
                    assert name not in on_their_way

    @invariant()
    def nobody_is_sent_twice_at_once(self) -> None:
        """A transfer is in one batch at a time, and the places are bounded."""
        sent = [ticket.transaction_id for batch in self.in_flight for ticket in batch.tickets]
        assert len(sent) == len(set(sent))
        assert len(self.in_flight) <= PLACES

    @rule()
    def nobody_waits_past_the_deadline(self) -> None:
        """Once advanced, what is past its deadline is settled, and the rest will be woken in time."""
        todo = self.coalescer.advance(self.now_s + TOLERANCE_S)
        self.now_s += TOLERANCE_S
        for batch in todo.departures:
            self.in_flight.append(batch)
            self.lose(batch, FAILURES[0])
        for ticket in self.tickets:
            if not ticket.done():
                assert ticket.deadline_s > self.now_s - TOLERANCE_S
                assert todo.wake_at_s <= max(ticket.deadline_s, self.now_s) + TOLERANCE_S

    def teardown(self) -> None:
        """After closing, nobody waits."""
        if hasattr(self, "coalescer"):
            self.coalescer.close()
            self.coalescer.abandon()
            assert all(ticket.done() for ticket in self.tickets)
            self.nobody_is_told_what_may_be_false()


TestAnySequenceOfEvents = Machine.TestCase
TestAnySequenceOfEvents.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
