"""What a request would get now, with nothing moved: the answer to ``validate_only``.

In the order in which the real call finds out: what its id was used for before, then each leg on its shard.
What one moment says the next may not hold: the real call decides anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from router.execution.maps import spread
from shard_node.contract import Effect, LegCheck, Outcome, decision_key, journal_key, related_key, terms_key
from shard_node.errors import ShardFullError, ShardNodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.execution.maps import Maps
    from router.requests import JournalRequest
    from shard_node.client import Shard
    from shard_node.contract import Row


# Of UUIDs that begin with their time (RFC 9562, 5.7).
_TIMED_VERSION = 7


class Verdict(NamedTuple):
    """What a request would get: VALID, or another outcome, and the number of the leg it concerns."""

    outcome: Outcome
    leg: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """A request to be checked.

    ``decision`` is the 18 bytes that its outcome would be kept under, ``terms`` what would be kept with
    it; ``legs`` go with the ``slots`` of their accounts, the deciding one first.
    """

    decision: bytes
    terms: bytes
    legs: tuple[LegCheck, ...]
    slots: tuple[int, ...]


def of_transfer(row: Row) -> Question:
    """The question about a transfer."""
    key, payer, payee, amount, currency, body, payer_slot, payee_slot = row
    legs = (
        LegCheck(payer, Effect.DEBIT, amount, currency),
        LegCheck(payee, Effect.CREDIT, amount, currency),
    )
    return Question(decision_key(key, body), terms_key(key, body), legs, (payer_slot, payee_slot))


def of_journal(request: JournalRequest) -> Question:
    """The question about a journal."""
    journal, transaction_id = request.journal, request.transaction_id
    body = journal.pack()
    key = journal_key(transaction_id, body)
    legs = tuple(
        LegCheck(
            leg.account,
            leg.effect,
            leg.amount_minor,
            leg.currency,
            related_key(journal, leg, transaction_id),
            journal.bound,
        )
        for leg in journal.legs
    )
    slots = tuple(leg.slot for leg in journal.legs)
    return Question(decision_key(key, body), terms_key(key, body), legs, slots)


class Checker:
    """Answers questions; asks shards, and changes nothing there."""

    def __init__(self, directory: Maps) -> None:
        self._directory = directory

    async def check(self, questions: Sequence[Question], deadline_seconds: float) -> list[Verdict]:
        """A verdict for each question; OUTCOME_UNKNOWN where a shard did not answer."""
        verdicts = await self._remembered(questions, deadline_seconds)
        fresh = [number for number in range(len(questions)) if number not in verdicts]
        verdicts |= await self._legs(questions, fresh, deadline_seconds)
        return [verdicts[number] for number in range(len(questions))]

    async def _remembered(self, questions: Sequence[Question], deadline_seconds: float) -> dict[int, Verdict]:
        """Verdicts on ids that were used before, and on those of which that cannot be said."""

        async def work(shard: Shard, numbers: list[int]) -> list[Verdict | None]:
            horizon_ms = await shard.horizon_ms()
            return [await _recall(shard, questions[number], horizon_ms) for number in numbers]

        slots = {number: question.slots[0] for number, question in enumerate(questions)}
        verdicts: dict[int, Verdict] = {}
        for number, found in (await spread(self._directory, slots, work, deadline_seconds)).items():
            if isinstance(found, ShardNodeError):
                verdicts[number] = _no_answer(found)
            elif found is not None:
                verdicts[number] = found
        return verdicts

    async def _legs(
        self, questions: Sequence[Question], numbers: Sequence[int], deadline_seconds: float
    ) -> dict[int, Verdict]:
        """Verdicts on the legs of those questions."""
        legs = [(number, leg) for number in numbers for leg in range(len(questions[number].legs))]
        slots = {place: questions[number].slots[leg] for place, (number, leg) in enumerate(legs)}

        async def work(shard: Shard, places: list[int]) -> list[int]:
            asked = [legs[place] for place in places]
            return await shard.check([questions[number].legs[leg] for number, leg in asked])

        found = await spread(self._directory, slots, work, deadline_seconds)
        answers: dict[int, list[Verdict]] = {number: [] for number in numbers}
        for place, (number, leg) in enumerate(legs):
            code = found[place]
            answers[number].append(
                _no_answer(code)
                if isinstance(code, ShardNodeError)
                else Verdict(Outcome(code or Outcome.VALID), leg)
            )
        return {number: _first_refusal(verdicts) for number, verdicts in answers.items()}


async def _recall(shard: Shard, question: Question, horizon_ms: int) -> Verdict | None:
    """The verdict on an id that was used before, or is too old to say so."""
    found = await shard.outcome(question.decision)
    if found is None:
        transaction_id = question.decision[:16]
        timed = transaction_id[6] >> 4 == _TIMED_VERSION
        expired = timed and int.from_bytes(transaction_id[:6]) < horizon_ms
        return Verdict(Outcome.TRANSACTION_ID_EXPIRED) if expired else None
    if found.terms != question.terms:
        return Verdict(Outcome.TRANSACTION_ID_REUSED)
    return Verdict(found.outcome, found.leg)


def _first_refusal(verdicts: Sequence[Verdict]) -> Verdict:
    """Of several refusals the one that the real call would tell: the deciding leg is asked last."""
    ordered = (*verdicts[1:], verdicts[0])
    return next((v for v in ordered if v.outcome is not Outcome.VALID), Verdict(Outcome.VALID))


def _no_answer(error: ShardNodeError) -> Verdict:
    full = isinstance(error, ShardFullError)
    return Verdict(Outcome.RESOURCE_EXHAUSTED if full else Outcome.OUTCOME_UNKNOWN)
