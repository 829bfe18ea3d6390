"""`tallystick import FILE.csv`: payments from a file."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from deploy.connection import CALL_TIMEOUT_SECONDS, cluster_service, find_routers
from deploy.importer import Importer, ImportSettings, ImportSummary
from deploy.options import DataOption, RouterOption
from deploy.payments_file import COLUMNS
from deploy.rendering import Table, doubtful, err, out
from deploy.results_file import OPEN_OUTCOMES, result_path
from tallystick import Client
from tallystick.v1 import cluster_pb2

DEFAULT_FUND = "1000"


def add_to(app: typer.Typer) -> None:
    """Adds the command of this module."""
    app.command("import", help=_HELP)(import_file)


# Paragraphs without line breaks of their own: the terminal's width decides.
_HELP = (
    "Carry out the transfers in a CSV file.\n\n"
    f"Columns: {', '.join(COLUMNS)}. The outcome of every row goes to FILE.result.csv beside it; "
    "a bad row does not stop the rest.\n\n"
    "Running it again changes nothing: rows with a final outcome are not sent again, others are sent with "
    "the same id. Exit code 1 when the outcome of some row is not known yet: run it again then."
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
    resend: Annotated[
        bool, typer.Option("--resend", help="Send also rows whose outcome the result file knows.")
    ] = False,
    retry_seconds: Annotated[
        float, typer.Option(min=1, help="How long to ask again for outcomes that are not known.")
    ] = 60.0,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Carry out the transfers in a CSV file."""
    settings = ImportSettings(fund if open_accounts else None, resend, retry_seconds)
    summary, seconds = run_import(file, find_routers(router, data), settings)
    show_summary(summary, seconds)
    out.print(f"outcome of every row: {result_path(file)}")
    if summary.open:
        err.print(doubtful(f"{summary.open} rows have no outcome yet"), ": run the same command again")
        raise typer.Exit(1)


def run_import(file: Path, addresses: list[str], settings: ImportSettings) -> tuple[ImportSummary, float]:
    """Imports with a progress bar; the summary, and the seconds it took."""
    with cluster_service(addresses) as service:
        topology = service.GetTopology(cluster_pb2.GetTopologyRequest(), timeout=CALL_TIMEOUT_SECONDS)
    start, size = time.monotonic(), file.stat().st_size
    with err.progress("importing") as advance:

        def on_progress(so_far: ImportSummary, bytes_read: int) -> None:
            rate = so_far.rows / (time.monotonic() - start)
            advance(bytes_read, size, f"{so_far.rows} rows, {rate:,.0f}/s")

        async def run() -> ImportSummary:
            async with Client(addresses) as client:
                return await Importer(client, topology.cluster_id, settings, on_progress).run(file)

        summary = asyncio.run(run())
    return summary, time.monotonic() - start


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
