"""Rows of the archive, before they are stored: an entry of the ledger each.

Whoever makes a batch, hashes it and stores it does so a column at a time, so rows stay columns as long as
nobody looks at one (:class:`Rows`), and are then plain tuples; :class:`Entry` names their places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

# The values of one row of ``schema.entries``, in the order of its columns.
Row = tuple[Any, ...]
# The same of many rows: a sequence of values a column, all of one length.
Columns = Sequence[Sequence[Any]]


class Entry(NamedTuple):
    """One row. Amounts in minor units; ``balance`` is available and held together, after the entry."""

    entry_id: int
    account_id: str
    version: int
    at_ms: int
    kind: int
    transaction_id: bytes | None
    fingerprint: bytes | None
    leg: int
    leg_count: int
    counterparty: str
    currency: str
    delta: int
    held_delta: int
    balance: int
    related_id: bytes | None
    reference: str
    external_id: str
    initiated_by: str
    # JSON of an OPEN entry: minimum_balance, maximum_balance and maximum_transfer (0: no maximum).
    attributes: str


class Rows(Sequence[Row]):
    """Rows kept by column: a batch is made, hashed and stored a column at a time."""

    __slots__ = ("columns",)

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    def __repr__(self) -> str:
        return f"Rows({len(self)})"

    def __len__(self) -> int:
        return len(self.columns[0])

    def __iter__(self) -> Iterator[Row]:
        return zip(*self.columns, strict=True)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> Rows: ...
    def __getitem__(self, at: int | slice) -> Row | Rows:
        if isinstance(at, slice):
            return Rows([column[at] for column in self.columns])
        return tuple(column[at] for column in self.columns)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


def stream_place(stream_id: str) -> tuple[int, int]:
    """A stream id as its order: milliseconds and number. Raises ValueError when it is none."""
    ms, _, number = stream_id.partition("-")
    return int(ms), int(number or 0)


def columns_of(rows: Sequence[Row]) -> Columns:
    """The columns of some rows, those of :class:`Entry`."""
    if isinstance(rows, Rows):
        return rows.columns
    return list(zip(*rows, strict=True)) or [()] * len(Entry._fields)


def is_one_value(column: Sequence[Any]) -> bool:
    """Whether a column has the same value in all rows, of which there must be some."""
    # The last one differs already in most columns that have several.
    return bool(column) and column[-1] == column[0] and column.count(column[0]) == len(column)


@dataclass(frozen=True, slots=True)
class ArchivedShard:
    """A shard as the archive knows it: the number in its entries' ids, and its id."""

    number: int
    shard_id: str
