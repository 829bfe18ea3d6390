"""`tallystick replay`: every balance, rebuilt from the ledger's first entry.

Reads the ledger's database itself; neither routers nor shards need to run. The same entries give the same
balances, whoever asks and whenever.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.answers import minor_text, show_totals, totals_document
from deploy.cli.completeness import until_text
from deploy.cli.ledger_file import find_ledger
from deploy.cli.options import TIME_HELP, DataOption, JsonOption, LedgerOption, parsed_moment
from deploy.moments import moment_of_ms, moment_text, ms_of
from deploy.terminal import bad, csv_sink, err, out, write_json

if TYPE_CHECKING:
    from shard_node.cluster import Exponents
    from shard_node.ledger.proof import Fold, Replay

EXIT_FINDINGS = 1
_ACCOUNT_COLUMNS = (
    "account_id",
    "currency",
    "balance",
    "available",
    "held",
    "version",
    "state",
    "changed_at",
)


def add_to(app: typer.Typer) -> None:
    """Adds the command of this module."""
    app.command()(replay)


def replay(
    *,
    until: Annotated[
        datetime | None,
        typer.Option(
            parser=parsed_moment,
            metavar="TIME",
            help=f"Up to this moment, included. Default: all there is. {TIME_HELP}",
            show_default=False,
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Every account's balance, as CSV.")] = False,
    as_json: JsonOption = False,
    ledger: LedgerOption = None,
    data: DataOption = None,
) -> None:
    """Rebuild every balance from the ledger's first entry; the sums, or with --csv and --json every account.

    It reads the ledger alone, so it is complete up to the last archived entry of each shard, and says when
    those were. Exit code 1 when entries contradict each other; they are listed. `audit` also compares with
    the shards.
    """
    from deploy.auditor import run_replay  # noqa: PLC0415 - see there

    start = time.monotonic()
    run, exponents = run_replay(find_ledger(ledger, data), None if until is None else ms_of(until))
    seconds = time.monotonic() - start
    complete = _complete_text(run, until)
    if as_json:
        write_json(_document(run, exponents, until))
    elif as_csv:
        writer = csv.DictWriter(csv_sink(), _ACCOUNT_COLUMNS)
        writer.writeheader()
        writer.writerows(_accounts(run.fold, exponents))
        err.print(complete)
    else:
        sums_of = ("customers", "in_flight", "deposits", "withdrawals", "system")
        show_totals(run.fold.totals(), exponents, *sums_of)
        rate = run.fold.entries / max(seconds, 1e-9)
        out.print(
            f"{run.fold.entries:,} entries, {len(run.fold.accounts):,} accounts, in {seconds:.1f} s "
            f"({rate:,.0f} entries/s)"
        )
        out.print(complete)
    findings = run.findings
    for finding in findings.kept:
        err.print(bad("found"), f" {finding}")
    if findings.total:
        err.print(f"{findings.total:,} findings")
        raise typer.Exit(EXIT_FINDINGS)


def _accounts(fold: Fold, exponents: Exponents) -> Iterator[dict[str, Any]]:
    for account_id, account in sorted(fold.accounts.items()):
        yield {
            "account_id": account_id,
            "currency": account.currency,
            "balance": minor_text(account.balance_minor, account.currency, exponents),
            "available": minor_text(account.available_minor, account.currency, exponents),
            "held": minor_text(account.held_minor, account.currency, exponents),
            "version": account.version,
            "state": account.state.name.lower(),
            "changed_at": moment_text(moment_of_ms(account.at_ms)),
        }


def _complete_text(run: Replay, until: datetime | None) -> str:
    """Up to when it is complete. Without the shards that is how far each is archived, but for the past."""
    known_ms = run.complete_until_ms
    if until is not None and known_ms is not None and ms_of(until) <= known_ms:
        return until_text(until)
    ends = [f"{shard} {moment_text(moment_of_ms(ms))}" for shard, ms in sorted(run.archived_until_ms.items())]
    return (
        f"complete up to the last archived entry of each shard ({', '.join(ends) or 'none'}); "
        "what shards did since is not in it"
    )


def _document(run: Replay, exponents: Exponents, until: datetime | None) -> dict[str, Any]:
    fold, until_ms = run.fold, run.complete_until_ms
    return {
        "until": None if until is None else moment_text(until),
        "complete_until": None if until_ms is None else moment_text(moment_of_ms(until_ms)),
        "archived_until": {
            shard_id: moment_text(moment_of_ms(ms)) for shard_id, ms in run.archived_until_ms.items()
        },
        "entries": fold.entries,
        "findings": fold.findings.total,
        "currencies": totals_document(fold.totals(), exponents),
        "accounts": _accounts(fold, exponents),
    }
