"""A journal: one transaction of any number of legs, some with conditions, and its packed forms.

Everything that is not a plain transfer between two accounts is a journal: refunds, holds, captures, fee
splits, payrolls. Its first leg is on the deciding shard and is decided there; every other leg is a
participant of its own, prepared and finished under the journal's key and its number, so that legs may
part and meet in a resize like the two of a transfer.

Both packed forms begin like a transfer's body (``BODY_HEAD``): whoever looks through ``prepared`` and
``unsettled`` finds amount, slots and account in the same places.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from xxhash import xxh3_64_digest

from shard_node.contract.transfers import BODY_HEAD, Kind

NO_ID = bytes(16)

# related id, bound, number of legs; then the legs; then the details.
_JOURNAL_HEAD = struct.Struct("<16sqH")
# amount_minor, slot, effect, length of the account, currency; then the account.
_LEG = struct.Struct("<qHBB3s")
# effect, number of the leg, number of legs, the journal's terms, related id, bound; then the details.
LEG_TAIL = struct.Struct("<BBB19s16sq")
_LEG_NUMBER_BYTES = 2


class Effect(IntEnum):
    """What a leg does to its account."""

    # Adds to available.
    CREDIT = 1
    # Takes from available.
    DEBIT = 2
    # A credit that counts against a purchase: `related_id` on the leg's slot, up to `bound`.
    REFUND = 3
    # Takes from the hold `related_id`; what the hold has left goes back to available.
    CAPTURE = 4
    # Moves available to held, for `bound` milliseconds. The transaction id names the hold.
    HOLD = 5
    # Moves what the hold `related_id` has back to available.
    VOID = 6


# Those that lower the balance or what can be spent: their amounts are negative in a leg's body.
TAKING = frozenset((Effect.DEBIT, Effect.CAPTURE, Effect.HOLD))


@dataclass(frozen=True, slots=True)
class Leg:
    """One account's part. ``amount_minor`` is above zero, for a VOID zero: the hold knows its amount."""

    account: str
    slot: int
    effect: Effect
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class Journal:
    """One transaction. Its first leg is the one that the deciding shard decides.

    ``related_id`` is the hold of a capture or void, the purchase of a refund, else ``NO_ID``. ``bound``
    is the purchase's amount in minor units for a refund, the life in milliseconds for a hold, else 0.
    ``details`` are those of :func:`shard_node.contract.transfers.pack_details`.
    """

    kind: Kind
    legs: tuple[Leg, ...]
    details: bytes
    related_id: bytes = NO_ID
    bound: int = 0

    def pack(self) -> bytes:
        """The body: equal journals, and only those, give equal bytes."""
        first = self.legs[0]
        head = BODY_HEAD.pack(
            first.amount_minor,
            first.currency.encode(),
            first.slot,
            first.slot,
            self.kind,
            0,
            len(first.account),
        )
        legs = b"".join(
            _LEG.pack(leg.amount_minor, leg.slot, leg.effect, len(leg.account), leg.currency.encode())
            + leg.account.encode()
            for leg in self.legs
        )
        middle = _JOURNAL_HEAD.pack(self.related_id, self.bound, len(self.legs))
        return head + first.account.encode() + middle + legs + self.details

    @classmethod
    def unpack(cls, body: bytes) -> Journal:
        """The journal that :meth:`pack` packed."""
        kind, account_length = body[15], body[17]
        at = BODY_HEAD.size + account_length
        related_id, bound, count = _JOURNAL_HEAD.unpack_from(body, at)
        at += _JOURNAL_HEAD.size
        legs = []
        for _ in range(count):
            amount, slot, effect, length, currency = _LEG.unpack_from(body, at)
            at += _LEG.size
            account = body[at : at + length].decode()
            legs.append(Leg(account, slot, Effect(effect), amount, currency.decode()))
            at += length
        return cls(Kind(kind), tuple(legs), body[at:], related_id, bound)

    def leg_bodies(self, terms: bytes) -> list[bytes]:
        """Each leg's own body, as it is kept in ``prepared`` and in the ledger.

        ``terms`` are those of :func:`shard_node.contract.transfers.terms_key`, for the deciding shard to
        recognise the journal by.
        """
        first, count = self.legs[0], len(self.legs)
        bodies = []
        for number, leg in enumerate(self.legs):
            other = self.legs[1 - number] if count == 2 else first
            counterparty = "" if other is leg else other.account
            amount = -leg.amount_minor if leg.effect in TAKING else leg.amount_minor
            head = BODY_HEAD.pack(
                amount,
                leg.currency.encode(),
                first.slot,
                leg.slot,
                self.kind,
                len(counterparty),
                len(leg.account),
            )
            tail = LEG_TAIL.pack(leg.effect, number, count, terms, self.related_id, self.bound)
            bodies.append(head + counterparty.encode() + leg.account.encode() + tail + self.details)
        return bodies


@dataclass(frozen=True, slots=True)
class LegBody:
    """What one leg's body tells. ``amount_minor`` is negative where the leg takes."""

    amount_minor: int
    currency: str
    deciding_slot: int
    slot: int
    kind: Kind
    counterparty: str
    account: str
    effect: Effect
    number: int
    leg_count: int
    terms: bytes
    related_id: bytes
    bound: int
    details: bytes

    @classmethod
    def unpack(cls, body: bytes) -> LegBody:
        """The leg of :meth:`Journal.leg_bodies`."""
        amount, currency, deciding_slot, slot, kind, other_length, length = BODY_HEAD.unpack_from(body)
        account_at = BODY_HEAD.size + other_length
        tail_at = account_at + length
        effect, number, leg_count, terms, related_id, bound = LEG_TAIL.unpack_from(body, tail_at)
        return cls(
            amount,
            currency.decode(),
            deciding_slot,
            slot,
            Kind(kind),
            body[BODY_HEAD.size : account_at].decode(),
            body[account_at:tail_at].decode(),
            Effect(effect),
            number,
            leg_count,
            terms,
            related_id,
            bound,
            body[tail_at + LEG_TAIL.size :],
        )


def journal_key(transaction_id: bytes, body: bytes) -> bytes:
    """The 24 bytes that name a journal: its 16-byte id and the fingerprint of its body."""
    return transaction_id + xxh3_64_digest(body)


def leg_key(key: bytes, number: int) -> bytes:
    """The 26 bytes that name one leg: the journal's key and the leg's number."""
    return key + number.to_bytes(_LEG_NUMBER_BYTES, "little")
