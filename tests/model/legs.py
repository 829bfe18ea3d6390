"""One leg of a transaction in the model: why it is refused, reserving it, letting it go, carrying it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shard_node.contract import NO_VERSION, AccountState, Effect, Kind, Leg, Other, Outcome
from shard_node.limits import MAX_MINOR
from tests.model.state import Account, Entry, Hold, Row, State, legs_of, rows_of

_REFUSED_STATE = {
    AccountState.FROZEN: Outcome.ACCOUNT_FROZEN,
    AccountState.CLOSED: Outcome.ACCOUNT_CLOSED,
}
# R9: refusals that what another attempt reserves may have caused.
_MAY_BE_RESERVED = frozenset(
    (
        Outcome.INSUFFICIENT_FUNDS,
        Outcome.BALANCE_LIMIT,
        Outcome.REFUND_EXCEEDS_PURCHASE,
        Outcome.HOLD_NOT_ACTIVE,
    )
)
TAKING = frozenset((Effect.DEBIT, Effect.HOLD))
ADDING = frozenset((Effect.CREDIT, Effect.REFUND))
ENDING = frozenset((Effect.CAPTURE, Effect.VOID))


class Judgement(NamedTuple):
    """Whether legs can be carried out: 0, a refusal of leg ``leg``, or BUSY for the sake of ``other``."""

    code: int
    leg: int = 0
    other: Other | None = None


@dataclass(slots=True)
class Legs(State):
    """Legs of transactions, one at a time."""

    def judge(
        self, row: Row, numbers: Sequence[int], attempt_id: bytes = b"", *, reserving: bool = True
    ) -> Judgement:
        """Whether these legs can be carried out, by the attempt or by a post. The first refusal counts.

        ``reserving``: a debit may be kept before it is carried out.
        """
        for number in numbers:
            code = self.refusal(row, number, reserving=reserving)
            if code == Outcome.BUSY:
                pinned_by = self.holds[self.condition(row, row.transaction.legs[number])].pinned_by
                return Judgement(code, 0, self._other(pinned_by))
            if code in _MAY_BE_RESERVED and (earlier := self._kept_before(row, attempt_id)):
                return Judgement(Outcome.BUSY, 0, self._other(earlier))
            if code:
                return Judgement(code, 0 if self.faults.leg_forgotten else number)
        return Judgement(0)

    def _other(self, attempt_id: bytes) -> Other | None:
        """The attempt as it is named to another; None for the very one that is being prepared."""
        kept = self.attempts.get(attempt_id)
        return Other(attempt_id, kept.decider) if kept else None

    def _kept_before(self, row: Row, attempt_id: bytes) -> bytes:
        """R9: another attempt that keeps the transaction prepared: that with the lowest id, or ``b""``."""
        if self.faults.busy_ignored:
            return b""
        found = (
            name
            for name, kept in self.attempts.items()
            if name != attempt_id
            for other, code in zip(rows_of(kept.bundle), kept.codes, strict=True)
            if code == Outcome.PREPARED and other.decision == row.decision
        )
        return min(found, default=b"")

    # ------------------------------------------------------------------ refusals

    def refusal(self, row: Row, number: int, *, reserving: bool = True) -> int:
        """Why one leg cannot be carried out, BUSY when its hold is pinned, or 0."""
        leg = row.transaction.legs[number]
        account = self.account(leg.account)
        if account is None:
            return Outcome.ACCOUNT_NOT_FOUND
        # What a frozen account has reserved may be set free, not spent.
        if account.state in _REFUSED_STATE and leg.effect is not Effect.VOID:
            return _REFUSED_STATE[account.state]
        if leg.expected_version not in {NO_VERSION, account.version} and not self.faults.version_ignored:
            return Outcome.VERSION_MISMATCH
        if leg.effect in ADDING:
            return self._adding_refusal(row, leg, account)
        if leg.effect in ENDING:
            return self._ending_refusal(row, leg, account)
        if leg.effect is Effect.HOLD and self.condition(row, leg) in self.holds:
            # Only where the memory of the id was shorter than the hold's life.
            return Outcome.TRANSACTION_ID_EXPIRED
        return self._taking_refusal(leg, account, reserving=reserving or leg.effect is Effect.HOLD)

    def _adding_refusal(self, row: Row, leg: Leg, account: Account) -> int:
        if account.currency != leg.currency:
            return Outcome.CURRENCY_MISMATCH
        coming = account.coming_minor + leg.amount_minor
        if max(coming, account.available_minor + account.held_minor + coming) > MAX_MINOR:
            return Outcome.BALANCE_LIMIT
        if self.faults.coming_ignored:
            coming = leg.amount_minor
        balance = account.available_minor + account.held_minor + coming
        if 0 < account.maximum_balance_minor < balance:
            return Outcome.BALANCE_LIMIT
        if leg.effect is Effect.REFUND:
            refunded = self.refunds.get(self.condition(row, leg), 0) + leg.amount_minor
            if refunded > row.transaction.bound:
                return Outcome.REFUND_EXCEEDS_PURCHASE
        return 0

    @staticmethod
    def _taking_refusal(leg: Leg, account: Account, *, reserving: bool) -> int:
        if 0 < account.maximum_transfer_minor < leg.amount_minor:
            return Outcome.TRANSFER_LIMIT
        if account.currency != leg.currency:
            return Outcome.CURRENCY_MISMATCH
        minimum = account.minimum_minor
        if account.available_minor - leg.amount_minor < minimum:
            return Outcome.BALANCE_LIMIT if minimum == -MAX_MINOR else Outcome.INSUFFICIENT_FUNDS
        if reserving and account.held_minor + leg.amount_minor > MAX_MINOR:
            return Outcome.BALANCE_LIMIT
        return 0

    def _ending_refusal(self, row: Row, leg: Leg, account: Account) -> int:
        hold = self.holds.get(self.condition(row, leg))
        if hold is None or hold.account != leg.account:
            return Outcome.HOLD_NOT_ACTIVE
        if hold.pinned_by and not self.faults.pin_ignored:
            return Outcome.BUSY
        if self.now_ms >= hold.expires_ms and not self.faults.expiry_ignored:
            return Outcome.HOLD_NOT_ACTIVE
        if leg.effect is Effect.CAPTURE and account.currency != leg.currency:
            return Outcome.CURRENCY_MISMATCH
        if leg.effect is Effect.CAPTURE and leg.amount_minor > hold.amount_minor:
            return Outcome.CAPTURE_EXCEEDS_HOLD
        return 0

    def condition(self, row: Row, leg: Leg) -> bytes:
        """The name of a leg's hold or purchase: an id and the slot of the leg's account."""
        transaction = row.transaction
        name = transaction.transaction_id if leg.effect is Effect.HOLD else transaction.related_id
        return name + self.known(leg.account).slot.to_bytes(2, "little")

    # ------------------------------------------------------------------ what is prepared

    def reserve(self, row: Row, number: int, attempt_id: bytes) -> None:
        """Keeps a leg for an attempt: versions and the ledger do not know of it."""
        leg = row.transaction.legs[number]
        if leg.effect in ENDING:
            self._pin(self.condition(row, leg), attempt_id)
        elif leg.effect in TAKING:
            self._hold_back(leg.account, 0 if self.faults.debit_unreserved else leg.amount_minor)
        else:
            self._expect(leg.account, leg.amount_minor)
            if leg.effect is Effect.REFUND and not self.faults.refund_uncounted:
                self._refund(self.condition(row, leg), leg.amount_minor)

    def release(self, row: Row, number: int, *, dropped: bool) -> None:
        """Undoes :meth:`reserve`, before the leg is carried out or because it is dropped."""
        leg, faults = row.transaction.legs[number], self.faults
        if leg.effect in ENDING:
            if not (dropped and faults.pin_kept):
                self._pin(self.condition(row, leg), b"")
        elif leg.effect in TAKING:
            if not (faults.debit_unreserved or (dropped and faults.debit_kept)):
                self._hold_back(leg.account, -leg.amount_minor)
        else:
            if not (dropped and faults.credit_kept):
                self._expect(leg.account, -leg.amount_minor)
            if leg.effect is Effect.REFUND and not (
                faults.refund_uncounted or (dropped and faults.refund_kept)
            ):
                self._refund(self.condition(row, leg), -leg.amount_minor)

    def _pin(self, name: bytes, attempt_id: bytes) -> None:
        # Only where a rule is broken is the hold gone.
        if name in self.holds:
            self.holds[name] = self.holds[name]._replace(pinned_by=attempt_id)

    def _hold_back(self, account_id: str, amount_minor: int) -> None:
        account = self.known(account_id)
        self.accounts[account_id] = account._replace(
            available_minor=account.available_minor - amount_minor,
            held_minor=account.held_minor + amount_minor,
        )

    def _expect(self, account_id: str, amount_minor: int) -> None:
        account = self.known(account_id)
        self.accounts[account_id] = account._replace(coming_minor=account.coming_minor + amount_minor)

    def _refund(self, name: bytes, change_minor: int) -> None:
        refunded = self.refunds.pop(name, 0) + change_minor
        if refunded:
            self.refunds[name] = refunded

    def reserved_minor(self, account_id: str) -> int:
        """What is held of an account only because debits and holds are prepared."""
        return sum(leg.amount_minor for leg in self._prepared(lambda leg: leg.effect in TAKING, account_id))

    def is_in_use(self, account_id: str) -> bool:
        """Whether a leg of the account is prepared."""
        return bool(self._prepared(lambda _: True, account_id))

    def _prepared(self, wanted: Callable[[Leg], bool], account_id: str) -> list[Leg]:
        return [
            leg
            for kept in self.attempts.values()
            for row, code in zip(rows_of(kept.bundle), kept.codes, strict=True)
            if code == Outcome.PREPARED
            for leg in (row.transaction.legs[number] for number in legs_of(row, kept.owner))
            if leg.account == account_id and wanted(leg)
        ]

    # ------------------------------------------------------------------ what is carried out

    def carry_out(self, row: Row, number: int) -> int:
        """Applies a leg that was not refused; what the account has available then."""
        leg, transaction = row.transaction.legs[number], row.transaction
        delta, held_delta = 0, 0
        match leg.effect:
            case Effect.CREDIT | Effect.REFUND:
                delta = leg.amount_minor
                if leg.effect is Effect.REFUND:
                    self._refund(self.condition(row, leg), leg.amount_minor)
            case Effect.DEBIT:
                delta = -leg.amount_minor
            case Effect.HOLD:
                held_delta = leg.amount_minor
                expires_ms = self.now_ms + transaction.bound
                hold = Hold(
                    leg.account, leg.amount_minor, expires_ms, transaction.transaction_id, row.fingerprint
                )
                self.holds[self.condition(row, leg)] = hold
            case Effect.CAPTURE | Effect.VOID:
                delta, held_delta = -leg.amount_minor, -self._end_hold(row, leg)
        name = transaction.transaction_id, row.fingerprint, number
        return self.change(leg.account, transaction.kind, name, delta, held_delta)

    def _end_hold(self, row: Row, leg: Leg) -> int:
        """Ends the hold of a capture or void; how much of what is held this sets free or takes."""
        name, capture = self.condition(row, leg), leg.effect is Effect.CAPTURE
        # Only where a rule is broken is the hold gone.
        hold = self.holds.get(name)
        if hold is not None and not (capture and self.faults.hold_kept):
            del self.holds[name]
        if hold is None or (capture and self.faults.rest_kept):
            return leg.amount_minor
        return hold.amount_minor

    def change(
        self, account_id: str, kind: Kind, name: tuple[bytes, bytes, int], delta: int, held_delta: int = 0
    ) -> int:
        """Changes an account's balance and what is held of it, for the ledger; available after.

        ``name`` is the transaction's id, its fingerprint and the number of the leg.
        """
        account = self.known(account_id)
        changed = account._replace(
            available_minor=account.available_minor + delta - held_delta,
            held_minor=account.held_minor + held_delta,
            version=account.version + 1,
        )
        self.accounts[account_id] = changed
        balance = changed.available_minor + changed.held_minor
        self.append(Entry(account_id, changed.version, kind, *name, delta, held_delta, balance))
        return changed.available_minor
