"""`python -m bench.scaling`: CPU a cross-shard transfer on 1 to 16 shards, and what a million a second takes.

Each number of shards is a cluster of its own on this machine, one after the other. Exit code 1 when the
figures are not worth printing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from bench.command import (
    AccountsOption,
    ArchiversOption,
    JsonOption,
    Progress,
    RunsOption,
    SecondsOption,
    SeedOption,
    carry_out,
)
from bench.reporting import ClusterFigures, measure_cluster
from bench.scaling import report
from bench.scaling.plan import Assumptions, Point, make_plan
from bench.settings import MAX_SERVERS, BenchSettings, CrossShare
from deploy.terminal import Screen
from shard_node.limits import MAX_BATCH

_DEFAULT_SHARDS = "1,2,4,8,16"


def main(  # noqa: PLR0913 -- a parameter an option
    *,
    shards: Annotated[
        str, typer.Option(metavar="N,N,...", help=f"Numbers of shards, 1 to {MAX_SERVERS} each.")
    ] = _DEFAULT_SHARDS,
    routers: Annotated[int, typer.Option(min=1, max=MAX_SERVERS, help="Routers of each cluster.")] = 1,
    coordinators: Annotated[
        int, typer.Option(min=1, max=MAX_SERVERS, help="Coordinators of each cluster.")
    ] = 1,
    archivers: ArchiversOption = 1,
    accounts: AccountsOption = 100_000,
    batch: Annotated[int, typer.Option(min=1, max=MAX_BATCH, help="Transfers in one BatchTransfer.")] = 8000,
    seconds: SecondsOption = 10.0,
    runs: RunsOption = 3,
    seed: SeedOption = 1,
    rate: Annotated[
        float, typer.Option(min=1, max=1e9, help="Transfers a second to plan for.")
    ] = 1_000_000.0,
    shard_busy: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of its core that a Redis may use in the plan.")
    ] = 0.8,
    process_busy: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="The same for routers, coordinators and archivers.")
    ] = 0.8,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="DIR",
            help="Write scaling.md, scaling.json and scaling.png there.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what a cross-shard transfer costs on more and more shards, and plan for a rate.

    On one shard nothing crosses: there it is the cost of a transfer within a shard.

    Prints the cost by part, and its growth from 2 shards on.

    Then the shards, coordinators, routers and cores for the rate, with the arithmetic and what it assumes.
    """
    counts = _counts(shards)
    assumptions = Assumptions(rate, shard_busy, process_busy)

    def measure_on(count: int, progress: Progress) -> ClusterFigures:
        settings = BenchSettings(
            shards=count,
            routers=routers,
            coordinators=coordinators,
            archivers=archivers,
            accounts=accounts,
            batch=batch,
            seconds=seconds,
            runs=runs,
            seed=seed,
            cross_share=CrossShare.SAME if count == 1 else CrossShare.CROSS,
        )
        return measure_cluster(settings, lambda step: progress(f"{count} shards: {step}"))

    def work(progress: Progress) -> report.ScalingFigures:
        if folder is not None:
            report.prepare(folder)
        measured = {count: measure_on(count, progress) for count in counts}
        points = [Point(count, figures.rate, figures.cpu_us) for count, figures in measured.items()]
        plan = make_plan(points, assumptions)
        figures = report.ScalingFigures(points, plan, batch, os.cpu_count() or 1)
        if folder is not None:
            report.write(folder, figures)
            progress(f"the report is in {folder}")
        return figures

    carry_out(work, _show, report.document, as_json=as_json)


def _show(screen: Screen, figures: report.ScalingFigures) -> None:
    for line in report.markdown(figures).split("\n"):
        screen.print(line)


def _counts(text: str) -> list[int]:
    """The numbers of shards, each once, rising; typer.BadParameter when one is none or none crosses."""
    try:
        counts = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of numbers", param_hint="--shards") from None
    for count in counts:
        if not 1 <= count <= MAX_SERVERS:
            raise typer.BadParameter(f"{count} is not within 1 to {MAX_SERVERS}", param_hint="--shards")
    if counts[-1] < 2:
        raise typer.BadParameter("name 2 or more: on one shard nothing crosses", param_hint="--shards")
    return counts


if __name__ == "__main__":
    typer.run(main)
