"""Brings a ledger's database to the schema that this code knows, by Alembic.

Any number of processes may start on one database at once: the steps run in one transaction, which SQLite
lets one process at a time begin, and which on PostgreSQL takes an advisory lock first.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from shard_node.errors import LedgerError
from shard_node.ledger.store import POSTGRESQL, WRITING, as_ledger_error, metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

__all__ = ["current", "newest", "require_newest", "upgrade"]

# Not Alembic's default name: the database may hold another program's tables beside ours.
VERSION_TABLE: Final = "tallystick_ledger_version"
# Alembic keeps what it works on in globals.
_ONE_AT_A_TIME: Final = threading.Lock()
# "tallysti" as a number: whoever else takes advisory locks in this database will hardly take this one.
_ADVISORY_LOCK: Final = int.from_bytes(b"tallysti")


def upgrade(engine: Engine) -> str:
    """Takes all steps that are missing, and returns the version that the database then has.

    Raises LedgerUnavailableError when it cannot be reached, LedgerError when it is not a ledger or is
    newer than this code.
    """
    try:
        with (
            _ONE_AT_A_TIME,
            engine.connect().execution_options(**{WRITING: True}) as connection,
            connection.begin(),
        ):
            if connection.dialect.name == POSTGRESQL:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            version = _known_version(connection)
            if version != newest():
                command.upgrade(_config(connection), "head")
    except DBAPIError as error:
        raise as_ledger_error(engine, error) from error
    return newest()


def current(engine: Engine) -> str | None:
    """The version that the database has; None for one without a ledger.

    Raises the same errors as :func:`upgrade`.
    """
    try:
        with engine.connect() as connection:
            return _known_version(connection)
    except DBAPIError as error:
        raise as_ledger_error(engine, error) from error


def require_newest(engine: Engine) -> None:
    """Raises LedgerError unless the database has the schema that this code knows. Changes nothing."""
    version = current(engine)
    if version != newest():
        raise LedgerError(
            f"the ledger's database is at version {version or 'none'}, this code needs {newest()}: "
            "an archiver brings it there, or `python -m shard_node.ledger upgrade`"
        )


def newest() -> str:
    """The version of the schema that this code knows."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise LedgerError("this installation has no migrations of the ledger's schema: install it anew")
    return head


def _known_version(connection: Connection) -> str | None:
    version = MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE}
    ).get_current_revision()
    if version is None:
        foreign = metadata.tables.keys() & set(inspect(connection).get_table_names())
        if foreign:
            raise LedgerError(
                f"the database has tables called {', '.join(sorted(foreign))}, but they are no ledger's: "
                "name another database"
            )
    elif version not in {step.revision for step in ScriptDirectory.from_config(_config()).walk_revisions()}:
        raise LedgerError(
            f"the ledger's database is at version {version}, which is newer than this code ({newest()}): "
            "start newer code on it"
        )
    return version


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    # Alembic reads a percent sign as the beginning of a name.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
