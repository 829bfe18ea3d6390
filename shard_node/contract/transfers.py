"""A batch of transfers as columns, and the packed form of a transfer's terms.

Columns, because a batch crosses four processes: a list of values costs a fraction of a list of
objects in protobuf, MessagePack and Lua alike. The packed body of a transfer travels unread from
the router into the prepared leg, the unsettled entry and the ledger.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from xxhash import xxh3_64_digest

from shard_node.contract.bundles import (
    Bundle,
    Part,
    id_times_ms,
    join_amounts,
    join_bodies,
    join_currencies,
    join_short,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

# amount_minor, currency, payer slot, payee slot, kind, length of payer, length of payee; then the
# payer, the payee and the details. The library reads amount, slots, kind and payee from it.
BODY_HEAD = struct.Struct("<q3sHHBBB")

# transfer key, payer, payee, amount_minor, currency, body, payer slot, payee slot
Row = tuple[bytes, str, str, int, str, bytes, int, int]


class Kind(IntEnum):
    """What a transfer, or any other entry of the ledger, is for. EntryKind has the same numbers.

    The first four are transfers: two legs without conditions, the hot path. REFUND to VOID are
    journals (:mod:`shard_node.contract.journals`). The rest are entries that no transaction makes.
    """

    TRANSFER = 1
    DEPOSIT = 2
    WITHDRAWAL = 3
    PURCHASE = 4
    REFUND = 5
    CAPTURE = 6
    JOURNAL = 7
    HOLD = 8
    VOID = 9
    EXPIRY = 10
    FREEZE = 11
    UNFREEZE = 12
    CLOSE = 13
    OPEN = 14


_PURCHASE = int(Kind.PURCHASE)


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one transfer, unpacked."""

    amount_minor: int
    currency: str
    payer_slot: int
    payee_slot: int
    kind: Kind
    payer: str
    payee: str
    # The reference of a TRANSFER; what :func:`pack_details` packed for all others.
    details: bytes


@dataclass(frozen=True, slots=True)
class Details:
    """The free texts of a transaction, kept in the ledger only. UTF-8."""

    # order_id of a purchase, bank_transaction_id of a deposit or withdrawal.
    external_id: bytes = b""
    initiated_by: bytes = b""
    reference: bytes = b""


def pack_details(details: Details) -> bytes:
    """Two lengths of a byte each, then the three texts."""
    external, initiated = details.external_id, details.initiated_by
    return bytes((len(external), len(initiated))) + external + initiated + details.reference


def unpack_details(packed: bytes) -> Details:
    """What :func:`pack_details` packed."""
    external_end = 2 + packed[0]
    initiated_end = external_end + packed[1]
    return Details(packed[2:external_end], packed[external_end:initiated_end], packed[initiated_end:])


def pack_body(
    amount_minor: int,
    currency: str,
    payer_slot: int,
    payee_slot: int,
    kind: int,
    payer: str,
    payee: str,
    details: bytes,
) -> bytes:
    """Packs the terms of one transfer: equal terms, and only those, give equal bytes."""
    head = BODY_HEAD.pack(
        amount_minor, currency.encode(), payer_slot, payee_slot, kind, len(payer), len(payee)
    )
    return head + payer.encode() + payee.encode() + details


def unpack_body(body: bytes) -> Terms:
    """The terms that :func:`pack_body` packed."""
    amount, currency, payer_slot, payee_slot, kind, payer_length, payee_length = BODY_HEAD.unpack_from(body)
    payee_at = BODY_HEAD.size + payer_length
    reference_at = payee_at + payee_length
    return Terms(
        amount,
        currency.decode(),
        payer_slot,
        payee_slot,
        Kind(kind),
        body[BODY_HEAD.size : payee_at].decode(),
        body[payee_at:reference_at].decode(),
        body[reference_at:],
    )


def transfer_key(transaction_id: bytes, body: bytes) -> bytes:
    """The 24 bytes that name a transfer: its 16-byte id and the fingerprint of its body.

    The fingerprint is part of the key of everything kept on the payee's shard: one id may be used,
    by mistake, for two payers on two shards, which cannot know of each other.
    """
    return transaction_id + xxh3_64_digest(body)


def decision_key(key: bytes, body: bytes) -> bytes:
    """The 18 bytes under which the payer's shard keeps the outcome: the id and the payer's slot.

    The slot makes the scope of an id the same whatever slots share a shard at the moment.
    """
    return key[:16] + body[11:13]


def terms_key(key: bytes, body: bytes) -> bytes:
    """What is kept with an outcome: 19 bytes of fingerprint, amount and currency.

    With a purchase also the kind and both accounts: a refund must know who paid, for accounts may share
    a slot, and whom.
    """
    if body[15] == _PURCHASE:
        accounts_end = BODY_HEAD.size + body[16] + body[17]
        return key[16:] + body[:11] + body[15:17] + body[BODY_HEAD.size : accounts_end]
    return key[16:] + body[:11]


@dataclass(slots=True)
class Transfers:
    """A batch of transfers: columns of equal length.

    ``keys`` are those of :func:`transfer_key`, ``bodies`` those of :func:`pack_body`; amounts are
    in minor units; slots are 0 to 16383.
    """

    keys: list[bytes]
    payers: list[str]
    payees: list[str]
    amounts_minor: list[int]
    currencies: list[str]
    bodies: list[bytes]
    payer_slots: list[int]
    payee_slots: list[int]

    def __len__(self) -> int:
        return len(self.keys)

    def row(self, index: int) -> Row:
        """One transfer's values, in the order of the columns."""
        return (
            self.keys[index],
            self.payers[index],
            self.payees[index],
            self.amounts_minor[index],
            self.currencies[index],
            self.bodies[index],
            self.payer_slots[index],
            self.payee_slots[index],
        )

    def split(self, rows: Sequence[int], owner: Sequence[int]) -> list[Part]:
        """The given rows, each in one part. ``owner`` has the shard of each slot."""
        groups: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        payer_slots, payee_slots = self.payer_slots, self.payee_slots
        for row in rows:
            groups[owner[payer_slots[row]], owner[payee_slots[row]]].append(row)
        return [Part(*pair, group, self.bundle(group)) for pair, group in groups.items()]

    def bundle(self, rows: Sequence[int] | None = None) -> Bundle:
        """The given rows packed, in the order of ``rows``; all of them without. There must be some."""
        rows = range(len(self)) if rows is None else rows
        keys, bodies = [self.keys[row] for row in rows], [self.bodies[row] for row in rows]
        pairs = list(zip(keys, bodies, strict=True))
        return Bundle(
            len(pairs),
            *id_times_ms(keys),
            b"".join([decision_key(*pair) for pair in pairs]),
            join_short([terms_key(*pair) for pair in pairs]),
            join_short([self.payers[row].encode() for row in rows]),
            join_short([self.payees[row].encode() for row in rows]),
            join_amounts([self.amounts_minor[row] for row in rows]),
            join_currencies([self.currencies[row] for row in rows]),
            join_bodies(bodies),
        )

    @classmethod
    def of(cls, rows: Sequence[tuple[bytes, Terms]]) -> Transfers:
        """A batch from transaction ids (16 bytes) and terms. For tests and rare paths."""
        bodies = [
            pack_body(
                t.amount_minor, t.currency, t.payer_slot, t.payee_slot, t.kind, t.payer, t.payee, t.details
            )
            for _, t in rows
        ]
        return cls(
            [transfer_key(i, body) for (i, _), body in zip(rows, bodies, strict=True)],
            [t.payer for _, t in rows],
            [t.payee for _, t in rows],
            [t.amount_minor for _, t in rows],
            [t.currency for _, t in rows],
            bodies,
            [t.payer_slot for _, t in rows],
            [t.payee_slot for _, t in rows],
        )
