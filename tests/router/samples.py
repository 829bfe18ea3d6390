"""Requests that fit, for tests to spoil field by field."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TypeVar
from uuid import UUID

from router.requests.reader import RequestReader

from router.requests.fields import BadField
from shard_node.cluster.currencies import Exponents
from tests.exponents import EXPONENTS

T = TypeVar("T")

# What the readers of these tests take for now.
NOW_MS = 1_800_000_000_000

ID = "5f0c2a34-9d1b-4c7e-8a2f-6b3d9e014c57"
FIELDS = ("transaction_id", "from_account", "to_account", "amount", "currency", "reference")


@dataclass(slots=True)
class Asked:
    """A transfer as a request holds it; not frozen, because a message is not either."""

    transaction_id: str = ID
    from_account: str = "alice"
    to_account: str = "bob"
    amount: str = "12.50"
    currency: str = "EUR"
    reference: str = "invoice 7"
    validate_only: bool = False
    expected_version: int | None = None

    def HasField(self, field_name: str, /) -> bool:  # noqa: N802 -- protobuf's
        """Whether an optional field was given."""
        return getattr(self, field_name) is not None


def reader(now_ms: int = NOW_MS, exponents: Exponents = EXPONENTS) -> RequestReader:
    """A reader whose clock stands still."""
    return RequestReader(exponents, lambda: now_ms)


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
