"""Transfers from one shard to one shard, packed: what crosses four processes and is unpacked by none of them.

A batch is split by pairs of shards, once, by the router. From there on its columns are strings of bytes: the
router joins them, the coordinator hands them on, the function library splits those that it needs, and keeps
the others as they came in the prepared and the unsettled record and in the ledger.

| column | a row |
|---|---|
| decisions | id 16, payer's slot H: the name of its outcome |
| terms | length B, then what is kept with the outcome, see ``terms_key`` |
| payers, payees | length B, then the account's id |
| amounts | minor units q |
| currencies | code 3s; once when all rows have the same |
| bodies | length H, then what ``pack_body`` packed |

Integers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

DECISION_BYTES = 18
# Where a UUID has its version, in its high half (RFC 9562).
_VERSION_AT = 6
_TIMED_VERSION = 7
_BODY_LENGTH = struct.Struct("<H")
# Bytes of a row in the columns whose rows are of one size, and the fewest in the others.
_EXACT = {"decisions": DECISION_BYTES, "amounts": 8}
_AT_LEAST = {"terms": 1, "payers": 1, "payees": 1, "bodies": _BODY_LENGTH.size}
_CURRENCY_BYTES = 3


class Packable(Protocol):
    """Transfers in columns that can be split by shards and packed."""

    def __len__(self) -> int: ...

    def split(self, rows: Sequence[int], owner: Sequence[int]) -> list[Part]:
        """The given rows, each in one part. ``owner`` has the shard of each slot."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """``count`` transfers of one pair of shards, as columns of bytes.

    ``oldest_ms`` and ``newest_ms`` are those of the UUIDv7 among the ids, ms since 1970. When an id is of
    another kind, ``oldest_ms`` is 0: such an id may be of any age.
    """

    count: int
    oldest_ms: int
    newest_ms: int
    decisions: bytes
    terms: bytes
    payers: bytes
    payees: bytes
    amounts: bytes
    currencies: bytes
    bodies: bytes

    def rows(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Decision, terms and body of each transfer. For rare paths."""
        return zip(
            split_decisions(self.decisions), split_short(self.terms), split_bodies(self.bodies), strict=True
        )


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a batch that are for one pair of shards, which are given by index, and their bundle."""

    payer_shard: int
    payee_shard: int
    rows: Sequence[int]
    bundle: Bundle


def require_sizes(bundle: Bundle) -> None:
    """Raises ValueError, which begins with a field's name, when a column is not of ``count`` rows by size.

    So much can be said without a look at the rows; it finds a sender that packs them otherwise.
    """
    count = bundle.count
    if count < 1:
        raise ValueError(f"count: {count}, not 1 or more")
    for name, size in _EXACT.items():
        found = len(getattr(bundle, name))
        if found != size * count:
            raise ValueError(f"{name}: {found} bytes, not {size * count} for {count} transfers")
    for name, size in _AT_LEAST.items():
        found = len(getattr(bundle, name))
        if found < size * count:
            raise ValueError(f"{name}: {found} bytes, not at least {size * count} for {count} transfers")
    found = len(bundle.currencies)
    if found not in {_CURRENCY_BYTES, _CURRENCY_BYTES * count}:
        raise ValueError(f"currencies: {found} bytes, not {_CURRENCY_BYTES} or {_CURRENCY_BYTES * count}")


def id_times_ms(ids: Sequence[bytes]) -> tuple[int, int]:
    """``oldest_ms`` and ``newest_ms``, as of a :class:`Bundle`, of these ids, 16 bytes each or more.

    The shard compares ids with its window one by one only when the oldest gives it reason to.
    """
    versions = {raw[_VERSION_AT] >> 4 for raw in ids}
    if versions == {_TIMED_VERSION}:
        # Such ids sort by their time, which is their first six bytes.
        return int.from_bytes(min(ids)[:_VERSION_AT]), int.from_bytes(max(ids)[:_VERSION_AT])
    timed = [raw for raw in ids if raw[_VERSION_AT] >> 4 == _TIMED_VERSION]
    return 0, int.from_bytes(max(timed)[:_VERSION_AT]) if timed else 0


def join_short(texts: Sequence[bytes]) -> bytes:
    """Texts of up to 255 bytes, each with its length before it."""
    return b"".join([bytes((len(text),)) + text for text in texts])


def split_short(joined: bytes) -> list[bytes]:
    """What :func:`join_short` joined. Raises ValueError when its last value is cut short."""
    texts, at = [], 0
    while at < len(joined):
        end = at + 1 + joined[at]
        texts.append(joined[at + 1 : end])
        at = end
    _require_end(joined, at)
    return texts


def join_bodies(bodies: Sequence[bytes]) -> bytes:
    """Bodies, each with its length before it."""
    return b"".join([_BODY_LENGTH.pack(len(body)) + body for body in bodies])


def join_amounts(amounts: Sequence[int]) -> bytes:
    """Amounts in minor units as a column."""
    return struct.pack(f"<{len(amounts)}q", *amounts)


def join_currencies(codes: Sequence[str]) -> bytes:
    """Currency codes as a column; one alone when all are the same."""
    return codes[0].encode() if len(set(codes)) == 1 else "".join(codes).encode()


def split_decisions(joined: bytes) -> list[bytes]:
    """The decision keys of a column. Raises ValueError when the last one is cut short."""
    _require_end(joined, -(-len(joined) // DECISION_BYTES) * DECISION_BYTES)
    return [joined[at : at + DECISION_BYTES] for at in range(0, len(joined), DECISION_BYTES)]


def split_bodies(joined: bytes) -> list[bytes]:
    """The bodies of a column. Raises ValueError when the last one is cut short."""
    bodies, at = [], 0
    while at < len(joined):
        begin = at + _BODY_LENGTH.size
        at = begin + int.from_bytes(joined[at:begin], "little")
        bodies.append(joined[begin:at])
    _require_end(joined, at)
    return bodies


def _require_end(joined: bytes, end: int) -> None:
    """A column ends where its last value does, or what it says is not known."""
    if end != len(joined):
        raise ValueError(f"a column of {len(joined)} bytes has a value that ends at {end}")


def each(codes: bytes, count: int) -> bytes:
    """A code a row, from codes that are given once when they are all the same."""
    return codes if len(codes) == count else codes * count
