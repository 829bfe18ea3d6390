"""Up to which moment the archive is complete, as one connection to its database reads it.

Shards are asked first, then the archive is looked at, here, and only then it is read for the answer: what is
archived meanwhile makes an answer more complete than it says, never less. A shard counts as archived only
when it vouches for the archive: when the batch that it was told of last is there, with the hash it keeps. So
neither a database that lags behind (a replica) or was restored from an old copy, nor a shard that was, is
taken for complete.

Times are those of each shard's own clock, as the entries' are, and a shard's entries never go back in time,
for a stream's ids only rise. (A clock that is set back when nothing was written for a while may date later
entries into a time that was called complete: clocks are to be slewed, not set.) What happened before a
request is told by each shard's own count of entries, not by clocks. Two clocks are compared in
:meth:`Reach.has` alone, with a margin. Blocking.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from shard_node.ledger.questions.history import MAX_CLOCK_SKEW_MS, is_well_formed
from shard_node.ledger.store import batches, stream_place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shard_node.client import LedgerState
    from shard_node.ledger.questions.history import Head, History


@dataclass(frozen=True, slots=True)
class Reach:
    """How far one shard is archived.

    ``until_ms`` is the last moment of which nothing is missing, None when that is not known. ``waiting``
    counts entries that the shard was not told are archived.
    """

    shard_id: str
    until_ms: int | None
    answered: bool
    caught_up: bool
    waiting: int = 0
    # Whether all is archived that the shard had made at the moment that is waited for.
    has_arrived: bool = False

    def has(self, time_ms: int) -> bool:
        """Whether all is archived that the shard made up to a moment of somebody else's clock."""
        if self.caught_up or self.has_arrived:
            return True
        return self.until_ms is not None and self.until_ms >= time_ms + MAX_CLOCK_SKEW_MS


@dataclass(frozen=True, slots=True)
class Completeness:
    """How far the archive was complete when it was looked at, by shard, and each shard's newest batch."""

    reaches: tuple[Reach, ...]
    heads: Mapping[int, Head]

    @property
    def until_ms(self) -> int | None:
        """The last moment of which nothing is missing, ms since 1970; None when that is not known."""
        known = [reach.until_ms for reach in self.reaches]
        moments = [moment for moment in known if moment is not None]
        return min(moments) if moments and len(moments) == len(known) else None

    def lacking(self, time_ms: int) -> list[Reach]:
        """The shards of which not all is archived up to a moment of somebody else's clock."""
        return [reach for reach in self.reaches if not reach.has(time_ms)]


def completeness(
    history: History,
    states: Mapping[str, LedgerState | None],
    arrived: Mapping[str, LedgerState] | None = None,
) -> Completeness:
    """How far the archive is complete, of the shards that were asked before this call.

    Args:
        history: the archive. Ask it for the answer within the same ``history.reading()``.
        states: what each shard of the topology said, None where it gave no answer.
        arrived: what shards said first after the request that waits had arrived.
    """
    with history.reading():
        heads = history.heads()
        numbers = {head.shard_id: number for number, head in heads.items()}
        reaches = []
        for shard_id, state in states.items():
            number = numbers.get(shard_id, 0)
            head, first = heads.get(number), (arrived or {}).get(shard_id)
            ends = {head.number: (head.sequence, head.hash)} if head is not None else {}
            told = {one.number for one in (state, first) if one is not None and one.number} - ends.keys()
            if told:
                # An archiver between storing and telling, or a database that lags.
                ends |= _ends(history, number, told)
            reaches.append(_reach(shard_id, state, first, head, ends))
    return Completeness(tuple(reaches), heads)


def _reach(
    shard_id: str,
    state: LedgerState | None,
    arrived: LedgerState | None,
    head: Head | None,
    ends: Mapping[int, tuple[int, bytes]],
) -> Reach:
    """``ends`` has, of the batches that ``state`` and ``arrived`` name, the last sequence and the hash."""
    until_ms = None
    if head is not None and head.number:
        # The entry that comes next may be of the same millisecond.
        until_ms = stream_place(head.stream_id)[0] - 1
    if state is None:
        return Reach(shard_id, until_ms, answered=False, caught_up=False)
    sequence, stored_hash = ends.get(state.number, (0, b""))
    if state.number and stored_hash != state.head:
        # Not there yet, or another shard's: of that one nothing is known.
        until_ms = None if stored_hash else until_ms
        return Reach(shard_id, until_ms, answered=True, caught_up=False, waiting=state.backlog)
    if not state.length:
        newest_ms = 0 if head is None or head.number <= state.number else stream_place(head.stream_id)[0]
        if 0 < newest_ms < state.now_ms:
            # The archive had more of it before it was asked: it was restored from an old copy, or emptied.
            return Reach(shard_id, until_ms, answered=True, caught_up=False)
        last_ms, _ = stream_place(state.stream_id)
        return Reach(shard_id, max(state.now_ms, last_ms) - 1, answered=True, caught_up=True)
    if state.oldest_ms is not None:
        until_ms = max(state.oldest_ms - 1, until_ms or 0)
    has_arrived = False
    if arrived is not None and (not arrived.number or arrived.number in ends):
        before, _ = ends.get(arrived.number, (0, b""))
        has_arrived = sequence >= before + arrived.backlog
    return Reach(shard_id, until_ms, True, False, state.backlog, has_arrived)  # noqa: FBT003 -- see Reach


def _ends(history: History, shard_number: int, numbers: set[int]) -> dict[int, tuple[int, bytes]]:
    """Of those of a shard's batches that are there, the sequence of the last entry, and the hash."""
    statement = select(batches).where(
        batches.c.shard_number == shard_number, batches.c.number.in_(sorted(numbers))
    )
    with history.reading() as connection:
        return {
            row.number: (row.first_sequence + row.entry_count - 1, row.hash)
            for row in connection.execute(statement)
            if is_well_formed(row)
        }
