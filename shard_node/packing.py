"""How columns travel to and from the functions of a shard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

# Later than every UUIDv7: what a batch without such ids says of its oldest.
_NO_OLDEST_MS = 2**53


def pack(*columns: Sequence[Any]) -> bytes:
    """Columns in the MessagePack that Redis reads: the old one, without a type for bytes."""
    packed: bytes = msgpack.packb(columns, use_bin_type=False)
    return packed


def pack_bytes(values: Sequence[bytes]) -> bytes:
    """One array of byte strings."""
    packed: bytes = msgpack.packb(values, use_bin_type=False)
    return packed


def unpack(packed: bytes) -> list[Any]:
    """What a function answered: integers, and bytes for strings."""
    columns: list[Any] = msgpack.unpackb(packed, raw=True)
    return columns


def id_times_ms(keys: Sequence[bytes]) -> tuple[int, int]:
    """Oldest and newest time among the UUIDv7 of a batch (RFC 9562, 5.7), ms since 1970.

    The shard compares ids with its window one by one only when the oldest gives it reason to.
    """
    timed = [key for key in keys if key[6] >> 4 == 7]
    if not timed:
        return _NO_OLDEST_MS, 0
    # Such ids sort by their time, which is their first six bytes.
    return int.from_bytes(min(timed)[:6]), int.from_bytes(max(timed)[:6])
