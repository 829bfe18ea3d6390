"""Rebuilds every balance from the first entry: reads the archive, checks its chain, folds its entries.

Always the shard next whose time is furthest behind, so that the two halves of a transfer between shards
are read close to each other, and what the fold keeps open stays small. Blocking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shard_node.ledger.proof.chain_reader import ChainReader
from shard_node.ledger.proof.findings import Findings
from shard_node.ledger.proof.fold import AT_MS, Fold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shard_node.ledger.questions import History


class Replay:
    """One way through the archive. ``until_ms`` is the time of the last entries to take in, all when None.

    What came of it is in ``fold`` and ``findings``.
    """

    def __init__(
        self, history: History, findings: Findings | None = None, until_ms: int | None = None
    ) -> None:
        self._until_ms = until_ms
        self.findings = findings if findings is not None else Findings()
        self.reader = ChainReader(history, self.findings)
        self.fold = Fold(self.findings, self.reader.shard_ids)

    def __repr__(self) -> str:
        return f"Replay({self.fold!r})"

    @property
    def archived_until_ms(self) -> dict[str, int]:
        """By shard, the time of the last entry that was read; what a shard made later is not known here."""
        return {place.shard.shard_id: place.at_ms for place in self.reader.places.values() if place.at_ms}

    @property
    def complete_until_ms(self) -> int | None:
        """Of all that happened up to then nothing is missing; None when a shard has no entry.

        Shards are not asked: this is how far each is archived for certain, and not the very last millisecond.
        """
        ends = self.archived_until_ms
        if not ends or len(ends) < len(self.reader.places):
            return None
        archived = min(ends.values()) - 1
        return archived if self._until_ms is None else min(archived, self._until_ms)

    def run(self) -> Iterator[tuple[int, int]]:
        """Takes in all there is, up to the time, a chunk at a step. Called again, it takes in what is new.

        Yields the entries replayed, and how many there were when the archive was last looked at.
        ``fold.finish`` is the caller's to call once nothing more shall come. Raises LedgerUnavailableError
        when the database does not answer, and LedgerError when it holds no ledger.
        """
        total = self.reader.look()
        yield self.fold.entries, total
        while behind := [place for place in self.reader.places.values() if not place.ended]:
            place = min(behind, key=lambda place: place.at_ms)
            rows = self.reader.read(place)
            if self._until_ms is not None and rows and rows[-1][AT_MS] > self._until_ms:
                rows = [row for row in rows if row[AT_MS] <= self._until_ms]
                place.ended = True
            self.fold.apply(rows)
            yield self.fold.entries, total
