"""From entries to balances: a pure, deterministic fold, and what it finds wrong on the way.

No I/O and no clock: whoever has the entries gets the same balances, for ever. Entries of one shard come
in the order in which it made them; those of several shards may be mixed in any way. What is kept is one
small record an account, an active hold and a transaction that is not complete yet, so memory does not
grow with history.

After a finding the fold goes on from what the entry says, so that one wrong row is one finding, not a
million.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from shard_node.contract import AccountState, Kind
from shard_node.ledger.proof.findings import Findings, Rule, id_text
from shard_node.ledger.store import SEQUENCE_BITS, SEQUENCE_MASK
from shard_node.limits import MAX_LEGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shard_node.ledger.store import Row

# Places in a row, which is a plain tuple here: naming them would cost as much as the fold.
ENTRY_ID, ACCOUNT_ID, VERSION, AT_MS, KIND, TRANSACTION_ID, FINGERPRINT, LEG, LEG_COUNT = range(9)
COUNTERPARTY, CURRENCY, DELTA, HELD_DELTA, BALANCE, RELATED_ID = range(9, 15)
REFERENCE, EXTERNAL_ID, INITIATED_BY, ATTRIBUTES = range(15, 19)

# Entries of accounts that moved between shards, read before those that come first. More than this is no
# move but a hole.
MAX_EARLY: Final = 100_000

# Neighbours: one comparison tells both.
_DEPOSIT, _WITHDRAWAL = int(Kind.DEPOSIT), int(Kind.WITHDRAWAL)
# What an account is after such an entry.
STATES: Final = {
    Kind.OPEN: AccountState.OPEN,
    Kind.FREEZE: AccountState.FROZEN,
    Kind.UNFREEZE: AccountState.OPEN,
    Kind.CLOSE: AccountState.CLOSED,
}


@dataclass(slots=True)
class Replayed:
    """An account as its entries make it. ``balance_minor`` is available and held together."""

    balance_minor: int
    held_minor: int
    version: int
    state: AccountState
    currency: str
    # The last entry's id, and its time.
    entry_id: int
    at_ms: int
    # JSON of the OPEN entry: the limits, in minor units. Empty for system accounts.
    attributes: str
    # For whoever compares: met among the live accounts.
    seen: bool = False

    @property
    def available_minor(self) -> int:
        """What is not held."""
        return self.balance_minor - self.held_minor


@dataclass(slots=True)
class OpenTransaction:
    """A transaction of which some legs are still to come."""

    key: bytes
    kind: int
    leg_count: int
    # By leg number.
    rows: dict[int, Row]

    @property
    def missing(self) -> list[int]:
        """The numbers of the legs that have not come."""
        return [leg for leg in range(self.leg_count) if leg not in self.rows]

    def sums(self) -> dict[str, int]:
        """By currency, what the legs that have come sum to, in minor units."""
        sums: dict[str, int] = {}
        for row in self.rows.values():
            sums[row[CURRENCY]] = sums.get(row[CURRENCY], 0) + row[DELTA]
        return sums


@dataclass(slots=True)
class CurrencyTotals:
    """Sums of one currency, in minor units (Python integers: these may pass 2^53)."""

    customers_minor: int = 0
    system_minor: int = 0
    # Taken from one account and not yet given to the other.
    in_flight_minor: int = 0
    deposits_minor: int = 0
    withdrawals_minor: int = 0
    accounts: int = 0

    @property
    def balanced(self) -> bool:
        """Whether customers' money and what is in flight are what came in less what went out."""
        inside = self.customers_minor + self.in_flight_minor
        return inside == self.deposits_minor - self.withdrawals_minor == -self.system_minor


@dataclass(slots=True)
class Fold:
    """Takes entries in, keeps balances. ``shard_ids`` by number, to name the rows in findings."""

    findings: Findings
    shard_ids: Mapping[int, str]
    accounts: dict[str, Replayed] = field(default_factory=dict)
    entries: int = 0
    # Two-legged transactions by id and fingerprint: the one leg that has come.
    _pairs: dict[bytes, Row] = field(default_factory=dict)
    _journals: dict[bytes, OpenTransaction] = field(default_factory=dict)
    # What is held by the hold of that transaction id on that account.
    _holds: dict[tuple[bytes, str], int] = field(default_factory=dict)
    _early: dict[str, dict[int, Row]] = field(default_factory=dict)
    _early_count: int = 0
    _deposits: dict[str, int] = field(default_factory=dict)
    _withdrawals: dict[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Fold({self.entries} entries, {len(self.accounts)} accounts, {self.open_count} open)"

    def apply(self, rows: Iterable[Row]) -> None:
        """Takes in entries, in the order of their shard."""
        accounts, pairs, early = self.accounts, self._pairs, self._early
        count = 0
        for row in rows:
            # fmt: off
            (entry_id, name, version, at_ms, kind, transaction_id, fingerprint, leg, leg_count, _,
             currency, delta, held_delta, balance, _, _, _, _, _) = row
            # fmt: on
            count += 1
            account = accounts.get(name)
            if account is None or version != account.version + 1 or transaction_id is None:
                self._unusual(row, account)
                continue
            if account.balance_minor + delta != balance or account.currency != currency:
                self._wrong_balance(row, account)
            account.balance_minor = balance
            account.version = version
            account.entry_id = entry_id
            account.at_ms = at_ms
            is_plain = not held_delta and leg_count == 2 and account.state is not AccountState.CLOSED
            if is_plain or self._is_half(row, account):
                key = transaction_id + fingerprint
                other = pairs.pop(key, None)
                if other is None:
                    pairs[key] = row
                elif (
                    other[DELTA] + delta
                    or other[LEG] == leg
                    or other[CURRENCY] != currency
                    or other[KIND] != kind
                ):
                    self._odd_pair(row, other)
            if _DEPOSIT <= kind <= _WITHDRAWAL and name[0] != "@":
                self._count_outside(kind, currency, delta)
            if early and name in early:
                self._continue_early(name)
        self.entries += count

    def finish(self) -> None:
        """Entries whose predecessors never came are holes; takes them in as they are."""
        for name in list(self._early):
            self._give_up(name)

    # ------------------------------------------------------------------ what came of it

    @property
    def open_count(self) -> int:
        """How many transactions are not complete."""
        return len(self._pairs) + len(self._journals)

    def open_transactions(self) -> list[OpenTransaction]:
        """Every transaction of which legs are still to come, the oldest first."""
        found = [
            OpenTransaction(key, row[KIND], row[LEG_COUNT], {row[LEG]: row})
            for key, row in self._pairs.items()
        ]
        found += self._journals.values()
        return sorted(found, key=lambda one: min(row[AT_MS] for row in one.rows.values()))

    def open_transaction(self, key: bytes) -> OpenTransaction | None:
        """The transaction of that id and fingerprint, if it is still not complete."""
        row = self._pairs.get(key)
        if row is not None:
            return OpenTransaction(key, row[KIND], row[LEG_COUNT], {row[LEG]: row})
        return self._journals.get(key)

    def totals(self) -> dict[str, CurrencyTotals]:
        """The sums of each currency."""
        totals: dict[str, CurrencyTotals] = {}
        for name, account in self.accounts.items():
            of = totals.setdefault(account.currency, CurrencyTotals())
            if name[0] == "@":
                of.system_minor += account.balance_minor
            else:
                of.customers_minor += account.balance_minor
                of.accounts += 1
        for row in self._pairs.values():
            totals.setdefault(row[CURRENCY], CurrencyTotals()).in_flight_minor -= row[DELTA]
        for journal in self._journals.values():
            for currency, total in journal.sums().items():
                totals.setdefault(currency, CurrencyTotals()).in_flight_minor -= total
        for currency, minor in self._deposits.items():
            totals.setdefault(currency, CurrencyTotals()).deposits_minor = minor
        for currency, minor in self._withdrawals.items():
            totals.setdefault(currency, CurrencyTotals()).withdrawals_minor = minor
        return totals

    # ------------------------------------------------------------------ the rarer rows

    def _unusual(self, row: Row, account: Replayed | None) -> None:
        """Entries without a transaction, first ones, and those that are not next."""
        name, version = row[ACCOUNT_ID], row[VERSION]
        if account is None:
            self._first(row)
        elif version <= account.version:
            rule = Rule.STATE if row[KIND] == Kind.OPEN else Rule.GAP
            self._find(rule, row, f"comes again: the account is at version {account.version} already")
            return
        elif version != account.version + 1:
            if row[ENTRY_ID] >> SEQUENCE_BITS != account.entry_id >> SEQUENCE_BITS or name in self._early:
                self._put_aside(row)
                return
            self._gap(row, account.version + 1)
            self._resume(row, account)
        else:
            self._change_state(row, account)
        if name in self._early and name in self.accounts:
            self._continue_early(name)

    def _first(self, row: Row) -> None:
        name, version, kind = row[ACCOUNT_ID], row[VERSION], row[KIND]
        if kind == Kind.OPEN and version == 0:
            if row[DELTA] or row[HELD_DELTA] or row[BALANCE]:
                self._find(Rule.BALANCE, row, "opens the account with money, not with zero")
            self.accounts[name] = self._begin(row, version, row[BALANCE])
        elif name[0] == "@" and version == 1:
            # A system account begins with its first use.
            self.accounts[name] = self._begin(row, 0, 0)
            self._take(row)
        else:
            self._put_aside(row)

    def _begin(self, row: Row, version: int, balance: int) -> Replayed:
        return Replayed(
            balance,
            0,
            version,
            AccountState.OPEN,
            sys.intern(row[CURRENCY]),
            row[ENTRY_ID],
            row[AT_MS],
            sys.intern(row[ATTRIBUTES]),
        )

    def _change_state(self, row: Row, account: Replayed) -> None:
        """FREEZE, UNFREEZE and CLOSE: the account's next entry, and no transaction."""
        kind, state = row[KIND], STATES.get(row[KIND])
        if state is None or kind == Kind.OPEN:
            self._find(Rule.STATE, row, f"has no transaction id, which kind {kind} must have")
        elif account.state is AccountState.CLOSED or (
            account.state is AccountState.FROZEN and kind == Kind.FREEZE
        ):
            self._find(Rule.STATE, row, f"is a {Kind(kind).name} of an account that is {account.state.name}")
        elif kind == Kind.CLOSE and (row[BALANCE] or account.held_minor):
            self._find(
                Rule.STATE,
                row,
                f"closes the account with a balance of {row[BALANCE]} and {account.held_minor} held",
            )
        if row[DELTA] or row[HELD_DELTA] or account.balance_minor != row[BALANCE]:
            self._wrong_balance(row, account)
        account.balance_minor, account.version = row[BALANCE], row[VERSION]
        account.entry_id, account.at_ms = row[ENTRY_ID], row[AT_MS]
        account.state = state if state is not None else account.state

    def _is_half(self, row: Row, account: Replayed) -> bool:
        """Takes in holds, their ends, journals, what comes after a close; whether it is one leg of two."""
        if account.state is AccountState.CLOSED:
            self._find(Rule.STATE, row, "comes after the account was closed")
        if row[HELD_DELTA]:
            self._move_held(row, account)
        if row[KIND] == Kind.EXPIRY or row[LEG_COUNT] == 1:
            if row[DELTA]:
                self._find(Rule.SUM, row, f"is a leg of its own and changes the balance by {row[DELTA]}")
            return False
        if row[LEG_COUNT] != 2:
            self._journal_leg(row)
            return False
        return True

    def _move_held(self, row: Row, account: Replayed) -> None:
        held_delta, name = row[HELD_DELTA], row[ACCOUNT_ID]
        if row[KIND] == Kind.HOLD:
            key = (row[TRANSACTION_ID], name)
            self._holds[key] = self._holds.get(key, 0) + held_delta
        else:
            # An expiry bears the id of its hold; a capture and a void refer to it.
            hold = row[TRANSACTION_ID] if row[KIND] == Kind.EXPIRY else row[RELATED_ID]
            reserved = self._holds.pop((hold, name), 0)
            if reserved != -held_delta:
                self._find(
                    Rule.BALANCE,
                    row,
                    f"changes what is held by {held_delta}, and hold {id_text(hold)} has {reserved}",
                )
        account.held_minor += held_delta
        if account.held_minor < 0:
            self._find(Rule.BALANCE, row, f"leaves {account.held_minor} held, less than nothing")

    def _odd_pair(self, row: Row, other: Row) -> None:
        if other[LEG] == row[LEG]:
            self._find(Rule.SUM, row, f"is leg {row[LEG]}, which was there before: {self.show(other)}")
            self._pairs[row[TRANSACTION_ID] + row[FINGERPRINT]] = other
        else:
            self._find(
                Rule.SUM,
                row,
                f"changes the balance by {row[DELTA]} {row[CURRENCY]} as {_kind_name(row[KIND])}, "
                f"its other half by {other[DELTA]} {other[CURRENCY]} as {_kind_name(other[KIND])}: "
                f"{self.show(other)}",
            )

    def _journal_leg(self, row: Row) -> None:
        key = row[TRANSACTION_ID] + row[FINGERPRINT]
        journal = self._journals.get(key)
        if not 2 <= row[LEG_COUNT] <= MAX_LEGS:
            self._find(Rule.SUM, row, f"is of a transaction of {row[LEG_COUNT]} legs, which cannot be")
            return
        if journal is None:
            journal = self._journals[key] = OpenTransaction(key, row[KIND], row[LEG_COUNT], {})
        before = journal.rows.get(row[LEG])
        if before is not None:
            self._find(Rule.SUM, row, f"is leg {row[LEG]}, which was there before: {self.show(before)}")
            return
        if not 0 <= row[LEG] < journal.leg_count or row[LEG_COUNT] != journal.leg_count:
            self._find(
                Rule.SUM, row, f"is leg {row[LEG]} of {row[LEG_COUNT]}, of a journal of {journal.leg_count}"
            )
            return
        journal.rows[row[LEG]] = row
        if len(journal.rows) == journal.leg_count:
            del self._journals[key]
            for currency, total in journal.sums().items():
                if total:
                    self._find(
                        Rule.SUM,
                        row,
                        f"completes a journal whose legs sum to {total} {currency}, not to zero",
                    )

    def _count_outside(self, kind: int, currency: str, delta: int) -> None:
        if kind == _DEPOSIT:
            self._deposits[currency] = self._deposits.get(currency, 0) + delta
        else:
            self._withdrawals[currency] = self._withdrawals.get(currency, 0) - delta

    # ------------------------------------------------------------------ order

    def _put_aside(self, row: Row) -> None:
        """Keeps an entry until those before it come: the account moved, from a shard that is read later."""
        name, version = row[ACCOUNT_ID], row[VERSION]
        waiting = self._early.setdefault(name, {})
        if version in waiting:
            self._find(Rule.GAP, row, f"comes again: {self.show(waiting[version])}")
            return
        waiting[version] = row
        self._early_count += 1
        if self._early_count > MAX_EARLY:
            self.finish()

    def _continue_early(self, name: str) -> None:
        """Takes in what waited for the entry just taken in."""
        waiting, account = self._early[name], self.accounts[name]
        rows: list[Row] = []
        while (row := waiting.pop(account.version + 1 + len(rows), None)) is not None:
            rows.append(row)
        if not waiting:
            del self._early[name]
        self._early_count -= len(rows)
        for row in rows:
            self._take(row)

    def _give_up(self, name: str) -> None:
        waiting = self._early.pop(name)
        self._early_count -= len(waiting)
        for version in sorted(waiting):
            row = waiting[version]
            account = self.accounts.get(name)
            if account is not None and version <= account.version:
                self._find(Rule.GAP, row, f"comes again: the account is at version {account.version} already")
            elif account is None or version != account.version + 1:
                self._gap(row, 0 if account is None else account.version + 1)
                if account is None:
                    self.accounts[name] = account = self._begin(row, version, row[BALANCE])
                self._resume(row, account)
            else:
                self._take(row)

    def _gap(self, row: Row, expected: int) -> None:
        missing = (
            f"version {expected}"
            if row[VERSION] == expected + 1
            else (f"versions {expected} to {row[VERSION] - 1}")
        )
        if expected == 0:
            missing += " (how it was opened)"
        self._find(Rule.GAP, row, f"comes without {missing} before it")

    def _resume(self, row: Row, account: Replayed) -> None:
        """Goes on after a hole from what the entry itself says."""
        account.version = row[VERSION] - 1
        account.balance_minor = row[BALANCE] - row[DELTA]
        self._take(row)

    def _take(self, row: Row) -> None:
        """Takes in one entry that is its account's next."""
        self.apply((row,))
        self.entries -= 1

    # ------------------------------------------------------------------ findings

    def _wrong_balance(self, row: Row, account: Replayed) -> None:
        if account.currency != row[CURRENCY]:
            self._find(Rule.BALANCE, row, f"is in {row[CURRENCY]}, the account in {account.currency}")
            return
        self._find(
            Rule.BALANCE,
            row,
            f"has a balance of {row[BALANCE]}; the one before, {account.balance_minor}, and its delta, "
            f"{row[DELTA]}, make {account.balance_minor + row[DELTA]}",
        )

    def _find(self, rule: Rule, row: Row, message: str) -> None:
        self.findings.add(
            rule,
            f"{self.show(row)} {message}",
            shard_id=self.shard_id(row),
            account_id=row[ACCOUNT_ID],
            transaction_id=row[TRANSACTION_ID],
        )

    def shard_id(self, row: Row) -> str:
        """The shard that made an entry."""
        number = row[ENTRY_ID] >> SEQUENCE_BITS
        return self.shard_ids.get(number, f"shard number {number}")

    def show(self, row: Row) -> str:
        """An entry in words that name the row."""
        return (
            f"entry {row[ENTRY_ID]} (number {row[ENTRY_ID] & SEQUENCE_MASK} of {self.shard_id(row)}, "
            f"{row[ACCOUNT_ID]} version {row[VERSION]})"
        )


def _kind_name(kind: int) -> str:
    return Kind(kind).name if kind in Kind.__members__.values() else f"kind {kind}"
