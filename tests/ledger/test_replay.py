"""Replay: the fold equals a naive model, and whatever is changed in the archive is found, by its row."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, Table, select, update
from sqlalchemy.exc import IntegrityError

from shard_node.contract.kinds import Kind
from shard_node.ledger.proof.comparison import MAX_REPEATED, repeated_transactions
from shard_node.ledger.proof.findings import Findings, Rule
from shard_node.ledger.proof.fold import Fold
from shard_node.ledger.proof.replay import Replay
from shard_node.ledger.questions.history import History
from shard_node.ledger.store.rows import ArchivedShard, Entry, Row
from shard_node.ledger.store.schema import batches, entries, entry_id, shards
from tests.ledger import tampering
from tests.ledger.books import START_MS, Books, fresh_ledger, sample

SHARD_IDS = {1: "shard-0", 2: "shard-1", 3: "shard-2"}


def replayed(engine: Engine, until_ms: int | None = None) -> Replay:
    """A whole replay, with the search for entries of no batch."""
    made = Replay(History(engine), until_ms=until_ms)
    for _ in made.run():
        pass
    made.reader.unsealed()
    made.fold.finish()
    return made


def folded(rows: list[Row]) -> Fold:
    """A fold of these rows."""
    fold = Fold(Findings(), SHARD_IDS)
    fold.apply(rows)
    fold.finish()
    return fold


def told(findings: Findings) -> list[tuple[Rule, str, str]]:
    """Rule, account and message of each finding."""
    return [(finding.rule, finding.account_id, finding.message) for finding in findings.kept]


def agrees(fold: Fold, books: Books) -> None:
    """The fold's accounts are the model's."""
    assert {
        name: (one.balance_minor, one.held_minor, one.version, one.state.name, one.currency)
        for name, one in fold.accounts.items()
    } == {
        name: (one.balance, one.held, one.version, one.state, one.currency)
        for name, one in books.accounts.items()
    }


def test_a_replay_rebuilds_every_balance(engine: Engine) -> None:
    """Every kind of entry, on two shards, in small batches: balances, holds, states and sums."""
    books = sample()
    books.store(engine, batch=3)
    made = replayed(engine)
    assert told(made.findings) == []
    agrees(made.fold, books)
    totals = made.fold.totals()["EUR"]
    assert (totals.customers_minor, totals.system_minor) == (14_900, -14_900)
    assert (totals.deposits_minor, totals.withdrawals_minor, totals.in_flight_minor) == (15_000, 100, 0)
    assert totals.balanced


def test_a_replay_goes_on_with_what_is_new(engine: Engine) -> None:
    """A second run takes in what was archived since, and checks that it follows."""
    books = sample()
    books.store(engine, batch=4)
    made = Replay(History(engine))
    first = list(made.run())[-1]
    books.transfer("alice", "bob", 1)
    books.store(engine)
    last = list(made.run())[-1]
    assert first[0] == 25
    assert last == (27, 27)
    assert told(made.findings) == []
    agrees(made.fold, books)


def test_until_a_time(engine: Engine) -> None:
    """A replay up to a moment has the balances of that moment, that moment included."""
    books = Books()
    alice = books.open("alice", 1)
    books.open("bob", 2)
    books.deposit(alice, 500)
    moment = books.now_ms
    books.transfer("alice", "bob", 200)
    books.store(engine, batch=2)
    made = replayed_until(engine, moment)
    assert (made.accounts["alice"].balance_minor, made.accounts["bob"].balance_minor) == (500, 0)
    # One more moment brings the debit alone: it is in flight then.
    one_more = replayed_until(engine, moment + 1)
    assert (one_more.accounts["alice"].balance_minor, one_more.accounts["bob"].balance_minor) == (300, 0)
    totals = one_more.totals()["EUR"]
    assert totals.in_flight_minor == 200
    assert totals.balanced


def replayed_until(engine: Engine, until_ms: int) -> Fold:
    """A fold up to a moment, without findings."""
    made = Replay(History(engine), until_ms=until_ms)
    for _ in made.run():
        pass
    made.fold.finish()
    assert told(made.findings) == []
    return made.fold


# ---------------------------------------------------------------------- the fold


@st.composite
def histories(draw: st.DrawFn) -> Books:
    """A valid history over three shards, with transfers and holds that may stay open."""
    books = Books(shards=3)
    names = [books.open(f"acct-{n}", 1 + n % 3, "EUR" if n < 4 else "JPY") for n in range(6)]
    euros = names[:4]
    halves: list[tuple[bytes, str, str, int]] = []
    for _ in range(draw(st.integers(0, 40))):
        amount = draw(st.integers(1, 1000))
        payer, payee, third = draw(st.permutations(euros))[:3]
        match draw(
            st.sampled_from(["deposit", "withdraw", "pay", "half", "finish", "hold", "end", "journal"])
        ):
            case "deposit":
                books.deposit(draw(st.sampled_from(names)), amount)
            case "withdraw":
                books.withdraw(draw(st.sampled_from(names)), amount)
            case "pay":
                books.transfer(payer, payee, amount, draw(st.sampled_from([Kind.TRANSFER, Kind.PURCHASE])))
            case "half":
                halves.append((books.debit(payer, payee, amount), payer, payee, amount))
            case "finish" if halves:
                books.credit(*halves.pop(draw(st.integers(0, len(halves) - 1))))
            case "hold":
                books.hold(payer, amount)
            case "end" if books.holds:
                hold = draw(st.sampled_from(sorted(books.holds)))
                held_of, held = books.holds[hold]
                to = next(name for name in euros if name != held_of)
                ends: list[Callable[[], object]] = [
                    partial(books.void, hold),
                    partial(books.expire, hold),
                    partial(books.capture, hold, to, max(1, held // 2)),
                ]
                draw(st.sampled_from(ends))()
            case "journal":
                books.journal([(payer, -2 * amount), (payee, amount), (third, amount)])
            case _:
                books.set_state(
                    payer, Kind.UNFREEZE if books.accounts[payer].state == "FROZEN" else Kind.FREEZE
                )
    return books


def in_some_order(books: Books, seed: int) -> list[Row]:
    """All entries; those of each shard in order, the shards mixed at random."""
    chance = random.Random(seed)
    queues = [list(books.all[shard]) for shard in sorted(books.all)]
    mixed: list[Row] = []
    while queues := [queue for queue in queues if queue]:
        mixed.append(tuple(chance.choice(queues).pop(0)))
    return mixed


@settings(max_examples=150, deadline=None)
@given(histories(), st.integers(0, 2**32))
def test_a_fold_equals_the_naive_model(books: Books, seed: int) -> None:
    """A valid history gives the model's balances, and no finding, however the shards' entries are mixed."""
    fold = folded(in_some_order(books, seed))
    assert told(fold.findings) == []
    agrees(fold, books)
    assert fold.entries == len(books.rows())
    assert all(totals.balanced for totals in fold.totals().values())
    # Memory: what is kept is what is open.
    halves = {row[5] for row in books.rows() if row[4] == Kind.TRANSFER}
    complete = [i for i in halves if sum(row[5] == i for row in books.rows()) == 2]
    assert fold.open_count == len(halves) - len(complete)


def test_a_fold_is_deterministic() -> None:
    """The same entries give the same state, to the last field."""
    rows = sample().rows()
    assert repr(folded(rows).accounts) == repr(folded(rows).accounts)


def test_an_account_that_moved_between_shards() -> None:
    """Entries of the new shard that are read before those of the old one wait for them."""
    books = Books(shards=2)
    books.open("alice", 1)
    books.deposit("alice", 100)
    books.accounts["alice"].shard = 2
    books.deposit("alice", 50)
    books.withdraw("alice", 30)
    late_first = [tuple(row) for shard in (2, 1) for row in books.all[shard]]
    fold = folded(late_first)
    assert told(fold.findings) == []
    agrees(fold, books)


def changed(rows: list[Row], at: int, **values: Any) -> list[Row]:
    """The rows with one of them changed."""
    return [*rows[:at], tuple(Entry(*rows[at])._replace(**values)), *rows[at + 1 :]]


def place_of(books: Books, **wanted: Any) -> int:
    """Where the row is that has these values."""
    (at,) = [
        at
        for at, row in enumerate(books.rows())
        if all(getattr(Entry(*row), name) == value for name, value in wanted.items())
    ]
    return at


def test_a_gap_names_the_row_after_it() -> None:
    """A missing version is told by the entry that comes without it."""
    books = sample()
    rows = books.rows()
    at = place_of(books, account_id="alice", version=3)
    findings = folded(rows[:at] + rows[at + 1 :]).findings
    (found,) = [finding for finding in findings.kept if finding.rule is Rule.GAP]
    assert found.account_id == "alice"
    assert "version 4" in found.message
    assert "without version 3 before it" in found.message


def test_a_missing_beginning() -> None:
    """An account of which the first entries are missing is found, and goes on from what is there."""
    books = sample()
    rows = [row for row in books.rows() if not (row[1] == "bob" and row[2] < 2)]
    fold = folded(rows)
    gaps = [finding for finding in fold.findings.kept if finding.rule is Rule.GAP]
    assert [finding.account_id for finding in gaps] == ["bob"]
    assert "versions 0 to 1 (how it was opened)" in gaps[0].message
    assert fold.accounts["bob"].balance_minor == books.accounts["bob"].balance


def test_a_duplicate() -> None:
    """An entry that comes twice is told, and counts once."""
    books = sample()
    rows = books.rows()
    at = place_of(books, account_id="alice", version=2)
    fold = folded([*rows, rows[at]])
    assert [(rule, account) for rule, account, _ in told(fold.findings)] == [(Rule.GAP, "alice")]
    agrees(fold, books)


@pytest.mark.parametrize(
    ("which", "values", "rule"),
    [
        ({"account_id": "alice", "version": 2}, {"balance": 1}, Rule.BALANCE),
        ({"account_id": "alice", "version": 2}, {"delta": -1}, Rule.BALANCE),
        ({"account_id": "alice", "version": 2}, {"currency": "USD"}, Rule.BALANCE),
        ({"kind": int(Kind.VOID)}, {"held_delta": -299}, Rule.BALANCE),
        ({"kind": int(Kind.HOLD), "account_id": "bob"}, {"held_delta": 299}, Rule.BALANCE),
        ({"kind": int(Kind.OPEN), "account_id": "bob"}, {"balance": 5}, Rule.BALANCE),
        ({"account_id": "alice", "version": 2}, {"leg": 1}, Rule.SUM),
        ({"account_id": "alice", "version": 2}, {"kind": int(Kind.PURCHASE)}, Rule.SUM),
        ({"kind": int(Kind.JOURNAL), "account_id": "bob"}, {"leg": 1}, Rule.SUM),
        ({"kind": int(Kind.FREEZE)}, {"kind": int(Kind.CLOSE)}, Rule.STATE),
        ({"kind": int(Kind.FREEZE)}, {"kind": int(Kind.TRANSFER)}, Rule.STATE),
    ],
)
def test_rows_that_contradict_others(which: dict[str, Any], values: dict[str, Any], rule: Rule) -> None:
    """A single wrong value is told by the rule it breaks, naming its row or the one that it contradicts."""
    books = sample()
    at = place_of(books, **which)
    fold = folded(changed(books.rows(), at, **values))
    account = books.rows()[at][1]
    assert (rule, account) in {(found, name) for found, name, _ in told(fold.findings)} or any(
        found is rule and account in message for found, _, message in told(fold.findings)
    )


def test_a_journal_that_does_not_sum_to_zero() -> None:
    """A journal whose legs make money is told when its last leg has come."""
    books = sample()
    books.journal([("shop", -5), ("alice", 3), ("bob", 3)])
    (found,) = folded(books.rows()).findings.kept
    assert (found.rule, "sum to 1 EUR" in found.message) == (Rule.SUM, True)


def test_findings_are_bounded() -> None:
    """However much is wrong, only so many findings are kept; all are counted."""
    findings = Findings(limit=3)
    fold = Fold(findings, SHARD_IDS)
    books = Books()
    books.open("alice")
    for _ in range(10):
        books.deposit("alice", 1)
    fold.apply(
        [
            tuple(Entry(*row)._replace(balance=7)) if row[1] == "alice" and row[2] else row
            for row in books.rows()
        ]
    )
    assert (len(findings.kept), findings.total >= 9) == (3, True)


# ---------------------------------------------------------------------- planted faults


@pytest.fixture
def stored(engine: Engine) -> Books:
    """The sample, archived in batches of three; shard 1 has batches of equal size."""
    books = sample()
    books.store(engine, batch=3)
    return books


def find(engine: Engine, rule: Rule) -> str:
    """The messages of all findings of a rule, of which there must be one."""
    messages = [message for found, _, message in told(replayed(engine).findings) if found is rule]
    assert messages
    return "\n".join(messages)


def test_a_changed_text_is_found(engine: Engine, stored: Books) -> None:
    """Not even a reference can be changed: the batch's hash differs."""
    tampering.change_entry(engine, entry_id(1, 5), reference="gift")
    assert told(replayed(engine).findings) == [
        (Rule.CHAIN, "", "batch 2 (entries 4 to 6) is not what was sealed: its hash differs")
    ]


def test_a_changed_balance_is_found_by_its_row(engine: Engine, stored: Books) -> None:
    """The chain tells the batch, the fold the row."""
    at = place_of(stored, account_id="alice", version=2)
    changed_id = stored.rows()[at][0]
    tampering.change_entry(engine, changed_id, balance=999_999)
    assert f"entry {changed_id} " in find(engine, Rule.BALANCE)
    assert "its hash differs" in find(engine, Rule.CHAIN)


def test_a_deleted_entry_is_found(engine: Engine, stored: Books) -> None:
    """The batch says which entry it lacks, the account which version."""
    at = place_of(stored, account_id="alice", version=2)
    tampering.delete_entry(engine, stored.rows()[at][0])
    assert f"entry {stored.rows()[at][0] - entry_id(1, 0)} missing" in find(engine, Rule.CHAIN)
    assert "without version 2" in find(engine, Rule.GAP)


def test_a_deleted_entry_is_found_though_all_hashes_were_made_anew(engine: Engine, stored: Books) -> None:
    """A forger who closes the hole and seals anew still leaves a gap in the account's versions."""
    at = place_of(stored, account_id="alice", version=2)
    deleted = stored.rows()[at][0]
    tampering.delete_entry(engine, deleted)
    tampering.renumber_after(engine, 1, deleted)
    tampering.reseal(engine, ArchivedShard(1, "shard-0"))
    rules = {rule for rule, _, _ in told(replayed(engine).findings)}
    assert Rule.CHAIN not in rules
    assert "without version 2" in find(engine, Rule.GAP)


def test_swapped_batches_are_found(engine: Engine, stored: Books) -> None:
    """Two batches in each other's place, hashes and all."""
    tampering.swap_batches(engine, 1, 2, 3)
    message = find(engine, Rule.CHAIN)
    assert "batch 2" in message
    assert "batch 3" in message


def test_a_removed_batch_is_found(engine: Engine, stored: Books) -> None:
    """A batch taken from the middle with its entries."""
    tampering.delete_batches(engine, 1, 2, 2)
    assert "batch 2 is missing before batch 3" in find(engine, Rule.CHAIN)


def test_entries_of_no_batch_are_found(engine: Engine, stored: Books) -> None:
    """A row that somebody added after the last batch, or under a shard that does not exist."""
    row = stored.all[2][-1]
    with tampering.writing(engine) as connection:
        for number, added in enumerate((row.entry_id + 1, entry_id(7, 1))):
            forged = row._replace(entry_id=added, account_id="mallory", version=number, balance=10**9)
            connection.execute(entries.insert(), forged._asdict())
    message = find(engine, Rule.CHAIN)
    assert f"entry {row.entry_id + 1} " in message
    assert f"entry {entry_id(7, 1)} " in message


def test_a_repetition_among_ids_that_payers_share(engine: Engine) -> None:
    """However many ids several payers rightly used, the transfer that was carried out twice is found."""
    books = Books()
    payers = [books.open("ann"), books.open("bob")]
    shop = books.open("shop")
    for _ in range(MAX_REPEATED + 10):
        shared = books.new_id()
        for payer in payers:
            books.transfer(payer, shop, 1, transaction_id=shared)
            for at in (-2, -1):
                other_payload = books.made[1][at]._replace(fingerprint=payer.encode().ljust(8))
                books.made[1][at] = books.all[1][at] = other_payload
    twice = books.new_id()
    for _ in range(2):
        books.transfer(payers[0], shop, 5, transaction_id=twice)
    books.store(engine)
    assert repeated_transactions(History(engine)) == [twice]


def test_values_of_the_wrong_type_are_found(tmp_path: Any) -> None:
    """SQLite stores a text in a column of integers; the row is named and the replay goes on."""
    engine = fresh_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    books = sample()
    books.store(engine, batch=3)
    tampering.change_entry(engine, entry_id(1, 5), delta="a lot")
    message = find(engine, Rule.CHAIN)
    assert f"entry {entry_id(1, 5)} " in message
    assert "wrong type" in message
    engine.dispose()


@dataclass(slots=True)
class Ledger:
    """A ledger that is damaged and repaired again and again."""

    engine: Engine
    books: Books


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """The sample in SQLite, for the whole module."""
    engine = fresh_ledger(f"sqlite:///{tmp_path_factory.mktemp('damaged') / 'ledger.db'}")
    books = sample()
    books.store(engine, batch=3)
    assert told(replayed(engine).findings) == []
    yield Ledger(engine, books)
    engine.dispose()


def other_value(draw: st.DrawFn, before: Any) -> Any:
    """Another value of the same type; of an optional id also none at all."""
    if isinstance(before, int):
        return before + draw(st.integers(-3, 3).filter(bool))
    if isinstance(before, bytes):
        flipped = bytearray(before)
        flipped[draw(st.integers(0, len(before) - 1))] ^= 1 << draw(st.integers(0, 7))
        return bytes(flipped)
    if before is None:
        return draw(st.binary(min_size=16, max_size=16))
    return draw(
        st.sampled_from([before + "x", before[:-1], before.upper(), "alice"]).filter(lambda t: t != before)
    )


@pytest.mark.large
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_single_change_is_found(damaged: Ledger, data: st.DataObject) -> None:
    """Whatever field of whatever row of the archive is changed, something is found."""
    table: Table = data.draw(st.sampled_from([entries, batches, shards]))
    with damaged.engine.connect() as connection:
        rows = connection.execute(select(table).order_by(*table.primary_key.columns)).all()
    row = data.draw(st.sampled_from(rows))
    column = data.draw(st.sampled_from([column for column in table.columns if not column.primary_key]))
    before = row._mapping[column.name]
    after = data.draw(st.composite(lambda draw: other_value(draw, before))())
    this_row = [key == row._mapping[key.name] for key in table.primary_key.columns]
    if not _written(damaged.engine, table, this_row, {column.name: after}):
        # The database itself refuses: an account's version is unique.
        return
    try:
        found = told(replayed(damaged.engine).findings)
    finally:
        assert _written(damaged.engine, table, this_row, {column.name: before})
    assert found, f"{column} of {row} changed to {after!r}"


def _written(engine: Engine, table: Table, this_row: list[Any], values: dict[str, Any]) -> bool:
    try:
        with tampering.writing(engine) as connection:
            return connection.execute(update(table).where(*this_row).values(values)).rowcount == 1
    except IntegrityError:
        return False


def test_times_of_the_sample_are_of_the_books() -> None:
    """The books begin where they say, so that tests may reckon with it."""
    assert sample().rows()[0][3] == START_MS + 1
