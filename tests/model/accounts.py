"""The model's accounts: limits, states, what may be taken and given, and the ledger of all changes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from shard_node.contract.outcomes import Outcome
from shard_node.contract.records import Account, AccountState
from shard_node.contract.transfers import Kind
from shard_node.limits import MAX_MINOR
from tests.model.faults import Faults

REFUSED_STATE = {
    AccountState.FROZEN: Outcome.ACCOUNT_FROZEN,
    AccountState.CLOSED: Outcome.ACCOUNT_CLOSED,
}


class LedgerFullError(Exception):
    """Too many entries of the ledger wait to be archived: nothing new is begun."""


class Entry(NamedTuple):
    """One entry of the ledger. ``name`` is the transaction's key, with the leg's number where it has one.

    Amounts in minor units; ``balance`` is available and held after, ``version`` the account's after.
    """

    account: str
    version: int
    kind: Kind
    name: bytes
    delta: int
    held_delta: int
    balance: int


@dataclass(slots=True)
class Accounts:
    """One shard's accounts by id, and its ledger."""

    accounts: dict[str, Account] = field(default_factory=dict)
    # The sum of all credits that are prepared for each account.
    incoming_minor: dict[str, int] = field(default_factory=dict)
    # How often each account is named in what is prepared.
    in_use: dict[str, int] = field(default_factory=dict)
    # Only grows: whoever reads it remembers how far.
    ledger: list[Entry] = field(default_factory=list)
    backlog: int = 0
    backlog_limit: int = MAX_MINOR
    faults: Faults = field(default_factory=Faults)

    def open(
        self,
        account_id: str,
        currency: str,
        floor_minor: int,
        maximum_balance_minor: int = 0,
        maximum_transfer_minor: int = 0,
    ) -> tuple[Outcome, Account]:
        """Opens an account, or finds it."""
        self.begin_new()
        limits = (maximum_balance_minor, maximum_transfer_minor)
        account = self.accounts.get(account_id)
        if account is None:
            account = Account(0, 0, 0, floor_minor, AccountState.OPEN, currency, *limits)
            self.accounts[account_id] = account
            self.append(Entry(account_id, 0, Kind.OPEN, b"", 0, 0, 0))
            return Outcome.COMMITTED, account
        wanted = (currency, floor_minor, *limits)
        same = wanted == (
            account.currency,
            account.floor_minor,
            account.maximum_balance_minor,
            account.maximum_transfer_minor,
        )
        return Outcome.COMMITTED if same else Outcome.ACCOUNT_EXISTS, account

    def set_state(
        self, account_id: str, change: Kind, *, validate_only: bool = False
    ) -> tuple[Outcome, Account | None]:
        """Freezes, unfreezes or closes one account."""
        self.begin_new()
        account = self.account(account_id)
        refusal = self._state_refusal(account_id, change)
        if refusal is not None:
            return refusal, self.accounts.get(account_id)
        if validate_only:
            return Outcome.VALID, self.accounts.get(account_id)
        assert account is not None
        state = {
            Kind.FREEZE: AccountState.FROZEN,
            Kind.UNFREEZE: AccountState.OPEN,
            Kind.CLOSE: AccountState.CLOSED,
        }[change]
        if state != account.state:
            changed = replace(account, state=state, version=account.version + 1)
            self.accounts[account_id] = changed
            balance = changed.available_minor + changed.held_minor
            self.append(Entry(account_id, changed.version, change, b"", 0, 0, balance))
        return Outcome.COMMITTED, self.accounts.get(account_id)

    def _state_refusal(self, account_id: str, change: Kind) -> Outcome | None:
        account = self.account(account_id)
        if account is None:
            return Outcome.ACCOUNT_NOT_FOUND
        if account.state is AccountState.CLOSED:
            return None if change is Kind.CLOSE else Outcome.ACCOUNT_CLOSED
        if change is not Kind.CLOSE:
            return None
        if account.available_minor or account.held_minor:
            return Outcome.ACCOUNT_NOT_EMPTY
        if self.in_use.get(account_id) and not self.faults.closed_in_use:
            return Outcome.ACCOUNT_IN_USE
        return None

    def archived(self, entries: int) -> None:
        """So many more entries of the ledger are stored elsewhere."""
        self.backlog -= entries

    def begin_new(self) -> None:
        """Raises LedgerFullError when too much of the ledger waits."""
        if self.backlog >= self.backlog_limit and not self.faults.backlog_ignored:
            raise LedgerFullError

    # ------------------------------------------------------------------ for the parts that build on it

    def account(self, account_id: str) -> Account | None:
        """The account; a system account is there before its first use."""
        if account_id.startswith("@") and account_id not in self.accounts:
            return Account(0, 0, 0, -MAX_MINOR, AccountState.OPEN, account_id[-3:])
        return self.accounts.get(account_id)

    def credit_refusal(self, account_id: str, amount_minor: int, currency: str) -> int:
        """Why the account cannot take the amount, or 0."""
        account = self.account(account_id)
        if account is None:
            return Outcome.ACCOUNT_NOT_FOUND
        if account.state in REFUSED_STATE:
            return REFUSED_STATE[account.state]
        if account.currency != currency:
            return Outcome.CURRENCY_MISMATCH
        coming = self.incoming_minor.get(account_id, 0)
        balance = account.available_minor + account.held_minor + amount_minor
        if max(coming + amount_minor, balance + coming) > MAX_MINOR:
            return Outcome.BALANCE_LIMIT
        if self.faults.coming_ignored:
            coming = 0
        if 0 < account.maximum_balance_minor < balance + coming:
            return Outcome.BALANCE_LIMIT
        return 0

    def debit_refusal(self, account_id: str, amount_minor: int, currency: str) -> int:
        """Why the amount cannot be taken from the account, or 0."""
        account = self.account(account_id)
        if account is None:
            return Outcome.ACCOUNT_NOT_FOUND
        if account.state in REFUSED_STATE:
            return REFUSED_STATE[account.state]
        if 0 < account.maximum_transfer_minor < amount_minor:
            return Outcome.TRANSFER_LIMIT
        if account.currency != currency:
            return Outcome.CURRENCY_MISMATCH
        if account.available_minor - amount_minor < account.floor_minor:
            return Outcome.BALANCE_LIMIT if account.floor_minor == -MAX_MINOR else Outcome.INSUFFICIENT_FUNDS
        return 0

    def change(self, account_id: str, kind: Kind, name: bytes, delta: int, held_delta: int = 0) -> int:
        """Changes an account's balance and what is held of it, for the ledger; available after."""
        account = self.account(account_id)
        assert account is not None
        changed = replace(
            account,
            available_minor=account.available_minor + delta - held_delta,
            held_minor=account.held_minor + held_delta,
            version=account.version + 1,
        )
        self.accounts[account_id] = changed
        balance = changed.available_minor + changed.held_minor
        self.append(Entry(account_id, changed.version, kind, name, delta, held_delta, balance))
        return changed.available_minor

    def reserve(self, account_id: str, amount_minor: int) -> None:
        """Moves an amount from available to held, or back, which the ledger is not told of."""
        account = self.account(account_id)
        assert account is not None
        self.accounts[account_id] = replace(
            account,
            available_minor=account.available_minor - amount_minor,
            held_minor=account.held_minor + amount_minor,
        )

    def expect(self, account_id: str, amount_minor: int, *, more: bool) -> None:
        """Counts what is prepared for an account, or no longer; an amount below zero is not coming."""
        sign = 1 if more else -1
        coming = max(amount_minor, 0)
        self.incoming_minor[account_id] = self.incoming_minor.get(account_id, 0) + sign * coming
        self.in_use[account_id] = self.in_use.get(account_id, 0) + sign

    def append(self, entry: Entry) -> None:
        """One more entry of the ledger."""
        self.ledger.append(entry)
        self.backlog += 1
