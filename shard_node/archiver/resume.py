"""Where to go on with a shard, from what the archive has and what the shard was told. Plain decisions.

The shard forgets entries only when it is told that they are stored, batch by batch and in order, and a
batch is stored only when the shard was told of the one before. So the archive is level with the shard, or
one batch ahead after a crash; several when another archiver goes on meanwhile. Anything else means that the
database is not the one the shard was told of, or lost its end: then nobody may go on, for entries would be
missing for ever, or be stored beside those of another history. What the shard is told of after a crash is
compared with its stream first (:mod:`shard_node.ledger.store.unacknowledged`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shard_node.client import LedgerState
from shard_node.errors import LedgerError
from shard_node.ledger.store import GENESIS, Position, Sealed, StreamFrame, stream_place

_MAX_STREAM_SEQUENCE = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Resumed:
    """A position, and the stored batches that the shard has not been told of, in order."""

    position: Position
    untold: tuple[Sealed, ...]
    # The sequence that follows the last batch which the shard was told of.
    next_sequence: int


def resume(position: Position, state: LedgerState, since: Sequence[Sealed]) -> Resumed:
    """Where to go on.

    ``since`` are the stored batches from number ``state.number`` (itself included, unless it is 0) to
    ``position.number``; ``state`` was read before ``position``. Raises LedgerError when the archive is not
    the one that the shard was told of, or has lost batches.
    """
    shard_id = position.shard.shard_id
    if position.number < state.number:
        raise LedgerError(
            f"{shard_id}: the archive ends at batch {position.number}, but batch {state.number} was stored: "
            "its end is lost (an old backup, another database?); nothing of this shard is archived until the "
            "newest one is restored"
        )
    told, untold = (None, since) if state.number == 0 else (since[0], since[1:])
    if told is not None and (told.header.number, told.hash) != (state.number, state.head):
        raise LedgerError(
            f"{shard_id}: batch {state.number} of the archive is not the one that the shard was told of: "
            "the archive was changed, or is another cluster's; nothing of this shard is archived"
        )
    previous_hash = GENESIS if told is None else told.hash
    for number, sealed in enumerate(untold, state.number + 1):
        if (sealed.header.number, sealed.previous_hash) != (number, previous_hash):
            raise LedgerError(
                f"{shard_id}: batch {number} of the archive is missing, or does not follow the last"
            )
        previous_hash = sealed.hash
    next_sequence = 1 if told is None else told.header.next_sequence
    return Resumed(position, tuple(untold), next_sequence)


def require_in_stream(resumed: Resumed, first: Sequence[StreamFrame]) -> None:
    """Raises LedgerError unless the shard's stream still holds the end of the last batch it is not told of.

    ``first`` is the stream's first frame from :func:`stream_id_before` that batch's end on. What the shard
    was not told of it cannot have forgotten, unless this is another cluster's archive.
    """
    wanted = resumed.position.stream_id
    if [stream_id for stream_id, _ in first] != [wanted]:
        raise LedgerError(
            f"{resumed.position.shard.shard_id}: the archive ends at {wanted}, which this shard's stream "
            "does not have: it is another cluster's; nothing of this shard is archived"
        )


def stream_id_before(stream_id: str) -> str:
    """The greatest stream id below the given one. Raises LedgerError when that is none."""
    try:
        ms, number = stream_place(stream_id)
    except ValueError:
        raise LedgerError(f"the archive's last batch ends at {stream_id!r}, which is no stream id") from None
    return f"{ms}-{number - 1}" if number else f"{ms - 1}-{_MAX_STREAM_SEQUENCE}"
