"""The knee is found on planted curves and in a planted queue; service levels pass and fail as they should."""

import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.locust_rig.knee import Knee, ServiceLevels, Step, find_knee, next_rung, rungs, strain
from bench.locust_rig.report import Findings
from bench.locust_rig.service_levels import Measured, judge

ROUNDING = 1e-9

Curve = Callable[[float], tuple[float, float]]


def climb(
    curve: Curve, rise: float, target: float, levels: ServiceLevels, quantum: float = 100
) -> tuple[list[Step], Knee]:
    """Climbs a curve, which gives throughput and p99 for an offered rate."""
    steps: list[Step] = []
    ladder = rungs(rise, target, quantum)
    while (rate := next_rung(steps, ladder, levels)) is not None:
        steps.append(Step(rate, *curve(rate)))
        assert len(steps) <= 2 * len(ladder)
    return steps, find_knee(steps, levels)


def test_throughput_that_no_longer_follows_ends_the_climb() -> None:
    """The knee is the last rate that was followed; the strained one was tried twice, and none beyond."""
    steps, knee = climb(lambda rate: (min(rate, 4300), 10), 1000, 20_000, ServiceLevels())
    assert [step.offered for step in steps] == [1000, 2000, 3000, 4000, 5000, 5000]
    assert knee.step == Step(4000, 4000, 10)
    assert knee.reason == "throughput no longer follows: 4,300 of 5,000 transfers/s"


def test_p99_above_its_limit_ends_the_climb() -> None:
    """Though throughput still follows."""
    _, knee = climb(lambda rate: (rate, 5 if rate <= 3000 else 80), 1000, 20_000, ServiceLevels(p99_ms=50))
    assert knee.step is not None
    assert knee.step.offered == 3000
    assert knee.reason == "p99 of 80 ms is above 50 ms at 4,000 transfers/s"


def test_without_a_limit_p99_ends_nothing() -> None:
    """A limit of 0 is none."""
    _, knee = climb(lambda rate: (rate, 10_000), 1000, 3000, ServiceLevels())
    assert knee == Knee(Step(3000, 3000, 10_000), "no higher rate was tried")


def test_one_bad_moment_is_not_the_knee() -> None:
    """A step that is held at the second try was not too high; each bad moment is forgiven once."""
    tries: list[float] = []

    def curve(rate: float) -> tuple[float, float]:
        tries.append(rate)
        return rate, 500 if len(tries) in {2, 4} else 10

    steps, knee = climb(curve, 1000, 4000, ServiceLevels(p99_ms=100))
    assert [step.offered for step in steps] == [1000, 2000, 2000, 3000, 3000, 4000]
    assert knee.step == Step(4000, 4000, 10)


def test_there_may_be_no_knee() -> None:
    """Nothing was held, or nothing was measured."""
    _, knee = climb(lambda rate: (rate / 2, 1), 1000, 5000, ServiceLevels())
    assert knee == Knee(None, "throughput no longer follows: 500 of 1,000 transfers/s")
    assert find_knee([], ServiceLevels()) == Knee(None, "no step was measured")


def test_more_done_than_offered_is_no_higher_knee() -> None:
    """Late calls that are caught up with show nothing of a rate that nobody offered."""
    step = Step(10_000, 10_167, 90)
    knee = find_knee([step], ServiceLevels()).step
    assert knee is not None
    assert knee.rate == 10_000


@given(rise=st.floats(10, 1e5), steps=st.floats(0.2, 60), quantum=st.sampled_from([1.0, 10.0, 110.0, 1000.0]))
def test_no_rate_is_offered_twice(rise: float, steps: float, quantum: float) -> None:
    """The ladder rises, by what users can send, and ends as near to the target as they come."""
    target = rise * steps
    ladder = rungs(rise, target, quantum)
    assert ladder == sorted(set(ladder))
    assert ladder[-1] == max(1, int(target / quantum + 0.5)) * quantum
    assert all(round(rate / quantum) * quantum == rate for rate in ladder)


@settings(deadline=None)
@given(
    capacity=st.floats(100, 50_000),
    rise=st.sampled_from([500.0, 1000.0, 1700.0]),
    levels=st.integers(1, 20),
    follow=st.floats(0.5, 1),
    slow_above=st.one_of(st.none(), st.floats(100, 50_000)),
    bad_moments=st.sets(st.integers(0, 12), max_size=4),
)
def test_the_planted_knee_is_found(
    capacity: float,
    rise: float,
    levels: int,
    follow: float,
    slow_above: float | None,
    bad_moments: set[int],
) -> None:
    """The highest rung that the planted cluster follows, within its p99, whatever single steps are spoilt."""
    asked = ServiceLevels(100 if slow_above else 0, follow)
    moments = {moment for moment in bad_moments if moment - 1 not in bad_moments}
    tries = 0

    def curve(rate: float) -> tuple[float, float]:
        nonlocal tries
        spoilt = tries in moments
        tries += 1
        return (0 if spoilt else min(rate, capacity)), (200 if slow_above and rate > slow_above else 20)

    steps, knee = climb(curve, rise, rise * levels, asked)
    kept = [
        rate
        for rate in rungs(rise, rise * levels, 100)
        if min(rate, capacity) >= follow * rate and rate <= (slow_above or rate)
    ]
    assert (knee.step.offered if knee.step else None) == (kept[-1] if kept else None)
    assert knee.step is None or knee.step.rate <= min(knee.step.offered, capacity)
    strained = [step.offered for step in steps if strain(step, asked)]
    assert all(strained.count(rate) <= 2 for rate in strained)


@settings(deadline=None)
@given(capacity=st.floats(600, 12_000), seconds=st.floats(1, 20), limit_ms=st.floats(50, 500))
def test_a_queue_is_measured_by_itself_at_every_try(capacity: float, seconds: float, limit_ms: float) -> None:
    """Late calls of a strained step go with its users: the knee is the highest rung below the capacity."""
    levels = ServiceLevels(limit_ms, follow_share=0.95)
    waiting = 0.0

    def curve(rate: float) -> tuple[float, float]:
        """Users that are late stay late, until they end after a strained step."""
        nonlocal waiting
        before, due = waiting, waiting + rate * seconds
        done = min(due, capacity * seconds)
        waiting = due - done
        measured = done / seconds, max(before, waiting) / capacity * 1000
        if strain(Step(rate, *measured), levels):
            waiting = 0
        return measured

    _, knee = climb(curve, 500, 10_000, levels)
    highest = max((rate for rate in rungs(500, 10_000, 100) if rate <= capacity), default=0)
    assert knee.step is not None
    # A rate just above it may be held for as long as what waits stays within the limit.
    ahead = 1 + limit_ms / 1000 / seconds + ROUNDING
    assert highest <= knee.step.offered <= max(highest, capacity * ahead)
    assert knee.step.rate <= capacity * (1 + ROUNDING)


@pytest.mark.parametrize(
    ("levels", "passed"),
    [
        (ServiceLevels(p99_ms=40, min_rate=1000, max_failures=0.01), True),
        (ServiceLevels(max_failures=0.01), True),
        (ServiceLevels(p99_ms=39, max_failures=0.01), False),
        (ServiceLevels(min_rate=1001, max_failures=0.01), False),
        (ServiceLevels(), False),
    ],
)
def test_each_service_level_counts(levels: ServiceLevels, *, passed: bool) -> None:
    """Kept to the limit is kept; failures must be allowed to be."""
    verdict = judge(levels, Measured(rate=1000, p99_ms=40, transfers=1000, failures=10))
    assert verdict.passed is passed
    assert verdict.text.startswith("PASS: " if passed else "FAIL: ")
    assert ("NOT KEPT" in verdict.text) is not passed


@pytest.mark.parametrize(("moved", "passed"), [(899, False), (900, True), (905, True), (906, False)])
def test_the_shards_must_count_what_locust_does(moved: int, *, passed: bool) -> None:
    """Those in doubt may have moved or not; no other difference is."""
    measured = Measured(1000, 40, transfers=1000, failures=100, done=900, doubtful=5, moved=moved)
    assert judge(ServiceLevels(max_failures=1), measured).passed is passed


def test_a_test_that_sent_nothing_has_failed() -> None:
    """Nobody knows anything of it."""
    assert not judge(ServiceLevels(), Measured(0, 0, 0, 0)).passed


def test_a_second_try_is_named_as_such() -> None:
    """The same offered rate is not told twice; what is no digit is kept out of the page's markup."""
    steps = (Step(5000, 5000, 60), Step(10_000, 10_000, 420), Step(10_000, 10_167, 370))
    verdict = judge(ServiceLevels(), Measured(5000, 60, 1, 0))
    findings = Findings(steps, ServiceLevels(200), verdict, None, "<no answer>")
    lines = [line.split() for line in findings.text().splitlines()]
    assert lines[1:4] == [
        ["5,000", "5,000", "60", "held"],
        ["10,000", "10,000", "420", "strained"],
        ["again", "10,167", "370", "strained"],
    ]
    assert "knee: 5,000 transfers/s" in findings.text()
    page = findings.within('<body><div id="root"></div></body>')
    assert "&lt;no answer&gt;" in page
    assert page.index("again") < page.index('<div id="root"')


def test_deciding_needs_no_locust() -> None:
    """Importing Locust replaces the standard library's threads, also for all tests of this process."""
    assert {"locust", "gevent"}.isdisjoint(sys.modules)
