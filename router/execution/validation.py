"""What transactions would get now, with nothing moved: the answer to ``validate_only``.

In the order in which the real call finds out: what its id was used for before, then each leg on its shard.
What one moment says the next may not hold: the real call decides anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from router.execution.maps import spread
from router.requests import time_of_id
from shard_node.contract import ALL_OWNERS, NO_VERSION, Leg, Outcome, Transaction, bundle_of
from shard_node.errors import ShardFullError, ShardNodeError

if TYPE_CHECKING:
    from router.execution.maps import Maps
    from router.requests import TransactionRequest
    from shard_node.client import Shard
    from shard_node.contract import RememberedOutcome

# Whose legs a shard is asked about, and whose not.
_ITS, _ANOTHERS = 0, 1


class Verdict(NamedTuple):
    """What a transaction would get: VALID, or another outcome, and the number of the leg it concerns."""

    outcome: Outcome
    leg: int = 0


class Validator:
    """Says what transactions would get; asks shards, and changes nothing there."""

    def __init__(self, maps: Maps) -> None:
        self._maps = maps

    async def check(self, requests: Sequence[TransactionRequest], deadline_seconds: float) -> list[Verdict]:
        """A verdict for each; OUTCOME_UNKNOWN where a shard did not answer."""
        verdicts = await self._remembered(requests, deadline_seconds)
        fresh = [number for number in range(len(requests)) if number not in verdicts]
        verdicts |= await self._legs(requests, fresh, deadline_seconds)
        return [verdicts[number] for number in range(len(requests))]

    async def _remembered(
        self, requests: Sequence[TransactionRequest], deadline_seconds: float
    ) -> dict[int, Verdict]:
        """Verdicts on ids that were used before, and on those of which that cannot be said."""

        async def work(shard: Shard, numbers: list[int]) -> list[Verdict | None]:
            asked = [requests[number].transaction for number in numbers]
            horizon_ms = await shard.horizon_ms()
            found = await shard.outcomes([one.decision for one in asked])
            return [_recalled(*one, horizon_ms) for one in zip(asked, found, strict=True)]

        slots = {number: request.slots[0] for number, request in enumerate(requests)}
        answers = await spread(self._maps, slots, work, deadline_seconds)
        return {
            number: _no_answer(found) if isinstance(found, ShardNodeError) else found
            for number, found in answers.items()
            if found is not None
        }

    async def _legs(
        self, requests: Sequence[TransactionRequest], numbers: Sequence[int], deadline_seconds: float
    ) -> dict[int, Verdict]:
        """Verdicts on the legs of those transactions."""
        legs = [(number, leg) for number in numbers for leg in range(len(requests[number].slots))]
        slots = {place: requests[number].slots[leg] for place, (number, leg) in enumerate(legs)}

        async def work(shard: Shard, places: list[int]) -> list[int]:
            own: dict[int, set[int]] = {}
            for number, leg in (legs[place] for place in places):
                own.setdefault(number, set()).add(leg)
            codes = await _codes(shard, {number: requests[number].transaction for number in own}, own)
            return [codes[legs[place]] for place in places]

        found = await spread(self._maps, slots, work, deadline_seconds)
        verdicts: dict[int, list[Verdict]] = {number: [] for number in numbers}
        for place, (number, leg) in enumerate(legs):
            verdicts[number].append(_verdict(found[place], leg))
        return {number: _first_refusal(told) for number, told in verdicts.items()}


async def _codes(
    shard: Shard, transactions: Mapping[int, Transaction], own: Mapping[int, set[int]]
) -> dict[tuple[int, int], int]:
    """What a shard says of its ``own`` legs, by transaction and leg."""
    codes: dict[tuple[int, int], int] = {}
    # A plain bundle does not say whether all of its legs are the shard's.
    whole = [number for number, one in transactions.items() if len(own[number]) == len(one.legs)]
    parts = [number for number, one in transactions.items() if len(own[number]) < len(one.legs)]
    for numbers, owner in ((whole, ALL_OWNERS), (parts, _ITS)):
        if numbers:
            bundle = bundle_of([_owned(transactions[number], own[number]) for number in numbers])
            order = [(number, leg) for number in numbers for leg in sorted(own[number])]
            codes |= zip(order, await shard.check(bundle, owner), strict=True)
    return codes


def _owned(transaction: Transaction, own: set[int]) -> Transaction:
    """The transaction with those legs for the shard to check. Versions of others are none of its business."""
    legs = (
        replace(leg, owner=_ITS)
        if number in own
        else replace(leg, owner=_ANOTHERS, expected_version=NO_VERSION)
        for number, leg in enumerate(transaction.legs)
    )
    return replace(transaction, legs=tuple[Leg, ...](legs))


def _recalled(transaction: Transaction, found: RememberedOutcome | None, horizon_ms: int) -> Verdict | None:
    """The verdict on an id that was used before, or is too old to say so."""
    if found is None:
        made_ms = time_of_id(transaction.transaction_id)
        expired = made_ms is not None and made_ms < horizon_ms
        return Verdict(Outcome.TRANSACTION_ID_EXPIRED) if expired else None
    if found.fingerprint != transaction.fingerprint:
        return Verdict(Outcome.TRANSACTION_ID_REUSED)
    return Verdict(found.outcome, found.leg)


def _verdict(code: int | ShardNodeError, leg: int) -> Verdict:
    if isinstance(code, ShardNodeError):
        return _no_answer(code)
    # What is reserved for a transaction that is under way may come back, or not.
    return Verdict(Outcome.OUTCOME_UNKNOWN if code == Outcome.BUSY else Outcome(code or Outcome.VALID), leg)


def _first_refusal(verdicts: Sequence[Verdict]) -> Verdict:
    """Of several refusals the one that the real call would tell: the deciding leg is asked last."""
    ordered = (*verdicts[1:], verdicts[0])
    return next((v for v in ordered if v.outcome is not Outcome.VALID), Verdict(Outcome.VALID))


def _no_answer(error: ShardNodeError) -> Verdict:
    full = isinstance(error, ShardFullError)
    return Verdict(Outcome.RESOURCE_EXHAUSTED if full else Outcome.OUTCOME_UNKNOWN)
