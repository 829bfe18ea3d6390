"""The model's half of transfers: two plain legs, decided on the payer's shard."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from shard_node.contract.bundles import Bundle, each
from shard_node.contract.calls import (
    Attempt,
    Call,
    Decide,
    Finish,
    Post,
    Prepare,
    Reply,
    ResolveAttempts,
    SettleCommits,
)
from shard_node.contract.outcomes import PAYEE, Outcome
from shard_node.contract.transfers import Terms, unpack_body
from shard_node.limits import NO_BALANCE
from tests.model.outcomes import Committed, Kept, Outcomes

_KEY_BYTES = 24


@dataclass(slots=True)
class Transfers(Outcomes):
    """One shard as transfers see it. Codes in its replies are a byte a row, however many are the same."""

    def transfer_call(self, call: Call) -> Reply:
        """Carries out one call of :mod:`shard_node.contract.calls`."""
        match call:
            case Post():
                posted = [self._post(row) for row in _rows(call.bundle)]
                codes, payers, payees = columns(posted, 3)
                wanted = call.with_balances
                return Reply((bytes(codes),), (_packed(payers, wanted),), (_packed(payees, wanted),))
            case Prepare():
                return Reply([self._prepare(attempt) for attempt in call.attempts])
            case Decide():
                for name in call.settled:
                    self.commits.pop(name, None)
                decided = [
                    self._decide(*one, with_balances=call.with_balances)
                    for one in zip(call.attempts, call.peers, call.verdicts, strict=True)
                ]
                outcomes, balances, commits, elsewhere = zip(*decided, strict=True)
                return Reply(outcomes, balances, (), commits, elsewhere)
            case Finish():
                ends = zip(call.attempt_ids, call.verdicts, strict=True)
                finished = [self._finish(*one, with_balances=call.with_balances) for one in ends]
                return Reply([codes for codes, _ in finished], (), [balances for _, balances in finished])
            case SettleCommits():
                for name in call.commits:
                    self.commits.pop(name, None)
                return Reply(())
            case ResolveAttempts():
                rows = zip(call.decisions, call.terms, call.attempt_ids, strict=True)
                again: set[bytes] = set()
                return Reply((bytes([self._resolve(*row, again) for row in rows]),))

    def _post(self, row: Kept) -> tuple[int, int, int]:
        told = self.recall_transfer(row.decision, row.key, b"", set())
        if told is not None:
            outcome, _ = told
            if outcome == Outcome.SETTLED:
                outcome = Outcome.COMMITTED
            elif outcome == Outcome.ELSEWHERE:
                # Committed across shards before the accounts came together: still on its way.
                outcome = Outcome.OUTCOME_UNKNOWN
            return outcome, NO_BALANCE, NO_BALANCE
        if self.expired(row.key):
            return Outcome.TRANSACTION_ID_EXPIRED, NO_BALANCE, NO_BALANCE
        terms = unpack_body(row.body)
        refusal = self._credit_refusal(terms) or self._debit_refusal(terms)
        self.record(row.decision, row.key, refusal or Outcome.COMMITTED)
        if refusal:
            return refusal, NO_BALANCE, NO_BALANCE
        payer = self.change(terms.payer, terms.kind, row.key, -terms.amount_minor)
        payee = self.change(terms.payee, terms.kind, row.key, terms.amount_minor)
        return Outcome.COMMITTED, payer, payee

    def _prepare(self, attempt: Attempt) -> bytes:
        name, rows = attempt.attempt_id, _rows(attempt.bundle)
        kept = self.attempts.get(name)
        if kept is None and self.has_ended(name) and not self.faults.late_prepare:
            return bytes((Outcome.ENDED,)) * len(rows)
        if kept is None:
            kept = tuple(row._replace(outcome=self._check(row)) for row in rows)
            if any(row.outcome == Outcome.PREPARED for row in kept):
                self.attempts[name] = kept
        return bytes(row.outcome for row in kept)

    def _check(self, row: Kept) -> int:
        terms = unpack_body(row.body)
        refusal = self._credit_refusal(terms)
        if refusal == Outcome.BALANCE_LIMIT + PAYEE:
            # At most one of all attempts at a transfer will be applied: the others are not in its way.
            ghosts = self._prepared_before(row.decision, terms.payee)
            self.incoming_minor[terms.payee] = self.incoming_minor.get(terms.payee, 0) - ghosts
            refusal = self._credit_refusal(terms)
            self.incoming_minor[terms.payee] += ghosts
        if refusal:
            return refusal
        self.expect(terms.payee, terms.amount_minor, more=True)
        return Outcome.PREPARED

    def _prepared_before(self, decision: bytes, payee: str) -> int:
        waiting = [
            unpack_body(row.body)
            for rows in self.attempts.values()
            for row in rows
            if row.decision == decision and row.outcome == Outcome.PREPARED
        ]
        return sum(terms.amount_minor for terms in waiting if terms.payee == payee)

    def _decide(
        self, attempt: Attempt, peer: str, verdicts: bytes, *, with_balances: bool
    ) -> tuple[bytes, bytes, bytes, tuple[bytes, ...]]:
        name, rows, told = attempt.attempt_id, _rows(attempt.bundle), []
        elsewhere: dict[bytes, None] = {}
        balances = []
        fresh: set[bytes] = set()
        again: set[bytes] = set()
        repeated = any(self._was_decided(row.decision, name) for row in rows)
        for row, verdict in zip(rows, verdicts or bytes(len(rows)), strict=True):
            outcome, waits, balance = self._decide_row(row, name, fresh, again) or self._decide_new(
                row, verdict, name, fresh, repeated=repeated
            )
            told.append(row._replace(outcome=outcome))
            balances.append(balance)
            if waits:
                elsewhere[waits] = None
        commit = b""
        if any(row.decision in fresh and row.outcome == Outcome.COMMITTED for row in told):
            commit = name
            self.commits[name] = Committed(name, peer, tuple(told))
        return bytes(row.outcome for row in told), _packed(balances, with_balances), commit, tuple(elsewhere)

    def _was_decided(self, decision: bytes, name: bytes) -> bool:
        record = None if self.faults.outcome_rewritten else self.remembered(decision)
        if record is None or record.outcome != Outcome.COMMITTED:
            return False
        commit = self.commits.get(record.commit)
        return (
            commit is not None
            and commit.attempt_id == name
            and any(row.decision == decision and row.outcome == Outcome.COMMITTED for row in commit.rows)
        )

    def _decide_row(
        self, row: Kept, name: bytes, fresh: set[bytes], again: set[bytes]
    ) -> tuple[int, bytes, int] | None:
        if row.decision in fresh and self.decided[row.decision][:2] == (Outcome.COMMITTED, row.key):
            return Outcome.ELSEWHERE, name, NO_BALANCE
        told = self.recall_transfer(row.decision, row.key, name, again)
        return None if told is None else (*told, NO_BALANCE)

    def _decide_new(
        self, row: Kept, verdict: int, name: bytes, fresh: set[bytes], *, repeated: bool
    ) -> tuple[int, bytes, int]:
        if repeated:
            # Refused before for what was decided under its id, and is forgotten by now.
            return Outcome.TRANSACTION_ID_REUSED, b"", NO_BALANCE
        if self.expired(row.key):
            return Outcome.TRANSACTION_ID_EXPIRED, b"", NO_BALANCE
        terms = unpack_body(row.body)
        refusal = verdict or self._debit_refusal(terms)
        self.record(row.decision, row.key, refusal or Outcome.COMMITTED, commit=name)
        fresh.add(row.decision)
        if refusal:
            return refusal, b"", NO_BALANCE
        return Outcome.COMMITTED, b"", self.change(terms.payer, terms.kind, row.key, -terms.amount_minor)

    def _finish(self, name: bytes, verdicts: bytes, *, with_balances: bool) -> tuple[bytes, bytes]:
        kept = self.attempts.pop(name, None)
        if kept is None:
            if self.has_ended(name) or Outcome.COMMITTED not in verdicts:
                return bytes(_ended(verdict) for verdict in verdicts), b""
            return bytes((self.missing(),)) * len(verdicts), b""
        finished = [self._end(*one) for one in zip(kept, each(verdicts, len(kept)), strict=True)]
        if not self.faults.ended_forgotten:
            self.ended.add(name)
        codes, balances = columns(finished, 2)
        return bytes(codes), _packed(balances, with_balances)

    def _end(self, row: Kept, verdict: int) -> tuple[int, int]:
        terms = unpack_body(row.body)
        if row.outcome == Outcome.PREPARED:
            self.expect(terms.payee, terms.amount_minor, more=False)
        if verdict != Outcome.COMMITTED:
            return Outcome.DROPPED, NO_BALANCE
        if row.outcome != Outcome.PREPARED:
            return self.missing(), NO_BALANCE
        return Outcome.FINISHED, self.change(terms.payee, terms.kind, row.key, terms.amount_minor)

    def _resolve(self, decision: bytes, terms: bytes, name: bytes, again: set[bytes]) -> int:
        key = _key(decision, terms)
        told = self.recall_transfer(decision, key, name, again)
        if told is not None:
            return told[0]
        if self.expired(key):
            return Outcome.TRANSACTION_ID_EXPIRED
        self.record(decision, key, Outcome.ABORTED)
        return Outcome.ABORTED

    def _credit_refusal(self, terms: Terms) -> int:
        refusal = self.credit_refusal(terms.payee, terms.amount_minor, terms.currency)
        return refusal + PAYEE if refusal else 0

    def _debit_refusal(self, terms: Terms) -> int:
        return self.debit_refusal(terms.payer, terms.amount_minor, terms.currency)


def columns(rows: Sequence[tuple[int, ...]], width: int) -> list[list[int]]:
    """Rows turned into so many columns."""
    return [[row[column] for row in rows] for column in range(width)]


def keys_of(bundle: Bundle) -> list[bytes]:
    """Id and fingerprint of each transfer of a bundle."""
    return [row.key for row in _rows(bundle)]


def _rows(bundle: Bundle) -> list[Kept]:
    return [Kept(decision, _key(decision, terms), body, 0) for decision, terms, body in bundle.rows()]


def _key(decision: bytes, terms: bytes) -> bytes:
    return decision[:16] + terms[: _KEY_BYTES - 16]


def _ended(verdict: int) -> int:
    return Outcome.FINISHED if verdict == Outcome.COMMITTED else Outcome.DROPPED


def _packed(balances: Sequence[int], wanted: bool) -> bytes:  # noqa: FBT001  # the calls' own flag
    return struct.pack(f"<{len(balances)}q", *balances) if wanted else b""
