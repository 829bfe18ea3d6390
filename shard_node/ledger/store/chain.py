"""The chain of hashes over a shard's batches, by which a later change of the archive shows.

Each batch carries BLAKE2b-256 (RFC 7693) of the hash before it and of its own canonical bytes. Whoever
changes, removes or swaps a stored row or batch would have to compute all later hashes anew, and the last of
them is also kept on the shard, as is the number of batches: so a tail that was cut off shows too.

Canonical bytes are one MessagePack array: the header's fields, then the entries by column, in the order of
:class:`~shard_node.ledger.store.rows.Entry`: whole numbers as one string of bytes, 8 little-endian ones
each, all others as an array of the values; a column that has one value in all rows as an array of that one,
but never the first, which so tells how many there are. MessagePack can be read back without a schema, so two
different batches never have the same bytes; texts and bytes are different types, and lengths stand before
contents.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, get_type_hints

import msgpack

from shard_node.ledger.store.rows import ArchivedShard, Entry, Row, columns_of, is_one_value

HASH_BYTES: Final = 32
# What stands before the first batch.
GENESIS: Final = bytes(HASH_BYTES)
# Whether a column is one of whole numbers, column by column.
_NUMBERS: Final = tuple(hint is int for hint in get_type_hints(Entry).values())


@dataclass(frozen=True, slots=True)
class Header:
    """What a batch says of itself. Times in milliseconds since 1970; sequences are the entries' places."""

    shard: ArchivedShard
    number: int
    first_sequence: int
    entry_count: int
    # Of the last stream entry in the batch.
    stream_id: str
    first_at_ms: int
    last_at_ms: int
    archived_at_ms: int

    @property
    def next_sequence(self) -> int:
        """The sequence of the entry after its last one."""
        return self.first_sequence + self.entry_count


@dataclass(frozen=True, slots=True)
class Sealed:
    """A header with its place in the chain."""

    header: Header
    previous_hash: bytes
    hash: bytes


def canonical(header: Header, rows: Sequence[Row]) -> bytes:
    """The bytes that stand for a batch; equal for equal batches only.

    ``rows`` are what :func:`..frames.decode` makes, or plain tuples of the columns of ``schema.entries`` as
    a database's driver returns them. Raises TypeError, ValueError or OverflowError for values that no
    archiver stores.
    """
    columns: list[Any] = []
    for column, is_number in zip(columns_of(rows), _NUMBERS, strict=True):
        if columns and is_one_value(column):
            columns.append(column[:1])
        else:
            columns.append(_packed(column) if is_number else column)
    packed: bytes = msgpack.packb(
        (
            header.shard.number,
            header.shard.shard_id,
            header.number,
            header.first_sequence,
            header.entry_count,
            header.stream_id,
            header.first_at_ms,
            header.last_at_ms,
            header.archived_at_ms,
            columns,
        )
    )
    return packed


def _packed(numbers: Sequence[int]) -> bytes:
    packed = array("q", numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def chain_hash(previous_hash: bytes, header: Header, rows: Sequence[Row]) -> bytes:
    """The 32 bytes that a batch carries after ``previous_hash``."""
    digest = blake2b(previous_hash, digest_size=HASH_BYTES)
    digest.update(canonical(header, rows))
    return digest.digest()


def seal(previous_hash: bytes, header: Header, rows: Sequence[Row]) -> Sealed:
    """The batch with its place in the chain."""
    return Sealed(header, previous_hash, chain_hash(previous_hash, header, rows))


def is_intact(sealed: Sealed, rows: Sequence[Row]) -> bool:
    """Whether a stored batch and its rows, in order, are what was sealed.

    Says nothing of its neighbours: their ``previous_hash`` and numbers are the caller's to compare.
    """
    return sealed.hash == chain_hash(sealed.previous_hash, sealed.header, rows)
