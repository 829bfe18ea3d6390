"""`tallystick audit` and `check`: whether the ledger is whole, true, and what the shards have.

Exit codes of both: 0 consistent, 1 something differs (each finding names its rows), 2 not known, because a
part did not answer and nothing was found before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from deploy import cluster_file
from deploy.answers import minor_text, print_json
from deploy.connection import DEFAULT_DATA, ledger_client
from deploy.errors import NoClusterError
from deploy.ledger_file import find_ledger
from deploy.moments import ms_of
from deploy.options import DataOption, JsonOption, LedgerOption, RouterOption, err, out
from shard_node.errors import ShardNodeError
from shard_node.transfers import Kind
from tallystick import TallystickError
from tallystick.ledger import Finding as ToldFinding

if TYPE_CHECKING:
    from shard_node.ledger.audit import AuditReport, InFlight
    from shard_node.ledger.findings import Finding

EXIT_CONSISTENT, EXIT_DIFFERS, EXIT_NOT_KNOWN = 0, 1, 2
# What a screen takes; --json has all that was kept.
SHOWN_IN_FLIGHT = 20

_ZookeeperOption = Annotated[
    str | None,
    typer.Option(
        "--zookeeper",
        metavar="HOST:PORT[,...]",
        help="Names the shards to compare with. Default: that of --data.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command()(audit)
    app.command()(check)


def audit(
    *,
    as_json: JsonOption = False,
    ledger: LedgerOption = None,
    zookeeper: _ZookeeperOption = None,
    data: DataOption = None,
) -> None:
    """Replay the ledger from its first entry, and compare it with every live account. Transfers may run.

    Checks the chain of hashes and its end; that no version is missing and every balance follows from the one
    before; that every transaction's legs are there and sum to zero; that customers have what was deposited
    less what was withdrawn.

    Exit code 0: consistent. 1: something differs; every finding is listed. 2: not known, because a part of
    the cluster did not answer, and nothing was found before.
    """
    from deploy.auditor import run_audit  # noqa: PLC0415 - see there

    with _unknown_is_two(as_json=as_json):
        url = find_ledger(ledger, data)
        hosts = _zookeeper_of(data) if zookeeper is None else zookeeper
        start = time.monotonic()
        report = run_audit(url, hosts)
        seconds = time.monotonic() - start
    if report.ended_by:
        err.print(
            f"[bold red]error:[/] ended early, more may differ: {escape(report.ended_by)}", soft_wrap=True
        )
    if as_json:
        print_json(_report_document(report, seconds))
    else:
        show_report(report, seconds)
    raise typer.Exit(EXIT_CONSISTENT if report.consistent else EXIT_DIFFERS)


def check(*, as_json: JsonOption = False, router: RouterOption = None, data: DataOption = None) -> None:
    """The same as a quick check by a router: chain ends, the newest entries, every live account.

    What lies further back is for `audit`. Exit codes as there.
    """
    columns = (TextColumn("comparing accounts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        _unknown_is_two(as_json=as_json),
        ledger_client(router, data) as client,
        Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar,
    ):
        task = bar.add_task("check", total=None)
        report = client.consistency_check(
            lambda checked, total: bar.update(task, completed=checked, total=total)
        )
    if as_json:
        print_json(asdict(report))
    else:
        _show_findings([_text_of(finding) for finding in report.findings], report.findings_total)
        out.print(
            f"{_verdict(consistent=report.consistent)}: {report.accounts_checked:,} accounts, "
            f"{report.entries_archived:,} entries archived, {report.entries_waiting:,} waiting, "
            f"{report.in_flight:,} in flight",
            highlight=False,
            soft_wrap=True,
        )
    raise typer.Exit(EXIT_CONSISTENT if report.consistent else EXIT_DIFFERS)


def show_report(report: AuditReport, seconds: float) -> None:
    """Prints what an audit found."""
    table = Table("currency", "accounts", "customers", "in flight", "deposits", "withdrawals")
    for column in table.columns[1:]:
        column.justify = "right"
    for currency, sums in sorted(report.currencies.items()):
        amounts = (sums.customers_minor, sums.in_flight_minor, sums.deposits_minor, sums.withdrawals_minor)
        table.add_row(
            currency,
            f"{sums.accounts:,}",
            *(minor_text(minor, currency, report.exponents) for minor in amounts),
        )
    out.print(table)
    if report.in_flight_total:
        _show_in_flight(report)
    show_findings(report)
    rate = report.entries / max(seconds, 1e-9)
    out.print(
        f"{_verdict(consistent=report.consistent)}: {report.entries:,} entries in {report.batches:,} batches "
        f"({report.entries_waiting:,} not archived yet), {report.live_accounts:,} live accounts, "
        f"{report.in_flight_total:,} in flight; {seconds:.1f} s ({rate:,.0f} entries/s)",
        highlight=False,
        soft_wrap=True,
    )


def show_findings(report: AuditReport, limit: int | None = None) -> None:
    """Prints findings, a line each, ``limit`` of them if not all."""
    _show_findings([str(finding) for finding in report.findings.kept[:limit]], report.findings.total)


def _show_findings(findings: list[str], total: int) -> None:
    for finding in findings:
        out.print(f"[bold red]found[/] {escape(finding)}", highlight=False, soft_wrap=True)
    if total > len(findings):
        out.print(f"[bold red]and {total - len(findings):,} more[/]", highlight=False)


def _show_in_flight(report: AuditReport) -> None:
    table = Table("in flight", "kind", "amount", "age s", "waits for")
    table.columns[2].justify = table.columns[3].justify = "right"
    for one in report.in_flight[:SHOWN_IN_FLIGHT]:
        amounts = ", ".join(
            f"{minor_text(minor, code, report.exponents)} {code}" for code, minor in one.sums_minor.items()
        )
        age = (ms_of(datetime.now(UTC)) - one.since_ms) / 1000
        table.add_row(one.transaction_id, _kind(one), amounts, f"{age:.1f}", escape(", ".join(one.accounts)))
    out.print(table)
    if report.in_flight_total > SHOWN_IN_FLIGHT:
        out.print(f"and {report.in_flight_total - SHOWN_IN_FLIGHT:,} more in flight", highlight=False)


def _verdict(*, consistent: bool) -> str:
    return "[bold green]consistent[/]" if consistent else "[bold red]NOT consistent[/]"


def _zookeeper_of(data: Path | None) -> str:
    folder = data or DEFAULT_DATA
    record = cluster_file.read(folder)
    if record is None or not any(process.is_alive() for process in record.processes):
        raise NoClusterError(
            f"no cluster runs in {folder}: start it with 'tallystick up --data {folder}', or name its "
            f"ZooKeeper with --zookeeper; 'tallystick replay' needs no running cluster"
        )
    return record.zookeeper


@contextmanager
def _unknown_is_two(*, as_json: bool) -> Iterator[None]:
    """A part that does not answer proves nothing: neither that all is well nor that it is not."""
    try:
        yield
    except (NoClusterError, ShardNodeError, TallystickError) as error:
        reason = str(error)
        if as_json:
            print_json({"consistent": None, "reason": reason})
        err.print(f"[bold red]error:[/] not known: {escape(reason)}", soft_wrap=True)
        raise typer.Exit(EXIT_NOT_KNOWN) from error


def _kind(one: InFlight) -> str:
    return Kind(one.kind).name.lower() if one.kind in Kind.__members__.values() else str(one.kind)


def _report_document(report: AuditReport, seconds: float) -> dict[str, Any]:
    return {
        "consistent": report.consistent,
        "ended_by": report.ended_by or None,
        "findings_total": report.findings.total,
        "findings": [_finding_document(finding) for finding in report.findings.kept],
        "entries": report.entries,
        "entries_waiting": report.entries_waiting,
        "batches": report.batches,
        "accounts": report.accounts,
        "live_accounts": report.live_accounts,
        "seconds": round(seconds, 3),
        "currencies": {
            currency: {
                "accounts": sums.accounts,
                "customers": minor_text(sums.customers_minor, currency, report.exponents),
                "in_flight": minor_text(sums.in_flight_minor, currency, report.exponents),
                "deposits": minor_text(sums.deposits_minor, currency, report.exponents),
                "withdrawals": minor_text(sums.withdrawals_minor, currency, report.exponents),
                "system": minor_text(sums.system_minor, currency, report.exponents),
            }
            for currency, sums in sorted(report.currencies.items())
        },
        "in_flight_total": report.in_flight_total,
        "in_flight": [
            {
                "transaction_id": one.transaction_id,
                "kind": _kind(one),
                "amounts": {
                    code: minor_text(minor, code, report.exponents) for code, minor in one.sums_minor.items()
                },
                "since_ms": one.since_ms,
                "accounts": list(one.accounts),
            }
            for one in report.in_flight
        ],
    }


def _finding_document(finding: Finding) -> dict[str, str]:
    return {
        "rule": finding.rule.value,
        "message": finding.message,
        "shard_id": finding.shard_id,
        "account_id": finding.account_id,
        "transaction_id": finding.transaction_id,
    }


def _text_of(finding: ToldFinding) -> str:
    places = (finding.shard_id, finding.account_id, finding.transaction_id)
    return f"{finding.rule}: {finding.message} ({', '.join(filter(None, places))})"
