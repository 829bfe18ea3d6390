"""Latencies over several processes are those of all calls, to three digits."""

import pytest

from bench.load.latency import Latencies


def recorded(*milliseconds: float) -> Latencies:
    """Latencies of these calls."""
    latencies = Latencies()
    for each in milliseconds:
        latencies.record(each / 1000)
    return latencies


def test_percentiles_are_true_to_three_digits() -> None:
    """Of 1 to 10,000 ms."""
    latencies = recorded(*range(1, 10_001))
    assert latencies.count == 10_000
    for percentile, expected in ((50, 5000), (90, 9000), (99, 9900), (99.9, 9990)):
        assert latencies.percentile_ms(percentile) == pytest.approx(expected, rel=1e-3)
    assert latencies.max_ms == pytest.approx(10_000, rel=1e-3)


def test_merging_is_the_same_as_recording_together() -> None:
    """One slow process is not averaged away."""
    fast, slow = recorded(*[1.0] * 95), recorded(*[500.0] * 5)
    merged = Latencies.merged([fast.encoded(), slow.encoded()])
    together = recorded(*[1.0] * 95, *[500.0] * 5)
    assert merged.count == 100
    for percentile in (50, 90, 95, 96, 99.9):
        assert merged.percentile_ms(percentile) == together.percentile_ms(percentile)
    assert merged.percentile_ms(96) == pytest.approx(500, rel=1e-3)


def test_what_is_out_of_range_counts_at_its_end() -> None:
    """Above a minute as a minute, below a microsecond as one; nothing is left out."""
    latencies = recorded(0.0, 3_600_000.0)
    assert latencies.count == 2
    assert latencies.percentile_ms(50) == pytest.approx(0.001)
    assert latencies.max_ms == pytest.approx(60_000, rel=1e-3)


def test_without_calls_there_is_nothing() -> None:
    """Nor an error."""
    latencies = Latencies.merged([Latencies().encoded()])
    assert (latencies.count, latencies.max_ms, latencies.percentile_ms(99)) == (0, 0.0, 0.0)
    assert latencies.curve() == []


def test_the_curve_rises_to_the_longest() -> None:
    """Each point further right and no lower."""
    curve = recorded(*range(1, 1001)).curve()
    assert [point.percentile for point in curve] == sorted(point.percentile for point in curve)
    assert [point.milliseconds for point in curve] == sorted(point.milliseconds for point in curve)
    assert curve[-1].percentile == 100
    assert curve[-1].milliseconds == pytest.approx(1000, rel=1e-3)
