"""From stream entries to rows: every form, in order, and nothing unknown passed over."""

from __future__ import annotations

import json

import pytest
from shard_node.contract.journals import Effect, Journal, Leg, journal_key, leg_key
from shard_node.contract.transfers import Details, Kind, pack_body, pack_details, transfer_key
from shard_node.ledger.store.library_entries import decode, row_count

from shard_node.contract.outcomes import PAYEE, Outcome
from shard_node.errors import LedgerError
from shard_node.ledger.store.rows import ArchivedShard, Entry
from shard_node.ledger.store.schema import entries, entry_id
from tests.ledger.streams import (
    DONE,
    NOT_DONE,
    bundle_columns,
    bundle_entry,
    numbers,
    pack_entry,
    transfer,
)

SHARD = ArchivedShard(3, "shard-2")
DETAILS = pack_details(Details(b"order-7", b"till 4", "Gruß".encode()))
PURCHASE_ID, HOLD_ID = bytes(range(16)), bytes(range(16, 32))


def rows_of(*packed: bytes, first_sequence: int = 1) -> list[Entry]:
    """The rows that those entries make, one entry a millisecond from 100 on."""
    stream = [(f"{100 + index}-{index}", entry) for index, entry in enumerate(packed)]
    return [Entry._make(row) for row in decode(SHARD, stream, first_sequence)]


def leg_entry(journal: Journal, transaction_id: bytes, **columns: list[int]) -> bytes:
    """The `legs` entry of all legs of a journal."""
    key = journal_key(transaction_id, journal.pack())
    keys = [leg_key(key, number) for number in range(len(journal.legs))]
    bodies = journal.leg_bodies(bytes(19))
    return pack_entry("legs", keys, bodies, *columns.values())


def test_entry_names_the_columns() -> None:
    """Entry's fields are the columns of the table, in their order."""
    assert Entry._fields == tuple(column.name for column in entries.columns)


def test_open() -> None:
    """An account begins at version 0, with its limits as JSON."""
    packed = pack_entry("open", ["ann", "bob"], ["EUR", "USD"], [-500, 0], [0, 900], [70, 0])
    first, second = rows_of(packed, first_sequence=5)
    limits = first.attributes
    assert first == (
        entry_id(3, 5), "ann", 0, 100, Kind.OPEN, None, None, 0, 0, "", "EUR", 0, 0, 0, None, "", "", "",
        limits,
    )  # fmt: skip
    assert json.loads(limits) == {
        "minimum_balance": -500,
        "maximum_balance": 0,
        "maximum_transfer": 70,
    }
    assert (second.entry_id, second.account_id, second.currency) == (entry_id(3, 6), "bob", "USD")
    assert json.loads(second.attributes)["maximum_balance"] == 900


def test_post() -> None:
    """A transfer on one shard makes two entries, the payer's first."""
    key, body = transfer(9, "ann", "bob", 1250, b"rent")
    payer, payee = rows_of(bundle_entry("post", [(key, body)], [-1250], [4], [1250], [8]))
    shared = (100, Kind.TRANSFER, key[:16], key[16:])
    assert payer == (
        entry_id(3, 1), "ann", 4, *shared, 0, 2, "bob", "EUR", -1250, 0, -1250, None, "rent", "", "", "",
    )  # fmt: skip
    assert payee == (
        entry_id(3, 2), "bob", 8, *shared, 1, 2, "ann", "EUR", 1250, 0, 1250, None, "rent", "", "", "",
    )  # fmt: skip


def test_decide_and_finish() -> None:
    """A transfer between shards makes the payer's entry on one and the payee's on the other."""
    key, body = transfer(9, "ann", "bob", 1250)
    payer, payee = rows_of(
        bundle_entry("decide", [(key, body)], [-1250], [4]),
        bundle_entry("finish", [(key, body)], [1250], [8]),
    )
    assert (payer.account_id, payer.counterparty, payer.leg, payer.leg_count) == ("ann", "bob", 0, 2)
    assert (payer.delta, payer.balance, payer.version, payer.at_ms) == (-1250, -1250, 4, 100)
    assert (payee.account_id, payee.counterparty, payee.leg, payee.leg_count) == ("bob", "ann", 1, 2)
    assert (payee.delta, payee.balance, payee.version, payee.at_ms) == (1250, 1250, 8, 101)
    assert payer.transaction_id == payee.transaction_id == key[:16]
    assert payer.fingerprint == payee.fingerprint == key[16:]


@pytest.mark.parametrize("tag", ["post", "decide"])
def test_details_of_other_kinds(tag: str) -> None:
    """A deposit, withdrawal or purchase carries three texts; `@world` is named with its shard."""
    body = pack_body(100, "EUR", 1, 1, Kind.DEPOSIT, "@world:EUR", "ann", DETAILS)
    key = transfer_key(bytes(16), body)
    columns = ([-100], [1], [100], [1]) if tag == "post" else ([-100], [1])
    rows = rows_of(bundle_entry(tag, [(key, body)], *columns))
    assert rows[0].account_id == "@world:EUR:shard-2"
    assert (rows[0].external_id, rows[0].initiated_by, rows[0].reference) == ("order-7", "till 4", "Gruß")
    assert rows[-1].counterparty == ("@world:EUR:shard-2" if tag == "post" else "ann")


def test_legs_of_a_refund() -> None:
    """A refund names its purchase; each leg names the other."""
    legs = (Leg("shop", 1, Effect.DEBIT, 300, "EUR"), Leg("ann", 2, Effect.REFUND, 300, "EUR"))
    journal = Journal(Kind.REFUND, legs, DETAILS, PURCHASE_ID, 1000)
    key = journal_key(HOLD_ID, journal.pack())
    shop, ann = rows_of(
        leg_entry(journal, HOLD_ID, deltas=[-300, 300], held=[0, 0], balances=[700, 300], versions=[5, 6])
    )
    assert shop == (
        entry_id(3, 1), "shop", 5, 100, Kind.REFUND, HOLD_ID, key[16:], 0, 2, "ann", "EUR", -300, 0, 700,
        PURCHASE_ID, "Gruß", "order-7", "till 4", "",
    )  # fmt: skip
    assert (ann.account_id, ann.leg, ann.counterparty, ann.delta) == ("ann", 1, "shop", 300)


def test_legs_of_a_long_journal() -> None:
    """Beyond two legs each names the first, which names nobody; texts are as given."""
    legs = (
        Leg("ann", 1, Effect.DEBIT, 300, "EUR"),
        Leg("bob", 2, Effect.CREDIT, 200, "EUR"),
        Leg("@fees:EUR", 2, Effect.CREDIT, 100, "EUR"),
    )
    journal = Journal(Kind.JOURNAL, legs, DETAILS)
    rows = rows_of(
        leg_entry(
            journal, HOLD_ID, deltas=[-300, 200, 100], held=[0, 0, 0], balances=[1, 2, 3], versions=[5, 6, 7]
        )
    )
    assert [row.counterparty for row in rows] == ["", "ann", "ann"]
    assert [(row.leg, row.leg_count) for row in rows] == [(0, 3), (1, 3), (2, 3)]
    assert rows[2].account_id == "@fees:EUR:shard-2"
    assert rows[0].related_id is None


def test_hold_and_its_expiry() -> None:
    """A hold changes what is held; its expiry is leg 1 of the hold's own transaction."""
    hold = Journal(Kind.HOLD, (Leg("ann", 1, Effect.HOLD, 50, "EUR"),), DETAILS, bound=60_000)
    expiry = Journal(Kind.EXPIRY, hold.legs, DETAILS, bound=60_000)
    held, expired = rows_of(
        leg_entry(hold, HOLD_ID, deltas=[0], held=[50], balances=[100], versions=[1]),
        leg_entry(expiry, HOLD_ID, deltas=[0], held=[-50], balances=[100], versions=[2]),
    )
    assert (held.kind, held.leg, held.delta, held.held_delta, held.balance) == (Kind.HOLD, 0, 0, 50, 100)
    assert (expired.kind, expired.leg, expired.held_delta) == (Kind.EXPIRY, 1, -50)
    assert held.transaction_id == expired.transaction_id == HOLD_ID


def test_state() -> None:
    """Freezing, thawing and closing an account are entries without a transaction."""
    kinds = [Kind.FREEZE, Kind.UNFREEZE, Kind.CLOSE]
    rows = rows_of(pack_entry("state", ["ann"] * 3, kinds, ["EUR"] * 3, [7, 7, 0], [1, 2, 3]))
    assert [(row.kind, row.balance, row.version) for row in rows] == [
        (Kind.FREEZE, 7, 1),
        (Kind.UNFREEZE, 7, 2),
        (Kind.CLOSE, 0, 3),
    ]
    assert {(row.transaction_id, row.delta, row.attributes) for row in rows} == {(None, 0, "")}


def test_a_zero_byte_is_shown_as_its_picture() -> None:
    """PostgreSQL's text cannot hold a zero byte, which must not stop the archive."""
    key, body = transfer(9, "ann", "bob", 1, b"a\0b")
    assert rows_of(bundle_entry("decide", [(key, body)], [0], [1]))[0].reference == "a\u2400b"
    body = pack_body(1, "EUR", 1, 1, Kind.DEPOSIT, "ann", "bob", pack_details(Details(b"\0", b"x", b"\0\0")))
    row = rows_of(bundle_entry("decide", [(key, body)], [0], [1]))[0]
    assert (row.external_id, row.initiated_by, row.reference) == ("\u2400", "x", "\u2400\u2400")


def test_sequences_go_on_over_stream_entries() -> None:
    """Entries get the next sequence, whatever they came in."""
    sent = transfer(9, "ann", "bob", 1)
    post = bundle_entry("post", [sent, sent], [1, 1], [1, 2], [1, 1], [1, 2])
    finish = bundle_entry("finish", [sent], [1], [3])
    rows = rows_of(post, finish, post, first_sequence=11)
    assert [row.entry_id for row in rows] == [entry_id(3, sequence) for sequence in range(11, 20)]
    assert [row.at_ms for row in rows] == [100] * 4 + [101] + [102] * 4
    assert [row_count(packed) for packed in (post, finish)] == [4, 1]


FOUR = [transfer(number, "ann", "bob", 100 + number) for number in range(4)]


@pytest.mark.parametrize("codes", [bytes((DONE,)), bytes((DONE,) * 4)], ids=["one for all", "a byte a row"])
def test_a_bundle_that_was_carried_out(codes: bytes) -> None:
    """Codes that are all the same may be given once."""
    rows = rows_of(bundle_entry("decide", FOUR, [1, 2, 3, 4], [5, 6, 7, 8], codes=codes))
    assert [(row.delta, row.balance, row.version) for row in rows] == [
        (-100, 1, 5),
        (-101, 2, 6),
        (-102, 3, 7),
        (-103, 4, 8),
    ]


@pytest.mark.parametrize("tag", ["post", "decide", "finish"])
def test_rows_that_were_not_carried_out(tag: str) -> None:
    """Of a refused row of a bundle there is no entry; balances and versions are those of the others."""
    # Whatever says of a row that it was not carried out.
    codes = bytes((NOT_DONE, DONE, Outcome.INSUFFICIENT_FUNDS + PAYEE, DONE))
    # Payers' balances begin with 1, payees' with 7.
    columns = {
        "post": [[11, 12], [1, 2], [71, 72], [8, 9]],
        "decide": [[11, 12], [1, 2]],
        "finish": [[71, 72], [8, 9]],
    }[tag]
    packed = bundle_entry(tag, FOUR, *columns, codes=codes)
    rows = rows_of(packed, first_sequence=5)
    payers = [row for row in rows if row.leg == 0]
    payees = [row for row in rows if row.leg == 1]
    if tag != "finish":
        told = [(row.transaction_id, row.account_id, row.delta, row.balance, row.version) for row in payers]
        assert told == [(FOUR[1][0][:16], "ann", -101, 11, 1), (FOUR[3][0][:16], "ann", -103, 12, 2)]
    if tag != "decide":
        told = [(row.transaction_id, row.account_id, row.delta, row.balance, row.version) for row in payees]
        assert told == [(FOUR[1][0][:16], "bob", 101, 71, 8), (FOUR[3][0][:16], "bob", 103, 72, 9)]
    assert [row.entry_id for row in rows] == [entry_id(3, 5 + index) for index in range(len(rows))]
    assert row_count(packed) == len(rows)


def columns_of_a_decide() -> list[bytes]:
    """All that a `decide` of four transfers has behind its tag."""
    return [*bundle_columns(FOUR, bytes((DONE,) * 4)), numbers(1, 2, 3, 4), numbers(5, 6, 7, 8)]


def changed(column: int, value: bytes) -> bytes:
    """A `decide` of four transfers in which one column has another value."""
    columns = columns_of_a_decide()
    columns[column] = value
    return pack_entry("decide", *columns)


@pytest.mark.parametrize("column", range(6))
def test_columns_of_another_length(column: int) -> None:
    """However many bytes more or fewer a column has, nothing of the entry is taken."""
    right = columns_of_a_decide()[column]
    assert len(rows_of(changed(column, right))) == 4
    # One code may stand for all.
    wrong = [right[:length] for length in range(len(right)) if column > 0 or length != 1]
    # Of a value more than the others, every byte.
    wrong += [right + right[:length] for length in range(1, len(right) // 4 + 1)]
    for value in wrong:
        with pytest.raises(LedgerError, match=r"shard-2.*100-0"):
            rows_of(changed(column, value))


@pytest.mark.parametrize(
    "codes",
    [bytes((NOT_DONE,)), bytes((NOT_DONE, DONE, DONE, DONE)), b""],
    ids=["none", "one fewer", "no codes"],
)
def test_codes_that_do_not_fit_the_numbers(codes: bytes) -> None:
    """As many rows must have been carried out as there are balances."""
    with pytest.raises(LedgerError, match=r"shard-2.*100-0"):
        rows_of(changed(0, codes))


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",
        pack_entry("later", ["ann"]),
        pack_entry("later", *columns_of_a_decide()),
        bundle_entry("decide", [(bytes(24), b"short" * 4)], [0], [1]),
        pack_entry("decide", *columns_of_a_decide()[:-1]),
        pack_entry("decide", *columns_of_a_decide(), numbers(1, 2, 3, 4)),
        pack_entry("post", *columns_of_a_decide()),
        pack_entry("decide", *[[value] for value in columns_of_a_decide()]),
        pack_entry("decide", [bytes(24)], [transfer(1, "a", "b", 1)[1]], [0], [1]),
        pack_entry("state", ["ann"], [Kind.FREEZE], ["EUR"], [1]),
        pack_entry("legs", [bytes(26)], [transfer(1, "a", "b", 1)[1]], [1], [1], [1], [1]),
        pack_entry("open", [b"\xff"], ["EUR"], [0], [0], [0]),
    ],
    ids=[
        "empty",
        "no MessagePack",
        "unknown",
        "an unknown bundle",
        "short body",
        "a column less",
        "a column more",
        "columns of another tag",
        "lists for strings",
        "a list for each column",
        "columns",
        "no leg",
        "no UTF-8",
    ],
)
def test_what_is_not_understood_is_refused(packed: bytes) -> None:
    """An entry of no known form is an error that names it, never skipped."""
    with pytest.raises(LedgerError, match=r"shard-2.*100-0"):
        rows_of(packed)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\x93",
        b"\xa4post",
        b"\x92\xa4post\x07",
        pack_entry("later"),
        pack_entry("post"),
        pack_entry("post", *columns_of_a_decide()),
        pack_entry("decide", *columns_of_a_decide()[:-1]),
        pack_entry("finish", *columns_of_a_decide())[:-1],
    ],
)
def test_a_count_of_nothing_is_refused(packed: bytes) -> None:
    """Not even the number of rows is guessed."""
    with pytest.raises(LedgerError, match="unreadable"):
        row_count(packed)
