"""`tallystick audit` and `check` against a cluster of their own, whose ledger they may damage."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner, Result

from deploy import auditor
from deploy.cli import completeness
from deploy.cli.audit import SHOWN_IN_FLIGHT, show_report
from deploy.cli.completeness import TICK
from deploy.cli.main import app
from deploy.demo.faults import FAULTS, Fault, changing, copy_ledger
from deploy.demo.ledger import wait_until_archived
from deploy.local.launcher import ClusterSpec, LocalCluster
from deploy.local.ledger_url import FILE_NAME
from deploy.moments import parse_moment
from shard_node.contract.kinds import Kind
from shard_node.errors import LedgerUnavailableError
from shard_node.ledger.proof.audit import Audit, AuditProgress, AuditReport, InFlight
from shard_node.ledger.proof.findings import Rule
from tallystick import SyncClient, Transfer
from tests.exponents import EXPONENTS

pytestmark = pytest.mark.cluster

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two shards, some history, all of it archived."""
    with LocalCluster(tmp_path_factory.mktemp("audit") / "data", ClusterSpec(shards=2)) as started:
        with SyncClient(started.router_addresses) as client:
            for name in ("ann", "bob", "eve", "shop"):
                client.open_account(name, "EUR")
            client.deposit("ann", "100.00", "EUR")
            client.purchase("ann", "shop", "30.00", "EUR")
            for payee in ("bob", "eve", "shop"):
                client.transfer("ann", payee, "5.00", "EUR")
            client.hold("ann", "2.00", "EUR")
        wait_until_archived(started.router_addresses)
        yield started


def _run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def _json(*arguments: str, exit_code: int = 0) -> Any:
    result = _run(*arguments, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def test_a_sound_ledger_passes(own: LocalCluster) -> None:
    """With the sums; by the data folder, or by the two addresses."""
    report = _json("audit", "--data", str(own.data))
    assert report["consistent"] is True
    assert report["findings"] == []
    assert report["entries"] == 4 + 2 + 2 + 6 + 1
    assert report["currencies"]["EUR"]["customers"] == "100.00"
    named = ("--ledger", own.ledger_url, "--zookeeper", own.zookeeper_address)
    assert _json("audit", *named)["entries"] == report["entries"]
    shown = _run("audit", "--data", str(own.data))
    assert shown.exit_code == 0
    assert "consistent: 15 entries" in shown.stdout


def test_the_quick_check_passes(own: LocalCluster) -> None:
    """By a router; it says how much it compared."""
    report = _json("check", "--data", str(own.data))
    assert report["consistent"] is True
    assert report["entries_archived"] == 15
    assert report["accounts_checked"] >= 4
    assert "consistent" in _run("check", "--data", str(own.data)).stdout


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.told)
def test_a_copy_with_a_fault_does_not_pass(fault: Fault, own: LocalCluster, tmp_path: Path) -> None:
    """Exit code 1, and each finding names the broken rule and the row."""
    copy = tmp_path / "copy.db"
    copy_ledger(own.data / FILE_NAME, copy)
    with changing(copy) as connection:
        fault.plant(connection, "ann")
    where = ("--ledger", f"sqlite:///{copy}", "--data", str(own.data))
    report = _json("audit", *where, exit_code=1)
    assert report["consistent"] is False
    assert {rule.value for rule in fault.rules} <= {finding["rule"] for finding in report["findings"]}
    assert all(finding["message"] for finding in report["findings"])
    shown = _run("audit", *where)
    assert shown.exit_code == 1
    assert shown.stdout.count("found ") == report["findings_total"]
    assert "NOT consistent" in shown.stdout


def test_the_quick_check_finds_a_balance_that_is_not_live(own: LocalCluster) -> None:
    """In the ledger that routers read; exit code 1 as long as it is there."""
    raising = "UPDATE entries SET balance = balance + ? WHERE account_id = 'bob' AND version = 1"

    def change(minor: int) -> None:
        with closing(sqlite3.connect(own.data / FILE_NAME)) as ledger, ledger:
            assert ledger.execute(raising, (minor,)).rowcount == 1

    change(1)
    try:
        report = _json("check", "--data", str(own.data), exit_code=1)
        assert "bob" in {finding["account_id"] for finding in report["findings"]}
        assert "bob" in _run("check", "--data", str(own.data)).stdout
    finally:
        change(-1)
    assert _json("check", "--data", str(own.data))["consistent"] is True


class _Cut:
    """An audit that finds something, or nothing, and then gets no answer."""

    def __init__(self, *, found: bool) -> None:
        self.report = AuditReport()
        self._found = found

    async def run(self) -> AsyncIterator[AuditProgress]:
        """One step, and the error."""
        yield AuditProgress("replay", 1, 2)
        if self._found:
            self.report.findings.add(Rule.CHAIN, "batch 3 is not what was sealed")
        raise LedgerUnavailableError("the ledger went away")


def test_what_was_found_before_an_error_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Findings and exit code 1, though the audit did not come to its end; without any nothing is known."""
    ledger = tmp_path / FILE_NAME
    ledger.touch()
    where = ("audit", "--ledger", f"sqlite:///{ledger}", "--zookeeper", "127.0.0.1:1")
    cut = [_Cut(found=True), _Cut(found=True), _Cut(found=False)]

    def run_audit(*_: str) -> AuditReport:
        return asyncio.run(auditor.complete(cast("Audit", cut.pop(0)), lambda _: None))

    monkeypatch.setattr(auditor, "run_audit", run_audit)
    report = _json(*where, exit_code=1)
    assert report["findings"][0]["message"] == "batch 3 is not what was sealed"
    assert report["ended_by"] == "the ledger went away"
    shown = _run(*where)
    assert shown.exit_code == 1
    assert "found chain: batch 3 is not what was sealed" in shown.stdout
    assert "the ledger went away" in shown.stderr
    assert _json(*where, exit_code=2)["error"] == "not known: the ledger went away"


def test_what_is_in_flight_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Each transaction with its amount and whom it waits for; more than a screen takes are counted."""
    one = InFlight("0192e4a6-7c5e", int(Kind.TRANSFER), {"EUR": 1250}, 0, ("bob",))
    count = SHOWN_IN_FLIGHT + 1
    report = AuditReport(exponents=EXPONENTS, in_flight=[one] * count, in_flight_total=count)
    show_report(report, 1.0)
    shown = capsys.readouterr().out
    assert shown.count("12.50 EUR") == SHOWN_IN_FLIGHT
    assert "bob" in shown
    assert "and 1 more in flight" in shown
    assert f"{SHOWN_IN_FLIGHT + 1} in flight" in shown


def _answers_end_early(data: str) -> None:
    """Whoever asks beyond what is archived gets what is certain, hears which shard lags, and exit code 2."""
    for command in (["statement", "bob"], ["balance-at", "bob", "now"], ["history", "bob"]):
        result = _run(*command, "--wait", "0s", "--data", data)
        assert result.exit_code == 2, result.output
        # Not within a time.
        amounts = re.findall(r"(?<![\d:.])\d+\.\d\d\b", result.stdout)
        assert "5.00" in amounts
        assert "5.50" not in amounts
        assert "complete up to" in result.stdout
        assert "entries that are not archived yet" in " ".join(result.stderr.split())
    made = _json("statement", "bob", "--wait", "0s", "--data", data, exit_code=2)
    # It ends where all is certain, not at a moment of which it is not known what happened before.
    assert made["closing"]["balance"] == "5.00"
    assert parse_moment(made["to"], _NOW) == parse_moment(made["complete_until"], _NOW) + TICK
    as_csv = _run("statement", "bob", "--csv", "--wait", "0s", "--data", data)
    assert as_csv.exit_code == 2
    assert list(csv.DictReader(io.StringIO(as_csv.stdout)))[-1]["time"] == made["to"]
    assert made["complete_until"] in as_csv.stderr
    with SyncClient(LocalCluster(Path(data)).router_addresses) as client:
        client.open_account("new", "EUR")
    unknown = _run("history", "new", "--wait", "0s", "--data", data)
    assert unknown.exit_code == 2
    assert "account not found" in unknown.stderr
    assert "complete up to the last archived entry of each shard" in _run("replay", "--data", data).stdout


def _checks_have_a_limit(data: str, waiting: int) -> None:
    """Whoever lets more wait than is said to be much calls nothing consistent."""
    passed = _run("check", "--max-backlog", str(waiting), "--data", data)
    assert passed.exit_code == 0, passed.output
    assert f"{waiting} waiting (the oldest for" in passed.stdout
    failed = _run("check", "--max-backlog", str(waiting - 1), "--data", data)
    assert failed.exit_code == 2
    assert "not known: too many entries wait" in failed.stdout
    limit = ("--max-backlog", str(waiting - 1))
    assert _json("check", *limit, "--data", data, exit_code=2)["consistent"] is None


def test_what_waits_for_a_dead_archiver_is_audited_too(
    own: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transfers go on without it; status counts what waits, the audit reads it; a restart archives it."""
    monkeypatch.setattr(completeness, "LEAST_SECONDS", 0.2)
    _run("statement", "bob", "--data", str(own.data))
    own.kill("archiver-0")
    with SyncClient(own.router_addresses) as client:
        client.transfers([Transfer("ann", "bob", "0.01", "EUR") for _ in range(50)])
    shards = _json("status", "--data", str(own.data), exit_code=1)["shards"]
    assert sum(shard["backlog"]["entries_waiting"] for shard in shards) == 100
    report = _json("audit", "--data", str(own.data))
    assert (report["consistent"], report["entries_waiting"]) == (True, 100)
    assert parse_moment(report["complete_until"], _NOW) > parse_moment("2026-01-01", _NOW)
    _answers_end_early(str(own.data))
    _checks_have_a_limit(str(own.data), 101)
    own.restart("archiver-0")
    assert _json("statement", "bob", "--wait", "30s", "--data", str(own.data))["closing"]["balance"] == "5.50"
    report = _json("audit", "--data", str(own.data))
    assert (report["consistent"], report["entries_waiting"], report["entries"]) == (True, 0, 116)


def test_what_cannot_be_asked_is_not_known(own: LocalCluster, tmp_path: Path) -> None:
    """Exit code 2: no cluster, no ledger, no ZooKeeper. Neither consistent nor broken."""
    for arguments in (
        ("audit", "--data", str(tmp_path)),
        ("audit", "--ledger", f"sqlite:///{tmp_path}/none.db", "--data", str(own.data)),
        ("audit", "--ledger", own.ledger_url, "--data", str(tmp_path)),
        ("check", "--data", str(tmp_path)),
    ):
        answer = _json(*arguments, exit_code=2)
        assert answer["consistent"] is None
        assert answer["error"]
        assert "not known" in _run(*arguments).stderr
