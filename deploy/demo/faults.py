"""What somebody with access to the database might do to the ledger. For copies of an SQLite one only."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from shard_node.contract import Kind
from shard_node.ledger.proof import Rule
from shard_node.ledger.store import GENESIS, SEQUENCE_BITS, ArchivedShard, Header, chain_hash, entry_id


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to falsify a ledger. ``plant`` does it; ``rules`` must be among those that the audit names."""

    told: str
    rules: frozenset[Rule]
    plant: Callable[[sqlite3.Connection, str], None]


def copy_ledger(source: Path, target: Path) -> None:
    """A consistent copy of an SQLite ledger that is in use."""
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(target)) as copy:
        original.backup(copy)


@contextmanager
def changing(ledger: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose changes are kept when the block ends well."""
    with closing(sqlite3.connect(ledger)) as connection, connection:
        yield connection


def _purchase_of(connection: sqlite3.Connection, account_id: str) -> int:
    """The entry id of an account's first purchase."""
    (found,) = connection.execute(
        "SELECT entry_id FROM entries WHERE account_id = ? AND kind = ? ORDER BY version LIMIT 1",
        (account_id, Kind.PURCHASE.value),
    ).fetchone()
    return int(found)


def _change_amount(connection: sqlite3.Connection, account_id: str) -> None:
    purchase = _purchase_of(connection, account_id)
    connection.execute("UPDATE entries SET delta = delta + 100 WHERE entry_id = ?", (purchase,))


def _forge(connection: sqlite3.Connection, account_id: str) -> None:
    """Both halves, every balance after them and every hash: in itself the ledger is without a flaw."""
    purchase = _purchase_of(connection, account_id)
    halves = connection.execute(
        "SELECT account_id, version, CASE WHEN delta < 0 THEN 100 ELSE -100 END FROM entries "
        "WHERE transaction_id = (SELECT transaction_id FROM entries WHERE entry_id = ?)",
        (purchase,),
    ).fetchall()
    for name, version, change in halves:
        connection.execute(
            "UPDATE entries SET delta = delta + ? WHERE account_id = ? AND version = ?",
            (change, name, version),
        )
        connection.execute(
            "UPDATE entries SET balance = balance + ? WHERE account_id = ? AND version >= ?",
            (change, name, version),
        )
    for number, shard_id in connection.execute("SELECT shard_number, shard_id FROM shards").fetchall():
        _seal_anew(connection, ArchivedShard(number, shard_id))


def _seal_anew(connection: sqlite3.Connection, shard: ArchivedShard) -> None:
    previous = GENESIS
    found = connection.execute(
        "SELECT number, first_sequence, entry_count, stream_id, first_at_ms, last_at_ms, archived_at_ms "
        "FROM batches WHERE shard_number = ? ORDER BY number",
        (shard.number,),
    ).fetchall()
    for values in found:
        header = Header(shard, *values)
        first = entry_id(shard.number, header.first_sequence)
        rows = connection.execute(
            "SELECT * FROM entries WHERE entry_id >= ? AND entry_id < ? ORDER BY entry_id",
            (first, first + header.entry_count),
        ).fetchall()
        sealed = chain_hash(previous, header, rows)
        connection.execute(
            "UPDATE batches SET previous_hash = ?, hash = ? WHERE shard_number = ? AND number = ?",
            (previous, sealed, shard.number, header.number),
        )
        previous = sealed


def _change_text(connection: sqlite3.Connection, account_id: str) -> None:
    purchase = _purchase_of(connection, account_id)
    connection.execute("UPDATE entries SET reference = 'office supplies' WHERE entry_id = ?", (purchase,))


def _delete_entry(connection: sqlite3.Connection, account_id: str) -> None:
    purchase = _purchase_of(connection, account_id)
    connection.execute("DELETE FROM entries WHERE entry_id = ?", (purchase,))


def _swap_entries(connection: sqlite3.Connection, account_id: str) -> None:
    """Two neighbours of one shard change places."""
    purchase = _purchase_of(connection, account_id)
    for old, new in ((purchase, -1), (purchase + 1, purchase), (-1, purchase + 1)):
        connection.execute("UPDATE entries SET entry_id = ? WHERE entry_id = ?", (new, old))


def _cut_tail(connection: sqlite3.Connection, account_id: str) -> None:
    """The newest batch of the account's shard goes, with its entries: what is left is in itself whole."""
    shard_number = _purchase_of(connection, account_id) >> SEQUENCE_BITS
    first, number = connection.execute(
        "SELECT first_sequence, number FROM batches WHERE shard_number = ? ORDER BY number DESC LIMIT 1",
        (shard_number,),
    ).fetchone()
    connection.execute(
        "DELETE FROM entries WHERE entry_id >= ? AND entry_id < ?",
        (entry_id(shard_number, first), entry_id(shard_number + 1, 0)),
    )
    connection.execute("DELETE FROM batches WHERE shard_number = ? AND number = ?", (shard_number, number))


FAULTS = (
    Fault("a purchase gets a euro cheaper", frozenset({Rule.CHAIN, Rule.SUM, Rule.BALANCE}), _change_amount),
    Fault("a text is changed, no figure", frozenset({Rule.CHAIN}), _change_text),
    Fault("an entry is deleted", frozenset({Rule.CHAIN, Rule.GAP}), _delete_entry),
    Fault("two entries change places", frozenset({Rule.CHAIN}), _swap_entries),
    Fault("the newest batch is cut off, with its entries", frozenset({Rule.HEAD}), _cut_tail),
    Fault(
        "a euro cheaper, with both halves, all balances and all hashes made anew",
        frozenset({Rule.HEAD, Rule.LIVE}),
        _forge,
    ),
)
