"""`python -m bench.generator_cpu`: what a transfer costs the load generator itself, in CPU microseconds.

The service is a stand-in in a process of its own that commits everything, so the figure is of the load
process alone: drawing, building, gRPC, checking. What the rest costs is measured by `tallystick bench`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import typer

from bench.cluster import read_cpu
from bench.command import Progress, command
from bench.load import LoadHandler, LoadSettings, load_processes
from bench.reporting import MICROS
from bench.settings import BenchSettings
from bench.stand_in import stand_in
from deploy.terminal import Screen
from shard_node.cluster import SLOT_COUNT

_SHARDS = 2


@dataclass(frozen=True, slots=True)
class Run:
    """What the load process did, and what it cost."""

    transfers_per_second: float
    cpu_us_per_transfer: float


def measure(
    settings: BenchSettings, progress: Progress, make: Callable[[LoadSettings], LoadHandler] = LoadHandler
) -> Sequence[Run]:
    """Measure the load generator against a stand-in in another process."""
    owners = [number * _SHARDS // SLOT_COUNT for number in range(SLOT_COUNT)]
    runs = []
    with stand_in() as service, load_processes(settings, [service.address], owners, make) as load:
        # Connects, and fills the tables.
        load.run(0, settings.seconds / 10, None)
        for number in range(1, settings.runs + 1):
            progress(f"run {number} of {settings.runs}")
            before = read_cpu(load.pids)
            result = load.run(number, settings.seconds, None)
            spent = before.until(read_cpu(load.pids)).in_all
            runs.append(Run(result.committed / result.seconds, spent / result.transfers * MICROS))
    return runs


def show(screen: Screen, _: BenchSettings, runs: Sequence[Run]) -> None:
    """Prints a line a run."""
    for run in runs:
        screen.print(
            f"{run.transfers_per_second:12,.0f} transfers/s {run.cpu_us_per_transfer:8.2f} us of CPU each"
        )


def document(settings: BenchSettings, runs: Sequence[Run]) -> Mapping[str, object]:
    """The runs, for programs."""
    return {"runs": [asdict(run) for run in runs], "settings": settings.document()}


main = command(
    measure,
    show,
    document,
    BenchSettings(seconds=3.0, runs=3),
    ("batch", "unary", "concurrency", "accounts", "distribution", "seconds", "runs"),
)

if __name__ == "__main__":
    typer.run(main)
