"""Questions to the ledger, on both databases, also while entries are added."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from shard_node.contract.kinds import Kind
from shard_node.errors import LedgerUnavailableError
from shard_node.ledger.proof.comparison import balances, openings
from shard_node.ledger.questions import history as history_module
from shard_node.ledger.questions.history import MAX_CLOCK_SKEW_MS, History, Page
from shard_node.ledger.questions.positions import BadTokenError, HistoryQuery
from shard_node.ledger.store.rows import Entry
from shard_node.ledger.store.schema import open_ledger
from tests.ledger.books import START_MS, Books, fresh_ledger, sample


@pytest.fixture
def books(engine: Engine) -> Books:
    """The sample, archived."""
    made = sample()
    made.store(engine, batch=4)
    return made


@pytest.fixture
def history(engine: Engine, books: Books) -> History:
    """Asks about the sample."""
    return History(engine)


def of(books: Books, account: str) -> list[Entry]:
    """An account's entries as they were made, the oldest first."""
    return sorted((Entry(*row) for row in books.rows() if row[1] == account), key=lambda entry: entry.version)


def pages(history: History, query: HistoryQuery, size: int) -> list[Page]:
    """All pages of a query."""
    found: list[Page] = []
    token = ""
    while not found or token:
        page = history.page(query, size, token)
        assert page is not None
        found.append(page)
        token = page.next_token
    return found


def entries_of(history: History, query: HistoryQuery, size: int = 3) -> list[Entry]:
    """All entries of a query, read page by page."""
    return [entry for page in pages(history, query, size) for entry in page.entries]


# ---------------------------------------------------------------------- pages


def test_both_orders(history: History, books: Books) -> None:
    """Newest first by default; the other way round on request; each entry whole, as it was archived."""
    oldest_first = of(books, "alice")
    assert entries_of(history, HistoryQuery("alice")) == oldest_first[::-1]
    assert entries_of(history, HistoryQuery("alice", newest_first=False)) == oldest_first


@pytest.mark.parametrize("size", [1, 2, 8, 9, 10])
def test_page_sizes(history: History, books: Books, size: int) -> None:
    """Pages are full but for the last, which alone has no token."""
    found = pages(history, HistoryQuery("alice"), size)
    assert [entry.version for page in found for entry in page.entries] == list(range(8, -1, -1))
    assert all(len(page.entries) == size for page in found[:-1])
    assert [bool(page.next_token) for page in found] == [True] * (len(found) - 1) + [False]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    account=st.sampled_from(["alice", "bob", "shop", "@world:EUR:shard-0"]),
    bounds=st.tuples(st.integers(-2, 28), st.integers(-2, 28)),
    kinds=st.frozensets(st.sampled_from([int(kind) for kind in Kind]), max_size=3),
    newest_first=st.booleans(),
    size=st.integers(1, 4),
)
def test_ranges_and_kinds(
    sqlite_sample: tuple[History, Books],
    account: str,
    bounds: tuple[int, int],
    kinds: frozenset[int],
    newest_first: bool,  # noqa: FBT001 -- drawn
    size: int,
) -> None:
    """From included, to not included, and only the kinds asked for: what a filter over all would give."""
    history, books = sqlite_sample
    from_ms, to_ms = START_MS + min(bounds), START_MS + max(bounds)
    query = HistoryQuery(account, from_ms, to_ms, kinds, newest_first=newest_first)
    expected = [
        entry
        for entry in of(books, account)
        if from_ms <= entry.at_ms < to_ms and (not kinds or entry.kind in kinds)
    ]
    assert entries_of(history, query, size) == (expected[::-1] if newest_first else expected)


@pytest.fixture(scope="module")
def sqlite_sample(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The sample in SQLite for the whole module."""
    engine = fresh_ledger(f"sqlite:///{tmp_path_factory.mktemp('history') / 'ledger.db'}")
    books = sample()
    books.store(engine)
    yield History(engine), books
    engine.dispose()


def test_an_account_without_entries(history: History) -> None:
    """No entry at all is another answer than none in a range."""
    assert history.page(HistoryQuery("nobody")) is None
    empty = history.page(HistoryQuery("alice", to_ms=START_MS))
    assert empty == Page([], "")


def test_tokens_belong_to_their_request(history: History) -> None:
    """A token of another account, range, order or filter is refused; another page size is not."""
    query = HistoryQuery("alice")
    first = history.page(query, 2)
    assert first is not None
    token = first.next_token
    for other in (
        HistoryQuery("bob"),
        HistoryQuery("alice", from_ms=1),
        HistoryQuery("alice", to_ms=START_MS),
        HistoryQuery("alice", kinds=frozenset({1})),
        HistoryQuery("alice", newest_first=False),
    ):
        with pytest.raises(BadTokenError, match="another request"):
            history.page(other, 2, token)
    larger = history.page(query, 5, token)
    assert larger is not None
    assert [entry.version for entry in larger.entries] == [6, 5, 4, 3, 2]


@pytest.mark.parametrize("damage", ["x", "AAAA", "é", "%", "=" * 4])
def test_damaged_tokens(history: History, damage: str) -> None:
    """What was never a token, and what was cut or mistyped, is refused."""
    first = history.page(HistoryQuery("alice"), 2)
    assert first is not None
    token = first.next_token
    for bad in (damage, token + damage, token[:-4], token[:-1] + "!", token.replace("=", "")):
        with pytest.raises(BadTokenError):
            history.page(HistoryQuery("alice"), 2, bad)


def test_a_rare_kind_is_searched_in_bounded_steps(
    history: History, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page looks at so many entries at the most: short and empty pages go on by their token."""
    monkeypatch.setattr(history_module, "SCAN_ROWS", 3)
    for newest_first in (True, False):
        query = HistoryQuery("alice", kinds=frozenset({int(Kind.OPEN)}), newest_first=newest_first)
        found = pages(history, query, 5)
        assert [entry.kind for page in found for entry in page.entries] == [Kind.OPEN]
        assert len(found) == 3
        whole = HistoryQuery("alice", newest_first=newest_first)
        assert [e.version for p in pages(history, whole, 5) for e in p.entries] == (
            list(range(8, -1, -1)) if newest_first else list(range(9))
        )


def test_pages_are_stable_while_entries_are_added(engine: Engine) -> None:
    """While another thread archives, pages of either order show each old entry once, in order."""
    books = Books()
    books.open("busy", 1)
    for _ in range(300):
        books.deposit("busy", 1)
    books.store(engine)
    stop = threading.Event()
    rounds = 0

    def archive() -> None:
        nonlocal rounds
        while not stop.is_set():
            for _ in range(5):
                books.deposit("busy", 1)
            books.store(engine)
            rounds += 1

    writer = threading.Thread(target=archive)
    writer.start()
    try:
        history = History(engine)
        for turn in range(6):
            newest_first = turn % 2 == 0
            found = entries_of(history, HistoryQuery("busy", newest_first=newest_first), size=40)
            versions = [entry.version for entry in found]
            if newest_first:
                versions.reverse()
            # Without a gap, a repetition or a row out of place; and all that was there before is there.
            assert versions == list(range(len(versions)))
            assert len(versions) >= 301
    finally:
        stop.set()
        writer.join()
    assert rounds >= 2


# ---------------------------------------------------------------------- balances


def test_balance_at_every_moment(history: History, books: Books) -> None:
    """After each entry of an account, and until the next one, its balance is the one of that entry."""
    held = 0
    rows = of(books, "alice")
    for entry, following in zip(rows, [*rows[1:], None], strict=True):
        held += entry.held_delta
        until = following.at_ms - 1 if following else entry.at_ms + 10**6
        for moment in (entry.at_ms, until):
            found = history.balance_at("alice", moment)
            assert found is not None
            assert (found.balance_minor, found.held_minor) == (entry.balance, held)
            assert (found.version, found.changed_at_ms, found.currency) == (
                entry.version,
                entry.at_ms,
                "EUR",
            )
    assert history.balance_at("alice") == history.balance_at("alice", 2**50)


def skewed(steps: Sequence[tuple[int, int]], clocks: Sequence[int]) -> Books:
    """An account that moves: by step the milliseconds since the last one, and the shard."""
    books = Books(shards=len(clocks))
    books.open("ann")
    model, now_ms = books.accounts["ann"], books.now_ms
    latest: dict[int, int] = {}
    for passed_ms, shard in steps:
        model.shard = shard
        now_ms += passed_ms
        # No shard's own time ever goes back.
        latest[shard] = max(now_ms + clocks[shard - 1], latest.get(shard, 0))
        books.now_ms = latest[shard] - 1
        books.hold("ann", 1)
    return books


@pytest.mark.large
@given(
    steps=st.lists(
        st.tuples(st.sampled_from([0, 1, 1000, 30_000, MAX_CLOCK_SKEW_MS]), st.integers(1, 3)), max_size=25
    ),
    clocks=st.tuples(*[st.sampled_from([0, 1, 2000, MAX_CLOCK_SKEW_MS])] * 3),
)
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_times_that_are_not_in_the_order_of_versions(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]], clocks: tuple[int, ...]
) -> None:
    """At each moment the latest entry up to then counts, and of two the last, whatever clocks it met."""
    books = skewed(steps, clocks)
    engine = fresh_ledger(f"sqlite:///{tmp_path_factory.mktemp('skewed') / 'ledger.db'}")
    try:
        books.store(engine, batch=4)
        history, rows = History(engine), of(books, "ann")
        for moment in {time for row in rows for time in (row.at_ms - 1, row.at_ms, row.at_ms + 1)}:
            up_to = [row for row in rows if row.at_ms <= moment]
            latest = max(up_to, key=lambda row: (row.at_ms, row.version), default=None)
            found = history.balance_at("ann", moment)
            assert (found and found.version) == (latest and latest.version)
            query = HistoryQuery("ann", moment, moment + 1000)
            assert entries_of(history, query) == [
                row for row in reversed(rows) if moment <= row.at_ms < moment + 1000
            ]
    finally:
        engine.dispose()


def test_no_balance_before_the_opening(history: History, books: Books) -> None:
    """Before its first entry, and when it never had one, an account has no balance."""
    assert history.balance_at("alice", of(books, "alice")[0].at_ms - 1) is None
    assert history.balance_at("nobody") is None


# ---------------------------------------------------------------------- transactions


def test_a_transaction_has_all_its_legs(history: History, books: Books) -> None:
    """By leg, over all shards; under an id that was never used there is nothing."""
    journal = next(row[5] for row in books.rows() if row[4] == Kind.JOURNAL)
    found = history.transaction(journal)
    assert [(entry.leg, entry.account_id, entry.delta) for entry in found] == [
        (0, "shop", -600),
        (1, "alice", 100),
        (2, "bob", 500),
    ]
    assert history.transaction(bytes(15) + b"\1") == []


def test_one_id_of_several_payers(engine: Engine) -> None:
    """Where several used an id, a payer tells which is meant; a deposit's is the account that got it."""
    books = Books()
    for name in ("ann", "bob", "cid"):
        books.open(name)
    books.deposit("cid", 1)
    shared = books.new_id()
    books.transfer("ann", "cid", 5, transaction_id=shared)
    books.transfer("@world:EUR:shard-0", "bob", 7, Kind.DEPOSIT, transaction_id=shared)
    # Another payload has another fingerprint.
    books.made[1][-2:] = [row._replace(fingerprint=b"another!") for row in books.made[1][-2:]]
    books.store(engine)
    history = History(engine)
    assert len(history.transaction(shared)) == 4
    assert legs(history.transaction(shared, "ann")) == [("ann", -5), ("cid", 5)]
    assert legs(history.transaction(shared, "bob")) == [("@world:EUR:shard-0", -7), ("bob", 7)]
    assert history.transaction(shared, "cid") == []


def legs(found: Sequence[Entry]) -> list[tuple[str, int]]:
    """Accounts and deltas."""
    return [(entry.account_id, entry.delta) for entry in found]


def test_find_purchase(history: History, books: Books) -> None:
    """A purchase is found by its id and its customer, and by no other account or id."""
    bought = next(row[5] for row in books.rows() if row[4] == Kind.PURCHASE)
    found = history.find_purchase(bought, "alice")
    assert found is not None
    assert (found.merchant, found.amount_minor, found.currency) == ("shop", 999, "EUR")
    assert history.find_purchase(bought, "shop") is None
    assert history.find_purchase(bought, "bob") is None
    paid = next(row[5] for row in books.rows() if row[4] == Kind.TRANSFER)
    assert history.find_purchase(paid, "alice") is None


def test_purchases_of_many_payers_under_one_id(engine: Engine) -> None:
    """Ids are the payer's own: each one's purchase is found among more than one answer would hold."""
    books = Books()
    shop = books.open("shop")
    payers = [books.open(f"payer-{number}") for number in range(1100)]
    shared = books.new_id()
    for number, payer in enumerate(payers):
        books.transfer(payer, shop, 1 + number, Kind.PURCHASE, transaction_id=shared)
        for at in (-2, -1):
            other_payload = books.made[1][at]._replace(fingerprint=number.to_bytes(8))
            books.made[1][at] = books.all[1][at] = other_payload
    books.store(engine, 5000)
    history = History(engine)
    for number in (0, 600, 1099):
        found = history.find_purchase(shared, payers[number])
        assert found is not None
        assert found.amount_minor == 1 + number
        assert [entry.delta for entry in history.transaction(shared, payers[number])] == [
            -1 - number,
            1 + number,
        ]


# ---------------------------------------------------------------------- the database


def test_heads(history: History, books: Books) -> None:
    """The newest batch of each shard, and the names of the shards."""
    heads = history.heads()
    assert {number: head.sequence for number, head in heads.items()} == {
        number: len(rows) for number, rows in books.all.items()
    }
    assert history.shard_id(books.all[2][0].entry_id) == "shard-1"


def test_a_database_that_is_away(tmp_path: Any) -> None:
    """No answer is an error that may go away, never an empty answer."""
    away = History(open_ledger("postgresql://nobody@127.0.0.1:1/none"))
    with pytest.raises(LedgerUnavailableError, match="the ledger at"):
        away.page(HistoryQuery("alice"))
    empty = open_ledger(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(LedgerUnavailableError, match="no such table"):
        History(empty).balance_at("alice")
    empty.dispose()


@pytest.mark.parametrize("url", ["postgresql://u:secret@host/db", "postgresql://u@host/db?password=secret"])
def test_no_password_is_shown(url: str) -> None:
    """Wherever in the URL it is."""
    assert "secret" not in repr(History(open_ledger(url)))


def test_questions_use_their_indexes(engine: Engine, books: Books) -> None:
    """In SQLite no question of one account, one transaction or one position reads a whole table."""
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL rightly reads a table of this size as a whole")
    seen: list[tuple[str, Any]] = []
    with engine.connect() as watched:
        raw = watched.connection.driver_connection
        assert raw is not None
        raw.set_trace_callback(lambda statement: seen.append((statement, None)))
        watched.commit()
    history = History(engine)
    history.page(HistoryQuery("alice", START_MS + 70_000, START_MS + 10**6, frozenset({1})))
    history.balance_at("alice", START_MS + 10)
    history.transaction(books.all[1][3].transaction_id or b"")
    history.transaction(books.all[1][3].transaction_id or b"", "alice")
    history.find_purchase(books.all[1][3].transaction_id or b"", "alice")
    history.after(books.all[1][0].entry_id, books.all[1][4].entry_id, ["alice"], 10)
    assert len(openings(history, ["alice", "bob"])) == 2
    assert len(balances(history, [("alice", 3), ("bob", 2)])) == 2
    plans: list[str] = []
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.set_trace_callback(None)
        asked = [statement for statement, _ in seen if statement.startswith(("SELECT", "WITH"))]
        for statement in asked:
            plans += [
                row[3]
                for row in connection.execute(text("EXPLAIN QUERY PLAN " + statement.replace(":", r"\:")))
            ]
    assert len(asked) >= 9
    assert plans
    assert not [plan for plan in plans if plan.startswith("SCAN entries")], plans
    assert any("entries_held" in plan for plan in plans), plans
    assert len([plan for plan in plans if "entries_transaction" in plan]) == 4, plans
