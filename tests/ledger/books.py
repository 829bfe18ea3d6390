"""Histories made up for tests: what shards would have archived, without shards.

Keeps balances in plain dictionaries, by the rules of the design and by none of the product's code, so that
what reads the archive can be compared with it.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import Engine

from shard_node.contract.kinds import Kind
from shard_node.ledger.store.archive import Archive
from shard_node.ledger.store.chain import Header, seal
from shard_node.ledger.store.migrations import upgrade
from shard_node.ledger.store.rows import Entry, Row
from shard_node.ledger.store.schema import entry_id, open_ledger
from tests.exponents import EXPONENTS

START_MS = 1_750_000_000_000
_PLACEHOLDER = -1


@dataclass(slots=True)
class Model:
    """One account by the naive model."""

    shard: int
    currency: str
    balance: int = 0
    held: int = 0
    version: int = 0
    state: str = "OPEN"


@dataclass(slots=True)
class Books:
    """Makes entries. Shards are numbered from 1 and called shard-0, shard-1, ..."""

    shards: int = 2
    now_ms: int = START_MS
    accounts: dict[str, Model] = field(default_factory=dict)
    # Rows that were made and not taken yet, by shard.
    made: dict[int, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    # All rows by shard, those taken too.
    all: dict[int, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    holds: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def new_id(self) -> bytes:
        """A UUIDv7 of the present moment."""
        number = next(self._ids)
        return self.now_ms.to_bytes(6) + b"\x70\x00" + (0x80 << 56 | number).to_bytes(8)

    def open(self, name: str, shard: int = 1, currency: str = "EUR", floor: int = 0) -> str:
        """Opens an account."""
        self.accounts[name] = Model(shard, currency, version=-1)
        limits = {"minimum_balance": floor, "maximum_balance": 0, "maximum_transfer": 0}
        self._add(name, Kind.OPEN, None, attributes=json.dumps(limits))
        return name

    def deposit(self, name: str, amount: int) -> bytes:
        """Money from outside."""
        model = self.accounts[name]
        return self.transfer(self._world(model), name, amount, Kind.DEPOSIT)

    def withdraw(self, name: str, amount: int) -> bytes:
        """Money to outside."""
        return self.transfer(name, self._world(self.accounts[name]), amount, Kind.WITHDRAWAL)

    def transfer(
        self,
        payer: str,
        payee: str,
        amount: int,
        kind: Kind = Kind.TRANSFER,
        transaction_id: bytes | None = None,
        texts: tuple[str, str, str] = ("", "", ""),
    ) -> bytes:
        """A transfer, both halves one after the other; ``texts``: reference, external id, initiator."""
        used = transaction_id or self.new_id()
        self._add(payer, kind, used, 0, 2, payee, -amount, texts=texts)
        self._add(payee, kind, used, 1, 2, payer, amount, texts=texts)
        return used

    def debit(self, payer: str, payee: str, amount: int) -> bytes:
        """The first half of a transfer between shards."""
        used = self.new_id()
        self._add(payer, Kind.TRANSFER, used, 0, 2, payee, -amount)
        return used

    def credit(self, transaction_id: bytes, payer: str, payee: str, amount: int) -> None:
        """The other half."""
        self._add(payee, Kind.TRANSFER, transaction_id, 1, 2, payer, amount)

    def journal(self, legs: list[tuple[str, int]]) -> bytes:
        """A journal of any number of legs, which should sum to zero."""
        used = self.new_id()
        for number, (name, amount) in enumerate(legs):
            other = legs[0][0] if number else ""
            self._add(name, Kind.JOURNAL, used, number, len(legs), other, amount)
        return used

    def hold(self, name: str, amount: int) -> bytes:
        """Reserves money."""
        used = self.new_id()
        self.holds[used] = (name, amount)
        self._add(name, Kind.HOLD, used, 0, 1, held_delta=amount)
        return used

    def capture(self, hold: bytes, payee: str, amount: int) -> bytes:
        """Pays from a hold."""
        name, reserved = self.holds.pop(hold)
        used = self.new_id()
        self._add(name, Kind.CAPTURE, used, 0, 2, payee, -amount, -reserved, related=hold)
        self._add(payee, Kind.CAPTURE, used, 1, 2, name, amount, related=hold)
        return used

    def void(self, hold: bytes) -> bytes:
        """Ends a hold."""
        name, reserved = self.holds.pop(hold)
        used = self.new_id()
        self._add(name, Kind.VOID, used, 0, 1, held_delta=-reserved, related=hold)
        return used

    def expire(self, hold: bytes) -> None:
        """Ends a hold by its time."""
        name, reserved = self.holds.pop(hold)
        self._add(name, Kind.EXPIRY, hold, 1, 1, held_delta=-reserved)

    def set_state(self, name: str, kind: Kind) -> None:
        """Freezes, unfreezes or closes."""
        self.accounts[name].state = {Kind.FREEZE: "FROZEN", Kind.UNFREEZE: "OPEN", Kind.CLOSE: "CLOSED"}[kind]
        self._add(name, kind, None)

    def rows(self) -> list[Row]:
        """Every entry ever made, shard by shard."""
        return [tuple(row) for shard in sorted(self.all) for row in self.all[shard]]

    def store(self, engine: Engine, batch: int = 1000) -> None:
        """Archives what was made, in batches of that many rows."""
        archive = Archive(engine)
        archive.keep_exponents(EXPONENTS)
        for shard in range(1, self.shards + 1):
            position = archive.position(f"shard-{shard - 1}")
            assert position.shard.number == shard
            rows = self.made.pop(shard, [])
            for first in range(0, len(rows), batch):
                piece = rows[first : first + batch]
                at_ms = [row.at_ms for row in piece]
                header = Header(
                    position.shard, position.number + 1, position.next_sequence, len(piece),
                    f"{at_ms[-1]}-0", at_ms[0], at_ms[-1], at_ms[-1] + 5,
                )  # fmt: skip
                sealed = seal(position.hash, header, [tuple(row) for row in piece])
                archive.store(sealed, [tuple(row) for row in piece])
                position = position.after(sealed)

    def _world(self, model: Model) -> str:
        name = f"@world:{model.currency}:shard-{model.shard - 1}"
        self.accounts.setdefault(name, Model(model.shard, model.currency))
        return name

    def _add(  # noqa: PLR0917 -- the columns of an entry, in their order
        self,
        name: str,
        kind: Kind,
        transaction_id: bytes | None,
        leg: int = 0,
        leg_count: int = 0,
        counterparty: str = "",
        delta: int = 0,
        held_delta: int = 0,
        related: bytes | None = None,
        attributes: str = "",
        texts: tuple[str, str, str] = ("", "", ""),
    ) -> None:
        self.now_ms += 1
        model = self.accounts[name]
        model.balance += delta
        model.held += held_delta
        model.version += 1
        shard = model.shard
        row = Entry(
            entry_id(shard, len(self.all[shard]) + 1), name, model.version, self.now_ms, int(kind),
            transaction_id, transaction_id and transaction_id[:8], leg, leg_count, counterparty,
            model.currency, delta, held_delta, model.balance, related, *texts, attributes,
        )  # fmt: skip
        self.made[shard].append(row)
        self.all[shard].append(row)


def sample() -> Books:
    """Two shards, all kinds of entries, nothing under way."""
    books = Books()
    alice, bob = books.open("alice", 1), books.open("bob", 2)
    shop = books.open("shop", 2)
    books.deposit(alice, 10_000)
    books.deposit(bob, 5_000)
    books.transfer(alice, bob, 1_250, texts=("rent", "", ""))
    books.transfer(alice, shop, 999, Kind.PURCHASE, texts=("", "order-7", ""))
    first, second, third = books.hold(alice, 500), books.hold(bob, 300), books.hold(alice, 50)
    books.capture(first, shop, 400)
    books.void(second)
    books.expire(third)
    books.journal([(shop, -600), (alice, 100), (bob, 500)])
    books.set_state(bob, Kind.FREEZE)
    books.set_state(bob, Kind.UNFREEZE)
    books.withdraw(bob, 100)
    return books


def fresh_ledger(url: str) -> Engine:
    """An empty ledger's database with the newest schema; dispose of it in the end."""
    engine = open_ledger(url)
    upgrade(engine)
    return engine
