"""What attempts and commits in doubt are about: their transactions, for people, and the money in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shard_node.contract import Bundle, Effect, Outcome, PreparedAttempt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shard_node.contract import Doubt, Leg, Transaction

# How each effect changes what an account has, available and held: by so many times its amount. A hold, and
# its end, only change what of it is available.
_MOVES = {Effect.CREDIT: 1, Effect.REFUND: 1, Effect.DEBIT: -1, Effect.CAPTURE: -1}
_COMMITTED = bytes((Outcome.COMMITTED,))


class Waiting(NamedTuple):
    """A transaction in doubt, or one leg of a prepared one. ``payer`` or ``payee`` is "" where many are."""

    transaction_id: bytes
    payer: str
    payee: str
    amount_minor: int
    currency: str


def legs_in_flight(attempt: PreparedAttempt, codes: bytes) -> Iterator[tuple[Leg, int]]:
    """Prepared legs that were committed, each with what its account will have more, in minor units.

    ``codes`` are what the attempt's deciding shard keeps, b"" where it keeps none: then nothing is in flight.
    """
    rows = [row for row in attempt.prepared_rows if codes[row : row + 1] == _COMMITTED]
    for _, transaction, number in attempt.legs(rows):
        leg = transaction.legs[number]
        yield leg, _MOVES.get(leg.effect, 0) * leg.amount_minor


def waiting(doubt: Doubt) -> list[Waiting]:
    """What people are shown: of a commit its transactions, of an attempt the legs that it keeps."""
    if isinstance(doubt, PreparedAttempt):
        legs = doubt.legs(doubt.prepared_rows)
        return [_of(transaction, transaction.legs[number]) for _, transaction, number in legs]
    transactions = Bundle.unpack(doubt.bundle).transactions
    return [_of(transactions[row], transactions[row].legs[0]) for row in doubt.committed_rows]


def _of(transaction: Transaction, leg: Leg) -> Waiting:
    payer, payee = _parties(transaction.legs, leg)
    return Waiting(transaction.transaction_id, payer, payee, leg.amount_minor, leg.currency)


def _parties(legs: Sequence[Leg], leg: Leg) -> tuple[str, str]:
    """Who pays and who is paid by one leg, as far as that is a single account."""
    others = [other.account for other in legs if other is not leg]
    other = others[0] if len(others) == 1 else ""
    return (other, leg.account) if _MOVES.get(leg.effect, 0) > 0 else (leg.account, other)
