"""Following the ledger by cursor: everything once, in order, from wherever a reader left off."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from shard_node.ledger.questions import following
from shard_node.ledger.questions.following import Follower, checked
from shard_node.ledger.questions.history import History
from shard_node.ledger.questions.positions import BadTokenError, Cursor
from shard_node.ledger.store.rows import Entry
from shard_node.ledger.store.schema import SEQUENCE_BITS, SEQUENCE_MASK
from tests.ledger.books import Books, sample


class ArchiveOf:
    """The ledger's rows in memory; ``visible`` is how many of each shard are archived."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.visible = dict.fromkeys(books.all, 0)
        self.rows_read = 0

    def after(self, first_id: int, last_id: int, accounts: Sequence[str], limit: int) -> list[Entry]:
        """As History."""
        shard = first_id >> SEQUENCE_BITS
        rows = self.books.all[shard][first_id & SEQUENCE_MASK : last_id & SEQUENCE_MASK]
        assert (last_id & SEQUENCE_MASK) <= self.visible[shard]
        found = [row for row in rows if not accounts or row.account_id in accounts][:limit]
        self.rows_read += len(found)
        return found


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    chunk=st.integers(1, 5),
    window=st.integers(1, 6),
    accounts=st.sampled_from([(), ("alice",), ("bob", "shop"), ("nobody",)]),
)
def test_everything_once_and_in_order(seed: int, chunk: int, window: int, accounts: tuple[str, ...]) -> None:
    """However the archive grows, however often the reader starts again from a cursor: every entry, once."""
    chance = random.Random(seed)
    archive = ArchiveOf(sample())
    follower = Follower(archive, Cursor({}), accounts)
    received: list[Entry] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(following, "CHUNK", chunk)
        patch.setattr(following, "WINDOW", window)
        while True:
            for shard, rows in archive.books.all.items():
                archive.visible[shard] = min(len(rows), archive.visible[shard] + chance.randrange(4))
            looks = 0
            while follower.behind(archive.visible) and chance.random() < 0.9:
                news = follower.advance(archive.visible)
                assert len(news) <= chunk
                received += news
                if chance.random() < 0.2:
                    # Another reader goes on, with nothing but the text of the cursor.
                    follower = Follower(archive, Cursor.parse(follower.cursor.text()), accounts)
                looks += 1
                assert looks < 1000
            done = all(archive.visible[shard] == len(rows) for shard, rows in archive.books.all.items())
            if done and not follower.behind(archive.visible):
                break
    expected = [Entry(*row) for row in archive.books.rows() if not accounts or row[1] in accounts]
    assert sorted(received) == sorted(expected)
    for name in {entry.account_id for entry in received}:
        versions = [entry.version for entry in received if entry.account_id == name]
        assert versions == sorted(versions)


def test_an_archive_at_rest_is_read_in_the_order_of_time() -> None:
    """What is there already comes by time over all shards, not shard by shard."""
    archive = ArchiveOf(sample())
    archive.visible = {shard: len(rows) for shard, rows in archive.books.all.items()}
    follower = Follower(archive, Cursor({}))
    received: list[Entry] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(following, "CHUNK", 3)
        while follower.behind(archive.visible):
            received += follower.advance(archive.visible)
    assert [entry.at_ms for entry in received] == sorted(entry.at_ms for entry in received)
    # Nothing is read twice to get that order.
    assert archive.rows_read == len(received) == 25


def test_the_archive_itself(engine: Engine) -> None:
    """The same on both databases, for all accounts and for some."""
    books = sample()
    books.store(engine, batch=4)
    history = History(engine)
    heads = {number: head.sequence for number, head in history.heads().items()}
    for accounts in ((), ("alice", "@world:EUR:shard-1")):
        follower = Follower(history, Cursor({}), accounts)
        received: list[Entry] = []
        while follower.behind(heads):
            received += follower.advance(heads)
        assert sorted(received) == sorted(
            Entry(*row) for row in books.rows() if not accounts or row[1] in accounts
        )


def test_a_shard_that_joins_is_read_from_its_beginning() -> None:
    """A cursor of before a shard was there misses nothing of it."""
    archive = ArchiveOf(sample())
    archive.visible[1] = len(archive.books.all[1])
    follower = Follower(archive, Cursor({1: 0}))
    while follower.behind({1: archive.visible[1]}):
        follower.advance({1: archive.visible[1]})
    archive.visible[2] = len(archive.books.all[2])
    later = Follower(archive, Cursor.parse(follower.cursor.text()))
    received: list[Entry] = []
    while later.behind(archive.visible):
        received += later.advance(archive.visible)
    assert received == archive.books.all[2]


@given(st.dictionaries(st.integers(0, 2**32 - 1), st.integers(0, SEQUENCE_MASK), max_size=20))
def test_cursors_survive_their_text(places: dict[int, int]) -> None:
    """What a cursor says comes back from its text."""
    assert Cursor.parse(Cursor(places).text()) == Cursor(places)


@pytest.mark.parametrize("text", ["", "x", "AAAA", "é", "AQEA", "AQAAAA=="])
def test_texts_that_are_no_cursor(text: str) -> None:
    """What was never a cursor is refused."""
    with pytest.raises(BadTokenError):
        Cursor.parse(text)


def test_a_cut_cursor_is_refused() -> None:
    """A cursor that lost a part does not read as another position."""
    text = Cursor({1: 700, 2: 900}).text()
    for length in range(len(text)):
        with pytest.raises(BadTokenError):
            Cursor.parse(text[:length])


def test_a_cursor_ahead_of_the_ledger_is_refused() -> None:
    """A position that the ledger has not reached, or a shard that it does not have, is another ledger's."""
    assert checked(Cursor({1: 5}), {1: 5, 2: 3}) == Cursor({1: 5})
    for places in ({1: 6}, {1: 5, 9: 1}):
        with pytest.raises(BadTokenError, match="ahead"):
            checked(Cursor(places), {1: 5, 2: 3})
