"""PostgreSQL: a process that froze with a transaction open delays others by a bounded time, and is ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, Engine, insert, make_url, text
from sqlalchemy.exc import DBAPIError

from shard_node.errors import LedgerUnavailableError
from shard_node.ledger.store.archive import Archive
from shard_node.ledger.store.migrations import upgrade
from shard_node.ledger.store.rows import ArchivedShard
from shard_node.ledger.store.schema import WRITING, as_ledger_error, batches, open_ledger
from tests.ledger.databases import new_postgresql_ledger
from tests.ledger.streams import Stream, batch
from tests.postgresql import PostgresqlServer

SHARD = ArchivedShard(1, "shard-0")
BOUND_SECONDS = 10.0


@pytest.fixture
def url(postgresql: PostgresqlServer) -> str:
    """A ledger without entries, in PostgreSQL."""
    return new_postgresql_ledger(postgresql)


def hurried(url: str, **settings: str) -> str:
    """The URL with some of the server's settings changed by its user, beside those changed already."""
    before = make_url(url).query.get("options", "")
    assert isinstance(before, str)
    options = " ".join([before, *(f"-c {name}={value}" for name, value in settings.items())])
    return make_url(url).update_query_dict({"options": options}).render_as_string(hide_password=False)


@contextmanager
def opened(url: str, statement_timeout_seconds: float | None = None) -> Iterator[Engine]:
    """An engine, disposed of in the end."""
    engine = open_ledger(url, statement_timeout_seconds)
    yield engine
    engine.dispose()


def setting(engine: Engine, name: str) -> str:
    """What the server has for a connection of this engine."""
    with engine.connect() as connection:
        return str(connection.execute(text("SELECT current_setting(:name)"), {"name": name}).scalar_one())


@contextmanager
def frozen_store(url: str) -> Iterator[Connection]:
    """A transaction that has stored the head of shard-0's next batch, and goes no further."""
    with opened(url) as engine:
        position = Archive(engine).position(SHARD.shard_id)
        sealed, _ = batch(position, [Stream().post(1)])
        connection = engine.connect().execution_options(**{WRITING: True})
        header = sealed.header
        connection.execute(
            insert(batches),
            {
                "shard_number": 1,
                "number": header.number,
                "first_sequence": header.first_sequence,
                "entry_count": header.entry_count,
                "stream_id": header.stream_id,
                "first_at_ms": header.first_at_ms,
                "last_at_ms": header.last_at_ms,
                "previous_hash": sealed.previous_hash,
                "hash": sealed.hash,
                "archived_at_ms": header.archived_at_ms,
            },
        )
        try:
            yield connection
        finally:
            connection.invalidate()
            connection.close()


def test_settings(url: str) -> None:
    """Every connection has bounded waits; what the URL says itself wins, and what else it says stays."""
    with opened(url, 1.5) as engine:
        assert setting(engine, "lock_timeout") == "10s"
        assert setting(engine, "idle_in_transaction_session_timeout") == "30s"
        assert setting(engine, "tcp_keepalives_idle") == "10"
        assert setting(engine, "statement_timeout") == "1500ms"
    with opened(hurried(url, lock_timeout="2s", work_mem="8MB")) as engine:
        assert setting(engine, "lock_timeout") == "2s"
        assert setting(engine, "work_mem") == "8MB"
        assert setting(engine, "idle_in_transaction_session_timeout") == "30s"
        assert setting(engine, "statement_timeout") == "0"


def test_settings_of_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGOPTIONS holds as it does without a ledger, beside what is set here."""
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=9MB")
    with opened(url) as engine:
        assert setting(engine, "work_mem") == "9MB"
        assert setting(engine, "lock_timeout") == "10s"


def test_a_statement_that_takes_too_long(url: str) -> None:
    """It is given up in time, as an error that may pass."""
    with opened(url, 0.1) as engine:
        began = time.monotonic()
        with pytest.raises(DBAPIError) as refused, engine.connect() as connection:
            connection.execute(text("SELECT pg_sleep(60)"))
        assert time.monotonic() - began < BOUND_SECONDS
        assert isinstance(as_ledger_error(engine, refused.value), LedgerUnavailableError)


def test_a_frozen_store_is_waited_for_in_bounds(url: str) -> None:
    """Another archiver's store ends with an error that may pass, and goes well once the first has ended."""
    with opened(hurried(url, lock_timeout="200ms")) as engine:
        archive = Archive(engine)
        sealed, rows = batch(archive.position(SHARD.shard_id), [Stream().post(1)])
        with frozen_store(url):
            began = time.monotonic()
            with pytest.raises(LedgerUnavailableError, match="lock timeout"):
                archive.store(sealed, rows)
            assert time.monotonic() - began < BOUND_SECONDS
        archive.store(sealed, rows)
        assert archive.position(SHARD.shard_id).hash == sealed.hash


def test_a_frozen_store_is_ended(url: str) -> None:
    """The server ends its transaction: others go on, and when it wakes it is told so, to try again."""
    with (
        frozen_store(hurried(url, idle_in_transaction_session_timeout="300ms")) as frozen,
        opened(url) as engine,
    ):
        archive = Archive(engine)
        sealed, rows = batch(archive.position(SHARD.shard_id), [Stream().post(1)])
        # Waits until the first one is ended: the lock's own bound is 10 s.
        archive.store(sealed, rows)
        with pytest.raises(DBAPIError) as woken:
            frozen.execute(text("SELECT 1"))
        assert isinstance(as_ledger_error(engine, woken.value), LedgerUnavailableError)


def test_a_frozen_migration_is_waited_for_in_bounds(url: str) -> None:
    """Whoever waits for the lock of another's migration says so instead."""
    with opened(url) as first, opened(hurried(url, lock_timeout="200ms")) as second:
        with first.connect() as migrating, migrating.begin():
            key = int.from_bytes(b"tallysti")
            migrating.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            with pytest.raises(LedgerUnavailableError, match="lock timeout"):
                upgrade(second)
        upgrade(second)
