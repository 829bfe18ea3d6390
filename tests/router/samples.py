"""Requests that fit, for tests to spoil field by field."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar
from uuid import UUID

from router.requests.fields import BadField, FieldReader
from router.requests.transaction_reader import TransactionReader
from shard_node.cluster.currencies import Exponents
from tallystick.v1 import wallet_pb2
from tests.exponents import EXPONENTS

T = TypeVar("T")

# What the readers of these tests take for now.
NOW_MS = 1_800_000_000_000

ID = "5f0c2a34-9d1b-4c7e-8a2f-6b3d9e014c57"
# The fields of a transfer, in the order of the message.
GOOD = {
    "transaction_id": ID,
    "from_account": "alice",
    "to_account": "bob",
    "amount": "12.50",
    "currency": "EUR",
    "reference": "invoice 7",
}
FIELDS = tuple(GOOD)


def asked(**fields: Any) -> wallet_pb2.TransferRequest:
    """A transfer of alice's to bob, but for these fields."""
    return wallet_pb2.TransferRequest(**GOOD | fields)


def reader(now_ms: int = NOW_MS, exponents: Exponents = EXPONENTS) -> FieldReader:
    """A reader of fields whose clock stands still."""
    return FieldReader(exponents, lambda: now_ms)


def transactions() -> TransactionReader:
    """A reader of requests by :func:`reader`."""
    return TransactionReader(reader())


def attempt(read: Callable[[], T]) -> T | BadField:
    """What was read, or why it was refused; any other error passes through."""
    try:
        return read()
    except BadField as bad:
        return bad


def uuid7(time_ms: int, seed: int = 0) -> str:
    """A UUIDv7 of that time (RFC 9562, 5.7), the same for the same seed."""
    random = Random(seed).getrandbits(74)
    version, variant = 7, 2
    value = (time_ms << 80) | (version << 76) | ((random >> 62) << 64) | (variant << 62)
    return str(UUID(int=value | (random & (2**62 - 1))))


def wall_ms() -> int:
    """Now, for ids that a running cluster is to take."""
    return time.time_ns() // 1_000_000
