"""Transactions as values, and their packed form: bundles.

Whoever is not on the hot path reads and makes bundles here, a transaction at a time; the router packs columns
of its own by the same layout (:mod:`shard_node.contract.layout`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from shard_node.contract.kinds import NO_ID, Effect, Kind
from shard_node.contract.layout import BUNDLE_HEAD, LAYOUT_VERSION, NO_VERSION, BundleFlag, fold

_FINGERPRINT_HEAD = struct.Struct("<BB16sq")
_FINGERPRINT_LEG = struct.Struct("<Bqq3sB")


@dataclass(frozen=True, slots=True)
class Leg:
    """One account's part of a transaction.

    ``amount_minor`` is above zero, of a VOID zero: the hold knows its amount. ``owner`` is 0 for the deciding
    shard, else the number of the participant that the account is on. ``expected_version`` is the version that
    the account must have, or ``NO_VERSION``; only legs of the deciding shard may have one.
    """

    account: str
    effect: Effect
    amount_minor: int
    currency: str
    owner: int = 0
    expected_version: int = NO_VERSION


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one transaction id names.

    ``deciding_slot`` is the scope of the id. ``related_id`` is the hold of a capture or void, the purchase of
    a refund, else ``NO_ID``; ``bound`` a hold's life in milliseconds, a purchase's amount for a refund, else
    0. ``details`` are free texts that no shard reads.
    """

    transaction_id: bytes
    kind: Kind
    deciding_slot: int
    legs: tuple[Leg, ...]
    details: bytes = b""
    related_id: bytes = NO_ID
    bound: int = 0

    @property
    def decision(self) -> bytes:
        """The 18 bytes under which the deciding shard remembers the outcome: the id and the slot."""
        return self.transaction_id + self.deciding_slot.to_bytes(2, "little")

    @property
    def fingerprint(self) -> bytes:
        """The 8 bytes that are the same for the same payload, wherever its accounts are."""
        parts = [_FINGERPRINT_HEAD.pack(self.kind, len(self.legs), self.related_id, self.bound)]
        for leg in self.legs:
            account = leg.account.encode()
            parts.append(
                _FINGERPRINT_LEG.pack(
                    leg.effect, leg.amount_minor, leg.expected_version, leg.currency.encode(), len(account)
                )
            )
            parts.append(account)
        return fold(b"".join([*parts, self.details])).to_bytes(8, "little")

    @property
    def is_plain(self) -> bool:
        """Whether it is a debit and a credit of one amount, and nothing else."""
        if len(self.legs) != 2 or self.related_id != NO_ID or self.bound:
            return False
        payer, payee = self.legs
        return (
            (payer.effect, payee.effect) == (Effect.DEBIT, Effect.CREDIT)
            and (payer.amount_minor, payer.currency) == (payee.amount_minor, payee.currency)
            and (payer.owner, payee.owner) in {(0, 0), (0, 1)}
            and payee.expected_version == NO_VERSION
        )


@dataclass(frozen=True, slots=True)
class Bundle:
    """A batch of transactions and who makes it; ``pack`` and ``unpack`` are each other's reverse.

    An unpacked plain bundle has its payees owned by participant 1: whether it is posted or prepared, it does
    not say.
    """

    transactions: tuple[Transaction, ...]
    principal: str = ""

    def pack(self) -> bytes:
        """The bytes of :mod:`shard_node.contract.layout`."""
        rows = self.transactions
        plain = all(row.is_plain for row in rows)
        if plain:
            legs = [row.legs[0] for row in rows] + [row.legs[1] for row in rows]
            amounts, versioned = legs[: len(rows)], legs[: len(rows)]
        else:
            legs = [leg for row in rows for leg in row.legs]
            amounts = versioned = legs
        names = [leg.account.encode() for leg in legs]
        currencies = [leg.currency.encode() for leg in amounts]
        versions = any(leg.expected_version != NO_VERSION for leg in versioned)
        flags = BundleFlag(0)
        flags |= BundleFlag.PLAIN if plain else 0
        flags |= BundleFlag.ONE_CURRENCY if len(set(currencies)) == 1 else 0
        flags |= BundleFlag.VERSIONS if versions else 0
        details, principal = [row.details for row in rows], self.principal.encode()
        n, m = len(rows), len(legs)
        columns = [
            BUNDLE_HEAD.pack(
                LAYOUT_VERSION, flags, n, m, sum(map(len, names)), sum(map(len, details)), len(principal)
            ),
            b"".join(row.transaction_id for row in rows),
            b"" if plain else b"".join(row.related_id for row in rows),
            b"" if plain else struct.pack(f"<{n}q", *(row.bound for row in rows)),
            struct.pack(f"<{len(amounts)}q", *(leg.amount_minor for leg in amounts)),
            struct.pack(f"<{len(versioned)}q", *(leg.expected_version for leg in versioned))
            if versions
            else b"",
            struct.pack(f"<{n}H", *(row.deciding_slot for row in rows)),
            struct.pack(f"<{n}H", *map(len, details)),
            bytes(row.kind for row in rows),
            b"" if plain else bytes(len(row.legs) for row in rows),
            b"" if plain else bytes(leg.effect for leg in legs),
            b"" if plain else bytes(leg.owner for leg in legs),
            bytes(map(len, names)),
            currencies[0] if BundleFlag.ONE_CURRENCY in flags else b"".join(currencies),
            *names,
            *details,
            principal,
        ]
        return b"".join(columns)

    @classmethod
    def unpack(cls, packed: bytes) -> Bundle:
        """The bundle of these bytes. Raises ValueError where they are no bundle by their lengths."""
        reader = _Reader(packed)
        version, raw_flags, n, m, account_bytes, detail_bytes, principal_bytes = reader.head()
        if version != LAYOUT_VERSION:
            raise ValueError(f"a bundle of layout {version}, not {LAYOUT_VERSION}")
        flags = BundleFlag(raw_flags)
        plain = BundleFlag.PLAIN in flags
        if not n or (plain and m != 2 * n):
            raise ValueError(f"a bundle of {n} transactions and {m} legs")
        amounts_count = n if plain else m
        ids = reader.cut(16, n)
        related = [NO_ID] * n if plain else reader.cut(16, n)
        bounds = (0,) * n if plain else reader.numbers("q", n)
        amounts = reader.numbers("q", amounts_count)
        versions = (
            reader.numbers("q", amounts_count)
            if BundleFlag.VERSIONS in flags
            else (NO_VERSION,) * amounts_count
        )
        slots, detail_lengths = reader.numbers("H", n), reader.numbers("H", n)
        kinds = reader.take(n)
        counts = bytes([2]) * n if plain else reader.take(n)
        effects = bytes([Effect.DEBIT] * n + [Effect.CREDIT] * n) if plain else reader.take(m)
        owners = bytes([0] * n + [1] * n) if plain else reader.take(m)
        lengths = reader.take(m)
        currencies = (
            reader.cut(3, 1) * amounts_count
            if BundleFlag.ONE_CURRENCY in flags
            else reader.cut(3, amounts_count)
        )
        if sum(lengths) != account_bytes or sum(detail_lengths) != detail_bytes or sum(counts) != m:
            raise ValueError("a bundle's lengths and its texts differ")
        names = [reader.take(length).decode() for length in lengths]
        details = [reader.take(length) for length in detail_lengths]
        principal = reader.take(principal_bytes).decode()
        reader.end()
        if plain:
            amounts, currencies = amounts * 2, currencies * 2
            versions = (*versions, *(NO_VERSION,) * n)
        legs = [
            Leg(names[j], Effect(effects[j]), amounts[j], currencies[j].decode(), owners[j], versions[j])
            for j in range(m)
        ]
        rows, first = [], 0
        for i in range(n):
            own = (legs[i], legs[n + i]) if plain else tuple(legs[first : first + counts[i]])
            first += counts[i]
            rows.append(Transaction(ids[i], Kind(kinds[i]), slots[i], own, details[i], related[i], bounds[i]))
        return cls(tuple(rows), principal)


class _Reader:
    """Columns of some bytes, one after the other."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._at = 0

    def head(self) -> tuple[int, ...]:
        return BUNDLE_HEAD.unpack(self.take(BUNDLE_HEAD.size))

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._packed):
            raise ValueError(f"a bundle of {len(self._packed)} bytes ends within a column")
        self._at += size
        return self._packed[self._at - size : self._at]

    def cut(self, size: int, count: int) -> list[bytes]:
        column = self.take(size * count)
        return [column[at : at + size] for at in range(0, len(column), size)]

    def numbers(self, kind: str, count: int) -> tuple[int, ...]:
        size = struct.calcsize(f"<{count}{kind}")
        return struct.unpack(f"<{count}{kind}", self.take(size))

    def end(self) -> None:
        if self._at != len(self._packed):
            raise ValueError(f"a bundle of {len(self._packed)} bytes has {self._at} bytes of columns")


def bundle_of(transactions: Sequence[Transaction], principal: str = "") -> bytes:
    """The packed bundle of some transactions."""
    return Bundle(tuple(transactions), principal).pack()
