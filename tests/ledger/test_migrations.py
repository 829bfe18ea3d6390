"""The schema's migrations: from nothing, again, at once, and on what is no ledger. Both databases."""

from __future__ import annotations

import multiprocessing
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from shard_node.errors import ExponentUnknownError, LedgerError, LedgerUnavailableError
from shard_node.ledger.questions.history import History
from shard_node.ledger.store.archive import Archive
from shard_node.ledger.store.migrations import (
    VERSION_TABLE,
    _config,
    current,
    newest,
    require_newest,
    upgrade,
)
from shard_node.ledger.store.schema import LEDGER_VARIABLE, WRITING, metadata, open_ledger
from tests.postgresql import PostgresqlServer

AT_ONCE = 4
WAIT_SECONDS = 60.0
# In a process of a pool: where all of them meet before each begins.
_meeting: list[Barrier] = []


def write(url: str, *statements: str) -> None:
    """Carries out statements on a database, whatever it holds."""
    engine = open_ledger(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def upgrade_at(url: str) -> str:
    """What one process does as it starts."""
    engine = open_ledger(url)
    try:
        return upgrade(engine)
    finally:
        engine.dispose()


def meet(together: Barrier) -> None:
    """Where this process waits for the others."""
    _meeting.append(together)


def upgrade_together(url: str) -> str:
    """What one process does as it starts, at the moment at which all do."""
    _meeting[0].wait(WAIT_SECONDS)
    return upgrade_at(url)


def test_up_from_nothing(empty_url: str) -> None:
    """An empty database gets every table and index that the code knows, and no other."""
    engine = open_ledger(empty_url)
    assert current(engine) is None
    with pytest.raises(LedgerError, match="version none"):
        require_newest(engine)
    assert upgrade(engine) == newest() == current(engine)
    require_newest(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []
        indexes = {index["name"]: index for index in inspect(connection).get_indexes("entries")}
    assert indexes["entries_account_version"]["unique"]
    assert set(indexes) == {
        "entries_account_version",
        "entries_transaction",
        "entries_held",
    }
    engine.dispose()


def test_again_it_does_nothing(ledger_url: str, engine: Engine) -> None:
    """A database at the newest version is left as it is, rows and all."""
    write(ledger_url, "INSERT INTO shards (shard_number, shard_id) VALUES (1, 'shard-0')")
    assert upgrade(engine) == newest()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT shard_id FROM shards")).all() == [("shard-0",)]


def test_many_start_at_once(empty_url: str) -> None:
    """Threads and processes that start on one empty database make one schema."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        assert set(threads.map(upgrade_at, [empty_url] * AT_ONCE)) == {newest()}


@pytest.mark.servers
def test_many_processes_start_at_once(empty_url: str) -> None:
    """The same with processes, which share no lock but the database's."""
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(AT_ONCE)
    with context.Pool(AT_ONCE, meet, (together,)) as processes:
        assert set(processes.map(upgrade_together, [empty_url] * AT_ONCE, chunksize=1)) == {newest()}


def test_a_new_file_that_another_holds_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself does not wait when a new file is to get its write-ahead log."""
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    refused, go_on = threading.Event(), threading.Event()

    def pause(_: float) -> None:
        refused.set()
        assert go_on.wait(10)

    monkeypatch.setattr("shard_node.ledger.store.schema.time.sleep", pause)
    with ThreadPoolExecutor(1) as thread:
        upgraded = thread.submit(upgrade_at, f"sqlite:///{tmp_path / 'ledger.db'}")
        try:
            assert refused.wait(10)
            other.rollback()
        finally:
            go_on.set()
        assert upgraded.result() == newest()
    other.close()


def test_a_newer_database_is_refused(ledger_url: str, engine: Engine) -> None:
    """Code that does not know a schema does not touch it."""
    write(ledger_url, "UPDATE tallystick_ledger_version SET version_num = '9999'")
    for act in (upgrade, current, require_newest):
        with pytest.raises(LedgerError, match="9999, which is newer than this code"):
            act(engine)


def test_another_programs_tables_are_left_alone(empty_url: str) -> None:
    """A database with tables of our names, but not ours, is refused; with others it is shared."""
    write(empty_url, "CREATE TABLE alembic_version (version_num VARCHAR(32))", "CREATE TABLE entries (x INT)")
    engine = open_ledger(empty_url)
    with pytest.raises(LedgerError, match=r"entries.*no ledger's"):
        upgrade(engine)
    write(empty_url, "DROP TABLE entries")
    assert upgrade(engine) == newest()
    engine.dispose()


def test_a_failed_step_leaves_nothing(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that fails midway is undone as a whole, and works the next time."""
    engine = open_ledger(empty_url)
    with monkeypatch.context() as patched:
        patched.setattr("alembic.op.create_index", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            upgrade(engine)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == []
    assert upgrade(engine) == newest()
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nonsense", "URL is none"),
        ("mysql://host/name", "not in mysql"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_urls_that_are_none(url: str, told: str) -> None:
    """What can be no ledger is refused before anything is tried."""
    with pytest.raises(LedgerError, match=told):
        open_ledger(url)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("postgresql://u:sec:ret@host:54x/db?password=secret", "postgresql://...@host:54x/db)"),
        ("postgresql://u:sec@ret@host:54x/db?password=sec@ret", "postgresql://...@host:54x/db)"),
        ("postgresql://u:sec?ret@host:54x/db", "URL is none: "),
        ("secret", "URL is none: "),
    ],
)
def test_a_password_in_what_is_no_url(url: str, named: str) -> None:
    """A port that is no number is an error like any other, and shows no part of a password."""
    with pytest.raises(LedgerError) as refused:
        open_ledger(url)
    assert named in str(refused.value)
    assert "sec" not in str(refused.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """Another file is not overwritten."""
    file = tmp_path / "notes.txt"
    file.write_text("not a database at all, " * 100)
    with pytest.raises(LedgerError, match="not a database"):
        upgrade_at(f"sqlite:///{file}")
    assert file.read_text().startswith("not a database")


def test_a_database_that_is_away(tmp_path: Path, postgresql: PostgresqlServer) -> None:
    """No server, no database, no folder: an error that may pass, without the password."""
    away = f"postgresql://someone:secret@127.0.0.1:{postgresql.port}/nowhere?password=secret"
    for url in (away, f"sqlite:///{tmp_path}/nowhere/ledger.db"):
        with pytest.raises(LedgerUnavailableError) as refused:
            upgrade_at(url)
        assert "nowhere" in str(refused.value)
        assert "secret" not in str(refused.value)


@pytest.mark.servers
def test_by_hand(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m shard_node.ledger` upgrades and tells the version; an error is one line."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "shard_node.ledger", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert run("current", "--ledger", empty_url).stdout == f"none (newest: {newest()})\n"
    assert run("upgrade", "--ledger", empty_url).stdout == f"{newest()} (newest: {newest()})\n"
    assert run("current", "--ledger", empty_url).stdout == f"{newest()} (newest: {newest()})\n"
    monkeypatch.setenv(LEDGER_VARIABLE, empty_url)
    assert run("current").stdout == f"{newest()} (newest: {newest()})\n"
    refused = run("upgrade", "--ledger", "nonsense")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: the ledger's URL is none")
    assert refused.stderr.count("\n") == 1


def test_a_ledger_of_before_the_currencies(empty_url: str) -> None:
    """It keeps its rows, and has no exponents until an archiver copies the cluster's; `replay` says so."""
    engine = open_ledger(empty_url)
    with engine.connect().execution_options(**{WRITING: True}) as connection, connection.begin():
        command.upgrade(_config(connection), "0001")
        connection.execute(text("INSERT INTO shards (shard_number, shard_id) VALUES (1, 'shard-0')"))
    with pytest.raises(LedgerError, match=f"is at version 0001, this code needs {newest()}"):
        require_newest(engine)
    assert upgrade(engine) == newest()
    assert [shard.shard_id for shard in Archive(engine).shards()] == ["shard-0"]
    with pytest.raises(ExponentUnknownError, match="how many decimals the currency 'EUR' has is not known"):
        History(engine).exponent("EUR")
    Archive(engine).keep_exponents({"EUR": 2})
    assert History(engine).exponent("EUR") == 2
    engine.dispose()
