"""The coalescer's decisions, as plain synchronous code: what leaves, when, and what answers mean."""

import math
from collections.abc import Callable

import pytest

from tallystick.coalescer import Batch, Coalescer
from tallystick.errors import (
    ClientClosed,
    InsufficientFunds,
    InvalidArgument,
    Outcome,
    OutcomeUnknown,
    Overloaded,
    Refused,
    TallystickError,
)
from tallystick.retry import RetryPolicy
from tallystick.rotation import Rotation, RouterState
from tallystick.settings import ClientSettings
from tallystick.status import Failure
from tallystick.tickets import Ticket
from tallystick.v1 import wallet_pb2
from tallystick.values import TransferResult

LOST = Failure(OutcomeUnknown("no answer from a shard"), RouterState.ANSWERED)
UNKNOWN = Failure(OutcomeUnknown("UNAVAILABLE"), RouterState.BROKEN)
BUSY = Failure(Overloaded("busy"), RouterState.ANSWERED)


class Recorded(Ticket):
    """A ticket that keeps its results, and that its caller can leave."""

    __slots__ = ("left", "results")

    def __init__(self, name: str, deadline_s: float = 10.0, *, return_balances: bool = False) -> None:
        super().__init__(wallet_pb2.TransferRequest(transaction_id=name), name, deadline_s, return_balances)
        self.results: list[TransferResult] = []
        self.left = False

    def done(self) -> bool:
        """Settled, or left by its caller."""
        return self.left or bool(self.results)

    def settle(self, result: TransferResult) -> None:
        """Keep the result, unless done."""
        if not self.done():
            self.results.append(result)

    @property
    def error(self) -> TallystickError | None:
        """The error of its only result."""
        (result,) = self.results
        return result.error


def coalescer(routers: int = 1, jitter: Callable[[], float] = lambda: 1.0, **changes: float) -> Coalescer:
    """Two places a router, batches of 2 to 4, waits of 1, 2, 4 seconds between tries."""
    values = {
        "batch_limit": 4,
        "batch_floor": 2,
        "batches_in_flight": 2,
        "attempt_timeout_s": 5.0,
        "first_retry_delay_s": 1.0,
        "longest_retry_delay_s": 4.0,
    }
    settings = ClientSettings(**(values | changes))  # type: ignore[arg-type]
    rotation = Rotation(routers, settings.batches_in_flight, 0.25, 5.0)
    policy = RetryPolicy(settings.first_retry_delay_s, settings.longest_retry_delay_s, jitter)
    return Coalescer(settings, rotation, policy)


def submitted(into: Coalescer, count: int, deadline_s: float = 10.0) -> list[Recorded]:
    """That many tickets, taken in."""
    tickets = [Recorded(f"id-{index}", deadline_s) for index in range(count)]
    for ticket in tickets:
        into.submit(ticket)
    return tickets


def answers(batch: Batch, outcome: Outcome = Outcome.COMMITTED) -> list[wallet_pb2.TransferResponse]:
    """The same outcome for every transfer of a batch."""
    return [
        wallet_pb2.TransferResponse(transaction_id=ticket.transaction_id, outcome=outcome.value)
        for ticket in batch.tickets
    ]


def names(batch: Batch) -> list[str]:
    """The ids of a batch, in order."""
    return [ticket.transaction_id for ticket in batch.tickets]


def test_first_transfer_leaves_at_once() -> None:
    """With room there is nothing to wait for: a lone transfer is a batch of one."""
    waiting = coalescer()
    submitted(waiting, 1)
    (batch,) = waiting.advance(0.0).departures
    assert names(batch) == ["id-0"]
    assert repr(waiting) == "<Coalescer waiting=0 resting=0 in_flight=[1]>"


def test_waiting_transfers_spread_over_the_free_places() -> None:
    """Six transfers and two places make two batches of three, so that one is read while the other runs."""
    waiting = coalescer()
    submitted(waiting, 6)
    assert [len(batch.tickets) for batch in waiting.advance(0.0).departures] == [3, 3]


def test_batches_are_not_made_smaller_than_the_floor() -> None:
    """Two transfers are not worth two calls."""
    waiting = coalescer()
    submitted(waiting, 2)
    assert [len(batch.tickets) for batch in waiting.advance(0.0).departures] == [2]


def test_without_room_transfers_wait_and_leave_when_a_batch_lands() -> None:
    """No more batches than places; the freed place takes up to a full batch of what has gathered."""
    waiting = coalescer()
    submitted(waiting, 15)
    first, second = waiting.advance(0.0).departures
    assert repr(waiting) == "<Coalescer waiting=7 resting=0 in_flight=[4, 4]>"
    assert waiting.advance(0.0).departures == []
    waiting.answered(first, answers(first), 0.1)
    (third,) = waiting.advance(0.1).departures
    assert names(third) == ["id-8", "id-9", "id-10", "id-11"]
    assert repr(waiting) == "<Coalescer waiting=3 resting=0 in_flight=[4, 4]>"
    assert second.tickets[0].done() is False


def test_every_router_has_places_of_its_own() -> None:
    """Two routers take twice as many batches, in turn."""
    waiting = coalescer(routers=2)
    submitted(waiting, 20)
    assert [batch.router for batch in waiting.advance(0.0).departures] == [0, 1, 0, 1]


def test_full_queue_refuses_at_once_and_says_that_nothing_was_begun() -> None:
    """Past its limit the queue does not grow."""
    waiting = coalescer(queue_limit=3)
    submitted(waiting, 3)
    with pytest.raises(Overloaded) as caught:
        waiting.submit(Recorded("one too many"))
    assert caught.value.transaction_id == "one too many"


def test_committed_item_gets_its_own_result() -> None:
    """Each transfer is answered with its id, and with balances only when it asked for them."""
    waiting = coalescer()
    plain, curious = Recorded("plain"), Recorded("curious", return_balances=True)
    waiting.submit(plain)
    waiting.submit(curious)
    (batch,) = waiting.advance(0.0).departures
    responses = answers(batch)
    for response in responses:
        response.from_available = "1.00"
    waiting.answered(batch, responses, 0.1)
    assert plain.results == [TransferResult("plain", Outcome.COMMITTED)]
    assert str(curious.results[0].from_available) == "1.00"
    assert repr(waiting) == "<Coalescer waiting=0 resting=0 in_flight=[]>"


def test_refused_item_is_settled_and_disturbs_no_other() -> None:
    """A refusal is final for its own item alone."""
    waiting = coalescer()
    poor, rich = submitted(waiting, 2)
    (batch,) = waiting.advance(0.0).departures
    responses = answers(batch)
    responses[0].outcome = Outcome.INSUFFICIENT_FUNDS.value
    responses[0].refusal.message = "3.00 missing"
    waiting.answered(batch, responses, 0.1)
    assert isinstance(poor.error, InsufficientFunds)
    assert poor.error.message == "3.00 missing"
    assert rich.results[0].committed


@pytest.mark.parametrize(
    "outcome", [Outcome.OUTCOME_UNKNOWN, Outcome.RESOURCE_EXHAUSTED, Outcome.UNSPECIFIED]
)
def test_item_without_a_final_answer_is_sent_again_under_its_id(outcome: Outcome) -> None:
    """Only that item goes again, after its wait, with the very same request."""
    waiting = coalescer()
    tickets = submitted(waiting, 2)
    (batch,) = waiting.advance(0.0).departures
    responses = answers(batch)
    responses[1].outcome = outcome.value
    waiting.answered(batch, responses, 0.5)
    assert tickets[0].results[0].committed
    todo = waiting.advance(0.5)
    assert (todo.departures, todo.wake_at_s) == ([], 1.5)
    (again,) = waiting.advance(1.5).departures
    assert [ticket.request for ticket in again.tickets] == [tickets[1].request]
    waiting.answered(again, answers(again), 1.6)
    assert tickets[1].results[0].committed


def test_answer_for_another_id_counts_as_unknown() -> None:
    """Results out of order must not tell one caller the outcome of another's transfer."""
    waiting = coalescer()
    tickets = submitted(waiting, 2)
    (batch,) = waiting.advance(0.0).departures
    waiting.answered(batch, answers(batch)[::-1], 0.1)
    assert not any(ticket.done() for ticket in tickets)
    assert all(ticket.attempts == 1 for ticket in tickets)
    assert repr(waiting) == "<Coalescer waiting=0 resting=2 in_flight=[]>"


def test_answer_with_too_few_results_counts_as_unknown_for_all() -> None:
    """If the counts differ, no result can be matched to its transfer."""
    waiting = coalescer()
    tickets = submitted(waiting, 2)
    (batch,) = waiting.advance(0.0).departures
    waiting.answered(batch, answers(batch)[:1], 0.1)
    assert not any(ticket.done() for ticket in tickets)
    assert repr(waiting) == "<Coalescer waiting=0 resting=2 in_flight=[]>"


def test_failed_batch_goes_again_whole_to_another_router() -> None:
    """One wait for all of it, ahead of what came later, and not where it failed."""
    waiting = coalescer(routers=2, jitter=lambda: 0.0, first_retry_delay_s=0.2, batch_floor=4)
    submitted(waiting, 2)
    (batch,) = waiting.advance(0.0).departures
    waiting.failed(batch, UNKNOWN, 0.0)
    late = Recorded("late")
    waiting.submit(late)
    (again,) = waiting.advance(0.1).departures
    assert (batch.router, again.router) == (0, 1)
    assert names(again) == ["id-0", "id-1", "late"]


def test_waits_grow_with_each_try() -> None:
    """1, 2, 4, 4 seconds between the tries of one transfer."""
    waiting = coalescer()
    submitted(waiting, 1, deadline_s=100.0)
    now_s, waits = 0.0, []
    for _ in range(4):
        (batch,) = waiting.advance(now_s).departures
        waiting.failed(batch, UNKNOWN, now_s)
        wake_at_s = waiting.advance(now_s).wake_at_s
        waits.append(wake_at_s - now_s)
        now_s = wake_at_s
    assert waits == [1.0, 2.0, 4.0, 4.0]


def test_retry_info_is_honoured() -> None:
    """Nothing leaves before the service wants to see us again."""
    waiting = coalescer()
    submitted(waiting, 1)
    (batch,) = waiting.advance(0.0).departures
    failure = Failure(Overloaded("busy", retry_after_s=3.0), RouterState.ANSWERED)
    waiting.failed(batch, failure, 0.0)
    assert waiting.advance(3.9).departures == []
    assert len(waiting.advance(4.0).departures) == 1


def test_no_time_for_another_try_ends_as_unknown_with_the_id() -> None:
    """When the next wait would pass the deadline, the caller gets the id to ask again with."""
    waiting = coalescer()
    (ticket,) = submitted(waiting, 1, deadline_s=0.9)
    (batch,) = waiting.advance(0.0).departures
    waiting.failed(batch, UNKNOWN, 0.1)
    assert type(ticket.error) is OutcomeUnknown
    assert ticket.error.transaction_id == "id-0"


def test_overload_at_every_try_ends_as_overload() -> None:
    """Nothing was ever begun, and the caller may know."""
    waiting = coalescer()
    (ticket,) = submitted(waiting, 1, deadline_s=2.5)
    (batch,) = waiting.advance(0.0).departures
    waiting.failed(batch, BUSY, 0.0)
    (again,) = waiting.advance(1.0).departures
    waiting.failed(again, BUSY, 1.0)
    assert type(ticket.error) is Overloaded


@pytest.mark.parametrize(
    "last", [BUSY.error, Refused("PERMISSION_DENIED: proxy"), InvalidArgument("batch too large")]
)
def test_after_an_unknown_try_a_failed_batch_never_ends_as_not_begun(last: TallystickError) -> None:
    """The first try may have moved the money; what a later call as a whole ran into cannot deny it."""
    waiting = coalescer()
    (ticket,) = submitted(waiting, 1, deadline_s=2.5)
    (batch,) = waiting.advance(0.0).departures
    waiting.failed(batch, UNKNOWN, 0.0)
    (again,) = waiting.advance(1.0).departures
    waiting.failed(again, Failure(last, RouterState.ANSWERED), 1.0)
    assert type(ticket.error) is OutcomeUnknown


def test_after_an_unknown_try_the_items_own_answer_is_final() -> None:
    """A refusal of this very id is the one true outcome."""
    waiting = coalescer()
    (ticket,) = submitted(waiting, 1)
    (batch,) = waiting.advance(0.0).departures
    waiting.failed(batch, UNKNOWN, 0.0)
    (again,) = waiting.advance(1.0).departures
    waiting.answered(again, answers(again, Outcome.ABORTED), 1.0)
    assert ticket.results[0].outcome is Outcome.ABORTED


@pytest.mark.parametrize("opinion", [Outcome.INVALID_ARGUMENT, Outcome.TRANSACTION_ID_EXPIRED])
def test_an_opinion_of_the_request_says_nothing_of_earlier_tries(opinion: Outcome) -> None:
    """A router whose clock or limits differ refuses what another may have carried out: that is not known."""
    waiting = coalescer()
    (ticket,) = submitted(waiting, 1)
    (batch,) = waiting.advance(0.0).departures
    waiting.failed(batch, UNKNOWN, 0.0)
    (again,) = waiting.advance(1.0).departures
    waiting.answered(again, answers(again, opinion), 1.0)
    assert type(ticket.error) is OutcomeUnknown
    (other,) = submitted(waiting, 1)
    (first,) = waiting.advance(1.0).departures
    waiting.answered(first, answers(first, opinion), 1.0)
    assert other.results[0].outcome is opinion


def test_refused_batch_is_refused_for_each_of_its_transfers() -> None:
    """A first try that the service would not even look at did nothing; each caller gets its own id."""
    waiting = coalescer()
    tickets = submitted(waiting, 2)
    (batch,) = waiting.advance(0.0).departures
    waiting.failed(batch, Failure(Refused("UNIMPLEMENTED"), RouterState.ANSWERED), 0.0)
    assert [type(ticket.error) for ticket in tickets] == [Refused, Refused]
    assert [ticket.results[0].transaction_id for ticket in tickets] == ["id-0", "id-1"]


def test_deadline_in_flight_is_unknown() -> None:
    """A transfer that is on its way when its time is up may have happened; the rest of its batch goes on."""
    waiting = coalescer()
    hasty, patient = Recorded("hasty", 1.0), Recorded("patient", 10.0)
    waiting.submit(hasty)
    waiting.submit(patient)
    todo = waiting.advance(0.0)
    assert todo.wake_at_s == 1.0
    assert waiting.advance(1.0).wake_at_s == 10.0
    assert type(hasty.error) is OutcomeUnknown
    (batch,) = todo.departures
    waiting.answered(batch, answers(batch), 2.0)
    assert patient.results[0].committed
    assert len(hasty.results) == 1


def test_deadline_in_the_queue_means_nothing_was_begun() -> None:
    """What never left was never begun; its place in the queue is free again."""
    waiting = coalescer(queue_limit=9)
    submitted(waiting, 8)
    waiting.advance(0.0)
    late = Recorded("late", 1.0)
    waiting.submit(late)
    waiting.advance(1.0)
    assert type(late.error) is Overloaded
    assert repr(waiting) == "<Coalescer waiting=0 resting=0 in_flight=[4, 4]>"


def test_deadline_while_resting_remembers_the_unknown_try() -> None:
    """The wait for another try was cut short; the try before it may have done the work."""
    waiting = coalescer()
    (ticket,) = submitted(waiting, 1, deadline_s=1.5)
    (batch,) = waiting.advance(0.0).departures
    waiting.failed(batch, UNKNOWN, 0.4)
    assert waiting.advance(0.4).wake_at_s == 1.4
    blockers = submitted(waiting, 8)
    waiting.advance(0.5)
    waiting.advance(1.4)
    waiting.advance(1.5)
    assert type(ticket.error) is OutcomeUnknown
    assert not any(blocker.done() for blocker in blockers)


def test_one_try_may_take_the_attempt_timeout_or_what_is_left() -> None:
    """A router that hangs leaves time for another; a try does not outlive the last of its callers."""
    waiting = coalescer()
    submitted(waiting, 1, deadline_s=100.0)
    submitted(waiting, 1, deadline_s=1.0)
    (batch,) = waiting.advance(0.0).departures
    assert batch.timeout_s == 5.0
    submitted(waiting, 1, deadline_s=1.0)
    (hasty,) = waiting.advance(0.25).departures
    assert hasty.timeout_s == 0.75


def test_cancelled_transfer_is_not_sent() -> None:
    """Who left the queue takes no place in a batch, and a batch of nobody is not sent."""
    waiting = coalescer()
    first, second = submitted(waiting, 2)
    first.left = True
    (batch,) = waiting.advance(0.0).departures
    assert names(batch) == ["id-1"]
    assert not second.done()
    (gone,) = submitted(waiting, 1)
    gone.left = True
    assert waiting.advance(0.0).departures == []
    assert repr(waiting) == "<Coalescer waiting=0 resting=0 in_flight=[1]>"


def test_cancelled_transfer_is_not_sent_again() -> None:
    """Nobody waits for its outcome any more."""
    waiting = coalescer()
    first, second = submitted(waiting, 2)
    (batch,) = waiting.advance(0.0).departures
    first.left = True
    waiting.failed(batch, UNKNOWN, 0.0)
    (again,) = waiting.advance(1.0).departures
    assert names(again) == [second.transaction_id]


def test_piece_of_a_batch_is_taken_in_whatever_the_queue_holds() -> None:
    """Pieces are bounded where they are made; they share the batches with single transfers."""
    waiting = coalescer(queue_limit=1)
    submitted(waiting, 1)
    waiting.submit_all([Recorded(f"piece-{index}") for index in range(3)])
    assert [names(batch) for batch in waiting.advance(0.0).departures] == [
        ["id-0", "piece-0"],
        ["piece-1", "piece-2"],
    ]


def test_closing_settles_what_waits_and_retries_nothing() -> None:
    """What was not sent says so; what had an unknown try says that; what lands later is still heard."""
    waiting = coalescer()
    (tried,) = submitted(waiting, 1)
    (batch,) = waiting.advance(0.0).departures
    waiting.failed(batch, LOST, 0.0)
    flying = submitted(waiting, 8)
    first, second = waiting.advance(0.5).departures
    (queued,) = submitted(waiting, 1)
    waiting.close()
    assert type(queued.error) is ClientClosed
    assert type(tried.error) is OutcomeUnknown
    with pytest.raises(ClientClosed):
        waiting.submit(Recorded("after"))
    waiting.answered(first, answers(first), 0.6)
    waiting.failed(second, UNKNOWN, 0.6)
    assert [ticket.results[0].committed for ticket in flying] == [True] * 4 + [False] * 4
    assert type(flying[-1].error) is OutcomeUnknown


def test_abandoning_leaves_nobody_waiting() -> None:
    """What is in flight when the grace is over ends as unknown."""
    waiting = coalescer()
    (ticket,) = submitted(waiting, 1)
    waiting.advance(0.0)
    waiting.close()
    assert not ticket.done()
    waiting.abandon()
    assert type(ticket.error) is OutcomeUnknown


def test_idle_coalescer_asks_for_no_wake_up() -> None:
    """Nothing to do and nothing to wait for."""
    assert coalescer().advance(0.0).wake_at_s == math.inf
