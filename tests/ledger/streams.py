"""A shard's stream of POST frames, made up or really made, and the batches that an archiver makes of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shard_node.client.shard import Shard
from shard_node.cluster.slots import slot
from shard_node.contract.commands import Post
from shard_node.contract.kinds import Effect, Kind
from shard_node.contract.layout import ALL_OWNERS, FRAME_HEAD, FrameKind
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transactions import Bundle, Leg, Transaction
from shard_node.ledger.store.archive import Position
from shard_node.ledger.store.chain import Header, Sealed, seal
from shard_node.ledger.store.frames import StreamFrame, decode
from shard_node.ledger.store.rows import ArchivedShard, Row, stream_place
from tests.ledger.meddling import account_chunk
from tests.ledger.scribe import DONE, Scribe

SHARD = ArchivedShard(1, "shard-0")
START_MS = 1_700_000_000_000
# The fields of a frame that a newer engine might make.
LATER: dict[Any, Any] = {b"h": FRAME_HEAD.pack(99, FrameKind.POST, 0)}


@dataclass(slots=True)
class Stream:
    """Makes POST frames of transfers between accounts that are there without having been opened."""

    accounts: tuple[str, ...] = ("ann", "bob", "cid")
    made: int = 0
    # Those that were made up, or those that the shard made.
    frames: list[StreamFrame] = field(default_factory=list)
    _scribe: Scribe = field(default_factory=lambda: Scribe(SHARD, START_MS))

    def post(self, rows: int) -> StreamFrame:
        """One frame with that many transfers, two ledger entries each."""
        frame = self._told(self._transfers(rows))
        self.frames.append(frame)
        return frame

    async def add(self, shard: Shard, *sizes: int) -> None:
        """Has the shard make a frame of so many transfers for each size. Nobody else may call it meanwhile.

        What the frame says is not read from the shard, which may have been told by now to forget it.
        """
        known = await shard.accounts(self.accounts)
        for name, account in zip(self.accounts, known, strict=True):
            if account is None:
                chunk = account_chunk(name, minimum=-(10**9))
                await shard.redis.link.call("tallystick.slot.import", shard.fence, slot(name), chunk)
        for size in sizes:
            bundle = self._transfers(size)
            assert (await shard.call(Post(bundle.pack()))).codes == (DONE,)
            _, fields = self._told(bundle)
            self.frames.append(((await shard.mark()).last_frame, fields))

    def _transfers(self, rows: int) -> Bundle:
        made = []
        for _ in range(rows):
            self.made += 1
            payer, payee = (self.accounts[(self.made + at) % len(self.accounts)] for at in (0, 1))
            legs = Leg(payer, Effect.DEBIT, 5, "EUR"), Leg(payee, Effect.CREDIT, 5, "EUR")
            # A UUIDv4: of no time.
            name = os.urandom(6) + b"\x40" + bytes(1) + b"\x80" + self.made.to_bytes(7)
            made.append(Transaction(name, Kind.TRANSFER, 0, legs, b"\0\0thanks"))
        return Bundle(tuple(made))

    def _told(self, bundle: Bundle) -> StreamFrame:
        return self._scribe.bundles(FrameKind.POST, (bundle, ALL_OWNERS, bytes((Outcome.COMMITTED,))))


def batch(
    position: Position, stream: Sequence[StreamFrame], archived_at_ms: int = 7
) -> tuple[Sealed, Sequence[Row]]:
    """The batch that follows a position."""
    rows = decode(position.shard, stream, position.next_sequence)
    header = Header(
        position.shard,
        position.number + 1,
        position.next_sequence,
        len(rows),
        stream[-1][0],
        stream_place(stream[0][0])[0],
        stream_place(stream[-1][0])[0],
        archived_at_ms,
    )
    return seal(position.hash, header, rows), rows
