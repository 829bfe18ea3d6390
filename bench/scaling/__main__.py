"""`python -m bench.scaling`: CPU a cross-shard transfer on 1 to 16 shards, and what a million a second takes.

Each number of shards is a cluster of its own on this machine, one after the other. Exit code 1 when the
figures are not worth printing.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from bench.command import Progress, command
from bench.reporting import Point, measure_cluster, report_files
from bench.scaling import report
from bench.scaling.plan import Assumptions, make_plan
from bench.scaling.settings import ScalingSettings
from bench.settings import CrossShare
from deploy.terminal import Screen


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
