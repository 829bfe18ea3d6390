"""`python -m bench.scaling`: CPU a cross-shard transfer on 1 to 16 shards, and what a million a second takes.

Each number of shards is a cluster of its own on this machine, one after the other. Exit code 1 when the
figures are not worth printing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bench.command import Progress, command
from bench.errors import BenchError
from bench.reporting import ClusterFigures, measure_cluster, report_files
from bench.scaling import report
from bench.scaling.plan import Assumptions, Point, make_plan
from bench.settings import (
    MAX_SERVERS,
    AccountsOption,
    ArchiversOption,
    BatchOption,
    BenchSettings,
    CrossShare,
    RunsOption,
    SecondsOption,
    SeedOption,
    check_limits,
)
from deploy.terminal import Screen

_Servers = typer.Option(min=1, max=MAX_SERVERS, help="In each cluster.")
_Share = typer.Option(min=0.01, max=1.0, help="Share of its core that a process may use in the plan.")


@dataclass(frozen=True, slots=True)
class ScalingSettings:
    """What to measure, and what to plan for. ``shards`` are numbers of shards, such as "1,2,4"."""

    shards: Annotated[
        str, typer.Option(metavar="N,N,...", help=f"Numbers of shards, 1 to {MAX_SERVERS} each.")
    ] = "1,2,4,8,16"
    routers: Annotated[int, _Servers] = 1
    coordinators: Annotated[int, _Servers] = 1
    archivers: ArchiversOption = 1
    accounts: AccountsOption = 100_000
    batch: BatchOption = 8000
    seconds: SecondsOption = 10.0
    runs: RunsOption = 3
    seed: SeedOption = 1
    rate: Annotated[float, typer.Option(min=1, max=1e9, help="Transfers a second to plan for.")] = 1_000_000.0
    # Of a Redis, and of routers, coordinators and archivers.
    shard_busy: Annotated[float, _Share] = 0.8
    process_busy: Annotated[float, _Share] = 0.8
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write scaling.md, scaling.json and scaling.png there.", show_default=False
        ),
    ] = None

    def __post_init__(self) -> None:
        check_limits(self)
        _ = self.counts

    @property
    def counts(self) -> list[int]:
        """The numbers of shards, each once, rising; BenchError when one is none or none crosses."""
        try:
            counts = sorted({int(word) for word in self.shards.split(",")})
        except ValueError:
            raise BenchError(f"--shards: {self.shards!r} is no list of numbers") from None
        for count in counts:
            if not 1 <= count <= MAX_SERVERS:
                raise BenchError(f"--shards: {count} is not within 1 to {MAX_SERVERS}")
        if counts[-1] < 2:
            raise BenchError("--shards: name 2 or more: on one shard nothing crosses")
        return counts

    def cluster(self, count: int) -> BenchSettings:
        """The measurement on so many shards."""
        return BenchSettings(
            shards=count,
            routers=self.routers,
            coordinators=self.coordinators,
            archivers=self.archivers,
            accounts=self.accounts,
            batch=self.batch,
            seconds=self.seconds,
            runs=self.runs,
            seed=self.seed,
            cross_share=CrossShare.SAME if count == 1 else CrossShare.CROSS,
        )


def _measure(settings: ScalingSettings, progress: Progress) -> report.ScalingFigures:
    """Measure what a cross-shard transfer costs on more and more shards, and plan for a rate.

    On one shard nothing crosses: there it is the cost of a transfer within a shard.

    Prints the cost by part, and its growth from 2 shards on.

    Then the shards, coordinators, routers and cores for the rate, with the arithmetic and what it assumes.
    """

    def measure_on(count: int) -> ClusterFigures:
        return measure_cluster(settings.cluster(count), lambda step: progress(f"{count} shards: {step}"))

    if settings.report is not None:
        report_files.prepare(settings.report, report.JSON)
    measured = {count: measure_on(count) for count in settings.counts}
    points = [Point(count, figures.rate, figures.cpu_us) for count, figures in measured.items()]
    plan = make_plan(points, Assumptions(settings.rate, settings.shard_busy, settings.process_busy))
    figures = report.ScalingFigures(points, plan, settings.batch, os.cpu_count() or 1)
    if settings.report is not None:
        report.write(settings.report, figures)
        progress(f"the report is in {settings.report}")
    return figures


def _show(screen: Screen, _: ScalingSettings, figures: report.ScalingFigures) -> None:
    for line in report.markdown(figures).split("\n"):
        screen.print(line)


main = command(_measure, _show, lambda _, figures: report.document(figures), ScalingSettings())

if __name__ == "__main__":
    typer.run(main)
