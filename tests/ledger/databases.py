"""Both databases, for suites that hold for either."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from shard_node.ledger.store.migrations import upgrade
from shard_node.ledger.store.schema import open_ledger
from tests.postgresql import PostgresqlServer, postgresql_server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A real PostgreSQL for the session. A test that stops it starts it again."""
    with postgresql_server() as server:
        yield server


def new_postgresql_ledger(server: PostgresqlServer) -> str:
    """The URL of a ledger without entries in a database of its own."""
    url = server.create_database(f"test_{uuid.uuid4().hex}")
    engine = open_ledger(url)
    upgrade(engine)
    engine.dispose()
    return url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without any table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return server.create_database(f"test_{uuid.uuid4().hex}")


@pytest.fixture
def ledger_url(empty_url: str) -> str:
    """The URL of a ledger without entries."""
    engine = open_ledger(empty_url)
    upgrade(engine)
    engine.dispose()
    return empty_url


@pytest.fixture
def engine(ledger_url: str) -> Iterator[Engine]:
    """An engine on a ledger without entries."""
    made = open_ledger(ledger_url)
    yield made
    made.dispose()
