"""`tallystick replay` on a ledger whose balances are known."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deploy.cli.ledger_file import find_ledger
from deploy.cli.main import app
from deploy.local import cluster_file
from deploy.local.cluster_file import ClusterRecord
from deploy.local.ledger_url import FILE_NAME, default_url
from deploy.moments import moment_of_ms, moment_text
from tests.ledger.books import START_MS, Books, fresh_ledger, sample


@pytest.fixture
def books() -> Books:
    """What the ledger in ``data`` holds."""
    return sample()


@pytest.fixture
def data(tmp_path: Path, books: Books) -> Path:
    """The data folder of a cluster that does not run, with a ledger."""
    cluster_file.write(tmp_path, ClusterRecord(2, ports={"zookeeper": 1}))
    engine = fresh_ledger(default_url(tmp_path))
    books.store(engine, batch=4)
    engine.dispose()
    return tmp_path


def _replay(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, ["replay", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def test_every_balance_is_rebuilt_while_nothing_runs(data: Path, books: Books) -> None:
    """As CSV and in JSON, account by account, with what is held."""
    result = _replay("--data", data, "--csv")
    assert result.exit_code == 0, result.output
    rows = {row["account_id"]: row for row in csv.DictReader(io.StringIO(result.stdout))}
    assert rows.keys() == books.accounts.keys()
    for name, model in books.accounts.items():
        assert rows[name]["balance"] == f"{model.balance / 100:.2f}"
        assert rows[name]["held"] == f"{model.held / 100:.2f}"
        assert rows[name]["available"] == f"{(model.balance - model.held) / 100:.2f}"
        assert (rows[name]["version"], rows[name]["state"]) == (str(model.version), model.state.lower())
    document = json.loads(_replay("--ledger", default_url(data), "--json").stdout)
    assert {account["account_id"]: account["balance"] for account in document["accounts"]} == {
        name: row["balance"] for name, row in rows.items()
    }
    assert document["entries"] == sum(len(made) for made in books.all.values())
    assert document["currencies"]["EUR"]["deposits"] == "150.00"
    assert document["currencies"]["EUR"]["withdrawals"] == "1.00"
    assert document["currencies"]["EUR"]["customers"] == "149.00"
    assert document["findings"] == 0


def test_the_summary_says_what_came_in_and_what_is_there(data: Path) -> None:
    """One row a currency."""
    result = _replay("--data", data)
    assert result.exit_code == 0
    for text in ("EUR", "149.00", "150.00", "-149.00", "entries/s"):
        assert text in result.stdout


def test_until_a_moment_only_what_was_before_it_counts(data: Path, books: Books) -> None:
    """The moment's own entries included; before the first there is nothing."""
    opened = next(row for row in books.all[1] if row.account_id == "alice" and row.version == 1)
    until = moment_text(moment_of_ms(opened.at_ms))
    document = json.loads(_replay("--data", data, "--until", until, "--json").stdout)
    assert {a["account_id"]: a["balance"] for a in document["accounts"]}["alice"] == "100.00"
    assert document["until"] == until
    before = moment_text(moment_of_ms(START_MS))
    assert json.loads(_replay("--data", data, "--until", before, "--json").stdout)["entries"] == 0


def test_entries_that_contradict_each_other_are_listed(data: Path) -> None:
    """With the row, and exit code 1; what can be rebuilt is shown all the same."""
    with closing(sqlite3.connect(data / FILE_NAME)) as ledger, ledger:
        ledger.execute("UPDATE entries SET delta = delta + 1 WHERE account_id = 'shop' AND version = 1")
    result = _replay("--data", data)
    assert result.exit_code == 1
    assert "shop version 1" in " ".join(result.stderr.split())
    assert "EUR" in result.stdout


def test_without_a_ledger_it_says_where_it_looked(tmp_path: Path) -> None:
    """And makes no empty one."""
    result = _replay("--data", tmp_path)
    assert result.exit_code == 1
    assert str(tmp_path) in result.stderr
    cluster_file.write(tmp_path, ClusterRecord(2, ports={"zookeeper": 1}))
    result = _replay("--data", tmp_path)
    assert "has an archiver run?" in " ".join(result.stderr.split())
    assert not (tmp_path / FILE_NAME).exists()


def test_a_file_that_is_no_ledger_is_said_to_be_none(tmp_path: Path) -> None:
    """One sentence, not a traceback."""
    (tmp_path / "other.db").write_bytes(b"")
    result = _replay("--ledger", f"sqlite:///{tmp_path}/other.db")
    assert result.exit_code == 1
    assert "error:" in result.stderr


def test_the_ledger_of_a_cluster_is_the_one_it_was_started_with(tmp_path: Path) -> None:
    """A database elsewhere is found by cluster.json; what is typed counts before."""
    url = "postgresql://ann:s3cret@db/ledger"
    cluster_file.write(tmp_path, ClusterRecord(2, ports={"zookeeper": 1}, ledger=url))
    assert find_ledger(None, tmp_path) == url
    (tmp_path / "mine.db").touch()
    assert find_ledger(f"sqlite:///{tmp_path}/mine.db", tmp_path) == f"sqlite:///{tmp_path}/mine.db"


def test_a_wrong_time_is_wrong_usage(data: Path) -> None:
    """With examples of right ones."""
    result = _replay("--data", data, "--until", "yesterday")
    assert result.exit_code == 2
    assert "2026-03-01" in result.stderr


def test_a_currency_without_its_decimals_is_a_finding(data: Path) -> None:
    """No amount is guessed at: minor units are shown as such, and the exit code says so."""
    with closing(sqlite3.connect(data / FILE_NAME)) as ledger, ledger:
        ledger.execute("DELETE FROM currencies")
    result = _replay("--data", data, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["currencies"]["EUR"]["customers"] == "14900 minor units"
    assert "entries in EUR, but not how many decimals EUR has" in " ".join(result.stderr.split())
