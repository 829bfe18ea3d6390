"""What the commands beside `python -m bench` take from a measured cluster: its rate, its cost by part."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from bench.command import Progress
from bench.local import Part, by_part
from bench.measure import MeasuredRun, measure
from bench.settings import BenchSettings

_MICROS = 1e6


@dataclass(frozen=True, slots=True)
class ClusterFigures:
    """Medians over the runs of one cluster: committed transfers a second, CPU microseconds a transfer."""

    rate: float
    cpu_us: Mapping[Part, float]

    @property
    def in_all_us(self) -> float:
        """CPU microseconds a transfer over all parts, the client included."""
        return sum(self.cpu_us.values())


def measure_cluster(settings: BenchSettings, progress: Progress) -> ClusterFigures:
    """Measures a local cluster under load; raises as `bench.measure.measure` does."""
    return medians([_figures(run) for run in measure(settings, progress).runs])


def medians(runs: list[ClusterFigures]) -> ClusterFigures:
    """One figure for several runs: one that something else disturbed does not move it."""
    return ClusterFigures(
        statistics.median(run.rate for run in runs),
        {part: statistics.median(run.cpu_us[part] for run in runs) for part in runs[0].cpu_us},
    )


def _figures(run: MeasuredRun) -> ClusterFigures:
    cpu_us = {name: seconds * _MICROS / run.result.transfers for name, seconds in run.cpu.by_process.items()}
    return ClusterFigures(run.result.committed / run.result.seconds, by_part(cpu_us))
