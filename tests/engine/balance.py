"""Legs drawn at random, made to sum to zero: no shard takes any others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from shard_node.contract.kinds import Effect
from shard_node.contract.transactions import Leg
from shard_node.limits import MAX_MINOR

_SIGNS: Final = {Effect.CREDIT: 1, Effect.REFUND: 1, Effect.DEBIT: -1, Effect.CAPTURE: -1}
_PLAIN: Final = (Effect.CREDIT, Effect.DEBIT)


def balanced(legs: Sequence[Leg]) -> list[Leg]:
    """The same, but that in each currency one amount is another, or one leg more is there, for the others."""
    made = list(legs)
    for currency in dict.fromkeys(leg.currency for leg in legs):
        while abs(_sum(made, currency)) > MAX_MINOR:
            made = [_smaller(leg) if leg.currency == currency else leg for leg in made]
        if _sum(made, currency) and not _even_out(made, currency):
            made.append(_counterpart(made, currency))
    return made


def _sum(legs: Sequence[Leg], currency: str) -> int:
    return sum(_moved(leg) for leg in legs if leg.currency == currency)


def _moved(leg: Leg) -> int:
    return _SIGNS.get(leg.effect, 0) * leg.amount_minor


def _smaller(leg: Leg) -> Leg:
    return replace(leg, amount_minor=max(1, leg.amount_minor // 4)) if leg.amount_minor else leg


def _even_out(legs: list[Leg], currency: str) -> bool:
    """Gives a debit or credit the amount that makes up for the others, if there is one that can have it."""
    total = _sum(legs, currency)
    for n, leg in reversed(list(enumerate(legs))):
        moves = _moved(leg) - total
        if leg.currency == currency and leg.effect in _PLAIN and 0 < abs(moves) <= MAX_MINOR:
            legs[n] = replace(leg, effect=_effect(moves), amount_minor=abs(moves))
            return True
    return False


def _counterpart(legs: Sequence[Leg], currency: str) -> Leg:
    """One leg more, of the owner that has the currency's first."""
    moves = -_sum(legs, currency)
    taken, world = {leg.account for leg in legs}, f"@world:{currency}"
    owner = next(leg.owner for leg in legs if leg.currency == currency)
    account = f"somebody-{currency}" if world in taken else world
    return Leg(account, _effect(moves), abs(moves), currency, owner)


def _effect(moves: int) -> Effect:
    return Effect.CREDIT if moves > 0 else Effect.DEBIT
