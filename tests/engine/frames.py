"""The entries in the ledger's frames, as the model of the engine has them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from shard_node.contract.layout import (
    ALL_OWNERS,
    ENTRY_HEAD,
    FRAME_HEAD,
    LAYOUT_VERSION,
    BundleFlag,
    FrameKind,
)
from shard_node.contract.transactions import Bundle
from shard_node.journals import Effect
from shard_node.outcomes import Outcome
from shard_node.transfers import Kind
from tests.engine_model import Entry

_SIGNS = {Effect.CREDIT: 1, Effect.REFUND: 1, Effect.DEBIT: -1, Effect.CAPTURE: -1}
_OF_BUNDLES = frozenset((FrameKind.POST, FrameKind.DECIDE, FrameKind.FINISH))


def entries(frames: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> Iterator[Entry]:
    """All entries but those of accounts that were opened."""
    for _, fields in frames:
        version, kind, parts = FRAME_HEAD.unpack(fields[b"h"])
        assert version == LAYOUT_VERSION
        for part in range(parts):
            if kind in _OF_BUNDLES:
                yield from _carried_out(*(fields[b"%c%d" % (letter, part)] for letter in b"bcx"))
            elif kind != FrameKind.OPEN:
                yield from _rows(fields[b"r%d" % part])


def _carried_out(packed: bytes, codes: bytes, changes: bytes) -> Iterator[Entry]:
    """Legs of one owner whose transaction was carried out."""
    rows, owner = Bundle.unpack(packed).transactions, changes[0]
    plain = BundleFlag.PLAIN in BundleFlag(packed[1])
    codes = codes * len(rows) if len(codes) == 1 else codes
    places = [
        (i, number)
        for i, row in enumerate(rows)
        for number, leg in enumerate(row.legs)
        if codes[i] == Outcome.COMMITTED and owner in {ALL_OWNERS, leg.owner}
    ]
    if plain:
        # All payers come before all payees.
        places.sort(key=lambda place: place[1])
    count, columns = len(places), 2 if plain else 3
    numbers = struct.unpack(f"<{columns * count}q", changes[1:])
    balances, versions = numbers[:count], numbers[count : 2 * count]
    held_deltas = (0,) * count if plain else numbers[2 * count :]
    for place, balance, version, held_delta in zip(places, balances, versions, held_deltas, strict=True):
        row = rows[place[0]]
        leg = row.legs[place[1]]
        delta = _SIGNS.get(leg.effect, 0) * leg.amount_minor
        name = row.transaction_id, row.fingerprint, place[1]
        yield Entry(leg.account, version, row.kind, *name, delta, held_delta, balance)


def _rows(packed: bytes) -> Iterator[Entry]:
    """Entries that no transaction of a bundle made."""
    at = 0
    while at < len(packed):
        head = ENTRY_HEAD.unpack_from(packed, at)
        identity, fingerprint, delta, held_delta, balance, version, _, kind, leg, _, *lengths = head
        at += ENTRY_HEAD.size
        account = packed[at : at + lengths[0]].decode()
        at += sum(lengths)
        yield Entry(account, version, Kind(kind), identity, fingerprint, leg, delta, held_delta, balance)
