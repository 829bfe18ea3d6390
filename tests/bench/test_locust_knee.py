"""The knee is found on planted throughput curves; service levels pass and fail as they should."""

from collections.abc import Callable

import pytest

from bench.locust_rig.knee import Knee, Limits, Step, find_knee, next_rate
from bench.locust_rig.service_levels import Measured, ServiceLevels, judge

Curve = Callable[[float], tuple[float, float]]


def climb(curve: Curve, rise: float, target: float, limits: Limits) -> tuple[list[Step], Knee]:
    """Climbs a curve, which gives throughput and p99 for an offered rate."""
    steps: list[Step] = []
    while (rate := next_rate(steps, rise, target, limits)) is not None:
        steps.append(Step(rate, *curve(rate)))
        assert len(steps) <= 2 * target / rise + 2
    return steps, find_knee(steps, limits)


def test_throughput_that_no_longer_follows_ends_the_climb() -> None:
    """The knee is the last rate that was followed; the strained one was tried twice, and none beyond."""
    steps, knee = climb(lambda rate: (min(rate, 4300), 10), 1000, 20_000, Limits())
    assert [step.offered for step in steps] == [1000, 2000, 3000, 4000, 5000, 5000]
    assert knee.step == Step(4000, 4000, 10)
    assert knee.reason == "throughput no longer follows: 4,300 of 5,000 transfers/s"


def test_p99_above_its_limit_ends_the_climb() -> None:
    """Though throughput still follows."""
    _, knee = climb(lambda rate: (rate, 5 if rate <= 3000 else 80), 1000, 20_000, Limits(p99_ms=50))
    assert knee.step is not None
    assert knee.step.offered == 3000
    assert knee.reason == "p99 of 80 ms is above 50 ms at 4,000 transfers/s"


def test_without_a_limit_p99_ends_nothing() -> None:
    """A limit of 0 is none."""
    _, knee = climb(lambda rate: (rate, 10_000), 1000, 3000, Limits())
    assert knee == Knee(Step(3000, 3000, 10_000), "no higher rate was tried")


def test_one_bad_moment_is_not_the_knee() -> None:
    """A step that is held at the second try was not too high."""
    tries: list[float] = []

    def curve(rate: float) -> tuple[float, float]:
        tries.append(rate)
        return rate, 500 if tries == [1000, 2000] else 10

    steps, knee = climb(curve, 1000, 4000, Limits(p99_ms=100))
    assert [step.offered for step in steps] == [1000, 2000, 2000, 3000, 4000]
    assert knee.step == Step(4000, 4000, 10)


def test_the_last_step_is_the_target_itself() -> None:
    """Also where the steps do not divide it; a step as high as the target is the only one."""
    assert [step.offered for step in climb(lambda r: (r, 1), 1000, 2500, Limits())[0]] == [1000, 2000, 2500]
    assert [step.offered for step in climb(lambda r: (r, 1), 2500, 2500, Limits())[0]] == [2500]


def test_there_may_be_no_knee() -> None:
    """Nothing was held, or nothing was measured."""
    _, knee = climb(lambda rate: (rate / 2, 1), 1000, 5000, Limits())
    assert knee == Knee(None, "throughput no longer follows: 500 of 1,000 transfers/s")
    assert find_knee([], Limits()) == Knee(None, "no step was measured")


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


def test_a_test_that_sent_nothing_has_failed() -> None:
    """Nobody knows anything of it."""
    assert not judge(ServiceLevels(), Measured(0, 0, 0, 0)).passed
