"""`python -m bench.postgres`: transfers a second of a wallet on PostgreSQL, and what each costs in CPU.

Everything runs on this machine, the callers included. Exit code 1 when the figures are not worth printing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import typer

from bench.command import Progress, command
from bench.postgres.baseline import PostgresFigures, PostgresSettings, measure_postgres
from bench.reporting import ClusterFigures, measure_cluster
from bench.settings import BenchSettings
from deploy.terminal import Screen, Table, strong

# The fewest that a machine of two CPUs can show two-phase commit on.
_CLUSTER_SHARDS = 2


@dataclass(frozen=True, slots=True)
class _Comparison:
    postgres: PostgresFigures
    cluster: ClusterFigures | None


def _measure(settings: PostgresSettings, progress: Progress) -> _Comparison:
    """Measure the wallet that one would build on PostgreSQL, under the load that `python -m bench` makes.

    A row an account, a row a transfer under its id, two ledger rows; row locks, every commit on disk.

    One prepared call and one transaction a transfer; who pays whom is uniformly random.

    Checks afterwards that each transfer moved money once, and that none was made or lost.
    """
    figures = measure_postgres(settings, progress)
    if not settings.beside:
        return _Comparison(figures, None)
    cluster = BenchSettings(
        shards=_CLUSTER_SHARDS,
        accounts=settings.accounts,
        batch=settings.batch,
        seconds=settings.seconds,
        runs=settings.runs,
        seed=settings.seed,
    )
    return _Comparison(figures, measure_cluster(cluster, progress))


def _show(screen: Screen, settings: PostgresSettings, comparison: _Comparison) -> None:
    figures = comparison.postgres
    columns = ("run", "transfers", "seconds", "transfers/s", "server", "client", "CPUs others used")
    table = Table(*columns, right=columns, title="PostgreSQL: CPU in microseconds a transfer")
    for number, run in enumerate(figures.runs, start=1):
        table.add_row(
            str(number),
            f"{run.transfers:,}",
            f"{run.seconds:.2f}",
            f"{run.rate:,.0f}",
            f"{run.server_us:.1f}",
            f"{run.client_us:.1f}",
            f"{run.others_cpu / run.seconds:.2f}",
        )
    screen.table(table)
    each = "one transfer" if settings.group == 1 else f"{settings.group} transfers"
    screen.print(
        strong(f"PostgreSQL: {figures.rate:,.0f} transfers/s"),
        f", {figures.server_us:.1f} us of CPU each in "
        f"the server and {figures.client_us:.1f} in the client; medians of {len(figures.runs)}. "
        f"{each.capitalize()} a transaction, {settings.accounts:,} accounts, {settings.processes} x "
        f"{settings.connections} connections, seed {settings.seed}",
    )
    screen.print(
        f"PostgreSQL {figures.version}, synchronous_commit and fsync on, on {figures.file_system}, "
        f"{figures.cpus} CPUs; checked: two ledger rows a transfer, no balance but the sum of its rows",
    )
    if comparison.cluster is not None:
        cluster = comparison.cluster
        screen.print(
            strong(f"cluster: {cluster.rate:,.0f} transfers/s"),
            f", {cluster.in_all_us:.1f} us of CPU each in all: ",
            strong(f"{_ratio(comparison):.1f} times"),
            f" PostgreSQL's rate, 1/{_cpu_ratio(comparison):.1f} "
            f"of its CPU time. Its archiver stored {cluster.archived_share:.0%} of the ledger meanwhile; CPU "
            f"time is as if it had stored all",
        )


def _ratio(comparison: _Comparison) -> float:
    return comparison.cluster.rate / comparison.postgres.rate if comparison.cluster else 0.0


def _cpu_ratio(comparison: _Comparison) -> float:
    postgres = comparison.postgres
    in_all_us = postgres.server_us + postgres.client_us
    return in_all_us / comparison.cluster.in_all_us if comparison.cluster else 0.0


def _document(settings: PostgresSettings, comparison: _Comparison) -> Mapping[str, object]:
    figures = comparison.postgres
    document: dict[str, object] = {
        "transfers_per_second": round(figures.rate),
        "cpu_us_per_transfer": {
            "server": round(figures.server_us, 2),
            "client": round(figures.client_us, 2),
        },
        "runs": [asdict(run) | {"transfers_per_second": round(run.rate)} for run in figures.runs],
        "settings": asdict(settings),
        "machine": {
            "cpus": figures.cpus,
            "postgresql": figures.version,
            "file_system": figures.file_system,
        },
        "checked": True,
    }
    if comparison.cluster is not None:
        document["cluster"] = {
            "transfers_per_second": round(comparison.cluster.rate),
            "cpu_us_per_transfer_in_all": round(comparison.cluster.in_all_us, 2),
            "archived_share": round(comparison.cluster.archived_share, 3),
            "ratio": round(_ratio(comparison), 2),
            # Of PostgreSQL's CPU time to the cluster's: less disturbed by what else runs.
            "cpu_ratio": round(_cpu_ratio(comparison), 2),
        }
    return document


main = command(_measure, _show, _document, PostgresSettings())

if __name__ == "__main__":
    typer.run(main)
