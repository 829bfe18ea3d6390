"""A coordinator's steps with a batch, without I/O: commit it, end what is in its way, try once more.

A transaction that is BUSY or ELSEWHERE waits for another attempt at it, whose coordinator may be dead or
about to do the same. So that attempt is ended as recovery would do it. Then what was ELSEWHERE is committed,
and what was BUSY is tried again under a new attempt. What still waits after that is answered "unknown":
callers can repeat a transaction themselves.

The steps are a generator: it yields calls by shard, and is sent their answers. The tests walk through it too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from itertools import islice

from coordinator.attempts import Answers, Attempt, Calls, Commit, InDoubt, Recovery, each, given_up, in_doubt
from shard_node.contract import Bundle, Outcome, Transaction

Steps = Generator[Calls, Answers, None]

# Attempts of others that one batch ends. Each may have thousands of transactions, which takes a shard long.
MAX_OTHERS = 8
_ELSEWHERE = int(Outcome.ELSEWHERE)
# Codes of transactions that were left out of the decision, and may be tried again.
_LEFT_OUT = bytes((Outcome.BUSY, Outcome.SKIPPED))


class Batch:
    """Attempts on their way from the first prepare to the answer of their callers.

    ``new_attempt_id`` makes ids. ``may_abandon`` says of an attempt of others whether it may be abandoned if
    it is not decided: not while its coordinator is likely to be at work, for that would cost all its
    transactions, where ours only stay unknown.
    """

    def __init__(
        self,
        attempts: Sequence[Attempt],
        shard_ids: Sequence[str],
        new_attempt_id: Callable[[], bytes],
        may_abandon: Callable[[bytes], bool],
        *,
        with_balances: bool = True,
        machines: tuple[type[Commit], type[Recovery]] = (Commit, Recovery),
    ) -> None:
        self.attempts = attempts
        self._shard_ids = shard_ids
        self._new_attempt_id = new_attempt_id
        self._may_abandon = may_abandon
        self._with_balances = with_balances
        self._commit, self._recovery = machines
        # As Commit has them, of first and second attempts.
        self.settled: dict[int, list[tuple[bytes, int]]] = {}
        self.missing: list[bytes] = []

    def steps(self) -> Steps:
        """All steps; then ``attempts`` have their outcomes, those of second attempts included."""
        yield from self._commit_all(self.attempts)
        doubts = self._doubts()
        if not doubts:
            return
        ended: set[bytes] = set()
        # One after the other: nobody here knows how large they are, and together they might be too large for
        # one call.
        for doubt in doubts:
            recovery = self._recovery([doubt], self._shard_ids)
            answers = yield recovery.abandon()
            answers = yield recovery.finish(answers)
            yield recovery.settle(answers)
            self.missing += recovery.missing
            ended |= recovery.ended
        freed = [attempt for attempt in self.attempts if _is_freed(attempt, ended)]
        for attempt in freed:
            _finished_elsewhere(attempt)
        left_out = [(attempt, rows) for attempt in freed if (rows := _left_out(attempt))]
        second = [cut(attempt, rows, self._new_attempt_id()) for attempt, rows in left_out]
        if second:
            yield from self._commit_all(second)
        for (attempt, rows), again in zip(left_out, second, strict=True):
            _take_over(attempt, rows, again)

    def _commit_all(self, attempts: Sequence[Attempt]) -> Steps:
        commit = self._commit(attempts, self._shard_ids, with_balances=self._with_balances)
        answers = yield commit.prepare()
        answers = yield commit.decide(answers)
        answers = yield commit.finish(answers)
        commit.conclude(answers)
        self.missing += commit.missing
        for shard, pairs in commit.settled.items():
            self.settled.setdefault(shard, []).extend(pairs)

    def _doubts(self) -> list[InDoubt]:
        # To end what is in the way of an attempt that was not decided would help nobody.
        found = in_doubt([attempt for attempt in self.attempts if attempt.codes], self._shard_ids)
        # What is kept on no participant was committed, and loses nothing when it is finished by others.
        allowed = (one for one in found if not one.kept_on or self._may_abandon(one.attempt_id))
        # What it gives up itself would stand in the way of the next try, and of slots that move.
        return given_up(self.attempts) + list(islice(allowed, MAX_OTHERS))


def _is_freed(attempt: Attempt, ended: set[bytes]) -> bool:
    """Whether something stood in the way of the attempt, and all of it has ended."""
    return bool(attempt.others) and all(other.attempt_id in ended for _, other in attempt.others)


def _finished_elsewhere(attempt: Attempt) -> None:
    """What other attempts had committed is finished by now."""
    if _ELSEWHERE in attempt.codes:
        codes = each(attempt.codes, attempt.count)
        outcomes = zip(codes, each(attempt.outcomes, attempt.count), strict=True)
        attempt.outcomes = bytes(
            Outcome.COMMITTED if code == _ELSEWHERE else outcome for code, outcome in outcomes
        )


def _left_out(attempt: Attempt) -> list[int]:
    """Transactions that were not decided because something stood in their way."""
    if not any(code in attempt.codes for code in _LEFT_OUT):
        return []
    return [row for row, code in enumerate(each(attempt.codes, attempt.count)) if code in _LEFT_OUT]


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
