"""Frames of the ledger as the engine writes them, and the rows that they stand for, without an engine.

The rows come from transactions, a leg at a time by plain rules, and from none of the columns: so whatever
reads frames can be compared with them.
"""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shard_node.cluster.slots import slot
from shard_node.contract.kinds import NO_ID, Effect, Kind
from shard_node.contract.layout import (
    ALL_OWNERS,
    ENTRY_HEAD,
    FRAME_HEAD,
    LAYOUT_VERSION,
    LIST_HEAD,
    FrameKind,
)
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transactions import Bundle, Leg, Transaction
from shard_node.ledger.store.frames import StreamFrame
from shard_node.ledger.store.rows import ArchivedShard, Entry
from shard_node.ledger.store.schema import entry_id
from tests.details import unpack_details

DONE = bytes((Outcome.COMMITTED,))


class Opened(NamedTuple):
    """An account to open: its name, currency and limits in minor units."""

    name: str
    currency: str = "EUR"
    minimum: int = 0
    maximum_balance: int = 0
    maximum_transfer: int = 0


@dataclass(slots=True)
class Account:
    """What an account has, in minor units, and how often it changed."""

    currency: str
    available: int = 0
    held: int = 0
    version: int = 0


@dataclass(slots=True)
class Scribe:
    """One shard's ledger: ``frames`` is its stream, ``rows`` what the archive must make of it.

    Checks nothing: whatever it is given was carried out.
    """

    shard: ArchivedShard
    at_ms: int = 100
    accounts: dict[str, Account] = field(default_factory=lambda: defaultdict(lambda: Account("EUR")))
    # What is left of a hold, by its transaction's id.
    holds: dict[bytes, int] = field(default_factory=dict)
    frames: list[StreamFrame] = field(default_factory=list)
    rows: list[Entry] = field(default_factory=list)

    def bundles(self, kind: FrameKind, *parts: tuple[Bundle, int, bytes]) -> StreamFrame:
        """A POST, DECIDE or FINISH. Each bundle comes with the owner of the legs and the codes."""
        fields: list[tuple[bytes, bytes]] = []
        for number, (bundle, owner, codes) in enumerate(parts):
            every = codes * len(bundle.transactions) if len(codes) == 1 else codes
            fingerprints = [
                row.fingerprint if code == Outcome.COMMITTED else bytes(8)
                for row, code in zip(bundle.transactions, every, strict=True)
            ]
            fields += [
                (b"b%d" % number, bundle.pack()),
                (b"c%d" % number, codes),
                (b"f%d" % number, b"".join(fingerprints)),
                (b"x%d" % number, self._changes(bundle, owner, every)),
            ]
        return self._append(kind, len(parts), fields)

    def post(self, *transactions: Transaction, codes: bytes = DONE, principal: str = "") -> StreamFrame:
        """A POST of one bundle."""
        return self.bundles(FrameKind.POST, (Bundle(transactions, principal), ALL_OWNERS, codes))

    def open(self, *opened: Opened, codes: bytes = DONE) -> StreamFrame:
        """An OPEN."""
        n = len(opened)
        columns = [
            LIST_HEAD.pack(n),
            *(struct.pack(f"<{n}q", *numbers) for numbers in list(zip(*opened, strict=True))[2:]),
            struct.pack(f"<{n}H", *(slot(one.name) for one in opened)),
            *(one.currency.encode() for one in opened),
            bytes(len(one.name.encode()) for one in opened),
            *(one.name.encode() for one in opened),
        ]
        for one, code in zip(opened, codes * n if len(codes) == 1 else codes, strict=True):
            if code == Outcome.COMMITTED:
                self.accounts[one.name] = Account(one.currency)
                limits = dict(
                    zip(("minimum_balance", "maximum_balance", "maximum_transfer"), one[2:], strict=True)
                )
                self._add(one.name, Kind.OPEN, attributes=json.dumps(limits))
        return self._append(FrameKind.OPEN, 1, [(b"o0", b"".join(columns)), (b"c0", codes)])

    def state(self, *changes: tuple[str, Kind]) -> StreamFrame:
        """A STATE: accounts that were frozen, unfrozen or closed."""
        packed = b""
        for name, kind in changes:
            account, raw = self.accounts[name], name.encode()
            account.version += 1
            self._add(name, kind)
            packed += ENTRY_HEAD.pack(
                NO_ID, bytes(8), 0, 0, account.available + account.held, account.version,
                account.currency.encode(), kind, 0, 0, len(raw), 0, 0,
            ) + raw  # fmt: skip
        return self._append(FrameKind.STATE, 1, [(b"r0", packed)])

    def expire(self, *holds: Transaction) -> StreamFrame:
        """An EXPIRE of holds of one leg."""
        packed = b""
        for hold in holds:
            name = hold.legs[0].account
            account, raw, amount = self.accounts[name], name.encode(), self.holds.pop(hold.transaction_id)
            account.available += amount
            account.held -= amount
            account.version += 1
            self._add(name, Kind.EXPIRY, hold, leg=1, held_delta=-amount)
            packed += ENTRY_HEAD.pack(
                hold.transaction_id, hold.fingerprint, 0, -amount, account.available + account.held,
                account.version, hold.legs[0].currency.encode(), Kind.EXPIRY, 1, 1, len(raw), 0,
                len(hold.details),
            ) + raw + hold.details  # fmt: skip
        return self._append(FrameKind.EXPIRE, 1, [(b"r0", packed)])

    # ------------------------------------------------------------------ the frame's side

    def _append(self, kind: FrameKind, parts: int, fields: Sequence[tuple[bytes, bytes]]) -> StreamFrame:
        head = FRAME_HEAD.pack(LAYOUT_VERSION, kind, parts)
        frame = (f"{self.at_ms}-{len(self.frames)}", {b"h": head, **dict(fields)})
        self.frames.append(frame)
        self.at_ms += 1
        return frame

    def _changes(self, bundle: Bundle, owner: int, codes: bytes) -> bytes:
        """Carries out the owner's legs. The owner, then balances, versions and held deltas of those legs."""
        changes: list[tuple[int, int, int, int, int]] = []
        for i, (row, code) in enumerate(zip(bundle.transactions, codes, strict=True)):
            for number, leg in enumerate(row.legs):
                if code == Outcome.COMMITTED and owner in {ALL_OWNERS, leg.owner}:
                    delta, held_delta = self._apply(row, leg)
                    account = self.accounts[leg.account]
                    self._add(leg.account, row.kind, row, number, delta, held_delta, bundle.principal)
                    changes.append((i, number, account.available + account.held, account.version, held_delta))
        plain = all(row.is_plain for row in bundle.transactions)
        if plain:
            # All payers stand before all payees.
            changes.sort(key=lambda change: change[1])
        columns = list(zip(*changes, strict=True))[2 : 4 if plain else 5]
        return bytes((owner,)) + b"".join(struct.pack(f"<{len(changes)}q", *column) for column in columns)

    def _apply(self, row: Transaction, leg: Leg) -> tuple[int, int]:
        """Changes the account; by how much its balance and what is held of it changed."""
        delta = held_delta = 0
        if leg.effect in {Effect.CREDIT, Effect.REFUND}:
            delta = leg.amount_minor
        elif leg.effect == Effect.DEBIT:
            delta = -leg.amount_minor
        elif leg.effect == Effect.HOLD:
            held_delta = self.holds[row.transaction_id] = leg.amount_minor
        else:
            held_delta, delta = -self.holds.pop(row.related_id, 0), -leg.amount_minor
        account = self.accounts[leg.account]
        account.held += held_delta
        account.available += delta - held_delta
        account.version += 1
        return delta, held_delta

    # ------------------------------------------------------------------ the archive's side

    def _add(
        self,
        name: str,
        kind: Kind,
        row: Transaction | None = None,
        leg: int = 0,
        delta: int = 0,
        held_delta: int = 0,
        principal: str = "",
        attributes: str = "",
    ) -> None:
        account = self.accounts[name]
        external_id, initiated_by, reference = _texts(row.details if row else b"")
        self.rows.append(
            Entry(
                entry_id(self.shard.number, len(self.rows) + 1),
                self._named(name),
                account.version,
                self.at_ms,
                kind,
                row.transaction_id if row else None,
                row.fingerprint if row else None,
                leg,
                len(row.legs) if row else 0,
                self._counterparty(row, leg) if row else "",
                next(one.currency for one in row.legs if one.account == name) if row else account.currency,
                delta,
                held_delta,
                account.available + account.held,
                row.related_id if row and row.related_id != NO_ID else None,
                reference,
                external_id,
                initiated_by or principal.replace("\0", "\u2400"),
                attributes,
            )
        )

    def _counterparty(self, row: Transaction, leg: int) -> str:
        if len(row.legs) == 2:
            return self._named(row.legs[1 - leg].account)
        # Of an expiry's hold, too, which has one leg.
        return self._named(row.legs[0].account) if leg and len(row.legs) > 1 else ""

    def _named(self, name: str) -> str:
        return f"{name}:{self.shard.shard_id}" if name.startswith("@") else name


def _texts(details: bytes) -> Iterator[str]:
    texts = unpack_details(details or b"\0\0")
    return (
        text.decode().replace("\0", "\u2400")
        for text in (texts.external_id, texts.initiated_by, texts.reference)
    )
