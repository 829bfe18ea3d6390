"""`python -m bench`: transfers a second of a local cluster, and CPU microseconds a transfer by process.

Everything runs on this machine, the client included. Exit code 1 when the figures are not worth printing.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from bench import report
from bench.client import LONGEST_RUN_SECONDS
from bench.errors import BenchError
from bench.measure import BenchSettings, measure
from bench.workload import CrossShare
from deploy.errors import DeployError
from shard_node.limits import MAX_BATCH

_INTERRUPTED = 130
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Bounds of what one machine holds: a shard keeps some 500 bytes a transfer in memory. Ids have six digits.
_MAX_ACCOUNTS = 1_000_000
_MAX_TRANSFERS = 20_000_000
_MAX_SERVERS = 64
_MAX_RUNS = 100
_MAX_IN_FLIGHT = 256


def main(  # noqa: PLR0913 -- a parameter an option
    *,
    shards: Annotated[int, typer.Option(min=1, max=_MAX_SERVERS, help="Redis shards.")] = 2,
    routers: Annotated[
        int, typer.Option(min=1, max=_MAX_SERVERS, help="Routers; the client uses them in turn.")
    ] = 1,
    coordinators: Annotated[int, typer.Option(min=1, max=_MAX_SERVERS, help="Coordinators.")] = 1,
    accounts: Annotated[
        int, typer.Option(min=2, max=_MAX_ACCOUNTS, help="Accounts, all with a credit line.")
    ] = 100_000,
    batch: Annotated[int, typer.Option(min=1, max=MAX_BATCH, help="Transfers in one BatchTransfer.")] = 1000,
    concurrency: Annotated[
        int, typer.Option(min=1, max=_MAX_IN_FLIGHT, help="Batches in flight at once.")
    ] = 8,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=LONGEST_RUN_SECONDS, help="How long batches are sent in a run.")
    ] = 10.0,
    transfers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=_MAX_TRANSFERS,
            help="Transfers in a run, in place of --seconds.",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, max=_MAX_RUNS, help="Runs; the median counts.")] = 5,
    seed: Annotated[int, typer.Option(help="The same seed draws the same transfers.")] = 1,
    cross_share: Annotated[
        CrossShare,
        typer.Option(help="Which transfers cross shards: as it happens, all, or none (by hash tags)."),
    ] = CrossShare.ANY,
    hot_payee: Annotated[
        bool,
        typer.Option(
            "--hot-payee",
            help="Every transfer pays one and the same account: a merchant on a great day.",
        ),
    ] = False,
    archivers: Annotated[
        int,
        typer.Option(
            min=0, max=_MAX_SERVERS, help="Archivers; with 0 the ledger waits on the shards till the end."
        ),
    ] = 0,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the cluster is kept; stays. Default: a temporary folder, removed at the end.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Do not remove the temporary folder.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One line of JSON on standard output; the tables go to standard error."),
    ] = False,
) -> None:
    """Measure transfers a second, and CPU microseconds a transfer of each process.

    Starts a local cluster with appendfsync always and opens accounts.

    Sends BatchTransfer requests from a client process; every outcome is read.

    Checks that each counted transfer moved money once, and that none was made or lost.
    """
    if hot_payee and cross_share is not CrossShare.ANY:
        raise typer.BadParameter(
            "leave --cross-share at 'any': one payee has one shard", param_hint="--hot-payee"
        )
    settings = BenchSettings(
        shards=shards,
        routers=routers,
        coordinators=coordinators,
        accounts=accounts,
        batch=batch,
        concurrency=concurrency,
        seconds=LONGEST_RUN_SECONDS if transfers else seconds,
        transfers=transfers,
        runs=runs,
        seed=seed,
        cross_share=cross_share,
        hot_payee=hot_payee,
        archivers=archivers,
        data=data,
        keep=keep,
    )
    err = Console(stderr=True)
    for ending in _ENDINGS:
        signal.signal(ending, _interrupt_once)
    try:
        measurement = measure(settings, lambda step: err.print(f"[dim]{step}[/]", highlight=False))
    except (BenchError, DeployError) as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    report.show(err if as_json else Console(), settings, measurement)
    if as_json:
        sys.stdout.write(report.json_line(settings, measurement) + "\n")


def _interrupt_once(*_: object) -> None:
    """What was started is stopped on the way out; a second signal must not cut that short."""
    for ending in _ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    typer.run(main)
