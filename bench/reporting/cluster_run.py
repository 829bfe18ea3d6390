"""What the commands beside `python -m bench` take from a measured cluster: its rate, its cost by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.cluster import Part
from bench.command import Progress
from bench.errors import BenchError
from bench.load import ENTRIES_A_TRANSFER, MeasuredRun, measure
from bench.reporting import figures
from bench.reporting.figures import median, medians, part_us, rate
from bench.settings import BenchSettings


@dataclass(frozen=True, slots=True)
class ClusterFigures:
    """Medians over the runs of one cluster: committed transfers a second, CPU microseconds a transfer.

    On a busy machine archivers give way, and part of their work comes after a run: ``archived_share`` is how
    much of it came during one. Their CPU time is that for a transfer they stored, as if they stored all.
    """

    rate: float
    cpu_us: Mapping[Part, float]
    archived_share: float

    @property
    def in_all_us(self) -> float:
        """CPU microseconds a transfer over all parts, the client included."""
        return sum(self.cpu_us.values())


def measure_cluster(settings: BenchSettings, progress: Progress) -> ClusterFigures:
    """Measures a local cluster under load; raises as `bench.load.measurement.measure` does.

    Also raises BenchError when archivers stored too little to tell what it costs.
    """
    runs = measure(settings, progress).runs
    costs = {Part(name): us for name, us in medians(part_us, runs).items()}
    if settings.archivers:
        costs[Part.ARCHIVER] = archiver_us(runs)
    return ClusterFigures(median(rate, runs), costs, median(archived_share, runs))


def archived_share(run: MeasuredRun) -> float:
    """The entries that were stored during a run, as a share of those that it made."""
    return run.archiving.archived_entries / (ENTRIES_A_TRANSFER * run.result.committed)


def archiver_us(runs: Sequence[MeasuredRun]) -> float:
    """The archivers' CPU microseconds for a transfer that they stored, over all runs together."""
    an_entry = figures.archiver_us(runs)
    if an_entry is None:
        raise BenchError("seconds: the archivers stored nothing meanwhile, the runs were too short")
    return an_entry * ENTRIES_A_TRANSFER
