"""Accounts as the shard engine is asked about them: lists of names with their columns, and its records."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from shard_node.contract.kinds import Kind
from shard_node.contract.layout import ACCOUNT_RECORD, LIST_HEAD, NO_ACCOUNT, AccountState


@dataclass(frozen=True, slots=True)
class AccountTerms:
    """An account to open. Limits are minor units; 0 for no maximum."""

    account: str
    slot: int
    currency: str
    minimum_minor: int = 0
    maximum_balance_minor: int = 0
    maximum_transfer_minor: int = 0


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """An account as the engine has it. Amounts are minor units; limits are 0 for none.

    ``reserved_minor`` is what prepared debits hold back, which is part of what is held.
    """

    available_minor: int
    held_minor: int
    version: int
    minimum_minor: int
    maximum_balance_minor: int
    maximum_transfer_minor: int
    reserved_minor: int
    slot: int
    state: AccountState
    currency: str

    @classmethod
    def unpack(cls, packed: bytes) -> AccountRecord | None:
        """None for an account that is not there."""
        *numbers, state, currency = ACCOUNT_RECORD.unpack(packed)
        if state == NO_ACCOUNT:
            return None
        fields = *numbers, AccountState(state), currency.decode()
        return cls(*fields)


def unpack_records(packed: bytes) -> list[AccountRecord | None]:
    """The records of a list of names, in its order; None for accounts that are not there."""
    size = ACCOUNT_RECORD.size
    return [AccountRecord.unpack(packed[at : at + size]) for at in range(0, len(packed), size)]


def pack_terms(accounts: Sequence[AccountTerms]) -> bytes:
    """What ``tallystick.open`` takes."""
    n = len(accounts)
    columns = (
        struct.pack(f"<{n}q", *(one.minimum_minor for one in accounts)),
        struct.pack(f"<{n}q", *(one.maximum_balance_minor for one in accounts)),
        struct.pack(f"<{n}q", *(one.maximum_transfer_minor for one in accounts)),
        struct.pack(f"<{n}H", *(one.slot for one in accounts)),
        b"".join(one.currency.encode() for one in accounts),
    )
    return _pack([one.account for one in accounts], b"".join(columns))


def pack_changes(changes: Sequence[tuple[str, Kind]]) -> bytes:
    """What ``tallystick.set_state`` takes: accounts, each with FREEZE, UNFREEZE or CLOSE."""
    return _pack([account for account, _ in changes], bytes(change for _, change in changes))


def pack_names(names: Sequence[str]) -> bytes:
    """What ``tallystick.accounts`` takes."""
    return _pack(names, b"")


def unpack_names(packed: bytes) -> list[str]:
    """The names in an answer of ``tallystick.names``: each a byte with its length, then the name."""
    names, at = [], 0
    while at < len(packed):
        end = at + 1 + packed[at]
        names.append(packed[at + 1 : end].decode())
        at = end
    return names


def _pack(names: Sequence[str], columns: bytes) -> bytes:
    texts = [name.encode() for name in names]
    return b"".join([LIST_HEAD.pack(len(texts)), columns, bytes(map(len, texts)), *texts])
