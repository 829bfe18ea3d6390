"""The model's half of journals: any number of legs, holds, refunds. And the whole shard put together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, overload

from shard_node.contract.calls import Call, Decide, Post, Prepare, Reply, ResolveAttempts
from shard_node.contract.journal_calls import (
    DecideJournals,
    FinishLegs,
    JournalCall,
    JournalReply,
    LegCheck,
    PostJournals,
    PrepareLegs,
    ResolveJournals,
    Settle,
)
from shard_node.contract.journals import Effect, Journal, Leg, LegBody
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transfers import Kind, decision_key
from shard_node.limits import MAX_MINOR, NO_BALANCE
from tests.model.accounts import REFUSED_STATE
from tests.model.transfers import Transfers, columns, keys_of

# What begins something new, and is refused while too much of the ledger waits.
_NEW = (Post, Prepare, Decide, PostJournals, PrepareLegs, DecideJournals)


class Hold(NamedTuple):
    """Money of one account that is held until captured, voided or over. ``key`` is its journal's."""

    account: str
    amount_minor: int
    expires_ms: int
    key: bytes


class _LegAsked(NamedTuple):
    """One leg with all it depends on. ``condition`` names the hold or purchase: an id and the leg's slot."""

    account: str
    effect: Effect
    amount_minor: int
    currency: str
    condition: bytes
    bound: int

    @classmethod
    def of(cls, journal: Journal, leg: Leg, key: bytes) -> _LegAsked:
        related = key[:16] if leg.effect is Effect.HOLD else journal.related_id
        condition = related + leg.slot.to_bytes(2, "little")
        return cls(leg.account, leg.effect, leg.amount_minor, leg.currency, condition, journal.bound)


@dataclass(slots=True)
class ShardModel(Transfers):
    """One shard. Money in minor units; ``now_ms`` is its clock, which the test sets."""

    now_ms: int = 0
    # By the id of the hold's transaction and its account's slot.
    holds: dict[bytes, Hold] = field(default_factory=dict)
    # What was refunded, by the purchase's id and the customer's slot; prepared refunds count.
    refunds: dict[bytes, int] = field(default_factory=dict)

    @overload
    def call(self, call: Call) -> Reply: ...
    @overload
    def call(self, call: JournalCall) -> JournalReply: ...
    def call(self, call: Call | JournalCall) -> Reply | JournalReply:
        """Carries out one call. Raises LedgerFullError."""
        if isinstance(call, _NEW):
            self.begin_new()
        remembered = len(self.decided)
        reply: Reply | JournalReply = (
            self._journal_call(call) if isinstance(call, JournalCall) else self.transfer_call(call)
        )
        if len(self.decided) > remembered:
            match call:
                case Post():
                    self.saw(keys_of(call.bundle))
                case Decide():
                    self.saw([key for attempt in call.attempts for key in keys_of(attempt.bundle)])
                case ResolveAttempts():
                    self.saw(call.decisions)
                case PostJournals() | DecideJournals():
                    self.saw(call.batch.keys)
                case ResolveJournals():
                    self.saw(call.keys)
        return reply

    def _journal_call(self, call: JournalCall) -> JournalReply:
        match call:
            case PostJournals():
                batch = call.batch
                posted = [
                    self._post_journal(*row)
                    for row in zip(batch.keys, batch.bodies, batch.journals, strict=True)
                ]
                every_leg = [balance for _, _, balances in posted for balance in balances]
                return JournalReply([row[0] for row in posted], [row[1] for row in posted], every_leg)
            case PrepareLegs():
                return JournalReply(
                    [
                        self._prepare_leg(ref.key, ref.body, _LegAsked.of(ref.journal, ref.leg, ref.key))
                        for ref in call.legs
                    ]
                )
            case DecideJournals():
                batch, verdicts = call.batch, zip(call.verdicts, call.refused_legs, strict=True)
                decided = [
                    self._decide_journal(key, body, journal, verdict)
                    for key, body, journal, verdict in zip(
                        batch.keys, batch.bodies, batch.journals, verdicts, strict=True
                    )
                ]
                for key in call.settled:
                    self.settle(key)
                return JournalReply(*columns(decided, 3))
            case FinishLegs():
                finished = [self._finish_leg(*row) for row in zip(call.keys, call.verdicts, strict=True)]
                codes, balances = columns(finished, 2)
                return JournalReply(codes, (), balances)
            case Settle():
                for key in call.keys:
                    self.settle(key)
                return JournalReply(())
            case ResolveJournals():
                slots = [slot.to_bytes(2, "little") for slot in call.deciding_slots]
                rows = zip(call.keys, slots, strict=True)
                return JournalReply([self.resolve(key[:16] + slot, key) for key, slot in rows])

    def check(self, leg: LegCheck) -> int:
        """0 when the leg could be carried out now, else why not."""
        return self._leg_refusal(
            _LegAsked(leg.account, leg.effect, leg.amount_minor, leg.currency, leg.related_key, leg.bound)
        )

    def snapshot(self, account_id: str) -> int:
        """What is held of an account only because debits of journals are prepared."""
        legs = [LegBody.unpack(body) for key, body in self.prepared.items() if len(key) > 24]
        return -sum(leg.amount_minor for leg in legs if leg.account == account_id and leg.amount_minor < 0)

    def expire(self, limit: int) -> int:
        """Ends holds whose time is over, the longest overdue first."""
        due = sorted((h.expires_ms, name) for name, h in self.holds.items() if h.expires_ms <= self.now_ms)
        for _, name in due[:limit]:
            hold = self.holds.pop(name)
            self.change(hold.account, Kind.EXPIRY, hold.key + b"\1\0", 0, -hold.amount_minor)
        return len(due[:limit])

    # ------------------------------------------------------------------ one journal, one leg

    def _post_journal(self, key: bytes, body: bytes, journal: Journal) -> tuple[int, int, list[int]]:
        decision, unknown = decision_key(key, body), [NO_BALANCE] * len(journal.legs)
        prior = self.prior(decision, key)
        if prior is not None:
            return self.posted(prior[0], key), prior[1], unknown
        if self.expired(key):
            return Outcome.TRANSACTION_ID_EXPIRED, 0, unknown
        legs = [_LegAsked.of(journal, leg, key) for leg in journal.legs]
        # The deciding leg comes last, as across shards.
        order = [*range(1, len(legs)), 0]
        refusals = [(code, number) for number in order if (code := self._leg_refusal(legs[number]))]
        code, refused_leg = refusals[0] if refusals else (Outcome.COMMITTED, 0)
        if refusals and any(key + n.to_bytes(2, "little") in self.prepared for n in order[:-1]):
            # By an earlier try, across shards: what is in the way may be its own.
            return Outcome.OUTCOME_UNKNOWN, refused_leg, unknown
        self.record(decision, key, code, refused_leg)
        if refusals:
            if self.faults.half_posted and refused_leg and not self._leg_refusal(legs[0]):
                self._apply(legs[0], journal.kind, key, 0)
            return code, refused_leg, unknown
        balances = [self._apply(leg, journal.kind, key, number) for number, leg in enumerate(legs)]
        return code, 0, balances

    def _prepare_leg(self, key: bytes, body: bytes, leg: _LegAsked) -> int:
        if self.is_applied(key):
            return Outcome.APPLIED
        if key in self.prepared:
            return Outcome.PREPARED
        refusal = self._leg_refusal(leg)
        if refusal:
            return refusal
        self.prepared[key] = body
        if leg.effect is Effect.DEBIT:
            self.expect(leg.account, -leg.amount_minor, more=True)
            self.reserve(leg.account, 0 if self.faults.debit_unreserved else leg.amount_minor)
        else:
            self.expect(leg.account, leg.amount_minor, more=True)
            if leg.effect is Effect.REFUND and not self.faults.refund_uncounted:
                self._refund(leg.condition, leg.amount_minor)
        return Outcome.PREPARED

    def _decide_journal(
        self, key: bytes, body: bytes, journal: Journal, verdict: tuple[int, int]
    ) -> tuple[int, int, int]:
        decision = decision_key(key, body)
        prior = self.prior(decision, key)
        if prior is not None:
            return self.told(prior[0], key), prior[1], NO_BALANCE
        if self.expired(key):
            return Outcome.TRANSACTION_ID_EXPIRED, 0, NO_BALANCE
        refusal, refused_leg = verdict
        first = _LegAsked.of(journal, journal.legs[0], key)
        if not refusal:
            refusal, refused_leg = self._leg_refusal(first), 0
        self.record(decision, key, refusal or Outcome.COMMITTED, refused_leg)
        if refusal:
            return refusal, refused_leg, NO_BALANCE
        self.unsettled[key] = body
        return Outcome.COMMITTED, 0, self._apply(first, journal.kind, key, 0)

    def _finish_leg(self, key: bytes, verdict: int) -> tuple[int, int]:
        body = self.prepared.pop(key, None)
        if body is None:
            if verdict != Outcome.COMMITTED:
                return Outcome.DROPPED, NO_BALANCE
            return Outcome.FINISHED if self.is_applied(key) else self.missing(), NO_BALANCE
        leg = LegBody.unpack(body)
        self.expect(leg.account, leg.amount_minor, more=False)
        apply = verdict == Outcome.COMMITTED
        if leg.amount_minor < 0 and not self.faults.debit_unreserved:
            kept = self.faults.debit_kept and not apply
            self.reserve(leg.account, 0 if kept else leg.amount_minor)
        if not apply:
            if leg.effect is Effect.REFUND and not self.faults.refund_kept:
                self._refund(leg.related_id + leg.slot.to_bytes(2, "little"), -leg.amount_minor)
            return Outcome.DROPPED, NO_BALANCE
        self.apply_once(key)
        return Outcome.FINISHED, self.change(leg.account, leg.kind, key, leg.amount_minor)

    # ------------------------------------------------------------------ effects and conditions

    def _leg_refusal(self, leg: _LegAsked) -> int:
        match leg.effect:
            case Effect.CREDIT | Effect.REFUND:
                refusal = self.credit_refusal(leg.account, leg.amount_minor, leg.currency)
                over = self.refunds.get(leg.condition, 0) + leg.amount_minor > leg.bound
                if not refusal and leg.effect is Effect.REFUND and over:
                    return Outcome.REFUND_EXCEEDS_PURCHASE
                return refusal
            case Effect.HOLD if leg.condition in self.holds:
                # Only where the memory of the id was shorter than the hold's life.
                return Outcome.TRANSACTION_ID_EXPIRED
            case Effect.DEBIT | Effect.HOLD:
                refusal = self.debit_refusal(leg.account, leg.amount_minor, leg.currency)
                account = self.account(leg.account)
                if not refusal and account and account.held_minor + leg.amount_minor > MAX_MINOR:
                    return Outcome.BALANCE_LIMIT
                return refusal
            case Effect.CAPTURE | Effect.VOID:
                return self._hold_refusal(leg)

    def _hold_refusal(self, leg: _LegAsked) -> int:
        account, hold = self.account(leg.account), self.holds.get(leg.condition)
        capture = leg.effect is Effect.CAPTURE
        if account is None:
            return Outcome.ACCOUNT_NOT_FOUND
        if capture and account.state in REFUSED_STATE:
            return REFUSED_STATE[account.state]
        if hold is None or hold.account != leg.account:
            return Outcome.HOLD_NOT_ACTIVE
        if self.now_ms >= hold.expires_ms and not self.faults.expiry_ignored:
            return Outcome.HOLD_NOT_ACTIVE
        if capture and account.currency != leg.currency:
            return Outcome.CURRENCY_MISMATCH
        if capture and leg.amount_minor > hold.amount_minor:
            return Outcome.CAPTURE_EXCEEDS_HOLD
        return 0

    def _apply(self, leg: _LegAsked, kind: Kind, key: bytes, number: int) -> int:
        """Carries out a leg that was not refused; what the account has available then."""
        name = key + number.to_bytes(2, "little")
        match leg.effect:
            case Effect.CREDIT:
                return self.change(leg.account, kind, name, leg.amount_minor)
            case Effect.REFUND:
                self._refund(leg.condition, leg.amount_minor)
                return self.change(leg.account, kind, name, leg.amount_minor)
            case Effect.DEBIT:
                return self.change(leg.account, kind, name, -leg.amount_minor)
            case Effect.HOLD:
                expires_ms = self.now_ms + leg.bound
                self.holds[leg.condition] = Hold(leg.account, leg.amount_minor, expires_ms, key)
                return self.change(leg.account, kind, name, 0, leg.amount_minor)
            case Effect.CAPTURE | Effect.VOID:
                hold = self.holds[leg.condition]
                capture = leg.effect is Effect.CAPTURE
                if not (capture and self.faults.hold_kept):
                    del self.holds[leg.condition]
                freed = leg.amount_minor if capture and self.faults.rest_kept else hold.amount_minor
                return self.change(leg.account, kind, name, -leg.amount_minor, -freed)

    def _refund(self, condition: bytes, change_minor: int) -> None:
        refunded = self.refunds.pop(condition, 0) + change_minor
        if refunded:
            self.refunds[condition] = refunded
