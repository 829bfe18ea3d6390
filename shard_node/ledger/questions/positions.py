"""Where a reader stands: page tokens of one account's history, cursors over the whole ledger. Pure.

Both are opaque to callers, and neither is a secret: whoever makes one up reads nothing that the same call
without it would not show. They are checked so that a mistake (a token of another request, a cursor cut
short) is told, not answered with the wrong entries.
"""

from __future__ import annotations

import binascii
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from shard_node.ledger.store import SEQUENCE_MASK

_FORMAT: Final = 1
# format, digest of the request, version of the last entry looked at
_TOKEN = struct.Struct("<B8sq")
# format, number of shards; then for each its number and the sequence of the last entry received
_CURSOR_HEAD = struct.Struct("<BH")
_PLACE = struct.Struct("<IQ")


class BadTokenError(ValueError):
    """The text is no token or cursor, or belongs to another request."""


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which of an account's entries, and in which order.

    Times are milliseconds since 1970: ``from_ms`` is included, ``to_ms`` is not. ``kinds`` are the numbers
    of :class:`shard_node.contract.transfers.Kind`; all when empty.
    """

    account_id: str
    from_ms: int | None = None
    to_ms: int | None = None
    kinds: frozenset[int] = frozenset()
    newest_first: bool = True

    def digest(self) -> bytes:
        """8 bytes that tell this query from another."""
        parts = (self.account_id, self.from_ms, self.to_ms, sorted(self.kinds), self.newest_first)
        return blake2b(repr(parts).encode(), digest_size=8).digest()

    def token(self, version: int) -> str:
        """The page token that goes on after the entry of that version."""
        return urlsafe_b64encode(_TOKEN.pack(_FORMAT, self.digest(), version)).decode()

    def version_of(self, token: str) -> int:
        """The version after which a page token goes on. Raises BadTokenError."""
        try:
            form, digest, version = _TOKEN.unpack(decoded(token))
        except struct.error:
            raise BadTokenError("is no page token") from None
        if form != _FORMAT or version < 0:
            raise BadTokenError("is no page token")
        if digest != self.digest():
            raise BadTokenError(
                "belongs to another request: only page_size may change from one page to the next"
            )
        return int(version)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position on every shard: shard number -> sequence of the last entry received, 0 for none."""

    places: dict[int, int]

    def text(self) -> str:
        """The cursor as callers carry it."""
        packed = _CURSOR_HEAD.pack(_FORMAT, len(self.places))
        packed += b"".join(_PLACE.pack(number, self.places[number]) for number in sorted(self.places))
        return urlsafe_b64encode(packed).decode()

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor of that text. Raises BadTokenError."""
        raw = decoded(text)
        try:
            form, count = _CURSOR_HEAD.unpack_from(raw)
        except struct.error:
            raise BadTokenError("is no cursor") from None
        if form != _FORMAT or len(raw) != _CURSOR_HEAD.size + count * _PLACE.size:
            raise BadTokenError("is no cursor")
        places: dict[int, int] = dict(_PLACE.iter_unpack(raw[_CURSOR_HEAD.size :]))
        if len(places) != count or any(sequence > SEQUENCE_MASK for sequence in places.values()):
            raise BadTokenError("is no cursor")
        return cls(places)


def decoded(text: str) -> bytes:
    """The bytes of a token or cursor. Raises BadTokenError."""
    try:
        # Strictly: what is cut or mistyped must not read as another position.
        raw = urlsafe_b64decode(text.encode("ascii"))
        if urlsafe_b64encode(raw).decode() != text:
            raise BadTokenError("is damaged")
    except (binascii.Error, UnicodeEncodeError):
        raise BadTokenError("is damaged") from None
    return raw
