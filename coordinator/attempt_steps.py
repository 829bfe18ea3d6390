"""A coordinator's steps with a batch, without I/O: commit it, end what is in its way, try once more.

A transaction that is BUSY or ELSEWHERE waits for another attempt at it, whose coordinator may be dead or
about to do the same. So that attempt is ended as recovery would do it, and the transaction is tried again
under a new one. What still waits then is answered "unknown": callers can repeat a transaction themselves.

The steps are a generator: it yields calls by shard, and is sent their answers. The tests walk through it too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

from coordinator.attempts import Answers, Attempt, Calls, Commit, InDoubt, Recovery, each, in_doubt
from shard_node.contract import Outcome
from shard_node.contract.commands import start_ms
from shard_node.contract.transactions import Bundle, Transaction

Steps = Generator[Calls, Answers, None]

_WAITING = frozenset((Outcome.BUSY, Outcome.SKIPPED, Outcome.ELSEWHERE))


class Batch:
    """Attempts on their way from the first prepare to the answer of their callers.

    ``new_attempt_id`` makes ids. What is merely prepared by others, and began at ``abandon_before_ms`` or
    later, is in the hands of a live coordinator: to abandon it would cost all its transactions, so ours stay
    unknown.
    """

    def __init__(
        self,
        attempts: Sequence[Attempt],
        shard_ids: Sequence[str],
        new_attempt_id: Callable[[], bytes],
        *,
        abandon_before_ms: int,
        with_balances: bool = True,
        machines: tuple[type[Commit], type[Recovery]] = (Commit, Recovery),
    ) -> None:
        self.attempts = attempts
        self._shard_ids = shard_ids
        self._new_attempt_id = new_attempt_id
        self._abandon_before_ms = abandon_before_ms
        self._with_balances = with_balances
        self._commit, self._recovery = machines
        # As Commit has them, of all rounds.
        self.settled: dict[int, list[tuple[bytes, int]]] = {}
        self.missing: list[bytes] = []

    def steps(self) -> Steps:
        """All steps; then ``attempts`` have their outcomes, those of second attempts included."""
        yield from self._round(self.attempts)
        doubts = self._doubts()
        if not doubts:
            return
        recovery = self._recovery(doubts, self._shard_ids)
        answers = yield recovery.abandon()
        answers = yield recovery.finish(answers)
        yield recovery.settle(answers)
        self.missing += recovery.missing
        freed = [(attempt, rows) for attempt in self.attempts if (rows := _freed(attempt, recovery.ended))]
        second = [cut(attempt, rows, self._new_attempt_id()) for attempt, rows in freed]
        if second:
            yield from self._round(second)
        for (attempt, rows), again in zip(freed, second, strict=True):
            _take_over(attempt, rows, again)

    def _round(self, attempts: Sequence[Attempt]) -> Steps:
        commit = self._commit(attempts, self._shard_ids, with_balances=self._with_balances)
        answers = yield commit.prepare()
        answers = yield commit.decide(answers)
        answers = yield commit.finish(answers)
        commit.conclude(answers)
        self.missing += commit.missing
        for shard, pairs in commit.settled.items():
            self.settled.setdefault(shard, []).extend(pairs)

    def _doubts(self) -> list[InDoubt]:
        return [
            doubt
            for doubt in in_doubt(self.attempts, self._shard_ids)
            # What is committed loses nothing when it is finished by others.
            if not doubt.kept_on or start_ms(doubt.attempt_id) < self._abandon_before_ms
        ]


def _freed(attempt: Attempt, ended: set[bytes]) -> list[int]:
    """Transactions that waited for others, when all that stood in the attempt's way has ended."""
    if not attempt.others or not all(other.attempt_id in ended for _, other in attempt.others):
        return []
    return [row for row, code in enumerate(each(attempt.codes, attempt.count)) if code in _WAITING]


def _take_over(first: Attempt, rows: Sequence[int], second: Attempt) -> None:
    """Gives an attempt what became of some of its transactions in another; their balances stay unknown."""
    outcomes, legs = bytearray(each(first.outcomes, first.count)), bytearray(each(first.legs, first.count))
    outcomes_after, legs_after = each(second.outcomes, second.count), each(second.legs, second.count)
    for place, row in enumerate(rows):
        outcomes[row], legs[row] = outcomes_after[place], legs_after[place]
    first.outcomes, first.legs = bytes(outcomes), bytes(legs)


def cut(attempt: Attempt, rows: Sequence[int], attempt_id: bytes) -> Attempt:
    """A new attempt at some transactions of another, without participants that own none of their legs."""
    bundle = Bundle.unpack(attempt.bundle)
    transactions = [bundle.transactions[row] for row in rows]
    owners = sorted({leg.owner for one in transactions for leg in one.legs} - {0})
    numbers = {0: 0} | {owner: number for number, owner in enumerate(owners, start=1)}
    packed = Bundle(tuple(_renumbered(one, numbers) for one in transactions), bundle.principal).pack()
    participants = [attempt.participants[owner - 1] for owner in owners]
    return Attempt(attempt_id, attempt.deciding_shard, participants, packed, len(rows))


def _renumbered(transaction: Transaction, numbers: dict[int, int]) -> Transaction:
    return replace(
        transaction, legs=tuple(replace(leg, owner=numbers[leg.owner]) for leg in transaction.legs)
    )
