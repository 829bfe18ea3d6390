"""When to ask again, and what to say when there is no time left to.

Only what says nothing final is asked again, only under the same transaction_id,
and only within the call's deadline. The invariant: a call that may have happened
ends as OutcomeUnknown, whatever a later try of it ran into, unless the service gave
its one true answer.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tallystick.errors import (
    InvalidArgument,
    OutcomeUnknown,
    Overloaded,
    PurchaseNotFound,
    Refused,
    TallystickError,
    TransactionIdExpired,
    Unavailable,
)

# Said without knowing what became of the id: a router looks at the request, by its own clock and limits, and
# for a refund's purchase, before it asks for the id; and an id that has expired was forgotten. What else is
# said before is true for good: that a void's account was never opened, or a purchase was in another currency.
_WITHOUT_THE_ID = (InvalidArgument, PurchaseNotFound, TransactionIdExpired)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter.

    Attributes:
        first_delay_s: the wait before the second try, before jitter.
        longest_delay_s: where the doubling ends.
        jitter: a number from 0 to 1; the wait is that part of the upper half, so
            that clients which failed together do not come back together.
    """

    first_delay_s: float
    longest_delay_s: float
    jitter: Callable[[], float]

    def delay_s(self, attempts: int, error: TallystickError) -> float:
        """How long to wait after so many failed attempts (1 or more), the last with this error.

        A wait that the service asked for comes on top of the backoff: never sooner.
        """
        # 2^32 already passes any longest delay; more would overflow a float.
        backoff_s = min(self.longest_delay_s, self.first_delay_s * 2.0 ** min(attempts - 1, 32))
        backoff_s *= 0.5 + 0.5 * self.jitter()
        asked_s = error.retry_after_s if isinstance(error, Overloaded) else None
        return backoff_s + (asked_s or 0.0)


def may_have_begun(error: TallystickError) -> bool:
    """Whether, for all this error says, the service may have done the work."""
    return isinstance(error, OutcomeUnknown)


def is_verdict(error: TallystickError) -> bool:
    """Whether this error, when the service says it of an id, is true of all tries under that id."""
    return isinstance(error, Refused) and not isinstance(error, _WITHOUT_THE_ID)


def of_question(error: TallystickError) -> TallystickError:
    """The same error, said of a call that changes nothing, whatever became of it."""
    if isinstance(error, OutcomeUnknown):
        return Unavailable(error.message, error.transaction_id, error.field)
    return error


def closing_error(error: TallystickError, *, begun_before: bool, transaction_id: str) -> TallystickError:
    """What to raise when a try failed and there will be no other.

    Args:
        error: of the last try, and about the try: not the service's verdict on this id.
        begun_before: whether an earlier try may have done the work.
        transaction_id: the transfer it concerns; empty when none.
    """
    if begun_before and not may_have_begun(error):
        # "Not begun" and "not allowed" speak of the last try only.
        return OutcomeUnknown(f"an earlier try may have succeeded; the last one: {error}", transaction_id)
    return error.concerning(transaction_id)
