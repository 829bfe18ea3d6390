"""Following the ledger: what was archived after a cursor, in bounded pieces, in the order of its times.

Entries of one shard come in its order, those of several shards merged by time as far as each is known. So
an account's entries come in the order of their versions, and every entry after the cursor comes: at least
once for whoever goes on from a cursor it was given. Blocking, as ``history`` is; not for several threads
at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final, Protocol

from shard_node.ledger.questions.positions import BadTokenError, Cursor
from shard_node.ledger.store import SEQUENCE_MASK, entry_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shard_node.ledger.store import Entry

# Entries read from one shard at once, and in one piece: some 300 KiB.
CHUNK: Final = 1000
# Sequences that one look at a shard passes over, for whoever follows a few accounts of many.
WINDOW: Final = 50_000


class Archive(Protocol):
    """What a follower needs of :class:`shard_node.ledger.questions.history.History`."""

    def after(self, first_id: int, last_id: int, accounts: Sequence[str], limit: int) -> list[Entry]:
        """Entries above ``first_id`` up to ``last_id``, in order."""


@dataclass(slots=True)
class _Reading:
    """One shard: up to ``read_to`` all that matters was read, and ``waiting`` was not given out yet."""

    read_to: int
    waiting: deque[Entry]

    @property
    def place(self) -> int:
        """Up to where all was given out."""
        return (self.waiting[0].entry_id & SEQUENCE_MASK) - 1 if self.waiting else self.read_to


class Follower:
    """One reader's way through the ledger, from a cursor on.

    ``accounts`` are the only ones of interest; all when empty.
    """

    def __init__(self, archive: Archive, cursor: Cursor, accounts: Sequence[str] = ()) -> None:
        self._archive = archive
        self._accounts = sorted(set(accounts))
        self._shards = {number: _Reading(place, deque()) for number, place in cursor.places.items()}

    def __repr__(self) -> str:
        return f"Follower({self.cursor.places})"

    @property
    def cursor(self) -> Cursor:
        """The position after what was given out."""
        return Cursor({number: shard.place for number, shard in self._shards.items()})

    def behind(self, heads: Mapping[int, int]) -> bool:
        """Whether there may be more up to these heads: shard number -> sequence of its last entry."""
        return any(
            number not in self._shards or self._shards[number].place < sequence
            for number, sequence in heads.items()
        )

    def advance(self, heads: Mapping[int, int]) -> list[Entry]:
        """The next piece, which may be empty while ``behind`` is still true: the cursor moves all the same.

        Looks at each shard once at the most. A shard that the cursor does not know is new: it is read from
        its first entry.
        """
        for number, sequence in heads.items():
            shard = self._shards.setdefault(number, _Reading(0, deque()))
            if not shard.waiting and shard.read_to < sequence:
                self._read(number, shard, sequence)
        return self._give_out(heads)

    def _read(self, number: int, shard: _Reading, sequence: int) -> None:
        last = min(sequence, shard.read_to + WINDOW)
        found = self._archive.after(
            entry_id(number, shard.read_to), entry_id(number, last), self._accounts, CHUNK
        )
        shard.waiting.extend(found)
        shard.read_to = found[-1].entry_id & SEQUENCE_MASK if len(found) == CHUNK else last

    def _give_out(self, heads: Mapping[int, int]) -> list[Entry]:
        """What is older than anything that a shard may still bring."""
        horizon: int | None = None
        for number, sequence in heads.items():
            shard = self._shards[number]
            if shard.read_to < sequence:
                # Its next entry is no older than its last one read; without one, nothing is known.
                newest = shard.waiting[-1].at_ms if shard.waiting else -1
                horizon = newest if horizon is None else min(horizon, newest)
        heap = [
            (s.waiting[0].at_ms, s.waiting[0].entry_id, s.waiting) for s in self._shards.values() if s.waiting
        ]
        heapify(heap)
        found: list[Entry] = []
        while heap and len(found) < CHUNK:
            at_ms, _, waiting = heappop(heap)
            if horizon is not None and at_ms > horizon:
                break
            found.append(waiting.popleft())
            if waiting:
                heappush(heap, (waiting[0].at_ms, waiting[0].entry_id, waiting))
        return found


def checked(cursor: Cursor, heads: Mapping[int, int]) -> Cursor:
    """The cursor, if it can be one of the ledger with these heads. Raises BadTokenError."""
    for number, sequence in cursor.places.items():
        if sequence > heads.get(number, 0):
            raise BadTokenError("is ahead of this ledger: it is another ledger's, or this one lost its end")
    return cursor
