"""Stream entries as a shard writes them, for tests that need no shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from shard_node.ledger.archive import Position
from shard_node.ledger.chain import Header, Sealed, seal
from shard_node.ledger.entries import Row, StreamEntry, decode
from shard_node.transfers import Kind, pack_body, transfer_key

START_MS = 1_700_000_000_000


def pack_entry(tag: str, *columns: Sequence[Any]) -> bytes:
    """The one field of a stream entry, as Lua's cmsgpack packs it."""
    packed: bytes = msgpack.packb([tag, *columns], use_bin_type=False)
    return packed


def transfer(number: int, payer: str, payee: str, amount: int, details: bytes = b"") -> tuple[bytes, bytes]:
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
        columns: list[list[Any]] = [[], [], [], [], [], []]
        for _ in range(rows):
            self.made += 1
            payer = self.accounts[self.made % len(self.accounts)]
            payee = self.accounts[(self.made + 1) % len(self.accounts)]
            key, body = transfer(self.made, payer, payee, 5, b"thanks")
            moved = (*self._move(payer, -5), *self._move(payee, 5))
            for column, value in zip(columns, (key, body, *moved), strict=True):
                column.append(value)
        entry = (f"{START_MS + len(self.entries)}-0", pack_entry("post", *columns))
        self.entries.append(entry)
        return entry

    def _move(self, account: str, delta: int) -> tuple[int, int]:
        self._versions[account] = self._versions.get(account, 0) + 1
        self._balances[account] = self._balances.get(account, 0) + delta
        return self._balances[account], self._versions[account]


def batch(
    position: Position, stream: Sequence[StreamEntry], archived_at_ms: int = 7
) -> tuple[Sealed, list[Row]]:
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
