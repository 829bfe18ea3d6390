"""The figures as pictures: throughput over time, latency by percentile, CPU time by part.

Needs matplotlib, and is imported only where pictures are asked for.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from bench.load import CurvePoint, Measurement
from bench.reporting.figures import in_all_us, median, medians, part_us
from bench.settings import BenchSettings

# Files only: nothing here may look for a screen.
mpl.use("Agg")

THROUGHPUT, LATENCY, CPU = "throughput.png", "latency.png", "cpu.png"
_INCHES = (8.0, 4.5)
_DOTS_AN_INCH = 120
# Of the axis of percentiles, which are spaced by how rare it is that a call takes longer.
_HIGHEST = 100.0
_TICKS = (50.0, 90.0, 99.0, 99.9, 99.99)


def draw(folder: Path, settings: BenchSettings, measurement: Measurement) -> list[Path]:
    """Writes the pictures into the folder; their paths."""
    figures = {
        THROUGHPUT: _throughput(measurement),
        LATENCY: _latency(settings, measurement),
        CPU: _cpu(measurement),
    }
    paths = []
    for name, figure in figures.items():
        paths.append(folder / name)
        figure.savefig(paths[-1], dpi=_DOTS_AN_INCH)
    return paths


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    # Without pyplot, which would keep every figure.
    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _throughput(measurement: Measurement) -> Figure:
    figure, axes = _axes("Throughput over time", "seconds", "transfers committed in each second")
    for number, run in enumerate(measurement.runs, start=1):
        # The last second is not a whole one.
        whole = list(run.result.per_second[: int(run.result.seconds)])
        axes.plot(range(1, len(whole) + 1), whole, marker=".", label=f"run {number}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def _latency(settings: BenchSettings, measurement: Measurement) -> Figure:
    what = "transfer" if settings.unary else f"batch of {settings.batch}"
    figure, axes = _axes("Latency by percentile", "percentile", f"milliseconds for a {what}")
    for number, run in enumerate(measurement.runs, start=1):
        curve = run.result.latencies.curve()
        points = [point for point in curve if point.percentile < _HIGHEST]
        axes.plot(
            [_rarity(point) for point in points], [p.milliseconds for p in points], label=f"run {number}"
        )
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    ticks = [1 / (1 - percentile / 100) for percentile in _TICKS]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.set_xticks(ticks, [f"{percentile:g} %" for percentile in _TICKS])
    axes.legend()
    return figure


def _rarity(point: CurvePoint) -> float:
    """One call in so many takes longer."""
    return 1 / (1 - point.percentile / _HIGHEST)


def _cpu(measurement: Measurement) -> Figure:
    runs = measurement.runs
    parts = medians(part_us, runs)
    title = "CPU time by part"
    if not measurement.external:
        title += f": {median(in_all_us, runs):.1f} microseconds in all"
    figure, axes = _axes(title, "CPU microseconds a transfer", "")
    bars = axes.barh(list(parts), list(parts.values()))
    axes.bar_label(bars, fmt="%.2f", padding=3)
    # The first part is on top, as in the tables.
    axes.invert_yaxis()
    axes.margins(x=0.1)
    return figure
