"""What somebody with access to the ledger's database might do to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, delete, select, update

from shard_node.ledger.store.archive import Archive
from shard_node.ledger.store.chain import GENESIS, seal
from shard_node.ledger.store.rows import ArchivedShard
from shard_node.ledger.store.schema import WRITING, batches, entries, entry_id


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes."""
    with engine.connect().execution_options(**{WRITING: True}) as connection:
        yield connection
        connection.commit()


def change_entry(engine: Engine, changed_id: int, **values: Any) -> None:
    """Writes other values into one row."""
    with writing(engine) as connection:
        done = connection.execute(update(entries).where(entries.c.entry_id == changed_id).values(**values))
        assert done.rowcount == 1


def delete_entry(engine: Engine, deleted_id: int) -> None:
    """Takes one row away."""
    with writing(engine) as connection:
        assert connection.execute(delete(entries).where(entries.c.entry_id == deleted_id)).rowcount == 1


def delete_batches(engine: Engine, shard: int, first: int, last: int) -> None:
    """Takes batches and all their entries away."""
    with writing(engine) as connection:
        of_shard = (batches.c.shard_number == shard) & batches.c.number.between(first, last)
        for row in connection.execute(select(batches).where(of_shard)).all():
            low = entry_id(shard, row.first_sequence)
            connection.execute(
                delete(entries).where(entries.c.entry_id.between(low, low + row.entry_count - 1))
            )
        assert connection.execute(delete(batches).where(of_shard)).rowcount == last - first + 1


def swap_batches(engine: Engine, shard: int, one: int, other: int) -> None:
    """Gives each of two batches of equal size the other's entries and hash."""
    spare = 1 << 39
    with writing(engine) as connection:
        first, second = (
            connection.execute(
                select(batches).where(batches.c.shard_number == shard, batches.c.number == number)
            ).one()
            for number in (one, other)
        )
        assert first.entry_count == second.entry_count
        distance = second.first_sequence - first.first_sequence
        for row, shift in ((first, spare), (second, -distance), (first, distance)):
            low = entry_id(shard, row.first_sequence) + (spare if shift == distance else 0)
            step = shift - spare if shift == distance else shift
            connection.execute(
                update(entries)
                .where(entries.c.entry_id.between(low, low + row.entry_count - 1))
                .values(entry_id=entries.c.entry_id + step)
            )
        for row, source in ((first, second), (second, first)):
            connection.execute(
                update(batches)
                .where(batches.c.shard_number == shard, batches.c.number == row.number)
                .values(
                    stream_id=source.stream_id,
                    first_at_ms=source.first_at_ms,
                    last_at_ms=source.last_at_ms,
                    hash=source.hash,
                )
            )


def renumber_after(engine: Engine, shard: int, deleted: int) -> None:
    """Closes the hole that a deleted entry left: all later entries move up by one."""
    with writing(engine) as connection:
        later = connection.scalars(
            select(entries.c.entry_id)
            .where(entries.c.entry_id > deleted, entries.c.entry_id < entry_id(shard + 1, 0))
            .order_by(entries.c.entry_id)
        ).all()
        for moved in later:
            connection.execute(update(entries).where(entries.c.entry_id == moved).values(entry_id=moved - 1))
        holding = (batches.c.shard_number == shard) & (
            batches.c.first_sequence <= deleted - entry_id(shard, 0)
        )
        last = connection.execute(
            select(batches).where(holding).order_by(batches.c.number.desc()).limit(1)
        ).one()
        connection.execute(
            update(batches)
            .where(batches.c.shard_number == shard, batches.c.number == last.number)
            .values(entry_count=last.entry_count - 1)
        )
        connection.execute(
            update(batches)
            .where(batches.c.shard_number == shard, batches.c.number > last.number)
            .values(first_sequence=batches.c.first_sequence - 1)
        )


def reseal(engine: Engine, shard: ArchivedShard) -> None:
    """Computes every hash anew, as a careful forger would."""
    archive = Archive(engine)
    previous = GENESIS
    for sealed in archive.batches(shard, 0, 10_000):
        again = seal(previous, sealed.header, archive.rows(sealed.header))
        with writing(engine) as connection:
            connection.execute(
                update(batches)
                .where(batches.c.shard_number == shard.number, batches.c.number == sealed.header.number)
                .values(previous_hash=again.previous_hash, hash=again.hash)
            )
        previous = again.hash
