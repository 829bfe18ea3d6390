"""What one shard of the model holds: plain values in dictionaries, which can be frozen for a search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from shard_node.contract import SYSTEM_SLOT, AccountState, Bundle, Effect, Kind, Transaction
from shard_node.limits import MAX_MINOR
from tests.model.faults import Faults

_UUID_VERSION_7 = 7


class LedgerFullError(Exception):
    """Too many entries of the ledger wait to be archived: nothing new is begun."""


class MalformedError(ValueError):
    """A command that the engine refuses as malformed; nothing was changed."""


class Account(NamedTuple):
    """One account; a maximum of 0 for none. ``coming_minor`` is the sum of credits prepared for it."""

    available_minor: int
    held_minor: int
    coming_minor: int
    version: int
    minimum_minor: int
    maximum_balance_minor: int
    maximum_transfer_minor: int
    slot: int
    state: AccountState
    currency: str

    @classmethod
    def of_system(cls, account_id: str) -> Account:
        """A system account before its first use."""
        return cls(0, 0, 0, 0, -MAX_MINOR, 0, 0, SYSTEM_SLOT, AccountState.OPEN, account_id[-3:])


class Row(NamedTuple):
    """One transaction of a bundle, with what names it."""

    transaction: Transaction
    decision: bytes
    fingerprint: bytes


class Remembered(NamedTuple):
    """An outcome. ``attempt_id`` is the attempt that committed the transaction across shards, else ``b""``.

    ``names`` are payer and payee of a committed purchase.
    """

    code: int
    leg: int
    fingerprint: bytes
    attempt_id: bytes
    at_ms: int
    amount_minor: int
    currency: str
    names: tuple[str, ...] = ()


class Kept(NamedTuple):
    """An attempt as a participant keeps it. ``codes`` and ``legs`` have a byte a transaction."""

    decider: str
    owner: int
    bundle: bytes
    codes: bytes
    legs: bytes
    since_ms: int


class Committed(NamedTuple):
    """An attempt as its deciding shard keeps it until all participants have finished."""

    # Their names and whether each has finished; the first one has number 1.
    participants: tuple[tuple[str, bool], ...]
    bundle: bytes
    codes: bytes
    legs: bytes
    since_ms: int


class Hold(NamedTuple):
    """Money of one account that is held until captured, voided or over."""

    account: str
    amount_minor: int
    expires_ms: int
    transaction_id: bytes
    fingerprint: bytes
    # The attempt that will capture or void it, or b"".
    pinned_by: bytes = b""


class Entry(NamedTuple):
    """One entry of the ledger. Amounts in minor units.

    ``balance`` is available and held after, ``version`` the account's after.
    """

    account: str
    version: int
    kind: Kind
    transaction_id: bytes
    fingerprint: bytes
    leg: int
    delta: int
    held_delta: int
    balance: int


# Of a participant, then of a deciding shard.
ENDED, DECIDED, ABANDONED = "ended", "decided", "abandoned"


@dataclass(slots=True)
class Generation:
    """What is forgotten together. The times are those of the youngest id and the youngest attempt in it."""

    outcomes: dict[bytes, Remembered] = field(default_factory=dict)
    ended: dict[bytes, str] = field(default_factory=dict)
    newest_id_ms: int = 0
    newest_attempt_ms: int = 0

    def freeze(self) -> tuple[Any, ...]:
        """A hashable copy."""
        ended = frozenset(self.ended.items())
        return frozenset(self.outcomes.items()), ended, self.newest_id_ms, self.newest_attempt_ms

    @classmethod
    def thaw(cls, frozen: tuple[Any, ...]) -> Generation:
        """What :meth:`freeze` made a copy of."""
        outcomes, ended, newest_id_ms, newest_attempt_ms = frozen
        return cls(dict(outcomes), dict(ended), newest_id_ms, newest_attempt_ms)


# The fields that tell states of a search apart: by dictionary, and by plain value.
_TABLES = ("accounts", "attempts", "commits", "holds", "refunds", "applied")
_VALUES = ("now_ms", "rotated_ms", "horizon_ms", "attempt_horizon_ms", "alarms")

Frozen = tuple[Any, ...]


@dataclass(slots=True)
class State:
    """One shard. Money in minor units; ``now_ms`` is its clock, which the test sets."""

    now_ms: int = 0
    window_ms: int = MAX_MINOR
    accounts: dict[str, Account] = field(default_factory=dict)
    current: Generation = field(default_factory=Generation)
    previous: Generation = field(default_factory=Generation)
    # By attempt id.
    attempts: dict[bytes, Kept] = field(default_factory=dict)
    commits: dict[bytes, Committed] = field(default_factory=dict)
    # By the id of the hold's or purchase's transaction and the account's slot.
    holds: dict[bytes, Hold] = field(default_factory=dict)
    refunds: dict[bytes, int] = field(default_factory=dict)
    # Transaction ids, and attempts, that are older than these are expired.
    horizon_ms: int = 0
    attempt_horizon_ms: int = 0
    rotated_ms: int = 0
    archived_number: int = 0
    # When what the archive has last was appended.
    archived_ms: int = 0
    alarms: int = 0
    expired_finishes: int = 0
    # Only grows: whoever reads it remembers how far.
    ledger: list[Entry] = field(default_factory=list)
    backlog: int = 0
    backlog_limit: int = MAX_MINOR
    # How often the ledger has a leg: transaction id, fingerprint, number of the leg.
    applied: dict[tuple[bytes, bytes, int], int] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)

    def freeze(self) -> Frozen:
        """A hashable copy of all that later commands depend on, and of how often each leg was applied."""
        tables = [frozenset(getattr(self, name).items()) for name in _TABLES]
        values = [getattr(self, name) for name in _VALUES]
        return (*tables, self.current.freeze(), self.previous.freeze(), *values)

    def thaw(self, frozen: Frozen) -> None:
        """Becomes what :meth:`freeze` made a copy of; the ledger is empty then."""
        for name, table in zip(_TABLES, frozen, strict=False):
            setattr(self, name, dict(table))
        current, previous, *values = frozen[len(_TABLES) :]
        self.current, self.previous = Generation.thaw(current), Generation.thaw(previous)
        for name, value in zip(_VALUES, values, strict=True):
            setattr(self, name, value)

    def account(self, account_id: str) -> Account | None:
        """The account; a system account is there before its first use."""
        if account_id.startswith("@") and account_id not in self.accounts:
            return Account.of_system(account_id)
        return self.accounts.get(account_id)

    def known(self, account_id: str) -> Account:
        """An account that is there for sure."""
        account = self.account(account_id)
        assert account is not None
        return account

    def append(self, entry: Entry) -> None:
        """One more entry of the ledger."""
        self.ledger.append(entry)
        self.backlog += 1
        name = entry.transaction_id, entry.fingerprint, entry.leg
        self.applied[name] = self.applied.get(name, 0) + 1

    def begin_new(self) -> None:
        """Raises LedgerFullError when too much of the ledger waits."""
        if self.backlog >= self.backlog_limit and not self.faults.backlog_ignored:
            raise LedgerFullError


@lru_cache(maxsize=4096)
def rows_of(bundle: bytes) -> tuple[Row, ...]:
    """The transactions of a bundle. Raises MalformedError."""
    transactions = Bundle.unpack(bundle).transactions
    for one in transactions:
        if len({leg.account for leg in one.legs}) < len(one.legs):
            raise MalformedError("an account in two legs of one transaction")
        if any(sums_of(one).values()):
            raise MalformedError("a transaction whose legs do not sum to zero")
    return tuple(Row(one, one.decision, one.fingerprint) for one in transactions)


def sums_of(transaction: Transaction) -> dict[str, int]:
    """What a transaction adds to accounts in all, by currency, in minor units; zeros for one that may be."""
    sums: dict[str, int] = {}
    for leg in transaction.legs:
        sign = {Effect.CREDIT: 1, Effect.REFUND: 1, Effect.DEBIT: -1, Effect.CAPTURE: -1}.get(leg.effect, 0)
        sums[leg.currency] = sums.get(leg.currency, 0) + sign * leg.amount_minor
    return sums


def legs_of(row: Row, owner: int | None) -> list[int]:
    """Numbers of the legs that ``owner`` has, None for all, in the order in which they are checked.

    The first one is checked last, as it is across shards: so the refusal is the same wherever accounts are.
    """
    legs = row.transaction.legs
    return [n for n in (*range(1, len(legs)), 0) if owner is None or legs[n].owner == owner]


def id_ms(name: bytes) -> int:
    """The time in a UUIDv7; -1 for any other id."""
    return int.from_bytes(name[:6]) if name[6] >> 4 == _UUID_VERSION_7 else -1


def joined(codes: Sequence[int]) -> bytes:
    """A byte a transaction, or one when all are the same."""
    return bytes(codes[:1]) if len(set(codes)) == 1 else bytes(codes)


def spread(codes: bytes, count: int) -> bytes:
    """A byte a transaction, of codes that may be one for all."""
    if len(codes) not in {1, count}:
        raise MalformedError(f"{len(codes)} codes for {count} transactions")
    return codes * count if len(codes) == 1 else codes


def once(values: Iterable[Any]) -> list[Any]:
    """The values, each where it comes first."""
    return list(dict.fromkeys(values))
