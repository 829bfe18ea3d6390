"""An account's statement: what it had, each entry with the balance after it, what it had in the end.

Invariant: a statement adds up, or it is not shown. The balances are counted here, from the opening one and
the entries' changes, and compared with those that the ledger noted when the entries were made and with the
closing balance it gives; versions must follow one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from deploy.errors import DeployError
from tallystick.ledger import Entry


class StatementError(DeployError):
    """The ledger's own figures contradict each other: `tallystick audit` says where."""


_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Position:
    """How an account stood at a moment; ``version`` is that of its last entry."""

    balance: Decimal
    held: Decimal
    version: int

    @property
    def available(self) -> Decimal:
        """What could be spent, a credit line aside."""
        return self.balance - self.held


def unopened(account_id: str, zero: Decimal = _ZERO) -> Position:
    """How every account begins. A system account is never opened: its first entry has version 1."""
    return Position(zero, zero, 0 if account_id.startswith("@") else -1)


@dataclass(frozen=True, slots=True)
class Line:
    """An entry, and how the account stood after it."""

    entry: Entry
    after: Position


def statement_lines(
    account_id: str, opening: Position, entries: Iterable[Entry], closing: Position
) -> Iterator[Line]:
    """The entries, oldest first, each with the account as counted after it.

    Raises StatementError at the first that does not fit the one before it, and in the end when the last one
    is not what ``closing`` says.
    """
    now = opening
    for entry in entries:
        if entry.version != now.version + 1:
            raise StatementError(
                f"{account_id}: version {now.version} is followed by version {entry.version}; "
                f"'tallystick audit' checks the whole ledger"
            )
        now = Position(now.balance + entry.delta, now.held + entry.held_delta, entry.version)
        if now.balance != entry.balance:
            raise StatementError(
                f"{account_id}: the balance at version {entry.version} was noted as {entry.balance:f}, but "
                f"the entries up to it make {now.balance:f}; 'tallystick audit' checks the whole ledger"
            )
        yield Line(entry, now)
    if now != closing:
        raise StatementError(
            f"{account_id}: the entries end with {_told(now)}, but the ledger's closing balance is "
            f"{_told(closing)}; 'tallystick audit' checks the whole ledger"
        )


def _told(position: Position) -> str:
    return f"{position.balance:f}, {position.held:f} of it held, at version {position.version}"
