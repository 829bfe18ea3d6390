"""What is told of a measurement: medians over its runs, as one document for programs.

A figure over several runs is their median: one run that something else disturbed does not move it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.cluster import Part, by_part
from bench.load import ENTRIES_A_TRANSFER, PERCENTILES, Latencies, MeasuredRun, Measurement
from bench.settings import BenchSettings

MICROS = 1_000_000


def median(value: Callable[[MeasuredRun], float], runs: Sequence[MeasuredRun]) -> float:
    """The median of a figure over runs."""
    return statistics.median(value(run) for run in runs)


def rate(run: MeasuredRun) -> float:
    """Transfers that moved money, a second."""
    return run.result.committed / run.result.seconds


def archived_rate(run: MeasuredRun) -> float:
    """Ledger entries archived, a second."""
    return run.archiving.archived_entries / run.result.seconds


def cpu_us(run: MeasuredRun) -> Mapping[str, float]:
    """CPU microseconds a transfer, by process."""
    return {name: spent * MICROS / run.result.transfers for name, spent in run.cpu.by_process.items()}


def part_us(run: MeasuredRun) -> Mapping[str, float]:
    """CPU microseconds a transfer, by part of the cluster."""
    return {str(part): spent for part, spent in by_part(cpu_us(run)).items()}


def in_all_us(run: MeasuredRun) -> float:
    """CPU microseconds a transfer, all processes together."""
    return sum(cpu_us(run).values())


def archiver_us(runs: Sequence[MeasuredRun]) -> float | None:
    """CPU microseconds that archivers spend on an entry, over all runs; None when they stored nothing."""
    spent = sum(by_part(run.cpu.by_process).get(Part.ARCHIVER, 0.0) for run in runs)
    stored = sum(run.archiving.archived_entries for run in runs)
    return spent * MICROS / stored if spent and stored > 0 else None


def once_archived_us(runs: Sequence[MeasuredRun]) -> float | None:
    """CPU microseconds a transfer in all, with what archivers are still to do charged as if it were done.

    Without it a transfer seems cheaper, the longer archivers leave its entries for later. None when there
    were no archivers, or they stored nothing.
    """
    an_entry = archiver_us(runs)
    if an_entry is None:
        return None
    others = statistics.median(in_all_us(run) - part_us(run)[Part.ARCHIVER] for run in runs)
    committed = statistics.median(run.result.committed / run.result.transfers for run in runs)
    return others + an_entry * ENTRIES_A_TRANSFER * committed


def medians(
    values: Callable[[MeasuredRun], Mapping[str, float]], runs: Sequence[MeasuredRun]
) -> dict[str, float]:
    """The median of each of several figures over runs."""
    return {name: statistics.median(values(run)[name] for run in runs) for name in values(runs[0])}


def percentiles_ms(latencies: Latencies) -> dict[str, float]:
    """The percentiles that are told, by their names, and the longest."""
    told = {f"p{percentile:g}": latencies.percentile_ms(percentile) for percentile in PERCENTILES}
    return {**told, "max": latencies.max_ms}


def latency_ms(run: MeasuredRun) -> Mapping[str, float]:
    """Milliseconds from when a call was due to its answer."""
    return percentiles_ms(run.result.latencies)


def document(settings: BenchSettings, measurement: Measurement) -> dict[str, Any]:
    """Everything that was measured, in values that JSON has."""
    runs = measurement.runs
    return {
        "transfers_per_second": round(median(rate, runs)),
        "latency_ms": _rounded(medians(latency_ms, runs)),
        "cpu_us_per_transfer": _rounded(medians(cpu_us, runs)),
        "cpu_us_per_transfer_by_part": _rounded(medians(part_us, runs)),
        # Of an external cluster only the clients' share is known.
        "cpu_us_per_transfer_in_all": None if measurement.external else round(median(in_all_us, runs), 3),
        "cpu_us_per_transfer_once_archived": _rounded_if(once_archived_us(runs)),
        "archiver_cpu_us_per_entry": _rounded_if(archiver_us(runs)),
        "archived_entries_per_second": round(median(archived_rate, runs)),
        "runs": [_run_document(run) for run in runs],
        "settings": settings.document(),
        "machine": asdict(measurement.machine),
        "cluster": {
            "external": measurement.external,
            "shards": measurement.shards,
            "every_write_synced": True if measurement.durable else None,
        },
        "verified": {"balanced": True, "accounts": measurement.accounts},
    }


def _run_document(run: MeasuredRun) -> dict[str, Any]:
    result, cpu = run.result, run.cpu
    return {
        "transfers": result.transfers,
        "committed": result.committed,
        "insufficient_funds": result.insufficient_funds,
        "seconds": round(result.seconds, 3),
        "transfers_per_second": round(rate(run)),
        "calls": result.latencies.count,
        "latency_ms": _rounded(latency_ms(run)),
        # How late calls were sent; an open loop's alone.
        "lag_ms": _rounded(percentiles_ms(result.lags)) if result.lags.count else None,
        "committed_in_each_second": list(result.per_second),
        "cpu_us_per_transfer": _rounded(cpu_us(run)),
        "cpu_us_per_transfer_by_part": _rounded(part_us(run)),
        "cpus_used": round(cpu.in_all / result.seconds, 3),
        "cpus_used_by_others": round(cpu.elsewhere / result.seconds, 3),
        "cpus_stolen": round(cpu.stolen / result.seconds, 3),
        "archived_entries": run.archiving.archived_entries,
        "backlog_growth": run.archiving.backlog_growth,
        "backlog_entries": run.archiving.backlog_entries,
    }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}


def _rounded_if(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
