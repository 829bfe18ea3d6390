"""A plain Python model of one shard: what ``library.lua`` must do, said as simply as possible.

The library is tested against it call by call, and the exhaustive search walks over it. It keeps
every value unpacked, in dictionaries, and does one row after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from shard_node.calls import Call, Decide, Finish, Post, Prepare, Reply, Resolve, Settle
from shard_node.packing import id_times_ms
from shard_node.limits import MAX_MINOR, NO_BALANCE
from shard_node.outcomes import PAYEE, Outcome
from shard_node.records import Account, AccountState
from shard_node.transfers import Terms, decision_key, unpack_body

if TYPE_CHECKING:
    from collections.abc import Sequence

REFUSED_STATE = {
    AccountState.FROZEN: Outcome.ACCOUNT_FROZEN,
    AccountState.CLOSED: Outcome.ACCOUNT_CLOSED,
}


@dataclass(slots=True)
class Faults:
    """Rules the model breaks on purpose, to show that the search and the comparison notice."""

    # R1: a decide, post or resolve overwrites an outcome that is there.
    outcome_rewritten: bool = False
    # R3: COMMITTED is answered also after the transfer was settled.
    settled_forgotten: bool = False
    # R4: an applied leg is not remembered.
    applied_forgotten: bool = False


@dataclass(slots=True)
class ShardModel:
    """One shard. Money in minor units; keys as in :mod:`shard_node.transfers`."""

    accounts: dict[str, Account] = field(default_factory=dict)
    # decision key -> (outcome, transfer key)
    decided: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    decided_before: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    applied: set[bytes] = field(default_factory=set)
    applied_before: set[bytes] = field(default_factory=set)
    prepared: dict[bytes, bytes] = field(default_factory=dict)
    unsettled: dict[bytes, bytes] = field(default_factory=dict)
    # The sum of all that is prepared for each payee.
    incoming_minor: dict[str, int] = field(default_factory=dict)
    # UUIDv7 older than this are expired; newest seen in the current and the previous generation.
    horizon_ms: int = 0
    newest_ms: int = 0
    newest_before_ms: int = 0
    alarms: int = 0
    faults: Faults = field(default_factory=Faults)

    # ------------------------------------------------------------------ calls

    def call(self, call: Call) -> Reply:
        """Carries out one call."""
        remembered = len(self.decided)
        reply = self._call(call)
        if len(self.decided) > remembered:
            keys = call.keys if isinstance(call, Resolve) else call.transfers.keys  # type: ignore[union-attr]
            self.newest_ms = max(self.newest_ms, id_times_ms(keys)[1])
        return reply

    def _call(self, call: Call) -> Reply:
        match call:
            case Post():
                rows = [self._post(*row) for row in _rows(call.transfers.keys, call.transfers.bodies)]
                return Reply(*_columns(rows, 3))
            case Prepare():
                return Reply(
                    [self._prepare(*row) for row in _rows(call.transfers.keys, call.transfers.bodies)]
                )
            case Decide():
                decided = [
                    self._decide(key, body, verdict)
                    for key, body, verdict in zip(
                        call.transfers.keys, call.transfers.bodies, call.verdicts, strict=True
                    )
                ]
                for key in call.settled:
                    self.unsettled.pop(key, None)
                return Reply(*_columns(decided, 2))
            case Finish():
                finished = [
                    self._finish(key, verdict) for key, verdict in zip(call.keys, call.verdicts, strict=True)
                ]
                codes, balances = _columns(finished, 2)
                return Reply(codes, (), balances)
            case Settle():
                for key in call.keys:
                    self.unsettled.pop(key, None)
                return Reply(())
            case Resolve():
                return Reply([self._resolve(*row) for row in _rows(call.keys, call.bodies)])

    def open(self, account_id: str, currency: str, floor_minor: int) -> tuple[Outcome, Account]:
        """Opens an account, or finds it."""
        account = self.accounts.get(account_id)
        if account is None:
            account = Account(0, 0, 0, floor_minor, AccountState.OPEN, currency)
            self.accounts[account_id] = account
        elif (account.currency, account.floor_minor) != (currency, floor_minor):
            return Outcome.ACCOUNT_EXISTS, account
        return Outcome.COMMITTED, account

    def rotate(self) -> int:
        """Forgets the older generation, carries over what is unsettled."""
        carried = {}
        for key, body in self.unsettled.items():
            decision = decision_key(key, body)
            record = self._remembered(decision)
            if record is not None:
                carried[decision] = record
        self.decided_before, self.decided = self.decided, carried
        self.applied_before, self.applied = self.applied, set()
        self.horizon_ms = max(self.horizon_ms, self.newest_before_ms + 1)
        self.newest_before_ms, self.newest_ms = self.newest_ms, 0
        return len(carried)

    # ------------------------------------------------------------------ one row each

    def _post(self, key: bytes, body: bytes) -> tuple[int, int, int]:
        terms = unpack_body(body)
        prior = self._prior(key, body)
        if prior is not None:
            if prior == Outcome.COMMITTED and key in self.unsettled:
                # Committed across shards before the two came together: still on its way.
                prior = Outcome.OUTCOME_UNKNOWN
            return prior, NO_BALANCE, NO_BALANCE
        if self._expired(key):
            return Outcome.TRANSACTION_ID_EXPIRED, NO_BALANCE, NO_BALANCE
        refusal = self._credit_refusal(terms) or self._debit_refusal(terms)
        self._record(key, body, refusal or Outcome.COMMITTED)
        if refusal:
            return refusal, NO_BALANCE, NO_BALANCE
        payer = self._move(terms.payer, -terms.amount_minor)
        payee = self._move(terms.payee, terms.amount_minor)
        return Outcome.COMMITTED, payer, payee

    def _prepare(self, key: bytes, body: bytes) -> int:
        terms = unpack_body(body)
        if self._is_applied(key):
            return Outcome.APPLIED
        if key in self.prepared:
            return Outcome.PREPARED
        refusal = self._credit_refusal(terms)
        if refusal:
            return refusal
        self.prepared[key] = body
        self._expect(terms, terms.amount_minor)
        return Outcome.PREPARED

    def _decide(self, key: bytes, body: bytes, verdict: int) -> tuple[int, int]:
        terms = unpack_body(body)
        prior = self._prior(key, body)
        if prior is not None:
            return self._told(prior, key), NO_BALANCE
        if self._expired(key):
            return Outcome.TRANSACTION_ID_EXPIRED, NO_BALANCE
        refusal = verdict or self._debit_refusal(terms)
        self._record(key, body, refusal or Outcome.COMMITTED)
        if refusal:
            return refusal, NO_BALANCE
        self.unsettled[key] = body
        return Outcome.COMMITTED, self._move(terms.payer, -terms.amount_minor)

    def _finish(self, key: bytes, verdict: int) -> tuple[int, int]:
        body = self.prepared.pop(key, None)
        if body is not None:
            self._expect(unpack_body(body), -unpack_body(body).amount_minor)
        if verdict != Outcome.COMMITTED:
            return Outcome.DROPPED, NO_BALANCE
        if body is None:
            if self._is_applied(key):
                return Outcome.FINISHED, NO_BALANCE
            self.alarms += 1
            return Outcome.MISSING_LEG, NO_BALANCE
        if not self.faults.applied_forgotten:
            self.applied.add(key)
        terms = unpack_body(body)
        return Outcome.FINISHED, self._move(terms.payee, terms.amount_minor)

    def _resolve(self, key: bytes, body: bytes) -> int:
        prior = self._prior(key, body)
        if prior is not None:
            return self._told(prior, key)
        if self._expired(key):
            return Outcome.TRANSACTION_ID_EXPIRED
        self._record(key, body, Outcome.ABORTED)
        return Outcome.ABORTED

    # ------------------------------------------------------------------ outcomes

    def _remembered(self, decision: bytes) -> tuple[int, bytes] | None:
        return self.decided.get(decision) or self.decided_before.get(decision)

    def _prior(self, key: bytes, body: bytes) -> int | None:
        if self.faults.outcome_rewritten:
            return None
        record = self._remembered(decision_key(key, body))
        if record is None:
            return None
        return record[0] if record[1] == key else Outcome.TRANSACTION_ID_REUSED

    def _told(self, prior: int, key: bytes) -> int:
        if prior == Outcome.COMMITTED and key not in self.unsettled and not self.faults.settled_forgotten:
            return Outcome.SETTLED
        return prior

    def _record(self, key: bytes, body: bytes, outcome: int) -> None:
        self.decided[decision_key(key, body)] = (outcome, key)

    def _expired(self, key: bytes) -> bool:
        return key[6] >> 4 == 7 and int.from_bytes(key[:6]) < self.horizon_ms

    def _is_applied(self, key: bytes) -> bool:
        return key in self.applied or key in self.applied_before

    # ------------------------------------------------------------------ accounts

    def _expect(self, terms: Terms, change_minor: int) -> None:
        self.incoming_minor[terms.payee] = self.incoming_minor.get(terms.payee, 0) + change_minor

    def _account(self, account_id: str) -> Account | None:
        if account_id.startswith("@") and account_id not in self.accounts:
            return Account(0, 0, 0, -MAX_MINOR, AccountState.OPEN, account_id[-3:])
        return self.accounts.get(account_id)

    def _credit_refusal(self, terms: Terms) -> int:
        account = self._account(terms.payee)
        if account is None:
            return Outcome.ACCOUNT_NOT_FOUND + PAYEE
        if account.state in REFUSED_STATE:
            return REFUSED_STATE[account.state] + PAYEE
        if account.currency != terms.currency:
            return Outcome.CURRENCY_MISMATCH + PAYEE
        coming = self.incoming_minor.get(terms.payee, 0)
        balance = account.available_minor + account.held_minor + terms.amount_minor
        if max(coming + terms.amount_minor, balance + coming) > MAX_MINOR:
            return Outcome.BALANCE_LIMIT + PAYEE
        return 0

    def _debit_refusal(self, terms: Terms) -> int:
        account = self._account(terms.payer)
        if account is None:
            return Outcome.ACCOUNT_NOT_FOUND
        if account.state in REFUSED_STATE:
            return REFUSED_STATE[account.state]
        if account.currency != terms.currency:
            return Outcome.CURRENCY_MISMATCH
        if account.available_minor - terms.amount_minor < account.floor_minor:
            return Outcome.BALANCE_LIMIT if account.floor_minor == -MAX_MINOR else Outcome.INSUFFICIENT_FUNDS
        return 0

    def _move(self, account_id: str, delta_minor: int) -> int:
        account = self._account(account_id)
        assert account is not None
        moved = replace(
            account, available_minor=account.available_minor + delta_minor, version=account.version + 1
        )
        self.accounts[account_id] = moved
        return moved.available_minor


def _rows(keys: Sequence[bytes], bodies: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(keys, bodies, strict=True))


def _columns(rows: Sequence[tuple[int, ...]], width: int) -> list[list[int]]:
    return [[row[column] for row in rows] for column in range(width)]
