"""Listing accounts, a page at a time, in order of slot, then of id by its bytes.

No write changes that order, nor does a slot that moves; a page token is a place in it. Invariant: a page ends
at such a place, with nothing left out before it. So a shard that does not answer fails the page; it never
shortens it.
"""

from __future__ import annotations

import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from router.execution.maps import spread
from router.requests import ACCOUNT_ID, BadField, shown
from shard_node.cluster import SLOT_COUNT, hash_tag, slot
from shard_node.errors import ShardNodeError, ShardUnavailableError
from shard_node.ledger.questions import BadTokenError, decoded
from shard_node.limits import MAX_ACCOUNT_ID_CHARS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.execution.maps import Maps
    from shard_node.client import Shard
    from tallystick.v1 import wallet_pb2

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000
# Slots asked for at once: of an almost empty cluster, so many cost a shard a millisecond.
_SLOTS_AT_ONCE: Final = 512
# Accounts of one shard that a page looks at when few match: the page is short then, and its token goes on.
MAX_LOOKED: Final = 10_000

# A page token: a digest; the slot; the last id looked at in that slot, nothing for the slot's beginning.
_DIGEST_BYTES: Final = 8
_SLOT_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class Page:
    """Ids of accounts, in order. ``next_token`` is empty on the last page."""

    account_ids: list[str]
    next_token: str


@dataclass(frozen=True, slots=True)
class AccountQuery:
    """Which accounts: those that begin with ``prefix``, from a place on.

    The place is behind the id ``after`` in ``first_slot``; an empty ``after`` is the slot's beginning.
    """

    prefix: str
    page_size: int
    first_slot: int
    after: str = ""

    @classmethod
    def read(cls, request: wallet_pb2.ListAccountsRequest) -> AccountQuery:
        """What a request asks for. Raises BadField."""
        page_size = request.page_size if request.HasField("page_size") else DEFAULT_PAGE
        if not 1 <= page_size <= MAX_PAGE:
            raise BadField("page_size", f"must be 1 to {MAX_PAGE}, is {page_size}")
        prefix = request.prefix
        if prefix.startswith("@"):
            raise BadField("prefix", 'accounts that begin with "@" belong to the system and are not listed')
        if prefix and not ACCOUNT_ID.fullmatch(prefix):
            raise BadField(
                "prefix",
                f"must be at most {MAX_ACCOUNT_ID_CHARS} characters of letters, digits and . _ : @ {{ }} -, "
                f"is {shown(prefix)}",
            )
        if not request.page_token:
            return cls(prefix, page_size, slot(prefix) if hash_tag(prefix) else 0)
        try:
            place = decoded(request.page_token)[_DIGEST_BYTES:]
        except BadTokenError as error:
            raise BadField("page_token", str(error)) from None
        number = int.from_bytes(place[:_SLOT_BYTES])
        # What is no id is not what the token was made of, as the comparison shows.
        after = place[_SLOT_BYTES:].decode(errors="replace")
        query = cls(prefix, page_size, number, after)
        if number >= SLOT_COUNT or request.page_token != query.token(number, after):
            raise BadField("page_token", "is no page token for this prefix")
        return query

    @property
    def slots(self) -> range:
        """The slots that such accounts may be in, from the place on."""
        # A whole hash tag is that of all accounts that begin so: they have one slot.
        return range(self.first_slot, slot(self.prefix) + 1 if hash_tag(self.prefix) else SLOT_COUNT)

    def takes(self, number: int, name: str) -> bool:
        """Whether an account of that slot is asked for."""
        return name.startswith(self.prefix) and (number != self.first_slot or name > self.after)

    def token(self, number: int, after: str = "") -> str:
        """The page token of a place."""
        place = number.to_bytes(_SLOT_BYTES) + after.encode()
        # No secret: it betrays a token that was cut, mistyped or made for another prefix.
        digest = blake2b(place, key=self.prefix.encode(), digest_size=_DIGEST_BYTES).digest()
        return urlsafe_b64encode(digest + place).decode()


async def account_page(maps: Maps, query: AccountQuery, deadline_seconds: float) -> Page:
    """The next accounts of a query.

    Raises the errors of :mod:`shard_node.errors` when a shard does not answer by the deadline, a time of the
    monotonic clock.
    """
    found: list[tuple[int, str]] = []
    slots, further = query.slots, ""

    async def read(shard: Shard, numbers: list[int]) -> list[list[str] | None]:
        return await _names(shard, numbers, query, deadline_seconds)

    while slots and not further:
        now, slots = slots[:_SLOTS_AT_ONCE], slots[_SLOTS_AT_ONCE:]
        answers = await spread(maps, {number: number for number in now}, read, deadline_seconds)
        for number in now:
            answer = answers[number]
            if isinstance(answer, ShardNodeError):
                raise answer
            if answer is None:
                further = query.token(number)
                break
            found += [(number, name) for name in answer]
            if len(found) > query.page_size:
                found = found[: query.page_size]
                further = query.token(*found[-1])
                break
    return Page([name for _, name in found], further)


async def _names(
    shard: Shard, numbers: Sequence[int], query: AccountQuery, deadline_seconds: float
) -> list[list[str] | None]:
    """The first names in each slot that are asked for, in order: all, or one more than a page has.

    None for the last slots when those before them have enough, or took long to look through; never for the
    first slot.
    """
    answers: list[list[str] | None] = []
    matched = looked = 0
    cursor = b""
    names: list[str] = []
    while cursor or (len(answers) < len(numbers) and matched <= query.page_size and looked < MAX_LOOKED):
        cursor, read = await shard.account_names(numbers[len(answers) :], cursor)
        if cursor and time.monotonic() > deadline_seconds:
            raise ShardUnavailableError(f"{shard.shard_id}: a slot has too many accounts to list in time")
        for count, part in enumerate(read, 1):
            looked += len(part)
            number = numbers[len(answers)]
            names += [name for name in part if query.takes(number, name)]
            # A name may come twice; of a large slot no more is kept than a page can have.
            names = sorted(set(names))[: query.page_size + 1]
            if count < len(read) or not cursor:
                answers.append(names)
                matched += len(names)
                names = []
    return answers + [None] * (len(numbers) - len(answers))
