"""When to ask again, and what to say when there is no time left."""

import pytest

from tallystick.errors import (
    ClientClosed,
    InvalidArgument,
    OutcomeUnknown,
    Overloaded,
    Refused,
    TallystickError,
)
from tallystick.retry import RetryPolicy, closing_error


def policy(jitter: float) -> RetryPolicy:
    """A policy whose jitter is known."""
    return RetryPolicy(first_delay_s=0.1, longest_delay_s=1.0, jitter=lambda: jitter)


def test_delay_doubles_up_to_its_limit() -> None:
    """Without luck the waits are 0.1, 0.2, 0.4, 0.8 and then 1 second for ever."""
    delays = [policy(1.0).delay_s(attempts, OutcomeUnknown()) for attempts in (1, 2, 3, 4, 5, 6, 10_000)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]


def test_jitter_takes_up_to_half_of_the_wait() -> None:
    """The luckiest wait is half of the longest: never nothing."""
    assert policy(0.0).delay_s(2, OutcomeUnknown()) == 0.1
    assert policy(0.5).delay_s(2, OutcomeUnknown()) == pytest.approx(0.15)


def test_a_wait_the_service_asked_for_comes_on_top() -> None:
    """RetryInfo is a lower bound: nobody comes back sooner, and not all at once."""
    error = Overloaded(retry_after_s=3.0)
    assert policy(0.0).delay_s(1, error) == 3.05
    assert policy(1.0).delay_s(1, error) == 3.1
    assert policy(1.0).delay_s(1, Overloaded()) == 0.1


@pytest.mark.parametrize(
    "last", [Overloaded("busy"), ClientClosed(), Refused("PERMISSION_DENIED"), InvalidArgument()]
)
def test_once_begun_nothing_but_a_verdict_ends_as_not_begun(last: TallystickError) -> None:
    """If an earlier try may have done it, the end is OutcomeUnknown, with the id to ask again."""
    error = closing_error(last, begun_before=True, transaction_id="id-1")
    assert type(error) is OutcomeUnknown
    assert error.transaction_id == "id-1"
    assert str(last) in str(error)


@pytest.mark.parametrize(
    "last", [Overloaded("busy", "", "", 1.0), ClientClosed(), Refused("PERMISSION_DENIED")]
)
def test_if_nothing_was_begun_the_error_says_so(last: TallystickError) -> None:
    """Overload at every try means that nothing happened; that is worth more than "unknown"."""
    error = closing_error(last, begun_before=False, transaction_id="id-1")
    assert type(error) is type(last)
    assert error.message == last.message
    assert error.transaction_id == "id-1"
