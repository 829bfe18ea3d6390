"""Bundles of transfers: every column gives back what went in, and ids tell their age or none."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard_node.contract.bundles import (
    DECISION_BYTES,
    each,
    id_times_ms,
    join_short,
    split_bodies,
    split_decisions,
    split_short,
)
from shard_node.contract.transfers import Kind, Terms, Transfers, decision_key, terms_key
from shard_node.limits import MAX_MINOR

# A bundle holds whatever was let in: here any terms that can be packed.
TERMS = st.builds(
    Terms,
    amount_minor=st.integers(1, MAX_MINOR),
    currency=st.sampled_from(["EUR", "USD", "JPY"]),
    payer_slot=st.integers(0, 16383),
    payee_slot=st.integers(0, 16383),
    kind=st.sampled_from([Kind.TRANSFER, Kind.DEPOSIT, Kind.WITHDRAWAL, Kind.PURCHASE]),
    payer=st.text("abc:{}@", min_size=1, max_size=64),
    payee=st.text("abc:{}@", min_size=1, max_size=64),
    details=st.binary(max_size=140),
)
BATCHES = st.lists(st.tuples(st.binary(min_size=16, max_size=16), TERMS), min_size=1, max_size=8).map(
    Transfers.of
)


def uuid7(at_ms: int, tail: int = 0) -> bytes:
    """A UUIDv7 of that moment."""
    return at_ms.to_bytes(6) + b"\x70" + tail.to_bytes(9)


def uuid4(fill: int = 0xFF) -> bytes:
    """An id without a time, whatever its first bytes look like."""
    return bytes((fill,)) * 6 + b"\x4f" + bytes((fill,)) * 9


def payment(transaction_id: bytes, currency: str = "EUR", amount: int = 5) -> tuple[bytes, Terms]:
    """One of ann's transfers to bob."""
    return transaction_id, Terms(amount, currency, 1, 2, Kind.TRANSFER, "ann", "bob", b"rent")


@given(batch=BATCHES)
def test_each_column_gives_back_what_went_in(batch: Transfers) -> None:
    """Decisions, terms, accounts, amounts and bodies of all rows, in their order."""
    bundle = batch.bundle()
    count = len(batch)
    assert bundle.count == count
    pairs = list(zip(batch.keys, batch.bodies, strict=True))
    assert split_decisions(bundle.decisions) == [decision_key(*pair) for pair in pairs]
    assert split_short(bundle.terms) == [terms_key(*pair) for pair in pairs]
    assert [raw.decode() for raw in split_short(bundle.payers)] == batch.payers
    assert [raw.decode() for raw in split_short(bundle.payees)] == batch.payees
    assert list(struct.unpack(f"<{count}q", bundle.amounts)) == batch.amounts_minor
    assert split_bodies(bundle.bodies) == batch.bodies
    codes = bundle.currencies.decode()
    assert [codes[at : at + 3] for at in range(0, len(codes), 3)] * (count * 3 // len(codes)) == (
        batch.currencies
    )
    assert list(bundle.rows()) == [
        (decision_key(key, body), terms_key(key, body), body) for key, body in pairs
    ]


@given(batch=BATCHES, data=st.data())
def test_some_rows(batch: Transfers, data: st.DataObject) -> None:
    """Rows by number, in the order asked for, are what a batch of only these would be."""
    rows = data.draw(st.lists(st.integers(0, len(batch) - 1), min_size=1, max_size=12))
    chosen = Transfers(*map(list, zip(*(batch.row(row) for row in rows), strict=True)))
    assert batch.bundle(rows) == chosen.bundle()


def test_the_bytes() -> None:
    """The layout, byte by byte: shards and ledgers of other releases have it."""
    bundle = Transfers.of([payment(uuid7(7, 9)), payment(uuid7(8), amount=6)]).bundle()
    assert bundle.decisions == uuid7(7, 9) + b"\x01\x00" + uuid7(8) + b"\x01\x00"
    assert bundle.payers == b"\x03ann\x03ann"
    assert bundle.payees == b"\x03bob\x03bob"
    assert bundle.amounts == b"\x05" + bytes(7) + b"\x06" + bytes(7)
    assert bundle.currencies == b"EUR"
    # fingerprint 8, amount 8, currency 3
    assert [len(terms) for terms in split_short(bundle.terms)] == [19, 19]
    assert split_short(bundle.terms)[0][8:] == b"\x05" + bytes(7) + b"EUR"
    # head 18, two names of 3 bytes, reference of 4
    assert bundle.bodies[:2] == bundle.bodies[30:32] == b"\x1c\x00"
    assert len(bundle.bodies) == 60


@pytest.mark.parametrize(
    ("codes", "packed"),
    [
        (["EUR"], b"EUR"),
        (["EUR", "EUR", "EUR"], b"EUR"),
        (["EUR", "USD", "EUR"], b"EURUSDEUR"),
        (["USD", "EUR"], b"USDEUR"),
    ],
)
def test_currencies(codes: list[str], packed: bytes) -> None:
    """A code a row, or one for all when there is but one."""
    batch = Transfers.of([payment(uuid7(n), code) for n, code in enumerate(codes)])
    assert batch.bundle().currencies == packed


@pytest.mark.parametrize(
    ("ids", "oldest_ms", "newest_ms"),
    [
        ([uuid7(5)], 5, 5),
        ([uuid7(9), uuid7(3, 1), uuid7(7)], 3, 9),
        # Times of six bytes, which no number of fewer bits holds.
        ([uuid7(2**48 - 1), uuid7(2**47)], 2**47, 2**48 - 1),
        # One id of any age: none may be taken for younger than what was forgotten.
        ([uuid7(9), uuid4(), uuid7(3)], 0, 9),
        ([uuid4(0), uuid7(3)], 0, 3),
        ([uuid4(), uuid4(0)], 0, 0),
    ],
    ids=["one", "some", "far ones", "one without", "an early one without", "all without"],
)
def test_times_of_ids(ids: list[bytes], oldest_ms: int, newest_ms: int) -> None:
    """The oldest and newest UUIDv7; oldest is 0 as soon as one id has no time."""
    bundle = Transfers.of([payment(one) for one in ids]).bundle()
    assert (bundle.oldest_ms, bundle.newest_ms) == (oldest_ms, newest_ms)
    assert id_times_ms(ids) == id_times_ms([one + b"\xff\xff" for one in ids]) == (oldest_ms, newest_ms)


def test_times_of_no_ids() -> None:
    """Without any id there is no time either."""
    assert id_times_ms([]) == (0, 0)


@given(texts=st.lists(st.binary(max_size=255)))
def test_short_texts(texts: list[bytes]) -> None:
    """Texts of up to 255 bytes come back, empty ones too."""
    assert split_short(join_short(texts)) == texts


def test_a_text_that_is_too_long() -> None:
    """A length of more than a byte is refused, not cut."""
    with pytest.raises(ValueError, match="256"):
        join_short([bytes(256)])


def test_a_column_that_was_cut() -> None:
    """A column that ends within a value is an error wherever it was cut."""
    bundle = Transfers.of([payment(uuid7(1)), payment(uuid7(2))]).bundle()
    columns = {
        split_decisions: (bundle.decisions, DECISION_BYTES),
        split_short: (bundle.terms, len(bundle.terms) // 2),
        split_bodies: (bundle.bodies, len(bundle.bodies) // 2),
    }
    for split, (column, size) in columns.items():
        assert len(split(column[:size])) == 1
        assert split(b"") == []
        for length in set(range(1, len(column))) - {size}:
            with pytest.raises(ValueError, match=f"of {length} bytes"):
                split(column[:length])


@pytest.mark.parametrize(
    ("codes", "count", "expected"),
    [
        (b"\x01", 1, b"\x01"),
        (b"\x01", 4, b"\x01\x01\x01\x01"),
        (b"\x01\x02\x03", 3, b"\x01\x02\x03"),
    ],
)
def test_each(codes: bytes, count: int, expected: bytes) -> None:
    """A byte a row, from a byte a row or from one for all."""
    assert each(codes, count) == expected
