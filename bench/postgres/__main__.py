"""`python -m bench.postgres`: transfers a second of a wallet on PostgreSQL, and what each costs in CPU.

Everything runs on this machine, the callers included. Exit code 1 when the figures are not worth printing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import typer

from bench.command import Progress, command
from bench.postgres.baseline import PostgresFigures, PostgresSettings, measure_postgres
from bench.reporting import Figures, Point, measure_cluster
from deploy.terminal import Screen, strong
from shard_node.limits import MAX_BATCH


@dataclass(frozen=True, slots=True)
class _Comparison:
    postgres: PostgresFigures
    cluster: Point | None


def _measure(settings: PostgresSettings, progress: Progress) -> _Comparison:
    """Measure the wallet that one would build on PostgreSQL, under the load that `python -m bench` makes.

    A row an account, a row a transfer under its id, two ledger rows; row locks, every commit on disk.

    One prepared call and one transaction a transfer; who pays whom is uniformly random.

    Checks afterwards that each transfer moved money once, and that none was made or lost.
    """
    figures = measure_postgres(settings, progress)
    if not settings.beside:
        return _Comparison(figures, None)
    return _Comparison(figures, measure_cluster(replace(settings, clients=1), progress))


def _show(screen: Screen, settings: PostgresSettings, comparison: _Comparison) -> None:
    figures = comparison.postgres
    columns = ("transfers", "seconds", "transfers/s", "server", "client", "CPUs others used")
    rows = [
        [
            f"{run.transfers:,}",
            f"{run.seconds:.2f}",
            f"{run.rate:,.0f}",
            f"{run.server_us:.1f}",
            f"{run.client_us:.1f}",
            f"{run.others_cpu / run.seconds:.2f}",
        ]
        for run in figures.runs
    ]
    title = "PostgreSQL: CPU in microseconds a transfer"
    screen.table(Figures.numbered(title, "run", columns, rows).table())
    each = "one transfer" if settings.group == 1 else f"{settings.group} transfers"
    screen.print(
        strong(f"PostgreSQL: {figures.rate:,.0f} transfers/s"),
        f", {figures.server_us:.1f} us of CPU each in "
        f"the server and {figures.client_us:.1f} in the client; medians of {len(figures.runs)}. "
        f"{each.capitalize()} a transaction, {settings.accounts:,} accounts, {settings.clients} x "
        f"{settings.connections} connections, seed {settings.seed}",
    )
    screen.print(
        f"PostgreSQL {figures.version}, synchronous_commit and fsync on, on {figures.file_system}, "
        f"{figures.cpus} CPUs; checked: two ledger rows a transfer, no balance but the sum of its rows",
    )
    if comparison.cluster is not None:
        cluster = comparison.cluster
        ratio, cpu_ratio = _ratios(figures, cluster)
        screen.print(
            strong(f"cluster: {cluster.rate:,.0f} transfers/s"),
            f", {cluster.in_all_us:.1f} us of CPU each in all: ",
            strong(f"{ratio:.1f} times"),
            f" PostgreSQL's rate, 1/{cpu_ratio:.1f} "
            f"of its CPU time. Its archiver stored {cluster.archived_share:.0%} of the ledger meanwhile; CPU "
            f"time is as if it had stored all",
        )


def _ratios(postgres: PostgresFigures, cluster: Point) -> tuple[float, float]:
    """The cluster's rate to PostgreSQL's, and PostgreSQL's CPU time to the cluster's."""
    return cluster.rate / postgres.rate, (postgres.server_us + postgres.client_us) / cluster.in_all_us


def _document(settings: PostgresSettings, comparison: _Comparison) -> Mapping[str, object]:
    figures = comparison.postgres
    document: dict[str, object] = {
        "transfers_per_second": round(figures.rate),
        "cpu_us_per_transfer": {
            "server": round(figures.server_us, 2),
            "client": round(figures.client_us, 2),
        },
        "runs": [asdict(run) | {"transfers_per_second": round(run.rate)} for run in figures.runs],
        "settings": settings.document(),
        "machine": {
            "cpus": figures.cpus,
            "postgresql": figures.version,
            "file_system": figures.file_system,
        },
        "checked": True,
    }
    if comparison.cluster is not None:
        ratio, cpu_ratio = _ratios(figures, comparison.cluster)
        document["cluster"] = {
            "transfers_per_second": round(comparison.cluster.rate),
            "cpu_us_per_transfer_in_all": round(comparison.cluster.in_all_us, 2),
            "archived_share": round(comparison.cluster.archived_share, 3),
            "ratio": round(ratio, 2),
            # Of PostgreSQL's CPU time to the cluster's: less disturbed by what else runs.
            "cpu_ratio": round(cpu_ratio, 2),
        }
    return document


# Two shards: the fewest that can show two-phase commit.
main = command(
    _measure,
    _show,
    _document,
    PostgresSettings(clients=2),
    ("accounts", "clients", "connections", "group", "seconds", "runs", "seed", "beside", "batch"),
    clients=Annotated[int, typer.Option("--processes", min=1, max=16, help="Processes that call.")],
    batch=Annotated[
        int, typer.Option(min=1, max=MAX_BATCH, help="With --beside: transfers in one BatchTransfer.")
    ],
)

if __name__ == "__main__":
    typer.run(main)
