"""Transactions of the tests, and how a router splits them into attempts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from coordinator.attempts import Attempt
from coordinator.driver import now_ms
from shard_node.cluster.slots import slot
from shard_node.contract import NO_ID, Effect, Kind, Leg, Transaction, bundle_of, new_attempt_id

CURRENCY = "EUR"
WORLD = f"@world:{CURRENCY}"


def random_id() -> bytes:
    """A UUIDv4."""
    raw = bytearray(os.urandom(16))
    raw[6] = 0x40 | raw[6] & 0x0F
    return bytes(raw)


def timed_id(at_ms: int) -> bytes:
    """A UUIDv7 of that time."""
    raw = bytearray(at_ms.to_bytes(6) + random_id()[6:])
    raw[6] = 0x70 | raw[6] & 0x0F
    return bytes(raw)


def transaction(
    kind: Kind,
    legs: Sequence[tuple[str, Effect, int]],
    transaction_id: bytes | None = None,
    related_id: bytes = NO_ID,
    bound: int = 0,
    details: bytes = b"",
) -> Transaction:
    """A transaction decided by its first leg's shard, with a random UUIDv4 when no id is given."""
    made = tuple(Leg(name, effect, amount, CURRENCY) for name, effect, amount in legs)
    name = transaction_id or random_id()
    return Transaction(name, kind, _scope(legs), made, details, related_id, bound)


def transfer(
    payer: str,
    payee: str,
    amount: int,
    kind: Kind = Kind.TRANSFER,
    transaction_id: bytes | None = None,
    details: bytes = b"",
) -> Transaction:
    """A debit and a credit."""
    legs = [(payer, Effect.DEBIT, amount), (payee, Effect.CREDIT, amount)]
    return transaction(kind, legs, transaction_id, details=details)


def _scope(legs: Sequence[tuple[str, Effect, int]]) -> int:
    """The deciding slot: of the first account that is none of the system's."""
    return next(slot(name) for name, _, _ in legs if not name.startswith("@"))


def posted_bundle(rows: Sequence[Transaction]) -> bytes:
    """As one shard gets them that has all accounts."""
    return bundle_of([_owned(row, {}) for row in rows])


def attempt_id_now() -> bytes:
    """An id for an attempt that begins now."""
    return new_attempt_id(now_ms())


def attempts_at(
    rows: Sequence[Transaction], owner: Sequence[int], new_id: Callable[[], bytes] = attempt_id_now
) -> list[tuple[Attempt, list[int]]]:
    """New attempts at some transactions, and which of them each one has; ``owner`` by slot.

    Transactions of one deciding shard and the same participants share an attempt.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(shards_of(row, owner), []).append(number)
    found = []
    for (decider, *participants), numbers in groups.items():
        owners = {decider: 0} | {index: n for n, index in enumerate(participants, start=1)}
        by_account = {
            leg.account: owners[_place(leg.account, rows[number], owner)]
            for number in numbers
            for leg in rows[number].legs
        }
        bundle = bundle_of([_owned(rows[number], by_account) for number in numbers])
        found.append((Attempt(new_id(), decider, participants, bundle, len(numbers)), numbers))
    return found


def shards_of(row: Transaction, owner: Sequence[int]) -> tuple[int, ...]:
    """The deciding shard, then the others in order."""
    decider = owner[row.deciding_slot]
    others = {_place(leg.account, row, owner) for leg in row.legs} - {decider}
    return (decider, *sorted(others))


def _place(account: str, row: Transaction, owner: Sequence[int]) -> int:
    """System accounts are on every shard: that of the deciding one is meant."""
    return owner[row.deciding_slot if account.startswith("@") else slot(account)]


def _owned(row: Transaction, owners: dict[str, int]) -> Transaction:
    return replace(row, legs=tuple(replace(leg, owner=owners.get(leg.account, 0)) for leg in row.legs))
