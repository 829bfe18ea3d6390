"""From frames to rows: every kind, in order, and nothing malformed passed over."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_node.contract.details import Details, pack_details
from shard_node.contract.kinds import NO_ID, Effect, Kind
from shard_node.contract.layout import ALL_OWNERS, BUNDLE_HEAD, FrameKind
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transactions import Bundle, Leg, Transaction
from shard_node.errors import LedgerError
from shard_node.ledger.store.frames import StreamFrame, decode, row_count
from shard_node.ledger.store.rows import ArchivedShard, Entry, Row
from shard_node.ledger.store.schema import entries, entry_id
from tests.ledger.scribe import DONE, Opened, Scribe

SHARD = ArchivedShard(3, "shard-2")
DETAILS = pack_details(Details(b"order-7", b"till 4", "Gruß".encode()))
HOLD_ID, PURCHASE_ID = bytes(range(16)), bytes(range(16, 32))
REFUSED = bytes((Outcome.INSUFFICIENT_FUNDS,))


def transfer(
    number: int, payer: str, payee: str, amount: int, details: bytes = b"", *, across: bool = False
) -> Transaction:
    """A TRANSFER; ``number`` makes the id."""
    legs = (
        Leg(payer, Effect.DEBIT, amount, "EUR"),
        Leg(payee, Effect.CREDIT, amount, "EUR", int(across)),
    )
    return Transaction(number.to_bytes(16), Kind.TRANSFER, 1, legs, details)


def rows_of(*frames: StreamFrame) -> list[Entry]:
    """The rows of some frames, the first with sequence 1."""
    return [Entry._make(row) for row in decode(SHARD, frames, 1)]


def refused(*frames: StreamFrame, names: str = r"shard-2.*100-0") -> None:
    """Requires that one of these frames is refused by its shard's and its own name."""
    with pytest.raises(LedgerError, match=names):
        decode(SHARD, frames, 1)


def fields_of(frame: StreamFrame) -> dict[bytes, bytes]:
    """A copy of a frame's fields, to be changed."""
    return dict(frame[1])


# ---------------------------------------------------------------------- each kind


def test_entry_names_the_columns() -> None:
    """Entry's fields are the columns of the table, in their order."""
    assert Entry._fields == tuple(column.name for column in entries.columns)


def test_post() -> None:
    """A transfer on one shard makes two rows, the payer's first."""
    sent = transfer(9, "ann", "bob", 1250, pack_details(Details(reference=b"rent")))
    payer, payee = rows_of(Scribe(SHARD).post(sent, principal="till 9"))
    shared = (100, Kind.TRANSFER, sent.transaction_id, sent.fingerprint)
    assert payer == (
        entry_id(3, 1), "ann", 1, *shared, 0, 2, "bob", "EUR", -1250, 0, -1250, None, "rent", "", "till 9",
        "",
    )  # fmt: skip
    assert payee == (
        entry_id(3, 2), "bob", 1, *shared, 1, 2, "ann", "EUR", 1250, 0, 1250, None, "rent", "", "till 9", "",
    )  # fmt: skip


def test_decide_and_finish() -> None:
    """A transfer between shards makes the payer's row on one and the payee's on the other."""
    bundle = Bundle((transfer(9, "ann", "bob", 1250, across=True),))
    (payer,) = rows_of(Scribe(SHARD).bundles(FrameKind.DECIDE, (bundle, 0, DONE)))
    (payee,) = rows_of(Scribe(SHARD).bundles(FrameKind.FINISH, (bundle, 1, DONE)))
    assert (payer.account_id, payer.counterparty, payer.leg, payer.leg_count) == ("ann", "bob", 0, 2)
    assert (payee.account_id, payee.counterparty, payee.leg, payee.leg_count) == ("bob", "ann", 1, 2)
    assert (payer.delta, payer.balance, payee.delta, payee.balance) == (-1250, -1250, 1250, 1250)


def test_system_accounts_are_named_with_their_shard() -> None:
    """`@world` exists once a shard, as an account and as a counterparty."""
    deposit = Transaction(bytes(16), Kind.DEPOSIT, 1, transfer(0, "@world:EUR", "ann", 5).legs, DETAILS)
    world, ann = rows_of(Scribe(SHARD).post(deposit))
    assert (world.account_id, ann.counterparty) == ("@world:EUR:shard-2",) * 2
    assert (ann.external_id, ann.initiated_by, ann.reference) == ("order-7", "till 4", "Gruß")


def test_the_caller_is_the_initiator_where_the_details_name_none() -> None:
    """The principal of the bundle stands in, row by row."""
    named = transfer(1, "ann", "bob", 1, DETAILS)
    unnamed = transfer(2, "ann", "bob", 1, pack_details(Details(b"order-8")))
    without = transfer(3, "ann", "bob", 1)
    rows = rows_of(Scribe(SHARD).post(named, unnamed, without, principal="ca\0sh"))
    assert [row.initiated_by for row in rows[::2]] == ["till 4", "ca\u2400sh", "ca\u2400sh"]
    assert [row.external_id for row in rows[::2]] == ["order-7", "order-8", ""]


def test_a_long_journal() -> None:
    """Beyond two legs each names the first, which names nobody; of a participant's legs each counts."""
    legs = (
        Leg("ann", Effect.DEBIT, 300, "EUR"),
        Leg("bob", Effect.CREDIT, 200, "EUR", 2),
        Leg("@fees:EUR", Effect.CREDIT, 100, "EUR", 2),
        Leg("cid", Effect.CREDIT, 70, "USD", 1),
        Leg("dot", Effect.DEBIT, 70, "USD", 1),
    )
    bundle = Bundle((Transaction(HOLD_ID, Kind.JOURNAL, 1, legs, DETAILS),))
    (ann,) = rows_of(Scribe(SHARD).bundles(FrameKind.DECIDE, (bundle, 0, DONE)))
    bob, fees = rows_of(Scribe(SHARD).bundles(FrameKind.FINISH, (bundle, 2, DONE)))
    cid, dot = rows_of(Scribe(SHARD).bundles(FrameKind.FINISH, (bundle, 1, DONE)))
    rows = [ann, bob, fees, cid, dot]
    assert [row.account_id for row in rows] == ["ann", "bob", "@fees:EUR:shard-2", "cid", "dot"]
    assert [row.counterparty for row in rows] == ["", "ann", "ann", "ann", "ann"]
    assert [(row.leg, row.leg_count) for row in rows] == [(i, 5) for i in range(5)]
    assert [(row.delta, row.currency) for row in rows] == [
        (-300, "EUR"), (200, "EUR"), (100, "EUR"), (70, "USD"), (-70, "USD"),
    ]  # fmt: skip


def test_a_hold_and_what_becomes_of_it() -> None:
    """A hold moves nothing; a capture takes what it says, and frees all; a void and an expiry only free."""
    holds = [
        Transaction(
            bytes([i + 1]) * 16, Kind.HOLD, 1, (Leg("ann", Effect.HOLD, 50, "EUR"),), DETAILS, bound=9
        )
        for i in range(3)
    ]
    captured = (Leg("ann", Effect.CAPTURE, 30, "EUR"), Leg("shop", Effect.CREDIT, 30, "EUR"))
    scribe = Scribe(SHARD)
    scribe.post(*holds)
    scribe.post(
        Transaction(bytes([8]) * 16, Kind.CAPTURE, 1, captured, DETAILS, holds[0].transaction_id),
        Transaction(
            bytes([9]) * 16, Kind.VOID, 1, (Leg("ann", Effect.VOID, 0, "EUR"),), b"", holds[1].transaction_id
        ),
    )
    scribe.expire(holds[2])
    rows = rows_of(*scribe.frames)
    assert [(row.kind, row.leg, row.delta, row.held_delta, row.balance) for row in rows] == [
        (Kind.HOLD, 0, 0, 50, 0),
        (Kind.HOLD, 0, 0, 50, 0),
        (Kind.HOLD, 0, 0, 50, 0),
        (Kind.CAPTURE, 0, -30, -50, -30),
        (Kind.CAPTURE, 1, 30, 0, 30),
        (Kind.VOID, 0, 0, -50, -30),
        (Kind.EXPIRY, 1, 0, -50, -30),
    ]
    assert [row.related_id for row in rows[3:]] == [bytes([1]) * 16, bytes([1]) * 16, bytes([2]) * 16, None]
    assert rows[6][5:7] == rows[2][5:7]
    assert (rows[6].external_id, rows[6].counterparty, rows[6].leg_count) == ("order-7", "", 1)


def test_open() -> None:
    """An account begins at version 0, with its limits as JSON; one that was there already makes no row."""
    opened = Opened("ann", "EUR", -500, 0, 70), Opened("bob"), Opened("@fees:USD", "USD", 0, 900)
    codes = bytes((Outcome.COMMITTED, Outcome.ACCOUNT_EXISTS, Outcome.COMMITTED))
    frame = Scribe(SHARD).open(*opened, codes=codes)
    ann, fees = rows_of(frame)
    limits = '{"minimum_balance": -500, "maximum_balance": 0, "maximum_transfer": 70}'
    assert ann == (
        entry_id(3, 1), "ann", 0, 100, Kind.OPEN, None, None, 0, 0, "", "EUR", 0, 0, 0, None, "", "", "",
        limits,
    )  # fmt: skip
    assert (fees.account_id, fees.currency) == ("@fees:USD:shard-2", "USD")
    assert json.loads(fees.attributes)["maximum_balance"] == 900
    assert row_count(frame[1]) == 2


def test_state() -> None:
    """Freezing, unfreezing and closing an account are rows without a transaction."""
    scribe = Scribe(SHARD)
    scribe.post(transfer(1, "bob", "ann", 7))
    changes = [Kind.FREEZE, Kind.UNFREEZE, Kind.CLOSE]
    rows = rows_of(*scribe.frames, scribe.state(*(("ann", kind) for kind in changes)))[2:]
    assert [(row.kind, row.balance, row.version) for row in rows] == [
        (kind, 7, version) for version, kind in enumerate(changes, 2)
    ]
    assert {row[5:12] for row in rows} == {(None, None, 0, 0, "", "EUR", 0)}


def test_a_zero_byte_is_shown_as_its_picture() -> None:
    """PostgreSQL's text cannot hold a zero byte, which must not stop the archive."""
    details = pack_details(Details(b"\0", b"x", b"\0a\0"))
    payer, payee = rows_of(Scribe(SHARD).post(transfer(1, "ann", "bob", 1, details)))
    assert payer[15:18] == payee[15:18] == ("\u2400a\u2400", "\u2400", "x")


def test_what_was_not_carried_out_makes_no_rows() -> None:
    """Of a refused transaction there is nothing; balances and versions are those of the others."""
    four = [transfer(number, "ann", "bob", 100 + number) for number in range(4)]
    frame = Scribe(SHARD).post(*four, codes=REFUSED + DONE + REFUSED + DONE)
    rows = rows_of(frame)
    assert [(row.account_id, row.delta, row.balance, row.version) for row in rows] == [
        ("ann", -101, -101, 1), ("bob", 101, 101, 1), ("ann", -103, -204, 2), ("bob", 103, 204, 2),
    ]  # fmt: skip
    assert {row.transaction_id for row in rows} == {four[1].transaction_id, four[3].transaction_id}
    assert row_count(frame[1]) == 4


def test_fields_in_either_form() -> None:
    """A client gives a stream entry's fields as a dictionary or as pairs."""
    stream_id, fields = Scribe(SHARD).post(transfer(1, "ann", "bob", 1))
    pairs = list(dict(fields).items())
    assert rows_of((stream_id, pairs)) == rows_of((stream_id, fields))
    assert row_count(pairs) == 2
    refused((stream_id, [*pairs, pairs[-1]]))


# ---------------------------------------------------------------------- whatever there may be

CURRENCIES = st.sampled_from(["EUR", "USD", "JPY"])
NAMES = st.one_of(
    st.sampled_from(["ann", "bob", "@world:EUR", "@fees:USD", "Gruß"]),
    st.text("ac:@ü\x1e", min_size=1, max_size=9),
)
TEXTS = st.text("ab\0\x1eü€", max_size=6).map(str.encode)
DETAIL_BYTES = st.one_of(st.just(b""), st.builds(Details, TEXTS, TEXTS, TEXTS).map(pack_details))
AMOUNTS = st.integers(1, 2**40)
IDS = st.binary(min_size=16, max_size=16)


@st.composite
def plain_transactions(draw: st.DrawFn) -> Transaction:
    """A debit and a credit."""
    payer, payee = draw(st.lists(NAMES, min_size=2, max_size=2, unique=True))
    amount, currency = draw(AMOUNTS), draw(CURRENCIES)
    version = draw(st.sampled_from([-1, -1, 5]))
    legs = (
        Leg(payer, Effect.DEBIT, amount, currency, 0, version),
        Leg(payee, Effect.CREDIT, amount, currency, 1),
    )
    kind = draw(st.sampled_from([Kind.TRANSFER, Kind.DEPOSIT, Kind.WITHDRAWAL, Kind.PURCHASE]))
    return Transaction(draw(IDS), kind, 1, legs, draw(DETAIL_BYTES))


@st.composite
def general_transactions(draw: st.DrawFn) -> Transaction:
    """Any legs of any owners: more than a shard would take."""
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    legs = []
    for name in names:
        effect = draw(st.sampled_from(Effect))
        amount = 0 if effect is Effect.VOID else draw(AMOUNTS)
        legs.append(Leg(name, effect, amount, draw(CURRENCIES), draw(st.integers(0, 2))))
    kind = draw(st.sampled_from([Kind(number) for number in range(Kind.TRANSFER, Kind.VOID + 1)]))
    related, bound = draw(st.one_of(st.just(NO_ID), IDS)), draw(st.integers(0, 9))
    return Transaction(draw(IDS), kind, 1, tuple(legs), draw(DETAIL_BYTES), related, bound)


BUNDLES = st.builds(
    Bundle,
    st.one_of(
        st.lists(plain_transactions(), min_size=1, max_size=4),
        st.lists(st.one_of(plain_transactions(), general_transactions()), min_size=1, max_size=4),
    ).map(tuple),
    st.text("ab\0ü", max_size=4),
)


@st.composite
def histories(draw: st.DrawFn) -> Scribe:
    """What a shard may have appended, and more."""
    scribe = Scribe(SHARD)
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(FrameKind))
        if kind is FrameKind.OPEN:
            numbers = st.integers(-(2**50), 2**50)
            opened = draw(
                st.lists(st.builds(Opened, NAMES, CURRENCIES, numbers, numbers, numbers), max_size=3)
            )
            scribe.open(*opened, codes=draw(codes(len(opened))))
        elif kind is FrameKind.STATE:
            changes = st.sampled_from([Kind.FREEZE, Kind.UNFREEZE, Kind.CLOSE])
            scribe.state(*draw(st.lists(st.tuples(NAMES, changes), min_size=1, max_size=3)))
        elif kind is FrameKind.EXPIRE:
            hold = Transaction(
                draw(IDS), Kind.HOLD, 1, (Leg(draw(NAMES), Effect.HOLD, 5, "EUR"),), draw(DETAIL_BYTES)
            )
            scribe.post(hold)
            scribe.expire(hold)
        else:
            owner = {FrameKind.POST: ALL_OWNERS, FrameKind.DECIDE: 0, FrameKind.FINISH: 1}[kind]
            parts = [
                (bundle, owner, draw(codes(len(bundle.transactions))))
                for bundle in draw(st.lists(BUNDLES, min_size=1, max_size=3))
            ]
            scribe.bundles(kind, *parts)
    return scribe


@st.composite
def codes(draw: st.DrawFn, count: int) -> bytes:
    """A code for each, or one for all."""
    one = st.sampled_from([Outcome.COMMITTED, Outcome.COMMITTED, Outcome.INSUFFICIENT_FUNDS])
    return bytes(draw(st.lists(one, min_size=count, max_size=count))) if draw(st.booleans()) else DONE


@settings(max_examples=60, deadline=None)
@given(histories())
def test_rows_are_those_of_the_transactions(scribe: Scribe) -> None:
    """Whatever was appended, the rows are those of the plain rules, frame by frame and all at once."""
    rows = decode(SHARD, scribe.frames, 1)
    assert list(rows) == scribe.rows
    assert [type(value) for row in rows for value in row] == [_plain(v) for row in scribe.rows for v in row]
    alone: list[Row] = []
    for frame in scribe.frames:
        made = decode(SHARD, [frame], len(alone) + 1)
        assert row_count(frame[1]) == len(made)
        alone += made
    assert alone == scribe.rows


def _plain(value: Any) -> type:
    """What a database's driver takes: an int for a number of any enum."""
    return int if isinstance(value, int) else type(value)


# ---------------------------------------------------------------------- nothing malformed


def frames_of_each_kind() -> dict[str, StreamFrame]:
    """A frame of every kind, each the first of its shard."""
    hold = Transaction(HOLD_ID, Kind.HOLD, 1, (Leg("ann", Effect.HOLD, 50, "EUR"),), DETAILS, bound=9)
    legs = (Leg("shop", Effect.DEBIT, 3, "EUR"), Leg("@f", Effect.REFUND, 3, "USD", 1))
    refund = Transaction(PURCHASE_ID, Kind.REFUND, 1, legs, DETAILS, HOLD_ID)
    sent = [transfer(i, "ann", "@bo", 5, DETAILS, across=True) for i in range(2)]
    plain, general = Bundle(tuple(sent), "till"), Bundle((refund, *sent, hold), "till")
    some = DONE + REFUSED + DONE + REFUSED
    return {
        "post": Scribe(SHARD).bundles(FrameKind.POST, (plain, ALL_OWNERS, DONE)),
        "post, general": Scribe(SHARD).bundles(FrameKind.POST, (general, ALL_OWNERS, some)),
        "decide": Scribe(SHARD).bundles(FrameKind.DECIDE, (plain, 0, REFUSED + DONE), (general, 0, DONE)),
        "finish": Scribe(SHARD).bundles(FrameKind.FINISH, (general, 1, some), (plain, 1, DONE * 2)),
        "open": Scribe(SHARD).open(Opened("ann"), Opened("bob", "USD", -5, 6, 7), codes=DONE * 2),
        "state": Scribe(SHARD).state(("@b", Kind.CLOSE)),
        "expire": Scribe(SHARD, holds={HOLD_ID: 50}).expire(hold),
    }


FRAMES = frames_of_each_kind()
CHANGES: dict[str, Callable[[bytes, int], bytes]] = {
    "cut": lambda value, at: value[:at],
    "a byte less": lambda value, at: value[:at] + value[at + 1 :],
    "a byte more": lambda value, at: value[:at] + b"\0" + value[at:],
    "bits set": lambda value, at: value[:at] + bytes((value[at] | 0xC0,)) + value[at + 1 :],
    "no bits": lambda value, at: value[:at] + b"\0" + value[at + 1 :],
}


def made_of(frame: StreamFrame) -> list[Entry] | None:
    """The rows; None where the frame is refused by its shard's and its own name."""
    try:
        return rows_of(frame)
    except LedgerError as error:
        return None if "shard-2" in str(error) and "100-0" in str(error) else []


@pytest.mark.parametrize("change", ["cut", "a byte less", "a byte more"])
@pytest.mark.parametrize("kind", FRAMES)
def test_fields_of_another_length(kind: str, change: str) -> None:
    """At whatever byte a field is cut, or has one less or more: nothing of the frame is taken."""
    stream_id, original = FRAMES[kind][0], fields_of(FRAMES[kind])
    right = rows_of(FRAMES[kind])
    for name, value in original.items():
        for at in range(len(value)):
            changed = CHANGES[change](value, at)
            # Of codes that are all the same one is enough.
            wanted = right if value == DONE * 2 and changed == DONE else None
            assert made_of((stream_id, original | {name: changed})) == wanted, (name, at)


@pytest.mark.parametrize("change", ["bits set", "no bits"])
@pytest.mark.parametrize("kind", FRAMES)
def test_bytes_of_another_value(kind: str, change: str) -> None:
    """Whatever a byte is changed to, the frame makes rows, all of them well formed, or is refused."""
    stream_id, original = FRAMES[kind][0], fields_of(FRAMES[kind])
    for name, value in original.items():
        for at in range(len(value)):
            frame = original | {name: CHANGES[change](value, at)}
            rows = made_of((stream_id, frame))
            assert rows is None or len(rows) == row_count(frame), (name, at)


def changed_bytes(kind: str, field: bytes, at: int, *values: int) -> StreamFrame:
    """A frame in which some bytes of a field, one after the other, have other values."""
    stream_id, fields = FRAMES[kind][0], fields_of(FRAMES[kind])
    fields[field] = fields[field][:at] + bytes(values) + fields[field][at + len(values) :]
    return stream_id, fields


# Where the bundles of "post" have their kinds, lengths of accounts and currency: two transactions.
KINDS = BUNDLE_HEAD.size + 2 * (16 + 8 + 2 + 2)
LENGTHS, CURRENCY = KINDS + 2, KINDS + 2 + 4
# Where those of "post, general" and the second of "decide" have leg counts and effects: four, seven legs.
COUNTS = BUNDLE_HEAD.size + 4 * (16 + 16 + 8) + 7 * 8 + 4 * (2 + 2) + 4
EFFECTS = COUNTS + 4


@pytest.mark.parametrize(
    "frame",
    [
        changed_bytes("post", b"h", 0, 2),
        changed_bytes("post", b"h", 1, 7),
        changed_bytes("post", b"h", 1, FrameKind.DECIDE),
        changed_bytes("decide", b"h", 1, FrameKind.FINISH),
        changed_bytes("finish", b"h", 1, FrameKind.POST),
        changed_bytes("post", b"h", 2, 2),
        changed_bytes("post", b"h", 2, 0),
        changed_bytes("state", b"h", 1, FrameKind.EXPIRE),
        changed_bytes("expire", b"h", 1, FrameKind.STATE),
        changed_bytes("post", b"b0", 0, 2),
        changed_bytes("post", b"b0", 1, 0x0B),
        changed_bytes("post", b"b0", KINDS, 0),
        changed_bytes("post", b"b0", KINDS, Kind.EXPIRY),
        changed_bytes("post", b"b0", LENGTHS, 0, 6, 3, 3),
        changed_bytes("post", b"b0", CURRENCY, *b"EUr"),
        changed_bytes("decide", b"b1", COUNTS, 0, 4, 2, 1),
        changed_bytes("post, general", b"b0", EFFECTS, 0),
        changed_bytes("post, general", b"b0", EFFECTS, 7),
        ("100-0", {}),
        ("100-0", {b"e": b"\x90"}),
        ("100-0", [(b"h", b"")]),
        ("100-0-", FRAMES["post"][1]),
    ],
)
def test_what_is_not_understood_is_refused(frame: StreamFrame) -> None:
    """A layout, kind or flag that is not known, a field too many or too few: an error, nothing skipped."""
    refused(frame)


def test_the_places_of_those_bytes() -> None:
    """The bytes that are changed above are those that are meant."""
    post, general = fields_of(FRAMES["post"])[b"b0"], fields_of(FRAMES["decide"])[b"b1"]
    assert post[KINDS : CURRENCY + 3] == bytes((Kind.TRANSFER, Kind.TRANSFER, 3, 3, 3, 3)) + b"EUR"
    assert general[COUNTS : EFFECTS + 2] == bytes((2, 2, 2, 1, Effect.DEBIT, Effect.REFUND))


@pytest.mark.parametrize(
    "details", [b"\0", b"\2", b"\5\0abcd", b"\0\5abcd", b"\2\3abcd", b"\2\4abcd", b"\xff\xff"]
)
def test_details_that_are_too_short_for_their_texts(details: bytes) -> None:
    """Texts are not taken from the next transaction's."""
    scribe, three = Scribe(SHARD), [transfer(i, "ann", "bob", 1, DETAILS) for i in range(3)]
    # The scribe's own rows need details that are well formed.
    scribe.post(*three)
    three[1] = transfer(1, "ann", "bob", 1, details)
    refused((scribe.frames[0][0], fields_of(scribe.frames[0]) | {b"b0": Bundle(tuple(three)).pack()}))


def test_the_first_malformed_frame_is_named() -> None:
    """Frames are decoded together, and the error is about the one that it is about."""
    scribe = Scribe(SHARD)
    frames = [scribe.post(transfer(i, "ann", "bob", 1)) for i in range(5)]
    for i in (2, 4):
        frames[i] = (frames[i][0], fields_of(frames[i]) | {b"f0": b""})
    refused(*frames, names=r"shard-2.*102-2")


def test_names_do_not_run_from_frame_to_frame() -> None:
    """Lengths that are too long in one frame and too short in the next are refused."""
    longer, shorter = (changed_bytes("post", b"b0", LENGTHS, length) for length in (4, 2))
    refused(longer, shorter)


@pytest.mark.parametrize("field", [b"x0", b"b0"])
def test_one_frame_does_not_make_up_for_another(field: bytes) -> None:
    """Balances or texts that are missing in one frame are not taken from another that has too many."""
    three = [transfer(i, "ann", "bob", 100 + i) for i in range(3)]
    frames = Scribe(SHARD).post(three[0]), Scribe(SHARD).post(*three[1:])
    swapped = [
        fields_of(frame) | {field: fields_of(other)[field]}
        for frame, other in zip(frames, frames[::-1], strict=True)
    ]
    assert sum(row_count(frame) for frame in swapped) == 6
    refused(*(("100-0", frame) for frame in swapped))


def test_a_character_is_not_in_two_texts() -> None:
    """Lengths that end a text within a character are refused, also when the bytes together are UTF-8."""
    frame = fields_of(Scribe(SHARD).post(transfer(1, "aü", "üb", 1)))
    lengths, names = bytes((3, 3)), "aüüb".encode()
    assert frame[b"b0"].count(lengths + b"EUR" + names) == 1
    wrong = frame[b"b0"].replace(lengths + b"EUR" + names, bytes((2, 4)) + b"EUR" + names)
    refused(("100-0", frame | {b"b0": wrong}))


@pytest.mark.parametrize("field", [b"h", b"b0", b"x0"])
def test_a_count_of_nothing_is_refused(field: bytes) -> None:
    """Not even the number of rows is guessed."""
    with pytest.raises(LedgerError, match="unreadable"):
        row_count(fields_of(FRAMES["post"]) | {field: b""})
    with pytest.raises(LedgerError, match="unreadable"):
        row_count({name: value for name, value in fields_of(FRAMES["post"]).items() if name != field})


def test_nothing_makes_no_rows() -> None:
    """No frames, no rows; and an OPEN of accounts that were all there already makes none."""
    assert list(decode(SHARD, [], 1)) == []
    assert rows_of(Scribe(SHARD).open(Opened("ann"), codes=bytes((Outcome.ACCOUNT_EXISTS,)))) == []
