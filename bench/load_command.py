"""The command behind `tallystick bench` and `python -m bench`: its options, and what it prints.

Transfers a second of a cluster, latencies, and CPU microseconds a transfer by process; the load processes run
on this machine and count too. Exit code 1 when the figures are not worth printing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.command import (
    AccountsOption,
    JsonOption,
    Progress,
    RunsOption,
    SecondsOption,
    SeedOption,
    ShardsOption,
    carry_out,
)
from bench.errors import BenchError
from bench.load import Measurement, measure
from bench.reporting import document, report, report_files
from bench.settings import (
    ARCHIVER_NICENESS,
    CLOSED_IN_FLIGHT,
    MAX_BACKLOG_ENTRIES,
    MAX_IN_FLIGHT,
    MAX_RATE,
    MAX_SERVERS,
    MAX_THETA,
    MAX_TRANSFERS,
    OPEN_IN_FLIGHT,
    Arrivals,
    BenchSettings,
    CrossShare,
    Distribution,
    HotAccount,
)
from deploy.local import MAX_NICENESS
from shard_node.limits import MAX_BATCH

# Titles of `--help`: who reads it looks for one of these.
_CLUSTER, _LOAD, _WHO, _LENGTH, _OUTPUT = "Cluster", "Load", "Who pays whom", "Length", "Output"


def main(  # noqa: PLR0913 -- a parameter an option
    *,
    shards: ShardsOption = 2,
    routers: Annotated[
        int,
        typer.Option(min=1, max=MAX_SERVERS, help="Routers, used in turn.", rich_help_panel=_CLUSTER),
    ] = 1,
    coordinators: Annotated[
        int, typer.Option(min=1, max=MAX_SERVERS, help="Coordinators.", rich_help_panel=_CLUSTER)
    ] = 1,
    archivers: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_SERVERS,
            help="Archivers; with 0 the ledger waits on the shards till the end.",
            rich_help_panel=_CLUSTER,
        ),
    ] = 1,
    archiver_niceness: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_NICENESS,
            help="How far archivers give way to transfers on a busy machine, as nice(1) has it. What they "
            "leave for later is reported as the backlog.",
            rich_help_panel=_CLUSTER,
        ),
    ] = ARCHIVER_NICENESS,
    max_backlog: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="ENTRIES",
            help="So many that wait to be archived, and a shard refuses transfers.",
            rich_help_panel=_CLUSTER,
        ),
    ] = MAX_BACKLOG_ENTRIES,
    routers_at: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT[,...]",
            help="Aim at a cluster that runs already, in place of one of its own; then the CPU time of the "
            "clients alone is known. It keeps the accounts.",
            rich_help_panel=_CLUSTER,
        ),
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the cluster is kept; stays. Default: a temporary folder, removed at the end.",
            show_default=False,
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the temporary folder.", rich_help_panel=_CLUSTER)
    ] = False,
    batch: Annotated[
        int,
        typer.Option(min=1, max=MAX_BATCH, help="Transfers in one BatchTransfer.", rich_help_panel=_LOAD),
    ] = 1000,
    unary: Annotated[
        bool,
        typer.Option("--unary", help="Single Transfer calls, no batches.", rich_help_panel=_LOAD),
    ] = False,
    clients: Annotated[
        int, typer.Option(min=1, max=MAX_SERVERS, help="Load processes.", rich_help_panel=_LOAD)
    ] = 1,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_IN_FLIGHT,
            help="Calls in flight, all load processes together. Default: "
            f"{CLOSED_IN_FLIGHT}; with --rate, where it is only a bound, {OPEN_IN_FLIGHT}.",
            show_default=False,
            rich_help_panel=_LOAD,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=MAX_RATE,
            help="Transfers a second, due at times fixed in advance (an open loop), from which latencies "
            "count. Default: a call follows an answer (a closed loop).",
            show_default=False,
            rich_help_panel=_LOAD,
        ),
    ] = None,
    arrivals: Annotated[
        Arrivals, typer.Option(help="With --rate, how calls are spaced.", rich_help_panel=_LOAD)
    ] = Arrivals.POISSON,
    accounts: AccountsOption = 100_000,
    distribution: Annotated[
        Distribution, typer.Option(help="How accounts are chosen.", rich_help_panel=_WHO)
    ] = Distribution.UNIFORM,
    theta: Annotated[
        float,
        typer.Option(min=0.0, max=MAX_THETA, help="Of zipfian: how uneven it is.", rich_help_panel=_WHO),
    ] = 0.99,
    hot_account: Annotated[
        HotAccount | None,
        typer.Option(
            help="One and the same account in every transfer: a merchant on a great day (payee), or payday.",
            show_default=False,
            rich_help_panel=_WHO,
        ),
    ] = None,
    hot_payee: Annotated[
        bool,
        typer.Option("--hot-payee", help="The same as --hot-account payee.", rich_help_panel=_WHO),
    ] = False,
    same_shard: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="Share of transfers within a shard (ids get hash tags). Default: as it happens.",
            show_default=False,
            rich_help_panel=_WHO,
        ),
    ] = None,
    cross_share: Annotated[
        CrossShare,
        typer.Option(help="Which transfers cross shards: as it happens, all, or none.", rich_help_panel=_WHO),
    ] = CrossShare.ANY,
    rejections: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="Share of transfers whose payer has no funds; each must be refused for that.",
            rich_help_panel=_WHO,
        ),
    ] = 0.0,
    seed: SeedOption = 1,
    seconds: SecondsOption = 10.0,
    transfers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_TRANSFERS,
            help="Transfers in a run, in place of --seconds.",
            show_default=False,
            rich_help_panel=_LENGTH,
        ),
    ] = None,
    runs: RunsOption = 5,
    report_folder: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="DIR",
            help="Also write report.json, report.md and pictures there.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure transfers a second, latencies, and CPU microseconds a transfer of each process.

    Starts a local cluster with appendfsync always and opens accounts; or uses one that runs (--routers-at).

    Sends transfers from processes of its own; every outcome is compared with the one it should have.

    Checks that each counted transfer moved money once, and that none was made or lost.
    """
    try:
        settings = BenchSettings(
            shards=shards,
            routers=routers,
            coordinators=coordinators,
            accounts=accounts,
            batch=batch,
            concurrency=concurrency,
            seconds=seconds,
            transfers=transfers,
            runs=runs,
            seed=seed,
            cross_share=cross_share,
            hot_payee=hot_payee,
            archivers=archivers,
            data=data,
            keep=keep,
            clients=clients,
            unary=unary,
            rate=rate,
            arrivals=arrivals,
            distribution=distribution,
            theta=theta,
            hot=hot_account,
            same_shard=same_shard,
            rejections=rejections,
            max_backlog=max_backlog,
            archiver_niceness=archiver_niceness,
            routers_at=tuple(address.strip() for address in routers_at.split(",") if address.strip()),
        )
    except BenchError as error:
        raise typer.BadParameter(str(error)) from None

    def work(progress: Progress) -> Measurement:
        if report_folder is not None:
            report_files.prepare(report_folder)
        measurement = measure(settings, progress)
        if report_folder is not None:
            report_files.write(report_folder, settings, measurement)
            progress(f"the report is in {report_folder}")
        return measurement

    carry_out(
        work,
        lambda console, measurement: report.show(console, settings, measurement),
        lambda measurement: document(settings, measurement),
        as_json=as_json,
    )
