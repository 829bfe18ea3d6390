"""Texts of many rows as one table of bytes, worked on a column at a time.

A table has a row for each text, as wide as the longest; shorter ones have padding in front of them. So the
last characters stand below each other, and whatever depends on how far a character is from the end - a digit
of an amount, a byte's share in a checksum - is the same for a whole column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Texts as ``table``, a row each with padding in front, and the ``lengths`` of the texts themselves."""

    table: Bytes
    lengths: Numbers

    @classmethod
    def ending(cls, data: bytes, ends: Numbers, lengths: Numbers, padding: int = 0) -> Texts:
        """The texts within ``data`` that end before these places, none nearer to its begin than its width."""
        width = int(lengths.max())
        table = windows(data, ends - width, width)
        if int(lengths.min()) != width:
            table[~_inside(width, lengths)] = padding
        return cls(table, lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: slice | Numbers) -> Texts:
        return Texts(self.table[rows], self.lengths[rows])

    @property
    def inside(self) -> NDArray[np.bool_]:
        """For each byte of the table whether it is of a text, not padding."""
        return _inside(self.table.shape[1], self.lengths)


def windows(data: bytes, starts: Numbers, width: int) -> Bytes:
    """The ``width`` bytes of ``data`` from each of these places on: a table of its own."""
    if not width:
        return np.zeros((len(starts), 0), np.uint8)
    # An array of overlapping items, one at every byte: picking from it copies whole items.
    everywhere: NDArray[np.void] = np.ndarray((len(data) - width + 1,), f"V{width}", data, strides=(1,))
    return everywhere[starts].view(np.uint8).reshape(len(starts), width)


def as_bytes(records: NDArray[np.void]) -> Bytes:
    """Records of fixed length as a table, a row each."""
    return records.view(np.uint8).reshape(len(records), records.itemsize)


def joined(*parts: Bytes | Texts) -> tuple[bytes, Numbers]:
    """Row by row what the parts have in it, without padding, one after the other; and where each row ends."""
    count = len(parts[0])
    lengths = np.zeros(count, np.intp)
    padded = False
    for part in parts:
        if isinstance(part, Texts):
            lengths += part.lengths
            padded = padded or bool(int(part.lengths.min()) != part.table.shape[1])
        else:
            lengths += part.shape[1]
    table = np.concatenate([part.table if isinstance(part, Texts) else part for part in parts], axis=1)
    if padded:
        kept = [part.inside if isinstance(part, Texts) else np.ones(part.shape, np.bool_) for part in parts]
        table = table[np.concatenate(kept, axis=1)]
    return table.tobytes(), np.cumsum(lengths)


def _inside(width: int, lengths: Numbers) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = np.arange(width) >= (width - lengths)[:, None]
    return inside
