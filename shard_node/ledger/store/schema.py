"""The ledger's tables, and how its database is opened.

One schema for SQLite and PostgreSQL, made by the migrations beside this module, never by hand. Rows are
only ever added. An entry's id is its shard's number and its place among that shard's entries, without a
gap; one archiver at a time adds a shard's batches, in order, so what a reader sees of one shard is always
a beginning of it. Across shards there is no such order: a position in the whole ledger is a position on
every shard.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Select,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from shard_node.errors import LedgerError, LedgerUnavailableError, ShardNodeError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection
    from sqlalchemy.pool import ConnectionPoolEntry

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"
# Where processes look for the URL that no argument names: arguments are for all users of a machine to see.
LEDGER_VARIABLE: Final = "TALLYSTICK_LEDGER"

# entry_id = shard_number << SEQUENCE_BITS | sequence: a shard may make 10**12 entries, a year at 30,000/s.
SEQUENCE_BITS: Final = 40
SEQUENCE_MASK: Final = (1 << SEQUENCE_BITS) - 1

# Set on a connection that will write: SQLite then takes its one write lock at once. A transaction that begins
# by reading could not, and would fail when another has written meanwhile.
WRITING: Final = "ledger_writing"

# Another process' commit of a large batch takes less by far, and so does a migration of a fresh database.
_BUSY_TIMEOUT_MS = 10_000
_ASK_AGAIN_SECONDS = 0.01
# In a connection's own notes: the path of its file, and which file was there when it was opened.
_FILE: Final = "ledger_file"
# What a batch touches are the ends of every account in an index, and those are all over the file: the
# more of them stay in memory the better (`python -m bench.archive`). Readers are many, and look at few pages.
_WRITER_CACHE_KIB, _READER_CACHE_KIB = 512 * 1024, 64 * 1024
# Of a new file. Twice SQLite's own: half as many pages to look up, and half as many to split.
_PAGE_BYTES = 8192
# 256 MiB of write-ahead log before its pages go to the file: one that several batches touch goes once.
_CHECKPOINT_PAGES = 256 * 1024 * 1024 // _PAGE_BYTES
# A server that went without a word is given up after some 20 seconds, not after the kernel's two hours.
_POSTGRESQL_ARGUMENTS: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
}
# The server's part of the same. A process that is frozen, or whose machine is gone, may have a transaction
# open: nobody waits for it without end, and it is ended.
_POSTGRESQL_SETTINGS: Final = {
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "30s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "2",
}
# What PostgreSQL says to a transaction that it ended because nothing came for too long.
_IDLE_TOO_LONG: Final = "25P03"

# SQLite keeps rows in the order of a column of exactly this type; PostgreSQL's INTEGER is too small.
_ENTRY_ID = BigInteger().with_variant(Integer(), SQLITE)
# Bytes have one order everywhere; a language's order differs between machines, and costs more.
_ACCOUNT_ID = Text().with_variant(Text(collation="C"), POSTGRESQL)

metadata = MetaData()

shards = Table(
    "shards",
    metadata,
    Column("shard_number", Integer, primary_key=True, autoincrement=False),
    Column("shard_id", Text, nullable=False),
    UniqueConstraint("shard_id", name="shards_shard_id"),
)

# Times are milliseconds since 1970. `stream_id` is the last stream entry in the batch; `hash` and
# `previous_hash` are those of :mod:`shard_node.ledger.store.chain`.
batches = Table(
    "batches",
    metadata,
    Column("shard_number", Integer, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("first_sequence", BigInteger, nullable=False),
    Column("entry_count", Integer, nullable=False),
    Column("stream_id", Text, nullable=False),
    Column("first_at_ms", BigInteger, nullable=False),
    Column("last_at_ms", BigInteger, nullable=False),
    Column("previous_hash", LargeBinary(32), nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("archived_at_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("shard_number", "number", name="batches_pk"),
)

# Amounts are minor units of `currency`. `balance` is available and held together, after the entry.
# Entries that no transaction made (OPEN, FREEZE, UNFREEZE, CLOSE) have neither a transaction_id nor a
# fingerprint, and leg and leg_count 0. Texts are empty, never null. `attributes` is JSON, of OPEN only.
entries = Table(
    "entries",
    metadata,
    Column("entry_id", _ENTRY_ID, primary_key=True, autoincrement=False),
    Column("account_id", _ACCOUNT_ID, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("transaction_id", LargeBinary(16), nullable=True),
    Column("fingerprint", LargeBinary(8), nullable=True),
    Column("leg", SmallInteger, nullable=False),
    Column("leg_count", SmallInteger, nullable=False),
    Column("counterparty", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("delta", BigInteger, nullable=False),
    Column("held_delta", BigInteger, nullable=False),
    Column("balance", BigInteger, nullable=False),
    Column("related_id", LargeBinary(16), nullable=True),
    Column("reference", Text, nullable=False),
    Column("external_id", Text, nullable=False),
    Column("initiated_by", Text, nullable=False),
    Column("attributes", Text, nullable=False),
)
# A version that is there twice is an entry stored twice: the last line of defence.
Index("entries_account_version", entries.c.account_id, entries.c.version, unique=True)
Index("entries_transaction", entries.c.transaction_id)
# What is held at a moment is the sum of these, few beside the rest.
Index(
    "entries_held",
    entries.c.account_id,
    entries.c.version,
    sqlite_where=entries.c.held_delta != 0,
    postgresql_where=entries.c.held_delta != 0,
)


# How many decimals each currency has, as stored with the cluster; here before the currency's first entry.
currencies = Table(
    "currencies",
    metadata,
    Column("currency", Text, primary_key=True),
    Column("exponent", SmallInteger, nullable=False),
)


def entry_id(shard_number: int, sequence: int) -> int:
    """The id of a shard's entry; ``sequence`` counts from 1."""
    return shard_number << SEQUENCE_BITS | sequence


def entries_between(shard_number: int, first: int, last: int) -> Select[Any]:
    """What asks for a shard's entries with these sequences and all between, in order."""
    first_id, last_id = entry_id(shard_number, first), entry_id(shard_number, last)
    return select(entries).where(entries.c.entry_id.between(first_id, last_id)).order_by(entries.c.entry_id)


def open_ledger(url: str, statement_timeout_seconds: float | None = None) -> Engine:
    """An engine for the ledger at an SQLAlchemy URL. Connects only when used; dispose of it in the end.

    PostgreSQL gives up a statement after ``statement_timeout_seconds``, as a LedgerUnavailableError; SQLite
    has no such limit. Settings among the URL's own ``options`` win over those that are set here.

    Transactions that write must run on a connection with the option ``WRITING``:
    ``engine.connect().execution_options(**{WRITING: True})``. Raises LedgerError when the URL is none, or
    not of SQLite (a file) or PostgreSQL.
    """
    parsed = _parse(url)
    try:
        if parsed.get_backend_name() == SQLITE:
            return _open_sqlite(parsed)
        return _open_postgresql(parsed, statement_timeout_seconds)
    except ImportError as error:
        raise LedgerError(
            f"{error.name} is not installed: a ledger in PostgreSQL needs the extra 'postgresql'"
        ) from error


def _parse(url: str) -> URL:
    """The URL; of PostgreSQL always with the one driver that is supported."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise LedgerError(no_url(url)) from None
    backend = parsed.get_backend_name()
    if backend == POSTGRESQL:
        return parsed.set(drivername="postgresql+psycopg")
    if backend != SQLITE:
        raise LedgerError(f"a ledger is kept in SQLite or PostgreSQL, not in {backend}")
    if parsed.database in {None, "", ":memory:"}:
        raise LedgerError("a ledger in memory would be lost: name a file, as in sqlite:////srv/ledger.db")
    return parsed


def no_url(url: str) -> str:
    """What is said of a text that is no URL: of the text itself only what cannot be a password."""
    scheme, separator, rest = url.partition("?")[0].partition("://")
    _, at, place = rest.rpartition("@")
    named = f" ({scheme}://...@{place})" if separator and at else ""
    return (
        f"the ledger's URL is none{named}: it looks like sqlite:////srv/ledger.db or "
        "postgresql+psycopg://user@host/database"
    )


def _open_sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_MS / 1000, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, record: ConnectionPoolEntry) -> None:
        _, _, path = connection.execute("PRAGMA database_list").fetchone()
        record.info[_FILE] = path, _identity(path)
        # The driver's own idea of when a transaction begins is off; :func:`begin` says it.
        connection.isolation_level = None
        for pragma in (
            f"page_size = {_PAGE_BYTES}",
            # A commit is on disk when it returns: the shard forgets its copy right after. NORMAL would
            # leave the last commits to a power failure, and with them history that nobody has any more.
            "synchronous = FULL",
            f"cache_size = -{_READER_CACHE_KIB}",
            f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
            "foreign_keys = OFF",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        _write_ahead(connection)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get(WRITING):
            connection.exec_driver_sql(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql("BEGIN")

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Has a file of SQLite keep a write-ahead log, so that readers go on while a batch is stored.

    To change that of a new file SQLite wants a lock while it holds one, for which it does not wait: of two
    processes that open the file at once, one is told that it is locked. So it asks again.
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(_ASK_AGAIN_SECONDS)
        else:
            return


def require_same_file(connection: Connection) -> None:
    """Raises LedgerError when the file that an SQLite connection writes to is no longer at its path.

    The system lets a program go on writing to a file that was renamed, removed or replaced.
    """
    if connection.dialect.name != SQLITE:
        return
    path, identity = connection.info[_FILE]
    if _identity(path) != identity:
        raise LedgerError(
            f"the ledger {path} was renamed, removed or replaced while it was in use: put it back, or start "
            "this process anew with the right one"
        )


def _identity(path: str) -> tuple[int, int] | None:
    """Which file is at a path; None when none is."""
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _open_postgresql(url: URL, statement_timeout_seconds: float | None) -> Engine:
    settings = dict(_POSTGRESQL_SETTINGS)
    if statement_timeout_seconds is not None:
        settings["statement_timeout"] = f"{max(round(statement_timeout_seconds * 1000), 1)}ms"
    given = url.query.get("options", os.environ.get("PGOPTIONS", ""))
    theirs = [given] if isinstance(given, str) else given
    # Of two settings of one name the server takes the later one.
    options = " ".join([*(f"-c {name}={value}" for name, value in settings.items()), *theirs])
    engine = create_engine(
        url.difference_update_query(["options"]),
        # A server that went away while the engine was idle is found before a transaction is begun.
        pool_pre_ping=True,
        connect_args={**_POSTGRESQL_ARGUMENTS, "options": options.strip()},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        # As with SQLite: a commit is on disk when it returns. A stronger setting stays as it is.
        connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false)"
            " WHERE current_setting('synchronous_commit') = 'off'"
        )
        connection.commit()

    return engine


def shown(engine: Engine) -> str:
    """The database's URL for people to see: without its password, which its options may hold too."""
    return engine.url.set(query={}).render_as_string(hide_password=True)


def as_ledger_error(engine: Engine, error: DBAPIError) -> ShardNodeError:
    """The error of ``errors.py`` that stands for a database's: whether it may go better next time."""
    # Of the database's own text the first line, for the rest may quote rows.
    said = f"the ledger at {shown(engine)}: {str(error.orig).strip().partition(chr(10))[0]}"
    ended = getattr(error.orig, "sqlstate", None) == _IDLE_TOO_LONG
    if isinstance(error, OperationalError) or error.connection_invalidated or ended:
        return LedgerUnavailableError(said)
    return LedgerError(said)
