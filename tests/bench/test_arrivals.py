"""The times of an open loop: fixed in advance, as many as asked for, evenly or not."""

from itertools import takewhile

import numpy as np
import pytest

from bench.load.arrivals import due_times
from bench.settings import Arrivals


def until(
    seconds: float, rate: float, arrivals: Arrivals, process: int = 0, processes: int = 1
) -> list[float]:
    """The times of one process before the end of so many seconds."""
    times = due_times(rate, arrivals, f"1/{process}/1", process, processes)
    return list(takewhile(lambda due: due < seconds, times))


def test_even_arrivals_take_turns() -> None:
    """Three processes together send at each hundredth of a second, none twice."""
    each = [until(1.0, 100.0, Arrivals.EVEN, process, 3) for process in range(3)]
    together = sorted(due for one in each for due in one)
    assert together == pytest.approx([number / 100 for number in range(100)])


def test_independent_arrivals_are_a_poisson_process() -> None:
    """About as many as asked for; in short spans their number varies as much as it is large."""
    times = np.concatenate([until(100.0, 200.0, Arrivals.POISSON, process, 2) for process in range(2)])
    counts = np.bincount(times.astype(int), minlength=100)
    # Six standard deviations, of the sum and, for 100 spans, of their variance.
    assert counts.sum() == pytest.approx(20_000, abs=6 * 20_000**0.5)
    assert counts.var() == pytest.approx(200, rel=6 * (2 / 99) ** 0.5)


def test_the_times_depend_on_the_seed_alone() -> None:
    """Two processes do not send at the same times; the same one does in the next measurement."""
    assert until(5.0, 50.0, Arrivals.POISSON) == until(5.0, 50.0, Arrivals.POISSON)
    assert until(5.0, 50.0, Arrivals.POISSON) != until(5.0, 50.0, Arrivals.POISSON, 1)
