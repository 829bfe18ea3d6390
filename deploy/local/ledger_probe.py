"""What the launcher asks a ledger's database before a cluster works with it.

Commands import this module only where they use it: the database's libraries take long to load.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from deploy.errors import StartError
from deploy.local.ledger_url import masked
from shard_node.errors import LedgerError, ShardNodeError
from shard_node.ledger.store import SQLITE, Archive, as_ledger_error, open_ledger
from shard_node.ledger.store.migrations import current

# A server's own number, and the database's within it: no name of a host or user changes them.
_POSTGRESQL_IDENTITY = text(
    "SELECT system_identifier::text || '/' || oid::text FROM pg_control_system(), pg_database "
    "WHERE datname = current_database()"
)


def require_answer(url: str) -> None:
    """Raises StartError, which shows no password, unless the database answers, and may be a ledger."""
    try:
        with _opened(url) as engine:
            current(engine)
    except ShardNodeError as error:
        raise StartError(
            f"{error}; correct that, name another with --ledger URL, or start with --archivers 0: history "
            f"then waits on the shards"
        ) from error


def same_database(one: str, other: str) -> bool:
    """Whether two URLs lead to one database. Raises StartError when the first does not answer.

    When the second does not, only the two texts can be compared.
    """
    try:
        with _opened(one) as engine:
            found = _identity(engine)
    except ShardNodeError as error:
        raise StartError(str(error)) from error
    try:
        with _opened(other) as engine:
            return _identity(engine) == found
    except ShardNodeError:
        return masked(one) == masked(other)


def require_batch(url: str, shard_id: str, number: int, head: bytes) -> None:
    """Raises LedgerError unless the ledger has the batch that the shard was told of last, under that hash."""
    with _opened(url) as engine:
        found = None
        if current(engine) is not None:
            archive = Archive(engine)
            shards = [shard for shard in archive.shards() if shard.shard_id == shard_id]
            found = next(iter(archive.batches(shards[0], number - 1, 1)), None) if shards else None
        if found is None or (found.header.number, found.hash) != (number, head):
            raise LedgerError(
                f"the ledger {masked(url)} lacks batch {number} of {shard_id}, which was archived last"
            )


def _identity(engine: Engine) -> str:
    if engine.dialect.name == SQLITE:
        file = Path(engine.url.database or "")
        # By whatever link: a file that is there is known by its inode.
        return "{0.st_dev}/{0.st_ino}".format(file.stat()) if file.exists() else str(file.resolve())
    try:
        with engine.connect() as connection:
            return str(connection.execute(_POSTGRESQL_IDENTITY).scalar_one())
    except DBAPIError as error:
        raise as_ledger_error(engine, error) from error


@contextmanager
def _opened(url: str) -> Iterator[Engine]:
    engine = open_ledger(url)
    try:
        yield engine
    finally:
        engine.dispose()
