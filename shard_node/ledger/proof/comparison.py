"""What the archive says of many accounts at once, to be compared with the live ones. Blocking.

Each question is a handful of index look-ups an account, however long the accounts' histories are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import BigInteger, Join, Text, and_, case, column, func, select, values

from shard_node.contract import AccountState, Kind
from shard_node.ledger.proof.chain_reader import Place
from shard_node.ledger.proof.fold import STATES
from shard_node.ledger.questions import is_well_formed, moves_held
from shard_node.ledger.store import ArchivedShard, batches, entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shard_node.ledger.questions import History

T = TypeVar("T")

_CHANGES: Final = sorted(int(kind) for kind in STATES if kind is not Kind.OPEN)

# Accounts in one statement: each is two parameters, of which SQLite takes some 32,000.
LOOKUP_ACCOUNTS: Final = 1000
# Repetitions that are looked for; the first one is a catastrophe, so a few are enough.
MAX_REPEATED: Final = 100


@dataclass(frozen=True, slots=True)
class Opening:
    """How an account began, and the newest version that is archived. ``attributes`` is JSON or empty."""

    newest_version: int
    attributes: str


@dataclass(frozen=True, slots=True)
class ArchivedBalance:
    """An account at one version. Minor units; ``balance_minor`` is available and held together."""

    balance_minor: int
    held_minor: int
    currency: str
    entry_id: int


def openings(history: History, account_ids: Sequence[str]) -> dict[str, Opening]:
    """By account id; without those of which nothing is archived."""
    later = entries.alias("later")
    newest = (
        select(func.max(later.c.version)).where(later.c.account_id == entries.c.account_id).scalar_subquery()
    )
    found: dict[str, Opening] = {}
    for piece in _pieces(account_ids):
        # A system account has no OPEN entry: it begins with version 1.
        first = _wanted([(name, 1 if name.startswith("@") else 0) for name in piece])
        statement = select(entries.c.account_id, newest, entries.c.attributes).select_from(first)
        with history.reading() as connection:
            for account_id, version, attributes in connection.execute(statement):
                found[account_id] = Opening(version, attributes)
    return found


def balances(history: History, versions: Iterable[tuple[str, int]]) -> dict[str, ArchivedBalance]:
    """Accounts as they were at these versions, by id; without those whose version is not archived."""
    moves = entries.alias("moves")
    held = (
        select(func.sum(moves.c.held_delta))
        .where(
            moves.c.account_id == entries.c.account_id,
            moves.c.version <= entries.c.version,
            moves_held(moves),
        )
        .scalar_subquery()
    )
    found: dict[str, ArchivedBalance] = {}
    for piece in _pieces(list(versions)):
        statement = select(
            entries.c.account_id, entries.c.balance, held, entries.c.currency, entries.c.entry_id
        ).select_from(_wanted(piece))
        with history.reading() as connection:
            for account_id, balance, held_minor, currency, entry_id in connection.execute(statement):
                found[account_id] = ArchivedBalance(balance, int(held_minor or 0), currency, entry_id)
    return found


def _wanted(versions: Sequence[tuple[str, int]]) -> Join:
    """The entries of these accounts and versions.

    A join with the list, entry by entry: SQLite would read the whole table for a list of pairs in WHERE.
    """
    columns = (column("account_id", Text), column("version", BigInteger))
    wanted = values(*columns, name="wanted").data(versions).cte("wanted")
    same = and_(entries.c.account_id == wanted.c.account_id, entries.c.version == wanted.c.version)
    return wanted.join(entries, same)


def state_changes(history: History) -> dict[str, list[tuple[int, AccountState]]]:
    """Of every account that was ever frozen or closed: at which versions it became what, in order.

    Looks at one row an account and one a change: such entries have no transaction, and are indexed by that.
    """
    statement = (
        select(entries.c.account_id, entries.c.version, entries.c.kind)
        .where(entries.c.transaction_id.is_(None), entries.c.kind.in_(_CHANGES))
        .order_by(entries.c.version)
    )
    found: dict[str, list[tuple[int, AccountState]]] = {}
    with history.reading() as connection:
        for account_id, version, kind in connection.execute(statement):
            found.setdefault(account_id, []).append((version, STATES[Kind(kind)]))
    return found


def state_at(history: History, account_id: str, version: int) -> AccountState:
    """What an account was after the entry of that version. May look at its whole history."""
    statement = (
        select(entries.c.kind)
        .where(entries.c.account_id == account_id, entries.c.version <= version, entries.c.kind.in_(_CHANGES))
        .order_by(entries.c.version.desc())
        .limit(1)
    )
    with history.reading() as connection:
        kind = connection.scalar(statement)
    return AccountState.OPEN if kind is None else STATES[Kind(kind)]


def place_after(history: History, shard: ArchivedShard, number: int) -> Place | None:
    """The place after a batch, to read on from; None when there is no such batch, or it is damaged."""
    statement = select(batches).where(batches.c.shard_number == shard.number, batches.c.number == number)
    with history.reading() as connection:
        row = connection.execute(statement).first()
    if row is None or not is_well_formed(row):
        return None
    return Place(shard, number, row.hash, row.first_sequence + row.entry_count, row.stream_id, row.last_at_ms)


def repeated_transactions(history: History) -> list[bytes]:
    """Ids of UUIDv7 transactions that have more legs than they may: one was carried out twice.

    Such an id is exactly-once for ever. Others may be used again when the shards have forgotten them.
    Reads the whole index of transaction ids.
    """
    # An expiry bears the id of its hold, and is no leg of it.
    legs = func.sum(case((entries.c.kind == int(Kind.EXPIRY), 0), else_=1))
    suspects = (
        select(entries.c.transaction_id)
        .where(entries.c.transaction_id.is_not(None))
        .group_by(entries.c.transaction_id)
        .having(and_(func.count() > 1, legs > func.min(entries.c.leg_count)))
    )
    # One id may rightly have had several payers: of each payload, a leg may be there once.
    statement = (
        select(entries.c.transaction_id)
        .where(entries.c.transaction_id.in_(suspects))
        .group_by(entries.c.transaction_id, entries.c.fingerprint, entries.c.kind, entries.c.leg)
        .having(func.count() > 1)
    )
    repeated: dict[bytes, None] = {}
    with history.reading() as connection:
        for transaction_id in connection.execution_options(yield_per=1000).scalars(statement):
            if _is_v7(transaction_id):
                repeated[transaction_id] = None
            if len(repeated) == MAX_REPEATED:
                break
    return list(repeated)


def _is_v7(transaction_id: bytes) -> bool:
    return len(transaction_id) == 16 and transaction_id[6] >> 4 == 7


def _pieces(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[at : at + LOOKUP_ACCOUNTS] for at in range(0, len(items), LOOKUP_ACCOUNTS))
