"""What is asked of the ledger: an account's entries, a transaction, a balance at a moment, a purchase.

Reads only, one short transaction a question, so a question never holds up the archiver. Blocking: async
callers run it in a thread. Every question is bounded: it looks at so many rows at the most, whatever the
account's size. Raises LedgerUnavailableError when the database does not answer, and never answers a
question in part.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import (
    BigInteger,
    Select,
    and_,
    bindparam,
    case,
    false,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from shard_node.cluster import Exponents
from shard_node.contract import Kind
from shard_node.errors import LedgerError, LedgerUnavailableError
from shard_node.ledger.store import (
    SEQUENCE_BITS,
    SEQUENCE_MASK,
    Entry,
    as_ledger_error,
    batches,
    entries,
    read_exponents,
    shards,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, Engine, FromClause, Row

    from shard_node.ledger.questions.positions import HistoryQuery

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000
# Rows that one page looks at when a filter passes few of them; the page is short then, and its token goes on.
SCAN_ROWS: Final = 20_000
# An account that moves between shards meets another clock. Times of one account are in order but for this.
MAX_CLOCK_SKEW_MS: Final = 60_000
# Damaged rows that are passed over to find a shard's newest batch.
_MAX_DAMAGED: Final = 1000
_HASH_BYTES: Final = 32
_STREAM_ID: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_BATCH_COLUMNS: Final = tuple(column for column in batches.columns if column.name != "shard_number")
# Entries of one transaction id: a journal has at most 100 legs, and one id may have had several payers.
MAX_TRANSACTION_ENTRIES: Final = 2000


def moves_held(table: FromClause) -> ColumnElement[bool]:
    """Whether an entry changes what is held. As text: only so a database sees that the partial index fits."""
    return table.c.held_delta != literal_column("0")


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries of an account. ``next_token`` is empty on the last page."""

    entries: list[Entry]
    next_token: str


@dataclass(frozen=True, slots=True)
class BalanceAt:
    """An account after its last entry up to a moment. Minor units, ms since 1970."""

    account_id: str
    currency: str
    balance_minor: int
    held_minor: int
    version: int
    changed_at_ms: int


@dataclass(frozen=True, slots=True)
class Purchase:
    """A committed purchase as a refund must know it. ``amount_minor`` is above zero."""

    merchant: str
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class Head:
    """The newest batch of a shard that is well-formed; ``sequence`` is that of its last entry.

    All zero when there is none. ``damaged`` is how many rows after it are no batches by their types.
    """

    shard_id: str
    number: int
    sequence: int
    hash: bytes
    stream_id: str
    last_at_ms: int
    damaged: int = 0


class History:
    """Asks one ledger database. May be shared by threads."""

    def __init__(self, engine: Engine, cluster: Mapping[str, int] | None = None) -> None:
        """``cluster`` are the exponents stored with the cluster, which the ledger's must not contradict."""
        self._engine = engine
        self._cluster = {} if cluster is None else cluster
        self._shard_ids: Mapping[int, str] = {}
        # Each thread's connection, while it has one.
        self._in_use = threading.local()
        self._exponents = Exponents()

    def __repr__(self) -> str:
        return f"History({shown(self._engine)})"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for some questions; the database's errors become those of ``errors.py``.

        What a thread asks meanwhile is asked on the same connection: of several databases behind one address,
        of the same one.
        """
        outer: Connection | None = getattr(self._in_use, "connection", None)
        if outer is not None:
            yield outer
            return
        try:
            with self._engine.connect() as connection, connection.begin():
                self._in_use.connection = connection
                try:
                    yield connection
                finally:
                    self._in_use.connection = None
        except DBAPIError as error:
            raise as_ledger_error(self._engine, error) from error
        except SQLAlchemyError as error:
            # No connection of the pool became free, mostly.
            raise LedgerUnavailableError(f"the ledger: {error}") from error
        except self._engine.dialect.loaded_dbapi.Error as error:
            # From a driver's own cursor, which SQLAlchemy does not watch.
            wrapped = cast("DBAPIError", DBAPIError.instance("", None, error, type(error)))
            raise as_ledger_error(self._engine, wrapped) from error

    # ------------------------------------------------------------------ accounts

    def page(self, query: HistoryQuery, page_size: int = DEFAULT_PAGE, token: str = "") -> Page | None:
        """Entries of an account, by version; None when it has none at all.

        Stable under new writes: a token goes on after a version. A page may be short, even empty, and have
        a token all the same. Raises BadTokenError when the token is not one of this query.
        """
        after = query.version_of(token) if token else None
        with self.reading() as connection:
            last = _newest_version(connection, query.account_id)
            if last is None:
                return None
            low, high = _version_bounds(connection, query, last)
            if after is not None:
                low, high = (low, min(high, after)) if query.newest_first else (max(low, after), high)
            if query.newest_first:
                edge = max(low, high - 1 - SCAN_ROWS)
                found = self._between(query, edge, high, page_size + 1)
                rest = edge + 1 if edge > low else None
            else:
                edge = min(high, low + 1 + SCAN_ROWS)
                found = self._between(query, low, edge, page_size + 1)
                rest = edge - 1 if edge < high else None
        if len(found) > page_size:
            del found[page_size:]
            return Page(found, query.token(found[-1].version))
        return Page(found, "" if rest is None else query.token(rest))

    def balance_at(self, account_id: str, time_ms: int | None = None) -> BalanceAt | None:
        """The balance after the last entry up to a time, that time included; the newest when None.

        None when the account has no entry up to then.
        """
        columns = (entries.c.version, entries.c.at_ms, entries.c.currency, entries.c.balance)
        last = select(*columns).where(entries.c.account_id == account_id)
        with self.reading() as connection:
            if time_ms is not None:
                last = last.where(entries.c.version == _version_at(connection, account_id, time_ms))
            row = connection.execute(last.order_by(entries.c.version.desc()).limit(1)).first()
            if row is None:
                return None
            held = connection.scalar(
                select(func.sum(entries.c.held_delta)).where(
                    entries.c.account_id == account_id, entries.c.version <= row.version, moves_held(entries)
                )
            )
        return BalanceAt(account_id, row.currency, row.balance, int(held or 0), row.version, row.at_ms)

    # ------------------------------------------------------------------ transactions

    def transaction(self, transaction_id: bytes, payer: str = "") -> list[Entry]:
        """All entries of a transaction id (16 bytes), by fingerprint and leg; [] when there are none.

        With ``payer`` only what that account sent under the id: for a deposit, withdrawal or hold, the
        account; for a refund, the merchant; for a journal, of its debited
        accounts the one that comes first by its bytes.
        """
        wanted = entries.c.transaction_id == transaction_id
        if payer:
            # Of many payers under one id only this one: by the payload, for one leg alone may name it.
            sent = select(entries.c.fingerprint).where(wanted, _sent_by(payer))
            wanted = and_(wanted, entries.c.fingerprint.in_(sent))
        statement = (
            select(entries)
            .where(wanted)
            .order_by(entries.c.fingerprint, entries.c.leg, entries.c.entry_id)
            .limit(MAX_TRANSACTION_ENTRIES)
        )
        return self._stored(statement)

    def find_purchase(self, transaction_id: bytes, customer: str) -> Purchase | None:
        """The purchase that a customer's account made under an id (16 bytes), the newest if several."""
        statement = (
            select(entries)
            .where(
                entries.c.transaction_id == transaction_id,
                entries.c.kind == int(Kind.PURCHASE),
                entries.c.leg == 0,
                _is(entries.c.account_id, customer),
            )
            .order_by(entries.c.version.desc())
            .limit(1)
        )
        found = self._stored(statement)
        return next((Purchase(paid.counterparty, -paid.delta, paid.currency) for paid in found), None)

    # ------------------------------------------------------------------ the whole ledger

    def heads(self) -> dict[int, Head]:
        """The newest batch of every shard, by shard number.

        Raises LedgerError when many rows in turn are damaged.
        """
        heads: dict[int, Head] = {}
        with self.reading() as connection:
            for row in connection.execute(_NEWEST_BATCHES).all():
                if row.number is None:
                    heads[row.shard_number] = Head(row.shard_id, 0, 0, bytes(32), "0", 0)
                elif is_well_formed(row):
                    heads[row.shard_number] = _head(row.shard_id, row)
                else:
                    heads[row.shard_number] = _sound_head(connection, row.shard_number, row.shard_id)
        self._shard_ids = {number: head.shard_id for number, head in heads.items()}
        return heads

    def head_of(self, shard_id: str) -> tuple[int, Head] | None:
        """A shard's number in the archive and its newest batch; None when the archive has not met it."""
        return next(((n, head) for n, head in self.heads().items() if head.shard_id == shard_id), None)

    def has_batch(self, shard_id: str, number: int, batch_hash: bytes) -> bool:
        """Whether a shard's batch is there, with this hash; number 0 stands for the one before the first."""
        statement = (
            select(batches.c.hash)
            .join(shards, shards.c.shard_number == batches.c.shard_number)
            .where(shards.c.shard_id == shard_id, batches.c.number == number)
        )
        with self.reading() as connection:
            return number == 0 or connection.scalar(statement) == batch_hash

    def shard_id(self, entry_id: int) -> str:
        """The name of the shard that made an entry. Asks the database only for one that is new."""
        shard_number = entry_id >> SEQUENCE_BITS
        if shard_number not in self._shard_ids:
            self.heads()
        return self._shard_ids.get(shard_number, f"shard number {shard_number}")

    def exponents(self) -> Exponents:
        """How many decimals each currency of the ledger has.

        Raises LedgerError when the cluster has stored another exponent for one: then one of them is wrong.
        """
        with self.reading() as connection:
            self._exponents = read_exponents(connection, self._cluster)
        return self._exponents

    def exponent(self, currency: str) -> int:
        """How many decimals a currency has. Asks the database only for one that is new.

        Raises LedgerError as :meth:`exponents`, and ExponentUnknownError when the ledger has none for it.
        """
        if currency not in self._exponents:
            self.exponents()
        return self._exponents[currency]

    def after(self, first_id: int, last_id: int, accounts: Sequence[str], limit: int) -> list[Entry]:
        """Entries above ``first_id`` up to ``last_id``, both ids of one shard, in order, ``limit`` at most.

        Only those of the given accounts, of all when there are none.
        """
        statement = select(entries).where(entries.c.entry_id > first_id, entries.c.entry_id <= last_id)
        if accounts:
            # As an expression, so that no database prefers the accounts' index to the few rows of the range.
            statement = statement.where(entries.c.account_id.concat("").in_(accounts))
        return self._stored(statement.order_by(entries.c.entry_id).limit(limit))

    # ------------------------------------------------------------------ within

    def _stored(self, statement: Select[Any]) -> list[Entry]:
        with self.reading() as connection:
            return [Entry(*row) for row in connection.execute(statement)]

    def _between(self, query: HistoryQuery, low: int, high: int, limit: int) -> list[Entry]:
        """The query's entries with versions above ``low`` and below ``high``."""
        conditions: list[ColumnElement[bool]] = [
            entries.c.account_id == query.account_id,
            entries.c.version > low,
            entries.c.version < high,
        ]
        if query.from_ms is not None:
            conditions.append(entries.c.at_ms >= query.from_ms)
        if query.to_ms is not None:
            conditions.append(entries.c.at_ms < query.to_ms)
        if query.kinds:
            conditions.append(entries.c.kind.in_(sorted(query.kinds)))
        order = entries.c.version.desc() if query.newest_first else entries.c.version.asc()
        return self._stored(select(entries).where(*conditions).order_by(order).limit(limit))


def _newest_version(connection: Connection, account_id: str) -> int | None:
    """An account's newest version; None when it has no entry."""
    newest = select(func.max(entries.c.version)).where(entries.c.account_id == account_id)
    version: int | None = connection.scalar(newest)
    return version


def _version_bounds(connection: Connection, query: HistoryQuery, last: int) -> tuple[int, int]:
    """Versions between which, both not included, everything of the time range lies.

    The margin makes it right also where an account's times are not quite in the order of its versions.
    """
    low, high = -1, last + 1
    if query.from_ms is not None:
        low = _version_before(connection, query.account_id, last, query.from_ms - MAX_CLOCK_SKEW_MS)
    if query.to_ms is not None:
        high = _version_before(connection, query.account_id, last, query.to_ms + MAX_CLOCK_SKEW_MS) + 1
    return low, high


def _version_at(connection: Connection, account_id: str, time_ms: int) -> int | None:
    """The version of an account's latest entry up to a time, of several at that moment the last.

    None when there is none. An account that moved may have later entries among earlier ones, but each
    shard's own are in the order of its time. So near the place where the time passes by, in each direction
    only those of other shards can be meant; they are looked for among SCAN_ROWS entries either way.
    """
    last = _newest_version(connection, account_id)
    if last is None:
        return None
    at = _version_before(connection, account_id, last, time_ms + 1)
    near = connection.execute(_AROUND, {"account_id": account_id, "at": at}).all()
    candidates: list[tuple[int, int]] = []
    for entry in near:
        if entry.version == at:
            candidates.append((entry.at_ms, at))
            low = _version_before(connection, account_id, last, entry.at_ms - MAX_CLOCK_SKEW_MS)
            high = at
        else:
            low = entry.version
            high = _version_before(connection, account_id, last, time_ms + 1 + MAX_CLOCK_SKEW_MS) + 1
        # Bounded, as every question is: of an account this busy only so many are looked at.
        low, high = max(low, at - SCAN_ROWS), min(high, at + SCAN_ROWS)
        first_id = entry.entry_id >> SEQUENCE_BITS << SEQUENCE_BITS
        given = {"account_id": account_id, "low": low, "high": high, "time_ms": time_ms}
        given |= {"first_id": first_id, "last_id": first_id | SEQUENCE_MASK}
        candidates += [(row.at_ms, row.version) for row in connection.execute(_LATEST_ELSEWHERE, given)]
        if at < 0:
            # Both are after the time.
            break
    return max(candidates)[1] if candidates else None


def _version_before(connection: Connection, account_id: str, last: int, time_ms: int) -> int:
    """A version before a time whose successor is not; -1 when the first one is not. ``last`` is the newest.

    Halves the versions, all in one statement. Where an account's times are not in the order of its versions
    there may be several such; by :data:`MAX_CLOCK_SKEW_MS` at least, all before it are before the time and
    that much, all after it not before the time less that much.
    """
    given = {"account_id": account_id, "end": last + 1, "time_ms": time_ms}
    version: int = connection.execute(_VERSION_BEFORE, given).scalar_one()
    return version


def _halving() -> Select[Any]:
    """What :func:`_version_before` asks."""
    end, time_ms = bindparam("end", type_=BigInteger), bindparam("time_ms", type_=BigInteger)
    halved = select(literal(-1, BigInteger).label("low"), end.label("high")).cte("halved", recursive=True)
    low, high = halved.c.low, halved.c.high
    middle = (low + high) // 2
    # The next one, should a version be missing; none when the next one is not before the time.
    found = (
        select(case((entries.c.at_ms < time_ms, entries.c.version)))
        .where(
            entries.c.account_id == bindparam("account_id"),
            entries.c.version >= middle,
            entries.c.version < high,
        )
        .order_by(entries.c.version)
        .limit(1)
        .correlate(halved)
        .scalar_subquery()
    )
    half = select(func.coalesce(found, low), case((found.is_(None), middle), else_=high))
    halved = halved.union_all(half.where(high - low > 1))
    return select(halved.c.low).where(halved.c.high - halved.c.low == 1)


def _around() -> Select[Any]:
    """An account's entry of a version, if there is one, and the next."""
    return (
        select(entries.c.version, entries.c.at_ms, entries.c.entry_id)
        .where(entries.c.account_id == bindparam("account_id"), entries.c.version >= bindparam("at"))
        .order_by(entries.c.version)
        .limit(2)
    )


def _latest_elsewhere() -> Select[Any]:
    """Between two versions, the latest entry up to a time that is not of the shard with these ids."""
    return (
        select(entries.c.at_ms, entries.c.version)
        .where(
            entries.c.account_id == bindparam("account_id"),
            entries.c.version > bindparam("low"),
            entries.c.version < bindparam("high"),
            not_(entries.c.entry_id.between(bindparam("first_id"), bindparam("last_id"))),
            entries.c.at_ms <= bindparam("time_ms"),
        )
        .order_by(entries.c.at_ms.desc(), entries.c.version.desc())
        .limit(1)
    )


def _newest_batches() -> Select[Any]:
    """Every shard, and its newest batch if there is one."""
    newest = (
        select(func.max(batches.c.number))
        .where(batches.c.shard_number == shards.c.shard_number)
        .correlate(shards)
        .scalar_subquery()
    )
    return select(shards.c.shard_number, shards.c.shard_id, *_BATCH_COLUMNS).select_from(
        shards.outerjoin(
            batches, and_(batches.c.shard_number == shards.c.shard_number, batches.c.number == newest)
        )
    )


# Made once: to make one costs more than to answer it.
_NEWEST_BATCHES: Final = _newest_batches()
_VERSION_BEFORE: Final = _halving()
_AROUND: Final = _around()
_LATEST_ELSEWHERE: Final = _latest_elsewhere()


def is_well_formed(batch: Any) -> bool:
    """Whether a row of ``batches`` has the types that an archiver stores: SQLite takes any in any column."""
    numbers = (batch.number, batch.first_sequence, batch.entry_count)
    times = (batch.first_at_ms, batch.last_at_ms, batch.archived_at_ms)
    hashes = (batch.previous_hash, batch.hash)
    return (
        all(type(number) is int and number >= 1 for number in numbers)
        and all(type(time) is int for time in times)
        and all(type(one) is bytes and len(one) == _HASH_BYTES for one in hashes)
        and type(batch.stream_id) is str
        and _STREAM_ID.fullmatch(batch.stream_id) is not None
        and all(int(part) < 1 << 64 for part in batch.stream_id.split("-"))
    )


def _head(shard_id: str, batch: Row[Any], damaged: int = 0) -> Head:
    last = batch.first_sequence + batch.entry_count - 1
    return Head(shard_id, batch.number, last, batch.hash, batch.stream_id, batch.last_at_ms, damaged)


def _sound_head(connection: Connection, shard_number: int, shard_id: str) -> Head:
    """The last batch of a shard before those that are damaged."""
    newest = (
        select(*_BATCH_COLUMNS)
        .where(batches.c.shard_number == shard_number)
        .order_by(batches.c.number.desc())
        .limit(_MAX_DAMAGED)
    )
    damaged = 0
    for damaged, row in enumerate(connection.execute(newest)):
        if is_well_formed(row):
            return _head(shard_id, row, damaged)
    if damaged + 1 == _MAX_DAMAGED:
        raise LedgerError(f"the last {_MAX_DAMAGED} batches of {shard_id} are damaged")
    return Head(shard_id, 0, 0, bytes(_HASH_BYTES), "0", 0, damaged + 1)


def _sent_by(payer: str) -> ColumnElement[bool]:
    """Whether an entry says that ``payer`` sent its transaction, in the sense of the id's scope."""
    table = entries.c
    deposit, expiry = table.kind == int(Kind.DEPOSIT), table.kind == int(Kind.EXPIRY)
    own = case((deposit, table.leg == 1), else_=or_(table.leg == 0, expiry))
    others = case((deposit, false()), else_=and_(table.leg != 0, not_(expiry)))
    return or_(and_(own, _is(table.account_id, payer)), and_(others, _is(table.counterparty, payer)))


def _is(name: ColumnElement[str], account_id: str) -> ColumnElement[bool]:
    """As an expression, so that no database prefers an account's index to that of transactions."""
    return name.concat("") == account_id
