"""The figures of the scaling measurement: as Markdown, as a document for programs, as a plot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.cluster import Part
from bench.reporting import Figures
from bench.scaling.plan import TRANSFER_PATH, Plan, Point, growth

_MARKDOWN, JSON, _PLOT = "scaling.md", "scaling.json", "scaling.png"
_PLOT_INCHES = (8.0, 5.0)
_PLOT_DPI = 120


@dataclass(frozen=True, slots=True)
class ScalingFigures:
    """Everything that was measured, and the plan that follows."""

    points: Sequence[Point]
    plan: Plan
    batch: int
    cpus: int


def markdown(figures: ScalingFigures) -> str:
    """The report, with the arithmetic of the plan and what it assumes."""
    title = "# CPU a transfer over shards, and what a rate takes"
    return "\n".join([title, "", *_costs(figures), "", *_arithmetic(figures), "", _assumed(figures), ""])


def document(figures: ScalingFigures) -> dict[str, object]:
    """Everything, for a program."""
    plan = figures.plan
    grown, path_grown = growth(figures.points), growth(figures.points, TRANSFER_PATH)
    return {
        "batch": figures.batch,
        "cpus": figures.cpus,
        "points": [
            {
                "shards": point.shards,
                "crossing": point.shards > 1,
                "transfers_per_second": round(point.rate),
                "cpu_us_per_transfer": {part.value: round(us, 3) for part, us in point.cpu_us.items()},
                "cpu_us_per_transfer_in_all": round(point.in_all_us, 3),
                "cpu_us_per_transfer_on_its_path": round(point.path_us, 3),
                "growth_in_all": _rounded(grown.get(point.shards)),
                "growth_on_the_path": _rounded(path_grown.get(point.shards)),
            }
            for point in figures.points
        ],
        "plan": {
            "assumptions": asdict(plan.assumptions),
            "shards": plan.shards,
            "routers": plan.processes(Part.ROUTER),
            "coordinators": plan.processes(Part.COORDINATOR),
            "archivers": plan.processes(Part.ARCHIVER),
            "cores": plan.cores,
            "client_cores": round(plan.client_cores, 2),
            "parts": [{**asdict(row), "part": row.part.value} for row in plan.rows],
        },
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def write(folder: Path, figures: ScalingFigures) -> None:
    """Writes the report, the document and the plot into a folder that was prepared."""
    (folder / _MARKDOWN).write_text(f"{markdown(figures)}\n![CPU by part]({_PLOT})\n")
    (folder / JSON).write_text(json.dumps(document(figures), indent=2) + "\n")
    _plot(folder / _PLOT, figures)


def _costs(figures: ScalingFigures) -> Iterator[str]:
    grown, path_grown = growth(figures.points), growth(figures.points, TRANSFER_PATH)
    parts = [part for part in Part if any(part in point.cpu_us for point in figures.points)]
    yield (
        f"CPU microseconds a transfer, batches of {figures.batch}, all processes on {figures.cpus} CPUs. On "
        f"one shard nothing crosses; on more every transfer does. An archiver's time is that for a transfer "
        f"it stored, also when it stored fewer than were made. The path is those who work while a caller "
        f"waits: {', '.join(TRANSFER_PATH)}. Growth is from 2 shards."
    )
    yield ""
    columns = ["shards", "transfers/s", *parts, "path", "growth", "in all", "growth"]
    rows = [
        [
            str(point.shards),
            f"{point.rate:,.0f}",
            *(f"{point.cpu_us.get(part, 0.0):.2f}" for part in parts),
            f"{point.path_us:.2f}",
            _times(path_grown.get(point.shards)),
            f"{point.in_all_us:.2f}",
            _times(grown.get(point.shards)),
        ]
        for point in figures.points
    ]
    yield Figures("", columns, rows).markdown()


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} x"


def _arithmetic(figures: ScalingFigures) -> Iterator[str]:
    plan = figures.plan
    rate = plan.assumptions.transfers_per_second
    yield f"## {rate:,.0f} transfers a second, all across shards"
    yield ""
    columns = ("part", "us a transfer on n shards", f"on n = {plan.shards}", "cores busy", "processes")
    rows = [
        [
            row.part,
            f"{row.line.fixed_us:.2f} + {row.line.per_shard_us:.3f} n",
            f"{row.cpu_us:.2f}",
            f"{rate:,.0f}/s x {row.cpu_us:.2f} us = {row.cores_busy:.2f}",
            f"{row.cores_busy:.2f} / {row.busy:g} -> {row.processes}",
        ]
        for row in plan.rows
    ]
    yield Figures("", columns, rows).markdown()
    yield ""
    counted = " + ".join(str(row.processes) for row in plan.rows)
    beside = f" + {plan.cores_beside:.2f} for shard nodes and ZooKeeper"
    yield (
        f"**{plan.cores} cores** ({counted}{beside}, rounded up): {plan.shards} shards, "
        f"{plan.processes(Part.COORDINATOR)} coordinators, {plan.processes(Part.ROUTER)} routers, "
        f"{plan.processes(Part.ARCHIVER)} archivers. The clients that make such a load take "
        f"{plan.client_cores:.1f} cores more."
    )
    most = max(point.shards for point in figures.points)
    if plan.shards > most:
        yield ""
        yield f"{plan.shards} shards are beyond the {most} that were measured: the lines are carried on."


def _assumed(figures: ScalingFigures) -> str:
    assumed = figures.plan.assumptions
    return f"""What this assumes:

- One Redis is one core, at most {assumed.shard_busy:.0%} busy; so is one router, coordinator or archiver, at
  most {assumed.process_busy:.0%} busy.
- Every transfer crosses shards; accounts are uniformly random; every coordinator sees batches of
  {figures.batch}, however many routers and shards there are.
- The cost of a part is a straight line over the number of shards, fitted to what was measured; where it would
  fall, it is level.
- A core is one of the machine that was measured, where all parts shared its caches; fsync is on.
- Shard nodes and ZooKeeper take as much of a core for each shard as the most that was measured.
- Archivers keep up, each with shards of its own and a database that takes what it stores.
- No replicas, no network: with machines of their own, packets cost more than a loopback's.
- Disks keep up: every shard syncs its own log."""


def _plot(path: Path, figures: ScalingFigures) -> None:
    # Costs a second to import: only who draws pays for it. Without pyplot, which would look for a screen.
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=_PLOT_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set(
        title=f"CPU a cross-shard transfer by part, batches of {figures.batch}",
        xlabel="shards (1: nothing crosses)",
        ylabel="CPU microseconds a transfer",
    )
    names = [str(point.shards) for point in figures.points]
    bottoms = [0.0] * len(names)
    for part in Part:
        heights = [point.cpu_us.get(part, 0.0) for point in figures.points]
        if any(heights):
            axes.bar(names, heights, bottom=bottoms, label=part.value)
            bottoms = [below + height for below, height in zip(bottoms, heights, strict=True)]
    grown = growth(figures.points)
    for place, point in enumerate(figures.points):
        if point.shards in grown:
            axes.annotate(_times(grown[point.shards]), (place, bottoms[place]), ha="center", va="bottom")
    axes.legend()
    figure.savefig(path, dpi=_PLOT_DPI)
