"""How columns travel to and from the functions of a shard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack


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
