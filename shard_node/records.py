"""Packed values as they lie in Redis, read here and written by ``library.lua``.

| key | field | value |
|---|---|---|
| accounts | account id | available q, held q, version q, floor q, state B, currency 3s |
| done:current, done:previous | id 16, payer slot H | outcome B, time 6, fingerprint 8, amount q, code 3s |
| done:current, done:previous | id 16, fingerprint 8 | payee slot H: this leg was applied here |
| prepared, unsettled | id 16, fingerprint 8 | time 6, body of the transfer |

Integers are little-endian; times are milliseconds since 1970 by the shard's clock.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from shard_node.outcomes import Outcome, without_side
from shard_node.transfers import Terms, unpack_body

_ACCOUNT = struct.Struct("<qqqqB3s")
_OUTCOME_TAIL = struct.Struct("<8sq3s")
_TIME_BYTES = 6


class AccountState(IntEnum):
    """Whether an account takes part in transfers."""

    OPEN = 0
    FROZEN = 1
    CLOSED = 2


@dataclass(frozen=True, slots=True)
class Account:
    """One account's record; balances in minor units of ``currency``."""

    available_minor: int
    held_minor: int
    version: int
    floor_minor: int
    state: AccountState
    currency: str

    @classmethod
    def unpack(cls, record: bytes) -> Account:
        """The account that a packed record holds."""
        available, held, version, floor, state, currency = _ACCOUNT.unpack(record)
        return cls(available, held, version, floor, AccountState(state), currency.decode())

    def pack(self) -> bytes:
        """The record as the shard keeps it."""
        return _ACCOUNT.pack(
            self.available_minor,
            self.held_minor,
            self.version,
            self.floor_minor,
            self.state,
            self.currency.encode(),
        )


@dataclass(frozen=True, slots=True)
class RememberedOutcome:
    """What the deciding shard remembers of a transfer."""

    outcome: Outcome
    decided_at_ms: int
    amount_minor: int
    currency: str

    @classmethod
    def unpack(cls, record: bytes) -> RememberedOutcome:
        """The outcome that a packed record holds."""
        _, amount, currency = _OUTCOME_TAIL.unpack_from(record, 1 + _TIME_BYTES)
        return cls(
            Outcome(without_side(record[0])),
            int.from_bytes(record[1 : 1 + _TIME_BYTES], "little"),
            amount,
            currency.decode(),
        )


@dataclass(frozen=True, slots=True)
class PendingTransfer:
    """An entry of ``prepared`` or ``unsettled``."""

    key: bytes
    since_ms: int
    body: bytes

    @classmethod
    def unpack(cls, key: bytes, value: bytes) -> PendingTransfer:
        """The entry under ``key``."""
        return cls(key, cls.time_ms(value), value[_TIME_BYTES:])

    @staticmethod
    def time_ms(value: bytes) -> int:
        """When the entry of that value was made."""
        return int.from_bytes(value[:_TIME_BYTES], "little")

    @property
    def terms(self) -> Terms:
        """The transfer's terms."""
        return unpack_body(self.body)
