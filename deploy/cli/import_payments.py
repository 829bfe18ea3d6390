"""`tallystick import FILE.csv`: payments from a file."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.options import DataOption, RouterOption
from deploy.importing import (
    COLUMNS,
    MAX_RETRY_SECONDS,
    OPEN_OUTCOMES,
    Importer,
    ImportSettings,
    ImportSummary,
    PaymentsFile,
    opened,
    result_path,
)
from deploy.local import CALL_TIMEOUT_SECONDS, cluster_service, find_routers
from deploy.terminal import Table, doubtful, err, out
from tallystick import Client, LedgerClient
from tallystick.v1 import cluster_pb2

DEFAULT_FUND = "1000"


def add_to(app: typer.Typer) -> None:
    """Adds the command of this module."""
    app.command("import", help=_HELP)(import_file)


# Paragraphs without line breaks of their own: the terminal's width decides.
_HELP = (
    "Carry out the transfers in a CSV file.\n\n"
    f"Columns: {', '.join(COLUMNS)}. The outcome of every row goes to FILE.csv.result.csv beside it; "
    "a bad row does not stop the rest, and a file whose quoting or header is not clear is refused before "
    "anything is sent.\n\n"
    "Running it again changes nothing, also after the file was edited: rows with a final outcome, known by "
    "their transaction_id and content, are not sent again. Of a row that an earlier import sent without "
    "learning its outcome, the ledger is asked first. A row that was refused needs a new id to be tried "
    "again.\n\n"
    "Exit code 1 when the outcome of some row is not known yet: run it again then."
)


def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", exists=True, dir_okay=False, readable=True)],
    *,
    open_accounts: Annotated[
        bool, typer.Option("--open-accounts", help="Open the accounts it meets, and fund those that pay.")
    ] = False,
    fund: Annotated[
        str, typer.Option(metavar="AMOUNT", help="What each payer gets, once, with --open-accounts.")
    ] = DEFAULT_FUND,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="Where the outcomes go, and those of earlier imports are. Default: FILE.csv.result.csv.",
            show_default=False,
        ),
    ] = None,
    retry_seconds: Annotated[
        float,
        typer.Option(
            min=1, max=MAX_RETRY_SECONDS, help="How long to ask again for outcomes that are not known."
        ),
    ] = MAX_RETRY_SECONDS,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Carry out the transfers in a CSV file."""
    settings = ImportSettings(fund if open_accounts else None, retry_seconds)
    summary, seconds = run_import(file, find_routers(router, data), settings, results)
    show_summary(summary, seconds)
    beside = result_path(file.resolve() if file.is_symlink() else file)
    out.print(f"outcome of every row: {results or beside}")
    if summary.open:
        err.print(doubtful(f"{summary.open} rows have no outcome yet"), ": run the same command again")
        raise typer.Exit(1)


def run_import(
    file: Path, addresses: list[str], settings: ImportSettings, results: Path | None = None
) -> tuple[ImportSummary, float]:
    """Imports with a progress bar; the summary, and the seconds it took.

    Ctrl-C, SIGTERM and SIGHUP stop it after what is under way, a second one at once: KeyboardInterrupt.
    """
    with cluster_service(addresses) as service:
        topology = service.GetTopology(cluster_pb2.GetTopologyRequest(), timeout=CALL_TIMEOUT_SECONDS)
    start = time.monotonic()
    with err.progress("importing") as advance:

        def on_progress(so_far: ImportSummary, rows: int) -> None:
            rate = so_far.rows / (time.monotonic() - start)
            advance(so_far.rows, rows, f"{so_far.rows:,} rows, {rate:,.0f}/s")

        def on_stopping() -> None:
            err.print(
                f"stopping: waiting for what is under way, {MAX_RETRY_SECONDS:.0f} s at the most. Once more "
                "stops at once; the next import then finds out about the rest"
            )

        async def run(rows: PaymentsFile, target: Path) -> ImportSummary:
            async with Client(addresses) as client, LedgerClient(addresses) as ledger:
                importer = Importer(client, ledger, topology.cluster_id, settings, on_progress, on_stopping)
                with _cancelled_by(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    return await importer.run(rows, target)

        try:
            with opened(file, results) as (rows, target):
                summary = asyncio.run(run(rows, target))
        except (asyncio.CancelledError, KeyboardInterrupt):
            err.print("stopped: the same command goes on from here")
            raise KeyboardInterrupt from None
    return summary, time.monotonic() - start


@contextmanager
def _cancelled_by(*signals: signal.Signals) -> Iterator[None]:
    """The first of these signals cancels the present task, the second ends everything at once."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def stop() -> None:
        for number in signals:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.default_int_handler)
        if task is not None:
            task.cancel()

    before = {number: signal.getsignal(number) for number in signals}
    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def show_summary(summary: ImportSummary, seconds: float) -> None:
    """Prints how many rows had which outcome."""
    table = Table("outcome", "rows", right={"rows"})
    for outcome, rows in summary.outcomes.most_common():
        table.add_row(doubtful(outcome.name) if outcome in OPEN_OUTCOMES else outcome.name, f"{rows:,}")
    table.add_section()
    table.add_row("all", f"{summary.rows:,}")
    out.table(table)
    known = summary.rows - summary.sent
    out.print(
        f"{summary.sent:,} rows sent, {known:,} known before, in {seconds:.1f} s "
        f"({summary.rows / max(seconds, 1e-9):,.0f} rows/s)"
    )
