"""What attempts and commits in doubt are about: their transactions, for people, and the money in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shard_node.contract import Bundle, Effect, Outcome, PreparedAttempt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shard_node.contract import Doubt, Leg, Transaction, UnsettledCommit

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


def prepared_rows(attempt: PreparedAttempt) -> list[int]:
    """Places in the bundle of the transactions that the shard keeps prepared."""
    return [row for row, code in enumerate(attempt.codes) if code == Outcome.PREPARED]


def committed_rows(commit: UnsettledCommit) -> list[int]:
    """Places in the bundle of the transactions that the attempt committed."""
    return [row for row, code in enumerate(commit.codes) if code == Outcome.COMMITTED]


def legs_in_flight(attempt: PreparedAttempt, codes: bytes) -> Iterator[tuple[Leg, int]]:
    """Prepared legs that were committed, each with what its account will have more, in minor units.

    ``codes`` are what the attempt's deciding shard keeps, b"" where it keeps none: then nothing is in flight.
    """
    rows = [row for row in prepared_rows(attempt) if codes[row : row + 1] == _COMMITTED]
    if not rows:
        return
    transactions = Bundle.unpack(attempt.bundle).transactions
    for row in rows:
        for leg in transactions[row].legs:
            if leg.owner == attempt.owner:
                yield leg, _MOVES.get(leg.effect, 0) * leg.amount_minor


def waiting(doubt: Doubt) -> list[Waiting]:
    """What people are shown: of a commit its transactions, of an attempt the legs that it keeps."""
    transactions = Bundle.unpack(doubt.bundle).transactions
    if not isinstance(doubt, PreparedAttempt):
        return [_of(transactions[row], transactions[row].legs[0]) for row in committed_rows(doubt)]
    return [
        _of(transactions[row], leg)
        for row in prepared_rows(doubt)
        for leg in transactions[row].legs
        if leg.owner == doubt.owner
    ]


def _of(transaction: Transaction, leg: Leg) -> Waiting:
    payer, payee = _parties(transaction.legs, leg)
    return Waiting(transaction.transaction_id, payer, payee, leg.amount_minor, leg.currency)


def _parties(legs: Sequence[Leg], leg: Leg) -> tuple[str, str]:
    """Who pays and who is paid by one leg, as far as that is a single account."""
    others = [other.account for other in legs if other is not leg]
    other = others[0] if len(others) == 1 else ""
    return (other, leg.account) if _MOVES.get(leg.effect, 0) > 0 else (leg.account, other)
