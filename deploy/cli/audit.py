"""`tallystick audit` and `check`: whether the ledger is whole, true, and what the shards have.

Exit codes of both: 0 consistent, 1 something differs (each finding names its rows), 2 not known, because a
part did not answer and nothing was found before.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.answers import document, minor_text, show_totals, totals_document
from deploy.cli.completeness import EXIT_NOT_KNOWN, until_document, until_text
from deploy.cli.ledger_file import find_ledger
from deploy.cli.options import Asking, DataOption, JsonOption, LedgerOption, with_options
from deploy.errors import NoClusterError
from deploy.local import DEFAULT_DATA, cluster_file, ledger_client
from deploy.moments import moment_of_ms, ms_of
from deploy.terminal import Styled, Table, bad, doubtful, err, good, not_known, out, write_json
from shard_node.contract import Kind
from tallystick.ledger import Finding as ToldFinding

if TYPE_CHECKING:
    from shard_node.ledger.proof import AuditReport, InFlight
    from tallystick.ledger import ConsistencyReport

EXIT_CONSISTENT, EXIT_DIFFERS = 0, 1
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

    with not_known("consistent"):
        url = find_ledger(ledger, data)
        hosts = _zookeeper_of(data) if zookeeper is None else zookeeper
        start = time.monotonic()
        report = run_audit(url, hosts)
        seconds = time.monotonic() - start
    if report.ended_by:
        err.print(bad("error:"), f" ended early, more may differ: {report.ended_by}")
    if as_json:
        write_json(_report_document(report, seconds))
    else:
        show_report(report, seconds)
    raise typer.Exit(EXIT_CONSISTENT if report.consistent else EXIT_DIFFERS)


@with_options
def check(
    asking: Asking,
    *,
    max_backlog: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="ENTRIES",
            help="When more entries wait to be archived, the ledger is too far behind to be called "
            "consistent. Default: 10,000.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """The same as a quick check by a router: chain ends, the newest entries, every live account.

    What lies further back is for `audit`. Exit codes as there; 2 also when too many entries wait.
    """
    with (
        not_known("consistent"),
        ledger_client(asking.router, asking.data) as client,
        err.progress("comparing accounts") as advance,
    ):
        report = client.consistency_check(
            lambda checked, total: advance(checked, total, f"{checked:,} of {total:,}"),
            max_backlog=max_backlog or 0,
        )
    too_far_behind = not report.consistent and not report.findings_total
    verdict = (
        doubtful("not known: too many entries wait")
        if too_far_behind
        else _verdict(consistent=report.consistent)
    )
    if asking.as_json:
        consistent = None if too_far_behind else report.consistent
        until = until_document(report.complete_until)
        write_json(asdict(report) | {"consistent": consistent, "complete_until": until})
    else:
        _show_findings([_text_of(finding) for finding in report.findings], report.findings_total)
        out.print(
            verdict,
            f": {report.accounts_checked:,} accounts, "
            f"{report.entries_archived:,} entries archived, {report.entries_waiting:,} waiting"
            f"{_age(report)}, {report.in_flight:,} in flight; the archive is "
            f"{until_text(report.complete_until)}",
        )
    if too_far_behind:
        raise typer.Exit(EXIT_NOT_KNOWN)
    raise typer.Exit(EXIT_CONSISTENT if report.consistent else EXIT_DIFFERS)


def show_report(report: AuditReport, seconds: float) -> None:
    """Prints what an audit found."""
    sums_of = ("customers", "in_flight", "deposits", "withdrawals")
    show_totals(report.currencies, report.exponents, *sums_of)
    if report.in_flight_total:
        _show_in_flight(report)
    show_findings(report)
    rate = report.entries / max(seconds, 1e-9)
    out.print(
        _verdict(consistent=report.consistent),
        f": {report.entries:,} entries in {report.batches:,} batches "
        f"({report.entries_waiting:,} not archived yet), {report.live_accounts:,} live accounts, "
        f"{report.in_flight_total:,} in flight; {until_text(_moment(report.complete_until_ms))}; "
        f"{seconds:.1f} s ({rate:,.0f} entries/s)",
    )


def show_findings(report: AuditReport, limit: int | None = None) -> None:
    """Prints findings, a line each, ``limit`` of them if not all."""
    _show_findings([str(finding) for finding in report.findings.kept[:limit]], report.findings.total)


def _show_findings(findings: list[str], total: int) -> None:
    for finding in findings:
        out.print(bad("found"), f" {finding}")
    if total > len(findings):
        out.print(bad(f"and {total - len(findings):,} more"))


def _show_in_flight(report: AuditReport) -> None:
    table = Table(
        "in flight",
        "kind",
        "amount",
        "age s",
        "waits for",
        right={"amount", "age s"},
        folds={"in flight", "waits for"},
    )
    for one in report.in_flight[:SHOWN_IN_FLIGHT]:
        amounts = ", ".join(
            f"{minor_text(minor, code, report.exponents)} {code}" for code, minor in one.sums_minor.items()
        )
        age = (ms_of(datetime.now(UTC)) - one.since_ms) / 1000
        table.add_row(one.transaction_id, _kind(one), amounts, f"{age:.1f}", ", ".join(one.accounts))
    out.table(table)
    if report.in_flight_total > SHOWN_IN_FLIGHT:
        out.print(f"and {report.in_flight_total - SHOWN_IN_FLIGHT:,} more in flight")


def _verdict(*, consistent: bool) -> Styled:
    return good("consistent") if consistent else bad("NOT consistent")


def _zookeeper_of(data: Path | None) -> str:
    folder = data or DEFAULT_DATA
    record = cluster_file.read(folder)
    if record is None or not cluster_file.living(folder, record):
        raise NoClusterError(
            f"no cluster runs in {folder}: start it with 'tallystick up --data {folder}', or name its "
            f"ZooKeeper with --zookeeper; 'tallystick replay' needs no running cluster"
        )
    return record.zookeeper


def _age(report: ConsistencyReport) -> str:
    """For how long the oldest entry has waited: because of it the archive is not complete up to now."""
    if not report.entries_waiting or report.complete_until is None:
        return ""
    return f" (the oldest for {(datetime.now(UTC) - report.complete_until).total_seconds():,.0f} s)"


def _moment(ms: int | None) -> datetime | None:
    return None if ms is None else moment_of_ms(ms)


def _kind(one: InFlight) -> str:
    return Kind(one.kind).name.lower() if one.kind in Kind.__members__.values() else str(one.kind)


def _report_document(report: AuditReport, seconds: float) -> dict[str, Any]:
    return {
        "consistent": report.consistent,
        "ended_by": report.ended_by or None,
        "findings_total": report.findings.total,
        "findings": [document(finding) for finding in report.findings.kept],
        **document(report, "entries", "entries_waiting", "batches", "accounts", "live_accounts"),
        "complete_until": until_document(_moment(report.complete_until_ms)),
        "seconds": round(seconds, 3),
        "currencies": totals_document(report.currencies, report.exponents),
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


def _text_of(finding: ToldFinding) -> str:
    places = (finding.shard_id, finding.account_id, finding.transaction_id)
    return f"{finding.rule}: {finding.message} ({', '.join(filter(None, places))})"
