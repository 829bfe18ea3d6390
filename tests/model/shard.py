"""The whole shard of the model: what is done beside transactions. Accounts, time, the archive, slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from shard_node.contract import NO_ID, SYSTEM_SLOT, AccountState, Kind, Outcome
from shard_node.contract.layout import ACCOUNT_RECORD, NO_ACCOUNT
from shard_node.limits import MAX_MINOR
from tests.model.protocol import Protocol
from tests.model.state import Account, Entry, Generation, Remembered, id_ms, legs_of, rows_of

_NO_NAME = NO_ID, bytes(8), 0
_STATE_AFTER = {
    Kind.FREEZE: AccountState.FROZEN,
    Kind.UNFREEZE: AccountState.OPEN,
    Kind.CLOSE: AccountState.CLOSED,
}


class InDoubt(NamedTuple):
    """An attempt or a commit that is not finished. ``names`` are the decider, or all participants."""

    what: str
    attempt_id: bytes
    since_ms: int
    names: tuple[str, ...]
    owner: int
    codes: bytes
    bundle: bytes


@dataclass(slots=True)
class EngineModel(Protocol):
    """One shard, as the engine must behave."""

    # ------------------------------------------------------------------ accounts

    def open(
        self,
        account_id: str,
        currency: str,
        slot: int,
        minimum_minor: int = 0,
        maximum_balance_minor: int = 0,
        maximum_transfer_minor: int = 0,
    ) -> tuple[Outcome, Account]:
        """Opens an account, or finds it. Raises LedgerFullError."""
        self.begin_new()
        limits = (minimum_minor, maximum_balance_minor, maximum_transfer_minor)
        account = self.accounts.get(account_id)
        if account is None:
            account = Account(0, 0, 0, 0, *limits, slot, AccountState.OPEN, currency)
            self.accounts[account_id] = account
            self.append(Entry(account_id, 0, Kind.OPEN, *_NO_NAME, 0, 0, 0))
            return Outcome.COMMITTED, account
        same = (*limits, currency) == (*account[4:7], account.currency)
        return Outcome.COMMITTED if same else Outcome.ACCOUNT_EXISTS, account

    def set_state(
        self, account_id: str, change: Kind, *, validate_only: bool = False
    ) -> tuple[Outcome, Account | None]:
        """Freezes, unfreezes or closes one account. Raises LedgerFullError."""
        self.begin_new()
        self.check_system(account_id)
        account = self.account(account_id)
        if account is None:
            return Outcome.ACCOUNT_NOT_FOUND, None
        refusal = self._state_refusal(account_id, account, change)
        if refusal:
            return Outcome(refusal), self.accounts.get(account_id)
        if validate_only:
            return Outcome.VALID, self.accounts.get(account_id)
        state = _STATE_AFTER[change]
        if state != account.state:
            self.accounts[account_id] = account._replace(state=state)
            self.change(account_id, change, _NO_NAME, 0)
        return Outcome.COMMITTED, self.accounts.get(account_id)

    def _state_refusal(self, account_id: str, account: Account, change: Kind) -> int:
        if account.state is AccountState.CLOSED:
            return 0 if change is Kind.CLOSE else Outcome.ACCOUNT_CLOSED
        if change is not Kind.CLOSE:
            return 0
        if account.available_minor or account.held_minor:
            return Outcome.ACCOUNT_NOT_EMPTY
        if self.is_in_use(account_id) and not self.faults.closed_in_use:
            return Outcome.ACCOUNT_IN_USE
        return 0

    def account_record(self, account_id: str) -> bytes:
        """An account as ``tallystick.accounts`` answers it."""
        account = self.accounts.get(account_id)
        if account is None:
            return ACCOUNT_RECORD.pack(*(0,) * 8, NO_ACCOUNT, b"\0\0\0")
        return ACCOUNT_RECORD.pack(
            account.available_minor,
            account.held_minor,
            account.version,
            account.minimum_minor,
            account.maximum_balance_minor,
            account.maximum_transfer_minor,
            self.reserved_minor(account_id),
            account.slot,
            account.state,
            account.currency.encode(),
        )

    def check(self, bundle: bytes, owner: int | None = None) -> bytes:
        """A code for each leg of the owner, None for all: 0 when it could be carried out now.

        Changes nothing. Legs are in the order of their transactions.
        """
        rows = self.rows_asked(bundle)
        return bytes(self.refusal(row, number) for row in rows for number in sorted(legs_of(row, owner)))

    # ------------------------------------------------------------------ what is remembered and in doubt

    def outcome(self, decision: bytes) -> Remembered | None:
        """What ``tallystick.outcomes`` answers of one decision."""
        return self.remembered(decision)

    def in_doubt(self) -> list[InDoubt]:
        """Attempts and commits that are not finished; each kind in the order in which they were made."""
        attempts = [
            InDoubt("attempt", name, kept.since_ms, (kept.decider,), kept.owner, kept.codes, kept.bundle)
            for name, kept in self.attempts.items()
        ]
        commits = [
            InDoubt(
                "commit",
                name,
                commit.since_ms,
                tuple(participant for participant, _ in commit.participants),
                0,
                commit.codes,
                commit.bundle,
            )
            for name, commit in self.commits.items()
        ]
        return [*attempts, *commits]

    # ------------------------------------------------------------------ time and the archive

    def expire(self, limit: int = MAX_MINOR) -> int:
        """Ends holds whose time is over, the longest overdue first; pinned ones wait. How many ended."""
        due = sorted(
            (hold.expires_ms, name)
            for name, hold in self.holds.items()
            if hold.expires_ms <= self.now_ms and (not hold.pinned_by or self.faults.pin_ignored_by_expiry)
        )
        for _, name in due[:limit]:
            hold = self.holds.pop(name)
            ended = hold.transaction_id, hold.fingerprint, 1
            self.change(hold.account, Kind.EXPIRY, ended, 0, -hold.amount_minor)
        return len(due[:limit])

    def archived(self, number: int, entries: int, at_ms: int) -> None:
        """Batch ``number`` is stored, of so many entries, the last one made at ``at_ms``. Again: nothing."""
        if number > self.archived_number:
            self.archived_number, self.archived_ms = number, at_ms
            self.backlog -= entries

    # ------------------------------------------------------------------ slots

    def is_drained(self, slot: int) -> bool:
        """Whether nothing in doubt is of the slot: no leg in a kept attempt, no transaction of a commit."""
        keeps = not self.faults.attempts_undrained and any(
            code == Outcome.PREPARED and self.known(row.transaction.legs[number].account).slot == slot
            for kept in self.attempts.values()
            for row, code in zip(rows_of(kept.bundle), kept.codes, strict=True)
            for number in legs_of(row, kept.owner)
        )
        committed = not self.faults.commits_undrained and any(
            code == Outcome.COMMITTED and row.transaction.deciding_slot == slot
            for commit in self.commits.values()
            for row, code in zip(rows_of(commit.bundle), commit.codes, strict=True)
        )
        return not (keeps or committed)

    def move_slot(self, slot: int, target: EngineModel) -> None:
        """Gives a slot with all that belongs to it to another shard. Attempts and commits stay."""
        assert slot != SYSTEM_SLOT
        for name in [name for name, account in self.accounts.items() if account.slot == slot]:
            target.accounts[name] = self.accounts.pop(name)
        of_slot = slot.to_bytes(2, "little")
        for hold in [name for name in self.holds if name.endswith(of_slot)]:
            target.holds[hold] = self.holds.pop(hold)
        for purchase in [name for name in self.refunds if name.endswith(of_slot)]:
            target.refunds[purchase] = self.refunds.pop(purchase)
        # All into the younger one: the target may forget its older one at once, and some of what the source
        # has in its older one may be young.
        for mine in (self.previous, self.current):
            theirs = target.previous if self.faults.moved_as_old and mine is self.previous else target.current
            _move_outcomes(mine, theirs, of_slot)
        # What was carried over is in both; where it comes to it is in the younger one alone.
        for decision in [one for one in target.previous.outcomes if one.endswith(of_slot)]:
            if decision in target.current.outcomes:
                del target.previous.outcomes[decision]
        if not self.faults.horizon_left_behind:
            target.horizon_ms = max(target.horizon_ms, self.horizon_ms)
        target.now_ms = max(target.now_ms, self.now_ms)


def _move_outcomes(mine: Generation, theirs: Generation, of_slot: bytes) -> None:
    for decision in [decision for decision in mine.outcomes if decision.endswith(of_slot)]:
        theirs.outcomes[decision] = mine.outcomes.pop(decision)
        theirs.newest_id_ms = max(theirs.newest_id_ms, id_ms(decision))
