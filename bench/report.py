"""The figures, for people as tables and for programs as one line of JSON.

A figure over several runs is their median: one run that something else disturbed does not move it.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.measure import BenchSettings, MeasuredRun, Measurement

_MICROS = 1_000_000
_MILLIS = 1000
_TAIL = 0.99


def show(console: Console, settings: BenchSettings, measurement: Measurement) -> None:
    """Prints the runs, the CPU time of each process, and what it was measured on."""
    runs = measurement.runs
    console.print(_runs_table(runs))
    console.print(_cpu_table(runs))
    verified = measurement.verified
    pairs = "all to one payee" if settings.hot_payee else f"{settings.cross_share} pairs"
    console.print(
        f"[bold]{_median(_rate, runs):,.0f} transfers/s[/], the median of {len(runs)} "
        f"run{'s'[: len(runs) > 1]}: {settings.shards} shards, {settings.accounts:,} accounts, "
        f"{pairs}, batches of {settings.batch}, {settings.concurrency} in flight, "
        f"seed {settings.seed}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"Redis {measurement.redis_version}, appendfsync always on {measurement.file_system}, "
        f"{os.cpu_count()} CPUs; {sum(run.result.insufficient_funds for run in runs):,} lacked funds; "
        f"verified: balanced, {verified.accounts:,} accounts",
        highlight=False,
        soft_wrap=True,
    )


def json_line(settings: BenchSettings, measurement: Measurement) -> str:
    """Everything that was measured, on one line."""
    runs = measurement.runs
    asked = asdict(settings)
    del asked["data"], asked["keep"]
    return json.dumps(
        {
            "transfers_per_second": round(_median(_rate, runs)),
            "cpu_us_per_transfer": _cpu_medians(runs),
            "cpu_us_per_transfer_in_all": round(_median(_cpu_in_all, runs), 3),
            "runs": [_run_document(run) for run in runs],
            "settings": asked,
            "machine": {
                "cpus": os.cpu_count(),
                "redis": measurement.redis_version,
                "file_system": measurement.file_system,
            },
            "verified": {"balanced": True, "accounts": measurement.verified.accounts},
        },
        separators=(",", ":"),
    )


def _runs_table(runs: Sequence[MeasuredRun]) -> Table:
    table = Table(
        title="Runs: batch times in ms; CPUs in use by this, by others", box=box.SIMPLE, padding=(0, 1, 0, 0)
    )
    for column in ("run", "transfers", "seconds", "transfers/s", "p50", "p99", "CPUs", "others", "stolen"):
        table.add_column(column, justify="right", no_wrap=True)
    for number, run in enumerate(runs, start=1):
        result, cpu = run.result, run.cpu
        table.add_row(
            str(number),
            f"{result.transfers:,}",
            f"{result.seconds:.2f}",
            f"{_rate(run):,.0f}",
            f"{_quantile_ms(run, 0.5):.1f}",
            f"{_quantile_ms(run, _TAIL):.1f}",
            f"{cpu.in_all / result.seconds:.2f}",
            f"{cpu.elsewhere / result.seconds:.2f}",
            f"{cpu.stolen / result.seconds:.2f}",
        )
    return table


def _cpu_table(runs: Sequence[MeasuredRun]) -> Table:
    table = Table(title="CPU microseconds a transfer", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("process")
    for column in ("median", "lowest", "highest", "% of a CPU"):
        table.add_column(column, justify="right")
    for name in runs[0].cpu.by_process:
        table.add_row(name, *_cpu_cells([run.cpu.by_process[name] for run in runs], runs))
    table.add_section()
    table.add_row("in all", *_cpu_cells([run.cpu.in_all for run in runs], runs))
    return table


def _cpu_cells(seconds: Sequence[float], runs: Sequence[MeasuredRun]) -> list[str]:
    micros = [spent * _MICROS / run.result.transfers for spent, run in zip(seconds, runs, strict=True)]
    share = statistics.median(spent / run.result.seconds for spent, run in zip(seconds, runs, strict=True))
    return [f"{statistics.median(micros):.2f}", f"{min(micros):.2f}", f"{max(micros):.2f}", f"{share:.0%}"]


def _run_document(run: MeasuredRun) -> dict[str, Any]:
    result, cpu = run.result, run.cpu
    return {
        "transfers": result.transfers,
        "committed": result.committed,
        "insufficient_funds": result.insufficient_funds,
        "seconds": round(result.seconds, 3),
        "transfers_per_second": round(_rate(run)),
        "batch_p50_ms": round(_quantile_ms(run, 0.5), 2),
        "batch_p99_ms": round(_quantile_ms(run, _TAIL), 2),
        "cpu_us_per_transfer": {
            name: round(seconds * _MICROS / result.transfers, 3) for name, seconds in cpu.by_process.items()
        },
        "cpus_used": round(cpu.in_all / result.seconds, 3),
        "cpus_used_by_others": round(cpu.elsewhere / result.seconds, 3),
        "cpus_stolen": round(cpu.stolen / result.seconds, 3),
    }


def _cpu_medians(runs: Sequence[MeasuredRun]) -> dict[str, float]:
    documents = [_run_document(run)["cpu_us_per_transfer"] for run in runs]
    return {name: statistics.median(document[name] for document in documents) for name in documents[0]}


def _rate(run: MeasuredRun) -> float:
    """Transfers that moved money, a second."""
    return run.result.committed / run.result.seconds


def _cpu_in_all(run: MeasuredRun) -> float:
    """CPU microseconds a transfer, all processes together."""
    return run.cpu.in_all * _MICROS / run.result.transfers


def _quantile_ms(run: MeasuredRun, share: float) -> float:
    times = sorted(run.result.batch_seconds)
    return times[min(len(times) - 1, int(share * len(times)))] * _MILLIS


def _median(value: Callable[[MeasuredRun], float], runs: Sequence[MeasuredRun]) -> float:
    return statistics.median(value(run) for run in runs)
