"""The entries that the frames of a shard's ledger stand for, as the model has them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final

from shard_node.contract import (
    ALL_OWNERS,
    ENTRY_HEAD,
    FRAME_HEAD,
    LIST_HEAD,
    NO_ID,
    Bundle,
    BundleFlag,
    FrameKind,
    Kind,
    Outcome,
)
from tests.model import Entry

_OPEN_COLUMNS: Final = struct.calcsize("<qqqH3s")
_EFFECT_SIGNS: Final = (0, 1, -1, 1, -1, 0, 0)


def entries_of(frame: Mapping[bytes, bytes]) -> list[Entry]:
    """The entries of one frame, in its order."""
    _, kind, parts = FRAME_HEAD.unpack(frame[b"h"])
    read = {FrameKind.OPEN: _opened, FrameKind.STATE: _listed, FrameKind.EXPIRE: _listed}.get(kind, _carried)
    return [entry for part in range(parts) for entry in read(frame, part)]


def _carried(frame: Mapping[bytes, bytes], part: int) -> Iterator[Entry]:
    """Of a bundle: the legs of its owner, of those transactions that were carried out."""
    packed, codes, changes = (frame[b"%c%d" % (letter, part)] for letter in b"bcx")
    rows, plain = Bundle.unpack(packed).transactions, BundleFlag.PLAIN in BundleFlag(packed[1])
    codes = codes * len(rows) if len(codes) == 1 else codes
    owned = [
        (number, i)
        for i, row in enumerate(rows)
        if codes[i] == Outcome.COMMITTED
        for number, leg in enumerate(row.legs)
        if changes[0] in {ALL_OWNERS, leg.owner}
    ]
    # A plain bundle has all payers before all payees.
    order = sorted(owned) if plain else owned
    columns = struct.unpack(f"<{(len(changes) - 1) // 8}q", changes[1:])
    count = len(order)
    assert len(columns) == count * (2 if plain else 3)
    entries = {}
    for n, (number, i) in enumerate(order):
        row, leg = rows[i], rows[i].legs[number]
        held = 0 if plain else columns[2 * count + n]
        delta = leg.amount_minor * _EFFECT_SIGNS[leg.effect]
        entries[i, number] = Entry(
            leg.account,
            columns[count + n],
            row.kind,
            row.transaction_id,
            row.fingerprint,
            number,
            delta,
            held,
            columns[n],
        )
    yield from (entries[place] for place in sorted(entries))


def _opened(frame: Mapping[bytes, bytes], part: int) -> Iterator[Entry]:
    packed, codes = frame[b"o%d" % part], frame[b"c%d" % part]
    (count,) = LIST_HEAD.unpack_from(packed)
    codes = codes * count if len(codes) == 1 else codes
    lengths_at = LIST_HEAD.size + count * _OPEN_COLUMNS
    at = lengths_at + count
    for i, length in enumerate(packed[lengths_at : lengths_at + count]):
        if codes[i] == Outcome.COMMITTED:
            yield Entry(packed[at : at + length].decode(), 0, Kind.OPEN, NO_ID, bytes(8), 0, 0, 0, 0)
        at += length


def _listed(frame: Mapping[bytes, bytes], part: int) -> Iterator[Entry]:
    packed, at = frame[b"r%d" % part], 0
    while at < len(packed):
        name, fingerprint, delta, held, balance, version, _, kind, leg, _, *lengths = ENTRY_HEAD.unpack_from(
            packed, at
        )
        at += ENTRY_HEAD.size
        account = packed[at : at + lengths[0]].decode()
        yield Entry(account, version, Kind(kind), name, fingerprint, leg, delta, held, balance)
        at += sum(lengths)
