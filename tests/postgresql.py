"""A real PostgreSQL server for tests: the one that is measured elsewhere, not waiting for its disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.postgres import server

_SETTINGS = {"fsync": "off", "max_connections": "60"}


@dataclass(frozen=True, slots=True)
class PostgresqlServer:
    """One server on a port of its own; stop it, start it again."""

    running: server.PostgresqlServer

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return self.running.port

    def create_database(self, name: str) -> str:
        """Makes an empty database and returns its SQLAlchemy URL."""
        self.running.create_database(name)
        return f"postgresql+psycopg://{server.USER}@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        """Stops it, cutting off who is connected."""
        self.running.stop()

    def start(self) -> None:
        """Starts it again."""
        self.running.start()


@contextmanager
def postgresql_server() -> Iterator[PostgresqlServer]:
    """A server that runs, for as long as the block lasts."""
    with server.postgresql_server(_SETTINGS) as running:
        yield PostgresqlServer(running)
