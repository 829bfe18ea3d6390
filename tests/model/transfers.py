"""The model's half of transfers: two plain legs, decided on the payer's shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shard_node.calls import Call, Decide, Finish, Post, Prepare, Reply, Resolve, Settle
from shard_node.limits import NO_BALANCE
from shard_node.outcomes import PAYEE, Outcome
from shard_node.transfers import Terms, decision_key, unpack_body
from tests.model.outcomes import Outcomes


@dataclass(slots=True)
class Transfers(Outcomes):
    """One shard as transfers see it."""

    def transfer_call(self, call: Call) -> Reply:
        """Carries out one call of :mod:`shard_node.calls`."""
        match call:
            case Post():
                posted = [self._post(*row) for row in _rows(call.transfers.keys, call.transfers.bodies)]
                return Reply(*columns(posted, 3))
            case Prepare():
                return Reply(
                    [self._prepare(*row) for row in _rows(call.transfers.keys, call.transfers.bodies)]
                )
            case Decide():
                batch = call.transfers
                decided = [
                    self._decide(*row) for row in zip(batch.keys, batch.bodies, call.verdicts, strict=True)
                ]
                for key in call.settled:
                    self.settle(key)
                return Reply(*columns(decided, 2))
            case Finish():
                finished = [self._finish(*row) for row in zip(call.keys, call.verdicts, strict=True)]
                codes, balances = columns(finished, 2)
                return Reply(codes, (), balances)
            case Settle():
                for key in call.keys:
                    self.settle(key)
                return Reply(())
            case Resolve():
                return Reply(
                    [self.resolve(decision_key(*row), row[0]) for row in _rows(call.keys, call.bodies)]
                )

    def _post(self, key: bytes, body: bytes) -> tuple[int, int, int]:
        terms, decision = unpack_body(body), decision_key(key, body)
        prior = self.prior(decision, key)
        if prior is not None:
            return self.posted(prior[0], key), NO_BALANCE, NO_BALANCE
        if self.expired(key):
            return Outcome.TRANSACTION_ID_EXPIRED, NO_BALANCE, NO_BALANCE
        refusal = self._credit_refusal(terms) or self._debit_refusal(terms)
        self.record(decision, key, refusal or Outcome.COMMITTED)
        if refusal:
            return refusal, NO_BALANCE, NO_BALANCE
        payer = self.change(terms.payer, terms.kind, key, -terms.amount_minor)
        payee = self.change(terms.payee, terms.kind, key, terms.amount_minor)
        return Outcome.COMMITTED, payer, payee

    def _prepare(self, key: bytes, body: bytes) -> int:
        terms = unpack_body(body)
        if self.is_applied(key):
            return Outcome.APPLIED
        if key in self.prepared:
            return Outcome.PREPARED
        refusal = self._credit_refusal(terms)
        if refusal:
            return refusal
        self.prepared[key] = body
        self.expect(terms.payee, terms.amount_minor, more=True)
        return Outcome.PREPARED

    def _decide(self, key: bytes, body: bytes, verdict: int) -> tuple[int, int]:
        terms, decision = unpack_body(body), decision_key(key, body)
        prior = self.prior(decision, key)
        if prior is not None:
            return self.told(prior[0], key), NO_BALANCE
        if self.expired(key):
            return Outcome.TRANSACTION_ID_EXPIRED, NO_BALANCE
        refusal = verdict or self._debit_refusal(terms)
        self.record(decision, key, refusal or Outcome.COMMITTED)
        if refusal:
            return refusal, NO_BALANCE
        self.unsettled[key] = body
        return Outcome.COMMITTED, self.change(terms.payer, terms.kind, key, -terms.amount_minor)

    def _finish(self, key: bytes, verdict: int) -> tuple[int, int]:
        body = self.prepared.pop(key, None)
        if body is not None:
            terms = unpack_body(body)
            self.expect(terms.payee, terms.amount_minor, more=False)
        if verdict != Outcome.COMMITTED:
            return Outcome.DROPPED, NO_BALANCE
        if body is None:
            return Outcome.FINISHED if self.is_applied(key) else self.missing(), NO_BALANCE
        self.apply_once(key)
        return Outcome.FINISHED, self.change(terms.payee, terms.kind, key, terms.amount_minor)

    def _credit_refusal(self, terms: Terms) -> int:
        refusal = self.credit_refusal(terms.payee, terms.amount_minor, terms.currency)
        return refusal + PAYEE if refusal else 0

    def _debit_refusal(self, terms: Terms) -> int:
        return self.debit_refusal(terms.payer, terms.amount_minor, terms.currency)


def columns(rows: Sequence[tuple[int, ...]], width: int) -> list[list[int]]:
    """Rows turned into so many columns."""
    return [[row[column] for row in rows] for column in range(width)]


def _rows(keys: Sequence[bytes], bodies: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(keys, bodies, strict=True))
