"""The chain of hashes: its bytes are fixed for ever, and no two batches share them."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import msgpack
from hypothesis import assume, given
from hypothesis import strategies as st

from shard_node.contract.kinds import Kind
from shard_node.ledger.store.chain import GENESIS, Header, canonical, chain_hash, is_intact, seal
from shard_node.ledger.store.rows import ArchivedShard, Row
from shard_node.ledger.store.schema import entry_id
from tests.ledger.streams import START_MS

SHARD = ArchivedShard(1, "shard-0")
HEADER = Header(SHARD, 1, 1, 1, "1700000000000-0", 1, 2, 3)

FINGERPRINTS = "316467a5d411d68b", "13855df43739439a", "a06288e15058980b"
PINNED_BEGINNING = "9a01a773686172642d30010106af313730303030303030303030312d30cf0000018bcfe56800cf00"
PINNED_FIRST = "ed8c33f7d2296617dbc8529039c321b10d3cacaacd72a176b68b4d57cb7ee26d"
PINNED_SECOND = "64455a8760d98904bb58b63f93db4627a75a79ab224301f87afe4751dc4f8b50"

INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
IDS = st.none() | st.binary(min_size=16, max_size=16)
ROWS: st.SearchStrategy[Row] = st.tuples(
    INTEGERS, TEXTS, INTEGERS, INTEGERS, INTEGERS, IDS, st.none() | st.binary(min_size=8, max_size=8),
    INTEGERS, INTEGERS, TEXTS, TEXTS, INTEGERS, INTEGERS, INTEGERS, IDS, TEXTS, TEXTS, TEXTS, TEXTS,
)  # fmt: skip
HEADERS = st.builds(
    Header,
    st.builds(ArchivedShard, INTEGERS, TEXTS),
    INTEGERS, INTEGERS, INTEGERS, TEXTS, INTEGERS, INTEGERS, INTEGERS,
)  # fmt: skip
BATCHES = st.tuples(HEADERS, st.lists(ROWS, max_size=3))


def test_the_hash_is_pinned() -> None:
    """The hash of a known batch never changes: archives of today must verify for ever."""
    first = Header(SHARD, 1, 1, 6, f"{START_MS + 1}-0", START_MS, START_MS + 1, 7)
    rows = [
        *_legs(1, START_MS, FINGERPRINTS[0], ("bob", 1, -5), ("cid", 1, 5)),
        *_legs(2, START_MS, FINGERPRINTS[1], ("cid", 2, 0), ("ann", 1, 5)),
        *_legs(3, START_MS + 1, FINGERPRINTS[2], ("ann", 2, 0), ("bob", 2, 0)),
    ]
    assert canonical(first, rows)[:40].hex() == PINNED_BEGINNING
    head = chain_hash(GENESIS, first, rows)
    assert head.hex() == PINNED_FIRST
    second = Header(SHARD, 2, 7, 2, f"{START_MS + 2}-0", START_MS + 2, START_MS + 2, 7)
    rows = _legs(4, START_MS + 2, FINGERPRINTS[0], ("bob", 3, -5), ("cid", 3, 5))
    assert chain_hash(head, second, rows).hex() == PINNED_SECOND


def _legs(
    number: int, at_ms: int, fingerprint: str, payer: tuple[str, int, int], payee: tuple[str, int, int]
) -> list[Row]:
    """Two rows of a transfer of 5; of payer and payee account, version and balance."""
    return [
        (
            entry_id(1, 2 * number - 1 + leg), account, version, at_ms, Kind.TRANSFER, number.to_bytes(16),
            bytes.fromhex(fingerprint), leg, 2, other, "EUR", delta, 0, balance, None, "thanks", "", "", "",
        )
        for leg, (account, version, balance), other, delta in (
            (0, payer, payee[0], -5), (1, payee, payer[0], 5),
        )
    ]  # fmt: skip


@given(BATCHES)
def test_canonical_bytes_can_be_read_back(made: tuple[Header, list[Row]]) -> None:
    """They hold everything, so that nothing can change without them."""
    header, rows = made
    *fields, read = msgpack.unpackb(canonical(header, rows), use_list=False)
    columns = [
        struct.unpack(f"<{len(rows)}q", column)
        if isinstance(column, bytes)
        else column * (len(rows) if len(column) == 1 else 1)
        for column in read
    ]
    assert list(zip(*columns, strict=True)) == rows
    assert fields == [
        header.shard.number, header.shard.shard_id, header.number, header.first_sequence, header.entry_count,
        header.stream_id, header.first_at_ms, header.last_at_ms, header.archived_at_ms,
    ]  # fmt: skip


@given(BATCHES, BATCHES)
def test_different_batches_have_different_bytes(
    one: tuple[Header, list[Row]], other: tuple[Header, list[Row]]
) -> None:
    """Equal bytes mean equal batches."""
    assert (canonical(*one) == canonical(*other)) == (one == other)


@given(ROWS, st.integers(0, 18), st.data())
def test_any_change_of_a_row_shows(row: Row, column: int, data: st.DataObject) -> None:
    """One changed value, whichever, is another hash."""
    sealed = seal(GENESIS, HEADER, [row])
    assert is_intact(sealed, [row])
    changed: list[Any] = list(row)
    changed[column] = data.draw(ROWS.map(lambda other: other[column]))
    assume(changed[column] != row[column])
    assert not is_intact(sealed, [tuple(changed)])


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_texts_do_not_flow_into_each_other(one: str, two: str, three: str, four: str) -> None:
    """Moving characters from one column to the next is a change."""
    base: Row = (1, "ann", 1, 1, 1, None, None, 0, 0, "", "EUR", 0, 0, 0, None)
    rows, others = [(*base, one, two, "", "")], [(*base, three, four, "", "")]
    same = (one, two) == (three, four)
    assert (chain_hash(GENESIS, HEADER, rows) == chain_hash(GENESIS, HEADER, others)) == same


def test_every_field_of_the_header_counts() -> None:
    """A batch that says something else of itself is not intact."""
    sealed = seal(GENESIS, HEADER, [])
    for change in (
        {"shard": ArchivedShard(2, "shard-0")},
        {"shard": ArchivedShard(1, "shard-1")},
        {"number": 2},
        {"first_sequence": 2},
        {"entry_count": 2},
        {"stream_id": "1700000000000-1"},
        {"first_at_ms": 0},
        {"last_at_ms": 0},
        {"archived_at_ms": 0},
    ):
        assert not is_intact(replace(sealed, header=replace(HEADER, **change)), [])
    assert not is_intact(replace(sealed, previous_hash=bytes(31) + b"\x01"), [])
    assert is_intact(sealed, [])
