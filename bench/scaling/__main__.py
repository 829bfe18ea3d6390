"""`python -m bench.scaling`: CPU a cross-shard transfer on 1 to 16 shards, and what a million a second takes.

Each number of shards is a cluster of its own on this machine, one after the other. Exit code 1 when the
figures are not worth printing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from bench.command import Progress, command
from bench.errors import BenchError
from bench.reporting import Point, measure_cluster, report_files
from bench.scaling import report
from bench.scaling.plan import Assumptions, make_plan
from bench.settings import MAX_SERVERS, BenchSettings, CrossShare
from deploy.terminal import Screen

_Share = typer.Option(min=0.01, max=1.0, help="Share of its core that a process may use in the plan.")


@dataclass(frozen=True, slots=True)
class ScalingSettings(BenchSettings):
    """What to measure, and what to plan for. ``shard_counts`` are numbers of shards, such as "1,2,4"."""

    shard_counts: Annotated[
        str, typer.Option("--shards", metavar="N,N,...", help=f"Numbers of shards, 1 to {MAX_SERVERS} each.")
    ] = "1,2,4,8,16"
    planned_rate: Annotated[
        float, typer.Option("--rate", min=1, max=1e9, help="Transfers a second to plan for.")
    ] = 1_000_000.0
    # Of a Redis, and of routers, coordinators and archivers.
    shard_busy: Annotated[float, _Share] = 0.8
    process_busy: Annotated[float, _Share] = 0.8

    def __post_init__(self) -> None:
        BenchSettings.__post_init__(self)
        _ = self.counts

    @property
    def counts(self) -> list[int]:
        """The numbers of shards, each once, rising; BenchError when one is none or none crosses."""
        try:
            counts = sorted({int(word) for word in self.shard_counts.split(",")})
        except ValueError:
            raise BenchError(f"--shards: {self.shard_counts!r} is no list of numbers") from None
        for count in counts:
            if not 1 <= count <= MAX_SERVERS:
                raise BenchError(f"--shards: {count} is not within 1 to {MAX_SERVERS}")
        if counts[-1] < 2:
            raise BenchError("--shards: name 2 or more: on one shard nothing crosses")
        return counts


def _measure(settings: ScalingSettings, progress: Progress) -> report.ScalingFigures:
    """Measure what a cross-shard transfer costs on more and more shards, and plan for a rate.

    On one shard nothing crosses: there it is the cost of a transfer within a shard.

    Prints the cost by part, and its growth from 2 shards on.

    Then the shards, coordinators, routers and cores for the rate, with the arithmetic and what it assumes.
    """

    def measure_on(count: int) -> Point:
        crossing = CrossShare.SAME if count == 1 else CrossShare.CROSS
        cluster = replace(settings, shards=count, cross_share=crossing)
        return measure_cluster(cluster, lambda step: progress(f"{count} shards: {step}"))

    if settings.report is not None:
        report_files.prepare(settings.report, report.JSON)
    points = [measure_on(count) for count in settings.counts]
    plan = make_plan(points, Assumptions(settings.planned_rate, settings.shard_busy, settings.process_busy))
    figures = report.ScalingFigures(points, plan, settings.batch, os.cpu_count() or 1)
    if settings.report is not None:
        report.write(settings.report, figures)
        progress(f"the report is in {settings.report}")
    return figures


def _show(screen: Screen, _: ScalingSettings, figures: report.ScalingFigures) -> None:
    for line in report.markdown(figures).split("\n"):
        screen.print(line)


main = command(
    _measure,
    _show,
    lambda _, figures: report.document(figures),
    ScalingSettings(batch=8000, runs=3),
    (
        *("shard_counts", "routers", "coordinators", "archivers", "accounts", "batch", "seconds", "runs"),
        *("seed", "planned_rate", "shard_busy", "process_busy", "report"),
    ),
    report=Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write scaling.md, scaling.json and scaling.png there.")
    ],
)

if __name__ == "__main__":
    typer.run(main)
