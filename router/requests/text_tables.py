"""Texts of many rows as one table of bytes, worked on a column at a time.

A table has a row for each text, as wide as the longest; shorter ones have padding in front of them. So the
last characters stand below each other, and whatever depends on how far a character is from the end - a digit
of an amount, a byte's share in a checksum - is the same for a whole column. Long texts of which nothing is
asked are no tables: one of them would make all rows as wide (:func:`cut_out`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shard_node.limits import MAX_ACCOUNT_ID_CHARS

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.intp]

MAX_WIDTH = MAX_ACCOUNT_ID_CHARS
# By length: all bits in so many bytes at the end of a row. Looking a row up costs less than making it.
_MASKS: Bytes = np.tri(MAX_WIDTH + 1, MAX_WIDTH, -1, np.uint8)[:, ::-1] * np.uint8(0xFF)


@dataclass(frozen=True, slots=True, eq=False)
class TextTable:
    """Texts as ``table``, a row each with padding in front, and the ``lengths`` of the texts themselves."""

    table: Bytes
    lengths: Numbers

    @classmethod
    def ending(cls, data: bytes, ends: Numbers, lengths: Numbers, padding: int = 0) -> TextTable:
        """The texts within ``data`` that end before these places, of MAX_WIDTH bytes at the most.

        None is nearer to the begin of ``data`` than the longest is long.
        """
        width = int(lengths.max())
        table = windows(data, ends - width, width)
        if int(lengths.min()) != width:
            mask = _rows_of(np.ascontiguousarray(_MASKS[: width + 1, MAX_WIDTH - width :]), lengths)
            table &= mask
            if padding:
                table |= ~mask & np.uint8(padding)
        return cls(table, lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: Numbers) -> TextTable:
        return TextTable(_rows_of(self.table, rows), self.lengths[rows])

    def joined(self) -> bytes:
        """The texts, one after the other, where the padding is zeros and no text has one."""
        if int(self.lengths.min()) == self.table.shape[1]:
            return self.table.tobytes()
        return self.table[self.table != 0].tobytes()


def windows(data: bytes, starts: Numbers, width: int) -> Bytes:
    """The ``width`` bytes of ``data`` from each of these places on: a table of its own."""
    if not width:
        return np.zeros((len(starts), 0), np.uint8)
    # An array of overlapping items, one at every byte: picking from it copies whole items.
    everywhere: NDArray[np.void] = np.ndarray((len(data) - width + 1,), f"V{width}", data, strides=(1,))
    return everywhere[starts].view(np.uint8).reshape(len(starts), width)


def cut_out(octets: Bytes, starts: Numbers, lengths: Numbers) -> Bytes:
    """What begins at these places and is so long, one after the other."""
    places = np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
    places += np.arange(len(places))
    return octets.take(places)


def _rows_of(table: Bytes, rows: Numbers) -> Bytes:
    width = table.shape[1]
    if not width:
        return np.zeros((len(rows), 0), np.uint8)
    picked: NDArray[np.void] = table.view(f"V{width}")[rows, 0]
    return picked.view(np.uint8).reshape(len(rows), width)
