"""Latencies as a histogram of high dynamic range: mergeable over processes, true to three digits.

From a microsecond to a minute, in constant memory whatever the number of calls (https://hdrhistogram.org).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_LOWEST_US, _HIGHEST_US, _DIGITS = 1, 60_000_000, 3
_MICROS, _MICROS_A_MILLI = 1_000_000, 1000
# Steps of the curve between each two of 50 %, 75 %, 87.5 %, ...: close enough together for a smooth line.
_STEPS_A_HALVING = 5


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """So many percent of all calls took no longer than this."""

    percentile: float
    milliseconds: float


class Latencies:
    """Durations, each rounded to three digits. Above a minute all count as a minute."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)

    @classmethod
    def merged(cls, encoded: Iterable[bytes]) -> Latencies:
        """What several processes recorded, from what their `encoded` gave."""
        latencies = cls()
        for histogram in encoded:
            latencies._histogram.decode_and_add(histogram)
        return latencies

    def record(self, seconds: float) -> None:
        """Adds one call."""
        micros = round(seconds * _MICROS)
        self._histogram.record_value(min(max(micros, _LOWEST_US), _HIGHEST_US))

    def encoded(self) -> bytes:
        """Everything recorded, to be merged elsewhere."""
        encoded: bytes = self._histogram.encode()
        return encoded

    @property
    def count(self) -> int:
        """How many calls were recorded."""
        count: int = self._histogram.get_total_count()
        return count

    @property
    def max_ms(self) -> float:
        """The longest; zero without any."""
        longest: int = self._histogram.get_max_value() if self.count else 0
        return longest / _MICROS_A_MILLI

    def percentile_ms(self, percentile: float) -> float:
        """What so many percent of the calls did not exceed; zero without any."""
        micros: int = self._histogram.get_value_at_percentile(percentile) if self.count else 0
        return micros / _MICROS_A_MILLI

    def curve(self) -> Sequence[CurvePoint]:
        """The whole distribution, denser toward 100 %."""
        if not self.count:
            return []
        return [
            CurvePoint(item.percentile_level_iterated_to, item.value_iterated_to / _MICROS_A_MILLI)
            for item in self._histogram.get_percentile_iterator(_STEPS_A_HALVING)
        ]
