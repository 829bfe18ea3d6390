"""The commands against a real cluster."""

from __future__ import annotations

import json
import re
import time
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli.main import app
from deploy.demo.payments import Kind, PaymentsGenerator, expected_outcomes, write_payments
from deploy.importing.results_file import read_results, result_path
from deploy.local.launcher import LocalCluster
from tallystick import SyncClient, new_transaction_id

pytestmark = pytest.mark.cluster


@pytest.fixture
def data(cluster: LocalCluster) -> str:
    """The running cluster's folder, as it is typed."""
    return str(cluster.data)


def _ok(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def _rows_sent(*arguments: str) -> int:
    found = re.search(r"([\d,]+) rows sent", _ok(*arguments))
    assert found is not None
    return int(found[1].replace(",", ""))


def _refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 1, result.output
    return " ".join(result.stderr.split())


def test_money_comes_in_moves_and_goes_out(data: str) -> None:
    """Open, deposit, transfer, withdraw, show: each says what stands afterwards."""
    for account in ("cli-alice", "cli-bob"):
        assert account in _ok("account", "open", account, "EUR", "--data", data)
    assert "cli-alice: 10.50 EUR" in _ok("account", "deposit", "cli-alice", "10.50", "EUR", "--data", data)
    moved = _ok("transfer", "cli-alice", "cli-bob", "3.25", "EUR", "--reference", "lunch", "--data", data)
    assert "COMMITTED" in moved
    assert "cli-alice: 7.25 EUR" in moved
    assert "cli-bob: 3.25 EUR" in moved
    assert "cli-bob: 3.00 EUR" in _ok("account", "withdraw", "cli-bob", "0.25", "EUR", "--data", data)
    shown = _ok("account", "show", "cli-alice", "cli-bob", "--data", data)
    assert "7.25" in shown
    assert "3.00" in shown


def test_accounts_are_listed(data: str) -> None:
    """All whose id begins so, as `account show` shows them; a list that was cut says so."""
    names = [f"cli-list-{letter}" for letter in "abc"]
    for name in names:
        _ok("account", "open", name, "EUR", "--data", data)
    command = ("account", "list", "--prefix", "cli-list-", "--data", data)
    shown = _ok(*command)
    assert all(name in shown for name in names)
    assert "there are more than 2" in _ok(*command, "--limit", "2")
    assert json.loads(_ok(*command, "--limit", "2", "--json"))["more"] is True
    document = json.loads(_ok(*command, "--json"))
    one_by_one = json.loads(_ok("account", "show", *names, "--json", "--data", data))["accounts"]
    assert document["more"] is False
    assert sorted(document["accounts"], key=lambda account: str(account["account_id"])) == one_by_one
    assert _ok("account", "list", "--prefix", "cli-no-such", "--data", data) == "no accounts\n"


def test_a_transfer_repeated_by_its_id_moves_nothing(data: str) -> None:
    """The id of an earlier try makes a second one safe."""
    for account in ("cli-carol", "cli-dave"):
        _ok("account", "open", account, "EUR", "--data", data)
    _ok("account", "deposit", "cli-carol", "5", "EUR", "--data", data)
    identity = new_transaction_id()
    for _ in range(2):
        command = ("transfer", "cli-carol", "cli-dave", "2", "EUR", "--transaction-id", identity)
        assert identity in _ok(*command, "--data", data)
    assert "3.00" in _ok("account", "show", "cli-carol", "--data", data)


def test_refusals_are_sentences(data: str) -> None:
    """With the reason, and exit code 1."""
    for account in ("cli-erin", "cli-frank"):
        _ok("account", "open", account, "EUR", "--data", data)
    assert "insufficient funds" in _refused("transfer", "cli-erin", "cli-frank", "1", "EUR", "--data", data)
    assert "not found" in _refused("transfer", "cli-erin", "cli-nobody", "1", "EUR", "--data", data)
    assert "decimals" in _refused("account", "deposit", "cli-erin", "1.234", "EUR", "--data", data)
    assert "other attributes" in _refused("account", "open", "cli-erin", "USD", "--data", data)
    assert "cli-nobody" in _refused("account", "show", "cli-nobody", "cli-erin", "--data", data)


def test_status_shows_shards_and_members(cluster: LocalCluster, data: str) -> None:
    """Three shards own all slots; every process is there under its name."""
    document = json.loads(_ok("status", "--json", "--data", data))
    assert sum(shard["slot_count"] for shard in document["shards"]) == 16384
    assert {shard["primary"] for shard in document["shards"]} == set(cluster.shard_addresses.values())
    assert document["verdict"] == "well"
    pids = {part["name"]: part["pid"] for part in document["parts"] if part["state"] == "present"}
    assert pids == {name: cluster.pid(name) for name in cluster.names}
    assert "shard-2" in _ok("status", "--router", cluster.router_addresses[0])


def test_a_payments_file_is_imported_and_importing_it_again_changes_nothing(
    cluster: LocalCluster, data: str, tmp_path: Path
) -> None:
    """Every kind of row ends as it must; a second and a third run leave every account as it was."""
    file = tmp_path / "payments.csv"
    kinds = write_payments(file, PaymentsGenerator(11, time.time_ns() // 1_000_000).payments(2500))
    expected = expected_outcomes(kinds)
    # A row that comes again may be known by then.
    all_but_repeated = range(2500 - kinds[Kind.REPEATED], 2501)
    assert _rows_sent("import", str(file), "--open-accounts", "--data", data) in all_but_repeated
    results = [result for result in read_results(result_path(file)) if result.number is not None]
    assert [result.number for result in results] == list(range(1, 2501))
    assert {o: sum(r.outcome is o for r in results) for o in expected} == dict(expected)
    accounts = sorted({result.instruction.from_account for result in results})
    with SyncClient(cluster.router_addresses) as client:
        before = client.get_accounts(accounts)
        assert "0 rows sent" in _ok("import", str(file), "--open-accounts", "--data", data)
        elsewhere = tmp_path / "again.csv"
        again = ("import", str(file), "--open-accounts", "--results", str(elsewhere), "--data", data)
        assert _rows_sent(*again) in all_but_repeated
        assert client.get_accounts(accounts) == before
    outcomes = {result.number: result.outcome for result in results}
    assert {r.number: r.outcome for r in read_results(elsewhere) if r.number is not None} == outcomes
    assert sum(r.account.available for r in before if r.account) != Decimal(0)


def test_verify_balances_what_the_tests_moved(data: str) -> None:
    """The real audit through the real command."""
    answer = json.loads(_ok("verify", "--json", "--data", data))
    assert answer["verdict"] == "balanced"
    assert answer["accounts"] > 0
    assert "balanced" in _ok("verify", "--data", data)


def test_in_doubt_is_empty_when_nothing_is_old(data: str) -> None:
    """Nothing has been in doubt for an hour."""
    assert "nothing is in doubt" in _ok("in-doubt", "--min-age", "3600", "--data", data)
    assert json.loads(_ok("in-doubt", "--min-age", "3600", "--json", "--data", data))["transfers"] == []
