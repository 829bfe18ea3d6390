"""Stream entries as a shard writes them, for tests that need no shard."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack
from shard_node.contract.transfers import Kind, pack_body, transfer_key
from shard_node.ledger.store.library_entries import StreamEntry, decode

from shard_node.ledger.store.archive import Position
from shard_node.ledger.store.chain import Header, Sealed, seal
from shard_node.ledger.store.rows import Row

START_MS = 1_700_000_000_000
# What stands for a row that was carried out, and for one that was not.
DONE, NOT_DONE = 1, 0
# A transfer's key and body.
Keyed = tuple[bytes, bytes]


def pack_entry(tag: str, *columns: Sequence[Any]) -> bytes:
    """The one field of a stream entry, as Lua's cmsgpack packs it."""
    packed: bytes = msgpack.packb([tag, *columns], use_bin_type=False)
    return packed


def bundle_columns(transfers: Sequence[Keyed], codes: bytes = bytes((DONE,))) -> list[bytes]:
    """Codes, decisions, terms and bodies of a bundle, by the table of ``bundles.py``."""
    decisions = [key[:16] + body[11:13] for key, body in transfers]
    terms = [bytes((19,)) + key[16:] + body[:11] for key, body in transfers]
    bodies = [struct.pack("<H", len(body)) + body for _, body in transfers]
    return [codes, b"".join(decisions), b"".join(terms), b"".join(bodies)]


def numbers(*values: int) -> bytes:
    """A column of balances or versions."""
    return struct.pack(f"<{len(values)}q", *values)


def bundle_entry(
    tag: str, transfers: Sequence[Keyed], *columns: Sequence[int], codes: bytes = bytes((DONE,))
) -> bytes:
    """A `post`, `decide` or `finish`; ``columns`` are its balances and versions."""
    return pack_entry(tag, *bundle_columns(transfers, codes), *[numbers(*column) for column in columns])


def transfer(number: int, payer: str, payee: str, amount: int, details: bytes = b"") -> Keyed:
    """Key and body of a TRANSFER; ``number`` makes the id."""
    body = pack_body(amount, "EUR", 1, 2, Kind.TRANSFER, payer, payee, details)
    return transfer_key(number.to_bytes(16), body), body


@dataclass(slots=True)
class Stream:
    """Makes `post` entries between some accounts, with balances and versions that go on."""

    accounts: tuple[str, ...] = ("ann", "bob", "cid")
    made: int = 0
    entries: list[StreamEntry] = field(default_factory=list)
    _versions: dict[str, int] = field(default_factory=dict)
    _balances: dict[str, int] = field(default_factory=dict)

    def post(self, rows: int) -> StreamEntry:
        """One stream entry with that many transfers, two ledger entries each."""
        transfers: list[Keyed] = []
        moved: list[tuple[int, int, int, int]] = []
        for _ in range(rows):
            self.made += 1
            payer = self.accounts[self.made % len(self.accounts)]
            payee = self.accounts[(self.made + 1) % len(self.accounts)]
            transfers.append(transfer(self.made, payer, payee, 5, b"thanks"))
            moved.append((*self._move(payer, -5), *self._move(payee, 5)))
        packed = bundle_entry("post", transfers, *zip(*moved, strict=True))
        entry = (f"{START_MS + len(self.entries)}-0", packed)
        self.entries.append(entry)
        return entry

    def _move(self, account: str, delta: int) -> tuple[int, int]:
        self._versions[account] = self._versions.get(account, 0) + 1
        self._balances[account] = self._balances.get(account, 0) + delta
        return self._balances[account], self._versions[account]


def batch(
    position: Position, stream: Sequence[StreamEntry], archived_at_ms: int = 7
) -> tuple[Sealed, Sequence[Row]]:
    """The batch that follows a position."""
    rows = decode(position.shard, stream, position.next_sequence)
    header = Header(
        position.shard,
        position.number + 1,
        position.next_sequence,
        len(rows),
        stream[-1][0],
        int(stream[0][0].partition("-")[0]),
        int(stream[-1][0].partition("-")[0]),
        archived_at_ms,
    )
    return seal(position.hash, header, rows), rows
