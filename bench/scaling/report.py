"""The figures of the scaling measurement: as Markdown, as a document for programs, as a plot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.local import Part
from bench.scaling.plan import Assumptions, Plan, Point, growth

_MARKDOWN, _JSON, _PLOT = "scaling.md", "scaling.json", "scaling.png"
_PLOT_INCHES = (8.0, 5.0)
_PLOT_DPI = 120


@dataclass(frozen=True, slots=True)
class ScalingFigures:
    """Everything that was measured, and the plan that follows. ``rates`` in transfers a second, by shards."""

    points: Sequence[Point]
    rates: Mapping[int, float]
    plan: Plan
    batch: int
    cpus: int


def markdown(figures: ScalingFigures) -> str:
    """The report, with the arithmetic of the plan and what it assumes."""
    return "\n".join(
        [
            "# CPU a transfer over shards, and what a rate takes",
            "",
            *_costs(figures),
            "",
            *_arithmetic(figures),
            "",
            *_assumed(figures),
            "",
        ]
    )


def document(figures: ScalingFigures) -> dict[str, object]:
    """Everything, for a program."""
    plan = figures.plan
    grown = growth(figures.points)
    return {
        "batch": figures.batch,
        "cpus": figures.cpus,
        "points": [
            {
                "shards": point.shards,
                "crossing": point.shards > 1,
                "transfers_per_second": round(figures.rates[point.shards]),
                "cpu_us_per_transfer": {part.value: round(us, 3) for part, us in point.cpu_us.items()},
                "cpu_us_per_transfer_in_all": round(point.in_all_us, 3),
                "growth": round(grown[point.shards], 3) if point.shards in grown else None,
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


def write(folder: Path, figures: ScalingFigures) -> None:
    """Writes the report, the document and the plot into a folder. Raises BenchError when it cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARKDOWN).write_text(f"{markdown(figures)}\n![CPU by part]({_PLOT})\n")
        (folder / _JSON).write_text(json.dumps(document(figures), indent=2) + "\n")
        _plot(folder / _PLOT, figures)
    except OSError as error:
        raise BenchError(f"--report: {error}") from error


def _costs(figures: ScalingFigures) -> Iterator[str]:
    grown = growth(figures.points)
    parts = [part for part in Part if any(part in point.cpu_us for point in figures.points)]
    yield (
        f"CPU microseconds a transfer, batches of {figures.batch}, all processes on {figures.cpus} CPUs. On "
        f"one shard nothing crosses; on more every transfer does."
    )
    yield ""
    yield "| shards | transfers/s | " + " | ".join(parts) + " | in all | growth from 2 |"
    yield "|---" * (len(parts) + 4) + "|"
    for point in figures.points:
        cells = [f"{point.cpu_us.get(part, 0.0):.2f}" for part in parts]
        times = f"{grown[point.shards]:.2f} x" if point.shards in grown else ""
        yield (
            f"| {point.shards} | {figures.rates[point.shards]:,.0f} | {' | '.join(cells)} "
            f"| {point.in_all_us:.2f} | {times} |"
        )


def _arithmetic(figures: ScalingFigures) -> Iterator[str]:
    plan = figures.plan
    rate = plan.assumptions.transfers_per_second
    yield f"## {rate:,.0f} transfers a second, all across shards"
    yield ""
    yield "| part | us a transfer on n shards | on n = " + str(plan.shards) + " | cores busy | processes |"
    yield "|---|---|---|---|---|"
    for row in plan.rows:
        yield (
            f"| {row.part} | {row.line.fixed_us:.2f} + {row.line.per_shard_us:.3f} n | {row.cpu_us:.2f} "
            f"| {rate:,.0f}/s x {row.cpu_us:.2f} us = {row.cores_busy:.2f} "
            f"| {row.cores_busy:.2f} / {row.busy:g} -> {row.processes} |"
        )
    yield ""
    counted = " + ".join(str(row.processes) for row in plan.rows)
    beside = f" + {plan.cores_beside:.2f} for shard nodes and ZooKeeper"
    yield (
        f"**{plan.cores} cores** ({counted}{beside}, rounded up): {plan.shards} shards, "
        f"{plan.processes(Part.COORDINATOR)} coordinators, {plan.processes(Part.ROUTER)} routers, "
        f"{plan.processes(Part.ARCHIVER)} archivers. The clients that make such a load take "
        f"{plan.client_cores:.1f} cores more."
    )


def _assumed(figures: ScalingFigures) -> Iterator[str]:
    assumed: Assumptions = figures.plan.assumptions
    yield "What this assumes:"
    yield ""
    yield (
        f"- One Redis is one core, at most {assumed.shard_busy:.0%} busy; so is one router, coordinator or "
        f"archiver, at most {assumed.process_busy:.0%} busy."
    )
    yield (
        f"- Every transfer crosses shards; accounts are uniformly random; every coordinator sees batches of "
        f"{figures.batch}, however many routers and shards there are."
    )
    yield (
        "- The cost of a part is a straight line over the number of shards, fitted to what was measured; "
        "where it would fall, it is level."
    )
    yield "- A core is one of the machine that was measured, where all parts shared its caches; fsync is on."
    yield "- No replicas, no network: with machines of their own, packets cost more than a loopback's."
    yield "- Disks keep up: every shard syncs its own log."


def _plot(path: Path, figures: ScalingFigures) -> None:
    # Costs a second to import: only who draws pays for it.
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=_PLOT_INCHES)
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
            axes.annotate(f"{grown[point.shards]:.2f} x", (place, bottoms[place]), ha="center", va="bottom")
    axes.set_xlabel("shards (1: nothing crosses)")
    axes.set_ylabel("CPU microseconds a transfer")
    axes.set_title(f"CPU a cross-shard transfer by part, batches of {figures.batch}")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=_PLOT_DPI)
    plt.close(figure)
