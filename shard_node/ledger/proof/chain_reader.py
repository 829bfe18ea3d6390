"""Reads the archive batch by batch and checks their chain: what audits and replays are made of.

A finding never ends the reading: what is readable is read to the end. Blocking. At no time is more in
memory than one chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import or_, select

from shard_node.ledger.proof.findings import Findings, Rule
from shard_node.ledger.proof.fold import ACCOUNT_ID, AT_MS, ENTRY_ID, FINGERPRINT, TRANSACTION_ID
from shard_node.ledger.questions import is_well_formed
from shard_node.ledger.store import (
    GENESIS,
    SEQUENCE_BITS,
    SEQUENCE_MASK,
    ArchivedShard,
    batches,
    entries,
    entries_between,
    entry_id,
    is_intact,
    sealed,
    shards,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shard_node.ledger.questions import History
    from shard_node.ledger.store import Row

# Rows in memory at once, but for a single larger batch.
CHUNK_ROWS: Final = 8192
# Batches may be small when little happens.
CHUNK_BATCHES: Final = 512
# No archiver makes a batch that large: what says so is damaged.
MAX_BATCH_ROWS: Final = 1_000_000
# Missing entries that one finding names, and stray ones that are told.
_NAMED: Final = 10

# A row of ``batches``, whatever it holds.
_Batch = Any
_INT, _TEXT, _ID = frozenset({int}), frozenset({str}), frozenset({bytes, type(None)})
# What the fold relies on. SQLite stores anything in any column, also what somebody wrote there by hand.
_TYPES = (
    _INT, _TEXT, _INT, _INT, _INT, _ID, _ID, _INT, _INT,
    _TEXT, _TEXT, _INT, _INT, _INT, _ID, _TEXT, _TEXT, _TEXT, _TEXT,
)  # fmt: skip


@dataclass(slots=True)
class Place:
    """How far one shard is read: the batch and entry after which to go on."""

    shard: ArchivedShard
    number: int = 0
    hash: bytes = GENESIS
    next_sequence: int = 1
    stream_id: str = "0"
    at_ms: int = 0
    # Nothing more of it when last looked at.
    ended: bool = False


class ChainReader:
    """Goes through every shard's batches, each shard at its own place.

    Raises LedgerUnavailableError and LedgerError from everything that reads.
    """

    def __init__(self, history: History, findings: Findings) -> None:
        self._history = history
        self.findings = findings
        self.places: dict[int, Place] = {}
        # By shard number; grows as shards are met.
        self.shard_ids: dict[int, str] = {}

    def __repr__(self) -> str:
        return f"ChainReader({ {p.shard.shard_id: p.number for p in self.places.values()} })"

    def look(self) -> int:
        """Learns which shards there are and which have more to read; how many entries there are in all."""
        total = 0
        for number, head in self._history.heads().items():
            self.shard_ids[number] = head.shard_id
            place = self.places.setdefault(number, Place(ArchivedShard(number, head.shard_id)))
            place.ended = head.number <= place.number and not head.damaged
            total += head.sequence
        return total

    def read(self, place: Place) -> list[Row]:
        """The next entries of a shard, checked; none, and ``place.ended``, when there are no more."""
        found = self._batches(place)
        if not found:
            place.ended = True
            return []
        rows = self.rows(place.shard.number, place.next_sequence, _last(found[-1]))
        sound: list[Row] = []
        at = 0
        for batch in found:
            end = at
            last_id = entry_id(place.shard.number, _last(batch))
            while end < len(rows) and rows[end][ENTRY_ID] <= last_id:
                end += 1
            self._check_batch(place, batch, rows[at:end])
            sound += self._sound(place, rows[at:end])
            place.number, place.hash, place.next_sequence = batch.number, batch.hash, _last(batch) + 1
            if is_well_formed(batch):
                place.stream_id = batch.stream_id
            at = end
        if sound:
            place.at_ms = sound[-1][AT_MS]
        return sound

    def unsealed(self) -> None:
        """Adds a finding for each entry that no batch holds; for some of them, should there be many.

        Likewise for batches of no shard, or before the first one.
        """
        self._odd_batches()
        last_ids = [
            entry_id(number, place.next_sequence - 1) for number, place in sorted(self.places.items())
        ]
        beginnings = [entry_id(number, 0) for number in sorted(self.places)]
        # From the last entry of one shard to the first of the next.
        for low, high in zip([-1, *last_ids], [*beginnings, None], strict=True):
            statement = select(entries.c.entry_id).where(entries.c.entry_id > low)
            if high is not None:
                statement = statement.where(entries.c.entry_id <= high)
            with self._history.reading() as connection:
                found = connection.scalars(statement.order_by(entries.c.entry_id).limit(_NAMED)).all()
            if found:
                self._stray(found)

    # ------------------------------------------------------------------ reading

    def _batches(self, place: Place) -> list[_Batch]:
        """The next batches of a shard, worth one chunk. What is damaged beyond use is told and skipped."""
        statement = (
            select(batches)
            .where(batches.c.shard_number == place.shard.number, batches.c.number > place.number)
            .order_by(batches.c.number)
            .limit(CHUNK_BATCHES)
        )
        found: list[_Batch] = []
        size, next_sequence = 0, place.next_sequence
        with self._history.reading() as connection:
            rows = connection.execute(statement).all()
        for batch in rows:
            if not _usable(batch, next_sequence):
                if found:
                    # Those before it come first.
                    break
                self._find(
                    Rule.CHAIN,
                    place,
                    f"batch {batch.number!r} says that it holds {batch.entry_count!r} entries from "
                    f"{batch.first_sequence!r} on, where entry {next_sequence} comes next",
                )
                if type(batch.number) is int:
                    place.number, place.hash = batch.number, batch.hash
                continue
            found.append(batch)
            size += batch.entry_count
            next_sequence = _last(batch) + 1
            if size >= CHUNK_ROWS:
                break
        return found

    def rows(self, shard_number: int, first: int, last: int) -> list[Row]:
        """A shard's entries with these sequences and all between, as they are: nothing is checked."""
        statement = entries_between(shard_number, first, last)
        with self._history.reading() as connection:
            # The driver's own tuples: SQLAlchemy's rows would cost as much as the rest of a replay.
            return list(connection.execute(statement).cursor.fetchall())

    # ------------------------------------------------------------------ checking

    def _check_batch(self, place: Place, batch: _Batch, rows: list[Row]) -> None:
        expected = place.number + 1
        told = f"batch {batch.number} (entries {batch.first_sequence} to {_last(batch)})"
        if batch.number != expected:
            lost = (
                f"batch {expected} is"
                if batch.number == expected + 1
                else (f"batches {expected} to {batch.number - 1} are")
            )
            self._find(Rule.CHAIN, place, f"{lost} missing before {told}")
        elif batch.first_sequence != place.next_sequence:
            self._find(Rule.CHAIN, place, f"{told} does not begin with entry {place.next_sequence}")
        elif batch.previous_hash != place.hash:
            self._find(Rule.CHAIN, place, f"{told} was not sealed upon batch {place.number} as it is now")
        first_id = entry_id(place.shard.number, batch.first_sequence)
        own = [row for row in rows if row[ENTRY_ID] >= first_id]
        if len(own) != batch.entry_count:
            self._missing_rows(place, batch, own)
        elif not is_well_formed(batch):
            self._find(Rule.CHAIN, place, f"{told} has a hash, a time or a stream id that is none")
        elif not _is_intact(place.shard, batch, own):
            self._find(Rule.CHAIN, place, f"{told} is not what was sealed: its hash differs")

    def _missing_rows(self, place: Place, batch: _Batch, rows: list[Row]) -> None:
        there = {row[ENTRY_ID] & SEQUENCE_MASK for row in rows}
        missing = (n for n in range(batch.first_sequence, _last(batch) + 1) if n not in there)
        named = [str(number) for number, _ in zip(missing, range(_NAMED), strict=False)]
        count = batch.entry_count - len(rows)
        more = f" and {count - len(named)} more" if count > len(named) else ""
        self._find(
            Rule.CHAIN,
            place,
            f"batch {batch.number}: {'entry' if count == 1 else 'entries'} {', '.join(named)}{more} missing",
        )

    def _sound(self, place: Place, rows: list[Row]) -> list[Row]:
        """The rows that have the right types; a finding for each other one."""
        if not rows or _well_formed(rows):
            return rows
        sound = []
        for row in rows:
            if _well_formed((row,)):
                sound.append(row)
            else:
                self._find(
                    Rule.CHAIN,
                    place,
                    f"entry {row[ENTRY_ID]} (number {row[ENTRY_ID] & SEQUENCE_MASK}, account "
                    f"{row[ACCOUNT_ID]!r}) holds values of the wrong type",
                )
        return sound

    def _odd_batches(self) -> None:
        """Rows that nobody reads who follows the shards' batches from number 1 on."""
        known = select(shards.c.shard_number)
        statement = (
            select(batches.c.shard_number, batches.c.number)
            .where(or_(batches.c.number <= 0, batches.c.shard_number.not_in(known)))
            .limit(_NAMED)
        )
        with self._history.reading() as connection:
            found = connection.execute(statement).all()
        for shard_number, number in found:
            self.findings.add(
                Rule.CHAIN,
                f"batch {number!r} of shard number {shard_number!r} is none that an archiver stores",
                shard_id=self.shard_ids.get(shard_number, ""),
            )

    def _stray(self, found: Sequence[int]) -> None:
        # The archiver may have added a batch since the last look.
        heads = self._history.heads()
        for stray in found:
            number, sequence = stray >> SEQUENCE_BITS, stray & SEQUENCE_MASK
            head = heads.get(number)
            if head is not None and 1 <= sequence <= head.sequence:
                continue
            place = self.places.get(number)
            where = f"after the last batch, {place.number}" if place else "of no shard"
            self.findings.add(
                Rule.CHAIN,
                f"entry {stray} (number {sequence}) is {where}: no batch holds it",
                shard_id=place.shard.shard_id if place else "",
            )

    def _find(self, rule: Rule, place: Place, message: str) -> None:
        self.findings.add(rule, message, shard_id=place.shard.shard_id)


def _last(batch: _Batch) -> int:
    """The sequence of its last entry."""
    return int(batch.first_sequence + batch.entry_count - 1)


def _usable(batch: _Batch, next_sequence: int) -> bool:
    """Whether a batch's numbers can be relied on to find its entries."""
    numbers = (batch.number, batch.first_sequence, batch.entry_count)
    return (
        all(type(number) is int for number in numbers)
        and batch.first_sequence >= next_sequence
        and 1 <= batch.entry_count <= MAX_BATCH_ROWS
        and _last(batch) <= SEQUENCE_MASK
    )


def _is_intact(shard: ArchivedShard, batch: _Batch, rows: Sequence[Row]) -> bool:
    try:
        return is_intact(sealed(shard, batch), rows)
    except (TypeError, ValueError, OverflowError):
        # Values that no archiver stores, and that have no canonical bytes.
        return False


def _well_formed(rows: Sequence[Row]) -> bool:
    columns = list(zip(*rows, strict=True))
    if any(set(map(type, column)) - allowed for column, allowed in zip(columns, _TYPES, strict=True)):
        return False
    # Both or none, of the right length; and no account without a name.
    lengths = {
        (len(i or b""), len(f or b""))
        for i, f in zip(columns[TRANSACTION_ID], columns[FINGERPRINT], strict=True)
    }
    return lengths <= {(0, 0), (16, 8)} and "" not in columns[ACCOUNT_ID]
