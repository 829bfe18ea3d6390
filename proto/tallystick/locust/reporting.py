"""How calls become requests in Locust's statistics: each operation is one, however many travel in a call.

Locust's `request` event stands for one request, and costs microseconds: fired for each transfer of a batch
it would be a generator's bottleneck. So it is fired once for those of a call that had the same outcome, and
says in its context how many those are. The others of them are merged into the statistics with
`StatsEntry.extend`, the way in which a master merges what its workers report. So percentiles, rates, charts
and CSV see every transfer.
"""

import time
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache
from typing import Protocol, TypeAlias

from locust import User
from locust import stats as locust_stats
from locust.exception import RescheduleTask
from locust.stats import RequestStats, StatsEntry, StatsError

from tallystick.errors import Outcome, TallystickError

METHOD = "gRPC"

Outcomes: TypeAlias = Collection[tuple[int, TallystickError | None]]
"""How many operations of a call met which error; None: they were carried out."""


class HasError(Protocol):
    """An item of a batch's answer."""

    @property
    def error(self) -> TallystickError | None:
        """Why it was not carried out; None when it was."""
        ...


def outcomes_of(results: Sequence[HasError]) -> Outcomes:
    """Counts the items of a batch by their outcome; of each the first error stands for all."""
    counts: Counter[Outcome] = Counter()
    errors: dict[Outcome, TallystickError | None] = {}
    for result in results:
        outcome = Outcome.COMMITTED if result.error is None else result.error.outcome
        counts[outcome] += 1
        if outcome not in errors:
            errors[outcome] = None if result.error is None else reported(result.error)
    return [(count, errors[outcome]) for outcome, count in counts.items()]


def reported(error: TallystickError) -> TallystickError:
    """The error, of its own type, as it is reported and raised.

    Its repr, by which Locust tells failures apart, is its outcome: with a transaction's id in it every
    failure would be a kind of its own. It is a RescheduleTask too: where a task does not catch it, it ends
    that round of the task without a word more, for it has been counted.
    """
    return _reported_kind(type(error))(*error.args)  # type: ignore[arg-type] # types are hashable


@cache
def _reported_kind(kind: type[TallystickError]) -> type[TallystickError]:
    label = kind.outcome.name if kind.outcome else kind.__name__
    return type(kind.__name__, (kind, RescheduleTask), {"__repr__": lambda _: label})


def report(
    user: User,
    name: str,
    latency_ms: float,
    outcomes: Outcomes,
    expected: Collection[Outcome] = (),
    length: int = 0,
) -> None:
    """Reports the operations of one call, all with its latency.

    Args:
        user: who made it.
        name: the operation's.
        latency_ms: until its answer was there.
        outcomes: what became of them; the errors are as `reported` makes them.
        expected: outcomes that are no failure. They have rows of their own, so that they show apart.
        length: bytes of the answer.
    """
    for count, error in outcomes:
        row, failure = name, error
        if error is not None and error.outcome in expected:
            row, failure = f"{name} {error!r}", None
        user.environment.events.request.fire(
            request_type=METHOD,
            name=row,
            response_time=latency_ms,
            response_length=length,
            exception=failure,
            context={**user.context(), "operations": count},
        )
        if count > 1:
            _repeat(user.environment.stats, row, latency_ms, count - 1, failure)


def _repeat(
    stats: RequestStats, name: str, latency_ms: float, count: int, failure: TallystickError | None
) -> None:
    """Counts so many requests more like the one that was just reported."""
    now = time.time()
    second = int(now)
    addition = StatsEntry(stats, name, METHOD)
    addition.num_requests = count
    # Locust declares these int, and adds floats to them itself.
    addition.total_response_time = latency_ms * count  # type: ignore[assignment]
    addition.min_response_time = latency_ms  # type: ignore[assignment]
    addition.max_response_time = latency_ms  # type: ignore[assignment]
    addition.last_request_timestamp = now
    # Looked up there, not imported: Locust lets it be replaced.
    addition.response_times[locust_stats.bucket_response_time(latency_ms)] = count
    addition.num_reqs_per_sec[second] = count
    if failure is not None:
        addition.num_failures = count
        addition.num_fail_per_sec[second] = count
        stats.errors[StatsError.create_key(METHOD, name, failure)].occurrences += count
    stats.total.extend(addition)
    stats.entries[(name, METHOD)].extend(addition)
