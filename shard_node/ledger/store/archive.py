"""The archive: what is stored of each shard, and the one way to add to it.

A batch is stored in one transaction with its entries, and the last batch *is* the position: there is no
second record of it that could differ. A batch is only ever added to the batch that it was sealed upon, so
two archivers of one shard cannot both go on: the second one is told, reads the position anew, and finds
what the first one did.

Blocking: call it in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import Connection, Engine, LargeBinary, func, insert, select, tuple_
from sqlalchemy.exc import DBAPIError, IntegrityError

from shard_node.errors import BatchTakenError, LedgerError
from shard_node.ledger.store.chain import GENESIS, Header, Sealed
from shard_node.ledger.store.exponents import add_exponents
from shard_node.ledger.store.rows import ArchivedShard, Columns, Row, columns_of, is_one_value
from shard_node.ledger.store.schema import (
    POSTGRESQL,
    SEQUENCE_BITS,
    SEQUENCE_MASK,
    WRITING,
    as_ledger_error,
    batches,
    entries,
    entries_between,
    require_same_file,
    shards,
)

# Before the first entry of a stream.
STREAM_START: Final = "0"
# Keys in one look-up, well within the number of parameters that either database takes.
_LOOKUP_ROWS: Final = 500

# What a header says beside its shard, each in the column of ``batches`` that has its name.
_HEADER: Final = tuple(field.name for field in fields(Header) if field.name != "shard")
_COLUMNS: Final = ", ".join(column.name for column in entries.columns)
_COPY: Final = f"COPY entries ({_COLUMNS}) FROM STDIN"


@dataclass(frozen=True, slots=True)
class Position:
    """How far a shard is archived: its last batch. Number 0 and ``GENESIS`` when there is none."""

    shard: ArchivedShard
    number: int
    hash: bytes
    stream_id: str
    next_sequence: int

    def after(self, sealed: Sealed) -> Position:
        """The position once that batch is stored."""
        header = sealed.header
        return Position(self.shard, header.number, sealed.hash, header.stream_id, header.next_sequence)


class Archive:
    """The ledger in one database. Raises LedgerUnavailableError when that does not answer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # ------------------------------------------------------------------ writing

    def position(self, shard_id: str) -> Position:
        """Where to go on with a shard; one that is new to the archive gets its number."""
        while True:
            try:
                with self._writing() as connection:
                    return _position(connection, _enter(connection, shard_id))
            except IntegrityError:
                # Another archiver gave that number, or that shard, at the same moment.
                continue

    def keep_exponents(self, cluster: Mapping[str, int]) -> None:
        """Copies the cluster's exponents that the ledger has not yet.

        Raises LedgerError when the ledger has another exponent for one of them: then it is not written to.
        """
        with self._writing() as connection:
            add_exponents(connection, cluster)

    def store(self, sealed: Sealed, rows: Sequence[Row]) -> None:
        """Adds a batch and its entries, all or nothing; on disk when it returns.

        Raises BatchTakenError when the shard's last batch is not the one it was sealed upon, LedgerError
        when an entry's account and version are stored already, or when the file is no longer where it was
        opened, and LedgerUnavailableError when the database went away: then the batch may be stored or not,
        and only its position tells.
        """
        header = sealed.header
        refused: IntegrityError | None = None
        with self._writing() as connection:
            last = _position(connection, header.shard)
            if (last.number + 1, last.hash) != (header.number, sealed.previous_hash):
                raise _taken(header)
            try:
                connection.execute(insert(batches), _batch_values(sealed))
            except IntegrityError as error:
                raise _taken(header) from error
            try:
                _insert(connection, rows)
            except IntegrityError as error:
                refused = error
                connection.rollback()
        if refused is not None:
            raise LedgerError(
                f"{header.shard.shard_id}: batch {header.number} cannot be stored: {self._conflict(rows)}"
            ) from refused

    # ------------------------------------------------------------------ reading

    def batches(self, shard: ArchivedShard, after_number: int, limit: int) -> list[Sealed]:
        """Up to ``limit`` batches of a shard past a number, in order."""
        query = (
            select(batches)
            .where(batches.c.shard_number == shard.number, batches.c.number > after_number)
            .order_by(batches.c.number)
            .limit(limit)
        )
        with self.reading() as connection:
            return [sealed(shard, row) for row in connection.execute(query)]

    def rows(self, header: Header) -> list[Row]:
        """The entries that a batch says it has, in order; fewer when some are missing."""
        with self.reading() as connection:
            query = entries_between(header.shard.number, header.first_sequence, header.next_sequence - 1)
            return [tuple(row) for row in connection.execute(query)]

    def shards(self) -> list[ArchivedShard]:
        """Every shard that the archive knows, by number."""
        with self.reading() as connection:
            return [
                ArchivedShard(row.shard_number, row.shard_id)
                for row in connection.execute(select(shards).order_by(shards.c.shard_number))
            ]

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for reading; with SQLite all of it sees one moment."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise as_ledger_error(self._engine, error) from error

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that writes, committed at the end; to a file that others find, too."""
        try:
            with self._engine.connect().execution_options(**{WRITING: True}) as connection:
                yield connection
                connection.commit()
                require_same_file(connection)
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise as_ledger_error(self._engine, error) from error

    def _conflict(self, rows: Sequence[Row]) -> str:
        """Which of these rows the archive has already, in words."""
        seen: set[tuple[str, int]] = set()
        for row in rows:
            account_id, version = row[1:3]
            if (account_id, version) in seen:
                return f"the shard's stream has version {version} of account {account_id} twice"
            seen.add((account_id, version))
        key = tuple_(entries.c.account_id, entries.c.version)
        wanted = list(seen)
        with self.reading() as connection:
            for start in range(0, len(wanted), _LOOKUP_ROWS):
                query = select(entries.c.account_id, entries.c.version, entries.c.entry_id).where(
                    key.in_(wanted[start : start + _LOOKUP_ROWS])
                )
                found = connection.execute(query).first()
                if found is not None:
                    return (
                        f"version {found.version} of account {found.account_id} is archived already: entry "
                        f"{found.entry_id & SEQUENCE_MASK} of shard number {found.entry_id >> SEQUENCE_BITS}"
                    )
        return "one of its entries was archived already"


def _enter(connection: Connection, shard_id: str) -> ArchivedShard:
    number = connection.execute(select(shards.c.shard_number).where(shards.c.shard_id == shard_id)).scalar()
    if number is None:
        number = (connection.execute(select(func.max(shards.c.shard_number))).scalar() or 0) + 1
        connection.execute(insert(shards), {"shard_number": number, "shard_id": shard_id})
    return ArchivedShard(number, shard_id)


def _taken(header: Header) -> BatchTakenError:
    return BatchTakenError(f"{header.shard.shard_id}: the archive goes on otherwise at batch {header.number}")


def _position(connection: Connection, shard: ArchivedShard) -> Position:
    query = (
        select(batches)
        .where(batches.c.shard_number == shard.number)
        .order_by(batches.c.number.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    start = Position(shard, 0, GENESIS, STREAM_START, 1)
    return start if row is None else start.after(sealed(shard, row))


def sealed(shard: ArchivedShard, row: Any) -> Sealed:
    """A batch's header and hashes, from its row in ``batches``."""
    header = Header(shard, *(getattr(row, name) for name in _HEADER))
    return Sealed(header, row.previous_hash, row.hash)


def _batch_values(sealed: Sealed) -> dict[str, Any]:
    values = {name: getattr(sealed.header, name) for name in _HEADER}
    chained = {"previous_hash": sealed.previous_hash, "hash": sealed.hash}
    return {"shard_number": sealed.header.shard.number, **values, **chained}


def _insert(connection: Connection, rows: Sequence[Row]) -> None:
    """Adds entries by the driver's fastest way: SQLAlchemy's own makes a dictionary of each."""
    if not rows:
        return
    driver: Any = connection.connection.driver_connection
    dialect: Any = connection.dialect
    try:
        if dialect.name == POSTGRESQL:
            with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
                for row in rows:
                    copy.write_row(row)
        else:
            _insert_by_column(driver, columns_of(rows))
    except dialect.dbapi.Error as error:
        raise DBAPIError.instance("INSERT", None, error, dialect.dbapi.Error, dialect=dialect) from error


def _insert_by_column(driver: Any, columns: Columns) -> None:
    """Into SQLite. Each value that is bound costs as much as storing it, so few are."""
    places: list[str] = []
    bound: list[Iterable[Any]] = []
    for described, values in zip(entries.columns, columns, strict=True):
        same = None if described.primary_key else _literal(values)
        if same is not None:
            places.append(same)
            continue
        places.append("?")
        # The driver looks for an adapter of each bytes and None, at ten times the price of a bytearray.
        is_binary = isinstance(described.type, LargeBinary)
        bound.append(map(bytearray if None not in values else _as_bytearray, values) if is_binary else values)
    driver.executemany(
        f"INSERT INTO entries ({_COLUMNS}) VALUES ({', '.join(places)})",  # noqa: S608 -- names and numbers of our own
        zip(*bound, strict=True),
    )


def _as_bytearray(value: bytes | None) -> bytearray | None:
    return None if value is None else bytearray(value)


def _literal(values: Sequence[Any]) -> str | None:
    """What stands in a statement for a column that has one value in all rows; None when it must be bound.

    Of texts only those that are empty or all letters, such as a currency: nothing in them can end a text.
    """
    if not is_one_value(values):
        return None
    value = values[0]
    if value is None:
        return "NULL"
    if type(value) is int:
        return str(value)
    if type(value) is str and (not value or (value.isascii() and value.isalpha())):
        return f"'{value}'"
    return None
