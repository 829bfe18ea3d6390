"""The figures for people: tables on a terminal, and the same tables as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.cluster import by_part, part_of
from bench.load import Latencies, MeasuredRun, Measurement
from bench.reporting.figures import (
    MICROS,
    archived_rate,
    archiver_us,
    in_all_us,
    median,
    once_archived_us,
    percentiles_ms,
    rate,
)
from bench.settings import BenchSettings, Distribution
from deploy.terminal import Screen, Table, strong


@dataclass(frozen=True, slots=True)
class Figures:
    """A table: cells are text; the first column says what a row is about. ``total`` is set apart."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: Sequence[str] = ()

    def table(self) -> Table:
        """For a terminal."""
        table = Table(*self.columns, right=self.columns[1:], title=self.title)
        for row in self.rows:
            table.add_row(*row)
        if self.total:
            table.add_section()
            table.add_row(*self.total)
        return table

    def markdown(self) -> str:
        """For a document."""
        lines = ["| " + " | ".join(self.columns) + " |", "|---" + "|---:" * (len(self.columns) - 1) + "|"]
        # Markdown drops spaces at the start of a cell; these indent a process under its part.
        rows = [*self.rows, self.total] if self.total else self.rows
        lines += ["| " + " | ".join(cell.replace("  ", "&emsp;") for cell in row) + " |" for row in rows]
        return "\n".join([*([f"**{self.title}**", ""] if self.title else []), *lines])


def show(screen: Screen, settings: BenchSettings, measurement: Measurement) -> None:
    """Prints the tables, and what was measured on what."""
    for figures in tables(measurement):
        screen.table(figures.table())
    headline, *more = sentences(settings, measurement)
    screen.print(strong(headline))
    for sentence in more:
        screen.print(sentence)


def markdown(settings: BenchSettings, measurement: Measurement) -> str:
    """The same as a Markdown document, with the pictures of `bench.reporting.plots` beside it."""
    parts = ["# Tallystick under load"]
    parts += [f"{sentence}." for sentence in sentences(settings, measurement)]
    parts += [figures.markdown() for figures in tables(measurement)]
    return "\n\n".join(parts) + "\n"


def tables(measurement: Measurement) -> list[Figures]:
    """All tables of a measurement."""
    runs = measurement.runs
    shown = [_runs_table(runs), _archiving_table(runs)]
    if all(run.result.latencies.count for run in runs):
        title = "Milliseconds from when a call was due to its answer"
        shown.append(_latency_table(title, [run.result.latencies for run in runs]))
    if any(run.result.lags.count for run in runs):
        shown.append(
            _latency_table("Milliseconds that calls were sent late", [run.result.lags for run in runs])
        )
    return [*shown, _cpu_table(measurement)]


def sentences(settings: BenchSettings, measurement: Measurement) -> list[str]:
    """What was measured, on what, and what was checked; the first has the figure that counts."""
    runs = measurement.runs
    cost = "" if measurement.external else f", {median(in_all_us, runs):.1f} CPU microseconds each"
    refused = sum(run.result.insufficient_funds for run in runs)
    machine = measurement.machine
    synced = "appendfsync always" if measurement.durable else "appendfsync not known"
    growth = statistics.median(run.archiving.backlog_growth for run in runs)
    niced = settings.archivers and settings.archiver_niceness and not measurement.external
    return [
        f"{median(rate, runs):,.0f} transfers/s{cost}, the median of {len(runs)} run{'s'[: len(runs) > 1]}",
        f"{measurement.shards} shards, {_load_text(settings)}",
        (
            f"Redis {machine.redis}, {synced} on {machine.file_system}, {machine.cpus} CPUs; "
            f"{refused:,} refused for lack of funds, as asked; "
            f"verified: balanced, {measurement.accounts:,} accounts"
        ),
        (
            f"Archived meanwhile: {median(archived_rate, runs):,.0f} entries/s; "
            f"in a run the backlog grew by {growth:,.0f}"
            + (f"; archivers ran at niceness {settings.archiver_niceness}" if niced else "")
        ),
        *_once_archived(runs),
    ]


def _once_archived(runs: Sequence[MeasuredRun]) -> list[str]:
    an_entry, in_all = archiver_us(runs), once_archived_us(runs)
    if an_entry is None or in_all is None:
        return []
    cost = f"An entry costs archivers {an_entry:.2f} CPU microseconds: once all is archived, "
    return [f"{cost}a transfer has cost {in_all:.1f} in all"]


def _load_text(settings: BenchSettings) -> str:
    shape = settings.shape
    pairs = "uniform" if shape.distribution is Distribution.UNIFORM else f"zipfian {shape.theta:g}"
    parts = [f"{shape.accounts:,} accounts, {pairs}"]
    if shape.hot is not None:
        parts.append(f"one {shape.hot} in all")
    if shape.same_shard is not None:
        parts.append(f"{shape.same_shard:.0%} within a shard")
    if shape.rejections:
        parts.append(f"{shape.rejections:.0%} to be refused")
    parts.append("single transfers" if settings.unary else f"batches of {settings.batch}")
    loop = (
        f"{settings.in_flight} in flight"
        if settings.rate is None
        else f"{settings.rate:,.0f} transfers/s asked for ({settings.arrivals})"
    )
    return ", ".join([*parts, loop, f"{settings.clients} load process{'es' * (settings.clients > 1)}"]) + (
        f", seed {settings.seed}"
    )


def _runs_table(runs: Sequence[MeasuredRun]) -> Figures:
    return Figures(
        "Runs; CPUs in use by this, by others",
        ("run", "transfers", "seconds", "transfers/s", "CPUs", "others", "stolen"),
        [
            [
                str(number),
                f"{run.result.transfers:,}",
                f"{run.result.seconds:.2f}",
                f"{rate(run):,.0f}",
                f"{run.cpu.in_all / run.result.seconds:.2f}",
                f"{run.cpu.elsewhere / run.result.seconds:.2f}",
                f"{run.cpu.stolen / run.result.seconds:.2f}",
            ]
            for number, run in enumerate(runs, start=1)
        ],
    )


def _archiving_table(runs: Sequence[MeasuredRun]) -> Figures:
    return Figures(
        "Ledger entries archived during a run",
        ("run", "archived", "archived/s", "backlog grew by", "waiting after it"),
        [
            [
                str(number),
                f"{run.archiving.archived_entries:,}",
                f"{archived_rate(run):,.0f}",
                f"{run.archiving.backlog_growth:,}",
                f"{run.archiving.backlog_entries:,}",
            ]
            for number, run in enumerate(runs, start=1)
        ],
    )


def _latency_table(title: str, runs: Sequence[Latencies]) -> Figures:
    told = [percentiles_ms(latencies) for latencies in runs]
    return Figures(
        title,
        ("run", *told[0]),
        [[str(number), *(f"{ms:.1f}" for ms in row.values())] for number, row in enumerate(told, start=1)],
    )


def _cpu_table(measurement: Measurement) -> Figures:
    runs = measurement.runs
    rows = []
    for part in by_part(runs[0].cpu.by_process):
        names = [name for name in runs[0].cpu.by_process if part_of(name) is part]
        rows.append([part, *_cpu_cells([by_part(run.cpu.by_process)[part] for run in runs], runs)])
        if len(names) > 1:
            rows += [
                [f"  {name}", *_cpu_cells([run.cpu.by_process[name] for run in runs], runs)] for name in names
            ]
    return Figures(
        "CPU microseconds a transfer, by part and by process",
        ("part", "median", "lowest", "highest", "% of a CPU"),
        rows,
        total=() if measurement.external else ["in all", *_cpu_cells([run.cpu.in_all for run in runs], runs)],
    )


def _cpu_cells(seconds: Sequence[float], runs: Sequence[MeasuredRun]) -> list[str]:
    micros = [spent * MICROS / run.result.transfers for spent, run in zip(seconds, runs, strict=True)]
    share = statistics.median(spent / run.result.seconds for spent, run in zip(seconds, runs, strict=True))
    return [f"{statistics.median(micros):.2f}", f"{min(micros):.2f}", f"{max(micros):.2f}", f"{share:.0%}"]
