"""The archive on both databases: a batch is stored once, whole, and only upon the last one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import Connection, Engine, event, func, select, text

from shard_node.errors import BatchTakenError, LedgerError, LedgerUnavailableError
from shard_node.ledger.store.archive import STREAM_START, Archive, Position
from shard_node.ledger.store.chain import GENESIS, is_intact, seal
from shard_node.ledger.store.rows import ArchivedShard, Row
from shard_node.ledger.store.schema import POSTGRESQL, batches, entries, open_ledger
from tests.ledger.streams import Stream, batch

SHARD = ArchivedShard(1, "shard-0")


class StoppedError(Exception):
    """Stands for the end of the process."""


class _Stopping:
    """Cuts off whatever is stored, at a moment."""

    def __init__(self, engine: Engine, moment: str) -> None:
        self._engine = engine
        self._name = "commit" if moment == "before the commit" else "before_cursor_execute"
        # Entries go past SQLAlchemy: the header's own return is the moment before.
        if moment == "before the entries":
            self._name = "after_cursor_execute"

    def __enter__(self) -> None:
        event.listen(self._engine, self._name, self._stop)

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, self._name, self._stop)

    def _stop(self, connection: Connection, *arguments: object) -> None:
        if self._name == "commit" or "INTO batches" in str(arguments[1]):
            # As when the process ends: nobody rolls back.
            connection.invalidate()
            raise StoppedError


@pytest.fixture
def archive(engine: Engine) -> Archive:
    """An empty archive."""
    return Archive(engine)


def counts(engine: Engine) -> tuple[int, int]:
    """Batches and entries stored."""
    with engine.connect() as connection:
        return tuple(  # type: ignore[return-value]
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (batches, entries)
        )


def verified_rows(archive: Archive, shard: ArchivedShard) -> list[Row]:
    """All rows of a shard, after a check of every batch and of the chain between them."""
    rows: list[Row] = []
    previous = GENESIS
    for number, sealed in enumerate(archive.batches(shard, 0, 1000), 1):
        read = archive.rows(sealed.header)
        assert (sealed.header.number, sealed.previous_hash) == (number, previous)
        assert sealed.header.first_sequence == len(rows) + 1
        assert is_intact(sealed, read)
        rows += read
        previous = sealed.hash
    return rows


def test_a_new_shard(archive: Archive) -> None:
    """Shards are numbered as they come; nothing is stored of a new one."""
    assert archive.position("shard-0") == Position(SHARD, 0, GENESIS, STREAM_START, 1)
    assert archive.position("shard-7").shard == ArchivedShard(2, "shard-7")
    assert archive.position("shard-0").shard == SHARD
    assert archive.shards() == [SHARD, ArchivedShard(2, "shard-7")]


def test_new_shards_at_once(archive: Archive) -> None:
    """Archivers that meet new shards at one moment agree on their numbers."""
    names = [f"shard-{number}" for number in range(4)]
    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(lambda name: archive.position(name).shard, names * 3))
    assert found[:4] == found[4:8] == found[8:]
    assert {shard.number for shard in found} == {1, 2, 3, 4}


def test_batches_follow_each_other(archive: Archive) -> None:
    """What was stored is read back as it was, and the last batch is the position."""
    position = archive.position("shard-0")
    stream = Stream()
    expected: list[Row] = []
    for size in (3, 1, 2):
        sealed, rows = batch(position, [stream.post(size), stream.post(1)])
        archive.store(sealed, rows)
        position = position.after(sealed)
        expected += rows
        assert archive.position("shard-0") == position
        assert archive.batches(SHARD, position.number - 1, 10) == [sealed]
    assert verified_rows(archive, SHARD) == expected
    assert archive.batches(SHARD, 1, 1)[0].header.number == 2


def test_every_kind_of_value_survives(archive: Archive) -> None:
    """Extreme numbers, texts and nulls come back as they were: the chain would break otherwise."""
    position = archive.position("shard-0")
    row: Row = (
        (1 << 40) + 1, "Ünï-☃-'\"\\\t\n", 2**53, 2**45, 14, bytes(16), b"\xff" * 8, 99, 100, "", "EUR",
        -(2**53), 2**53, -1, b"\\x00\\N\t\n" + bytes(10), "\\N", "\\.", "\u2400", '{"a": "\\u00e9"}',
    )  # fmt: skip
    other: Row = (
        (1 << 40) + 2, "b", 0, 0, 1, None, None, 0, 0, "", "", 0, 0, 0, None, "", "", "", "",
    )  # fmt: skip
    header = replace(batch(position, [Stream().post(1)])[0].header, entry_count=2)
    archive.store(seal(GENESIS, header, [row, other]), [row, other])
    assert verified_rows(archive, SHARD) == [row, other]


def test_a_batch_twice(archive: Archive, engine: Engine) -> None:
    """The second store of a batch is refused and changes nothing."""
    sealed, rows = batch(archive.position("shard-0"), [Stream().post(2)])
    archive.store(sealed, rows)
    with pytest.raises(BatchTakenError):
        archive.store(sealed, rows)
    assert counts(engine) == (1, 4)


def test_a_batch_upon_another_history(archive: Archive, engine: Engine) -> None:
    """A batch that does not follow the last one is refused: the tail is gone, or another's."""
    position = archive.position("shard-0")
    stream = Stream()
    first, rows = batch(position, [stream.post(1)])
    second, later = batch(position.after(first), [stream.post(1)])
    with pytest.raises(BatchTakenError):
        archive.store(second, later)
    archive.store(first, rows)
    with pytest.raises(BatchTakenError):
        archive.store(replace(second, previous_hash=bytes(32)), later)
    archive.store(second, later)
    assert counts(engine) == (2, 4)


def test_two_archivers_at_one_moment(archive: Archive, engine: Engine) -> None:
    """Of two stores of one number exactly one succeeds, however they meet."""
    position = archive.position("shard-0")
    stream = Stream()
    for _ in range(10):
        made = batch(position, [stream.post(50)])
        together = threading.Barrier(2)

        def store(made: tuple[object, Sequence[Row]] = made, together: threading.Barrier = together) -> bool:
            together.wait()
            try:
                archive.store(*made)  # type: ignore[arg-type]
            except BatchTakenError:
                return False
            return True

        with ThreadPoolExecutor(2) as threads:
            assert sorted(future.result() for future in [threads.submit(store) for _ in range(2)]) == [
                False,
                True,
            ]
        position = position.after(made[0])
    assert counts(engine) == (10, 1000)
    assert len(verified_rows(archive, SHARD)) == 1000


def test_an_entry_that_is_there(archive: Archive, engine: Engine) -> None:
    """An account's version comes once, on whichever shard; the refusal names it, and nothing is stored."""
    # Not of the system, whose accounts are others on each shard.
    stream = Stream(("ann", "bob", "cid"))
    sealed, rows = batch(archive.position("shard-0"), [stream.post(1)])
    archive.store(sealed, rows)
    again, copies = batch(archive.position("shard-1"), stream.frames)
    with pytest.raises(
        LedgerError, match=r"shard-1: batch 1 .* version 1 of account .* entry . of shard number 1"
    ):
        archive.store(again, copies)
    other = Stream(("dan", "eve"))
    twice, both = batch(archive.position("shard-1"), [other.post(1), other.frames[0]])
    with pytest.raises(LedgerError, match="twice"):
        archive.store(twice, both)
    assert counts(engine) == (1, 2)


@pytest.mark.parametrize("moment", ["before the header", "before the entries", "before the commit"])
def test_stopped_within_a_store(archive: Archive, engine: Engine, moment: str) -> None:
    """A store that is cut off leaves nothing, and the same batch can be stored after it."""
    sealed, rows = batch(archive.position("shard-0"), [Stream().post(2)])
    with _Stopping(engine, moment), pytest.raises(StoppedError):
        archive.store(sealed, rows)
    assert counts(engine) == (0, 0)
    archive.store(sealed, rows)
    assert verified_rows(archive, SHARD) == rows


@pytest.mark.servers
@pytest.mark.parametrize("empty_url", [POSTGRESQL], indirect=True)
def test_a_database_that_goes_away(archive: Archive, engine: Engine, ledger_url: str) -> None:
    """A connection that breaks is an error that may pass; the next call finds a new one."""
    sealed, rows = batch(archive.position("shard-0"), [Stream().post(2)])
    other = open_ledger(ledger_url)

    def cut(*_: object) -> None:
        with other.connect() as connection:
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                     " AND datname = current_database()")
            )  # fmt: skip

    event.listen(engine, "commit", cut)
    with pytest.raises(LedgerUnavailableError):
        archive.store(sealed, rows)
    event.remove(engine, "commit", cut)
    assert archive.position("shard-0").number == 0
    archive.store(sealed, rows)
    assert verified_rows(archive, SHARD) == rows
    other.dispose()


def test_readers_do_not_hold_up_the_archiver(archive: Archive) -> None:
    """A reader with an open transaction sees one moment; what is stored meanwhile it does not see."""
    position = archive.position("shard-0")
    stream = Stream()
    first, rows = batch(position, [stream.post(1)])
    archive.store(first, rows)
    with archive.reading() as connection:
        count = select(func.count()).select_from(entries)
        assert connection.execute(count).scalar_one() == 2
        second, later = batch(position.after(first), [stream.post(1)])
        archive.store(second, later)
        assert connection.execute(count).scalar_one() in {2, 4}
    with archive.reading() as connection:
        assert connection.execute(count).scalar_one() == 4
