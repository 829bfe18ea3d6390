"""The machines of attempts: how answers are merged, what is asked of whom, when COMMITTED is answered."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from coordinator.attempt_steps import MAX_OTHERS, Batch, cut
from coordinator.attempts import Answers, Attempt, Calls, Commit, InDoubt, Recovery, in_doubt
from shard_node.client import NoReply
from shard_node.contract import (
    Abandon,
    Answer,
    Bundle,
    Decide,
    Effect,
    Finish,
    Kind,
    Leg,
    Other,
    Outcome,
    Prepare,
    Settle,
    Transaction,
    bundle_of,
    new_attempt_id,
)

IDS = ("d", "p", "q")
ATTEMPT, OTHER = new_attempt_id(1), new_attempt_id(2)
COMMITTED, PREPARED = bytes((Outcome.COMMITTED,)), bytes((Outcome.PREPARED,))
FINISHED, ABANDONED = bytes((Outcome.FINISHED,)), bytes((Outcome.ABANDONED,))


def _attempt(count: int = 1, participants: Sequence[int] = (1, 2)) -> Attempt:
    return Attempt(ATTEMPT, 0, participants, b"bundle", count)


def _said(codes: Sequence[int], legs: bytes = b"", others: Sequence[Other] = ()) -> Answer:
    return Answer([bytes(codes)], [legs], [b""], [others])


def _decided(attempt: Attempt, *said: Answer | NoReply) -> dict[int, Decide]:
    commit = Commit([attempt], IDS)
    commit.prepare()
    return commit.decide(dict(enumerate(said, start=1)))


def test_participants_are_prepared_by_their_numbers() -> None:
    """Each participant gets the attempt once, with the deciding shard's id and its own number."""
    calls = Commit([_attempt()], IDS).prepare()
    assert {shard: [(one.decider, one.owner) for one in call.attempts] for shard, call in calls.items()} == {
        1: [("d", 1)],
        2: [("d", 2)],
    }


def test_all_prepared_is_decided_without_a_verdict_for_each() -> None:
    """Nothing is written a transaction where all may commit, also where a participant has no leg."""
    call = _decided(_attempt(2), _said(PREPARED), _said((0, Outcome.PREPARED)))[0]
    assert [(one.participants, one.verdicts, one.legs) for one in call.attempts] == [(["p", "q"], b"", b"")]


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ((Outcome.PREPARED, 0), (Outcome.ACCOUNT_FROZEN, 2), (Outcome.ACCOUNT_FROZEN, 2)),
        ((Outcome.ACCOUNT_CLOSED, 3), (Outcome.ACCOUNT_FROZEN, 2), (Outcome.ACCOUNT_FROZEN, 2)),
        ((Outcome.ACCOUNT_FROZEN, 2), (Outcome.ACCOUNT_CLOSED, 3), (Outcome.ACCOUNT_FROZEN, 2)),
        (
            (Outcome.ACCOUNT_FROZEN, 1),
            (Outcome.TRANSACTION_ID_EXPIRED, 2),
            (Outcome.TRANSACTION_ID_EXPIRED, 2),
        ),
        (
            (Outcome.TRANSACTION_ID_EXPIRED, 2),
            (Outcome.ACCOUNT_FROZEN, 1),
            (Outcome.TRANSACTION_ID_EXPIRED, 2),
        ),
        ((Outcome.BUSY, 0), (Outcome.ACCOUNT_FROZEN, 1), (Outcome.SKIPPED, 0)),
        ((Outcome.TRANSACTION_ID_EXPIRED, 1), (Outcome.BUSY, 0), (Outcome.SKIPPED, 0)),
    ],
)
def test_one_verdict_counts_whoever_answers_first(
    first: tuple[int, int], second: tuple[int, int], verdict: tuple[int, int]
) -> None:
    """BUSY leaves the transaction alone; then an expired id counts, then the refusal of the lowest leg."""
    said = [_said((Outcome.PREPARED, code), bytes((0, leg))) for code, leg in (first, second)]
    (one,) = _decided(_attempt(2), *said)[0].attempts
    assert (one.verdicts, one.legs) == (bytes((0, verdict[0])), bytes((0, verdict[1])))


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ((NoReply.LOST, NoReply.STALE), Outcome.OUTCOME_UNKNOWN),
        ((NoReply.FULL, NoReply.STALE), Outcome.STALE_EPOCH),
        ((NoReply.FULL, _said(PREPARED)), Outcome.RESOURCE_EXHAUSTED),
        ((_said((Outcome.ENDED,)), _said(PREPARED)), Outcome.OUTCOME_UNKNOWN),
        ((_said(PREPARED), _said((Outcome.ATTEMPT_EXPIRED,))), Outcome.OUTCOME_UNKNOWN),
    ],
)
def test_an_attempt_that_one_participant_does_not_keep_is_not_decided(
    said: tuple[Answer | NoReply, ...], outcome: Outcome
) -> None:
    """Silence, ENDED and ATTEMPT_EXPIRED are no verdicts; of two silences the one that says least counts."""
    attempt = _attempt()
    assert _decided(attempt, *said) == {}
    assert attempt.outcomes == bytes((outcome,))


def _finished(attempt: Attempt, codes: bytes, *said: Answer | NoReply) -> Commit:
    """All participants prepared, ``codes`` were decided, and participants said what they did."""
    commit = Commit([attempt], IDS)
    commit.prepare()
    commit.decide({1: _said(PREPARED), 2: _said(PREPARED)})
    commit.finish({0: Answer([codes], [b""], [b"paid"], [()])})
    commit.conclude(dict(enumerate(said, start=1)))
    return commit


def test_committed_is_answered_and_settled_when_all_have_finished() -> None:
    """Callers get the outcome and all balances, the deciding shard will get settlements."""
    attempt = _attempt()
    commit = _finished(attempt, COMMITTED, Answer([FINISHED], (), [b"one"]), Answer([FINISHED], (), [b"two"]))
    assert attempt.outcomes == COMMITTED
    assert attempt.balances == {0: b"paid", 1: b"one", 2: b"two"}
    assert commit.settled == {0: [(ATTEMPT, 1), (ATTEMPT, 2)]}


@pytest.mark.parametrize(
    ("said", "outcome", "missing"),
    [
        (NoReply.LOST, Outcome.OUTCOME_UNKNOWN, []),
        (NoReply.STALE, Outcome.STALE_EPOCH, []),
        (Answer([bytes((Outcome.ATTEMPT_EXPIRED,))], (), [b""]), Outcome.OUTCOME_UNKNOWN, []),
        (Answer([bytes((Outcome.MISSING_LEG,))], (), [b""]), Outcome.OUTCOME_UNKNOWN, [ATTEMPT]),
    ],
)
def test_committed_is_not_answered_before_all_have_finished(
    said: Answer | NoReply, outcome: Outcome, missing: list[bytes]
) -> None:
    """R6: one participant has not acknowledged: the outcome is unknown, only the other one is settled."""
    attempt = _attempt()
    commit = _finished(attempt, COMMITTED, Answer([FINISHED], (), [b""]), said)
    assert attempt.outcomes == bytes((outcome,))
    assert commit.settled == {0: [(ATTEMPT, 1)]}
    assert commit.missing == missing


def test_a_refusal_stands_whether_its_legs_are_dropped_or_not() -> None:
    """What was refused is left to recovery where a participant does not answer."""
    attempt = _attempt()
    commit = _finished(attempt, bytes((Outcome.INSUFFICIENT_FUNDS,)), NoReply.LOST, NoReply.LOST)
    assert attempt.outcomes == bytes((Outcome.INSUFFICIENT_FUNDS,))
    assert commit.settled == {}


def test_only_participants_that_keep_something_finish() -> None:
    """A participant that refused every transaction is not asked again."""
    commit = Commit([_attempt()], IDS)
    commit.prepare()
    commit.decide({1: _said((Outcome.ACCOUNT_FROZEN,), b"\1"), 2: _said(PREPARED)})
    calls = commit.finish({0: _said((Outcome.ACCOUNT_FROZEN,), b"\1")})
    assert list(calls) == [2]


def test_what_is_in_the_way_is_asked_of_the_shard_that_decides_it() -> None:
    """BUSY names the decider and who keeps the attempt; ELSEWHERE is the answering shard's own commit."""
    attempt = _attempt()
    gone, elsewhere = new_attempt_id(3), new_attempt_id(4)
    kept = [(shard, Other(OTHER, "q")) for shard in (1, 2)]
    attempt.others = [*kept, (1, Other(gone, "x")), (0, Other(elsewhere))]
    assert in_doubt([attempt], IDS) == [InDoubt(OTHER, 2, {1, 2}), InDoubt(elsewhere, 0)]


def _finish(attempt_id: bytes, codes: bytes) -> Finish:
    return Finish([attempt_id], [codes], with_balances=False)


def test_recovery_settles_by_number_and_knows_what_it_left() -> None:
    """A participant that has left the cluster, or is silent, keeps an attempt from being ended."""
    recovery = Recovery([InDoubt(ATTEMPT, 0), InDoubt(OTHER, 0, {1})], IDS)
    assert recovery.abandon() == {0: Abandon([ATTEMPT, OTHER])}
    calls = recovery.finish({0: Answer([COMMITTED, ABANDONED], unfinished=[{1: "x", 2: "q"}, {}])})
    assert calls == {2: _finish(ATTEMPT, COMMITTED), 1: _finish(OTHER, ABANDONED)}
    settled = recovery.settle({2: Answer([FINISHED]), 1: Answer([bytes((Outcome.DROPPED,))])})
    assert settled == {0: Settle([(ATTEMPT, 2)])}
    assert recovery.ended == {OTHER}


# ---------------------------------------------------------------------- a batch from first to second attempts


def _pull(number: int, owner: int) -> Transaction:
    legs = Leg("a", Effect.CREDIT, 1, "EUR"), Leg("b", Effect.DEBIT, 1, "EUR", owner)
    return Transaction(bytes([number]) * 16, Kind.JOURNAL, 0, legs)


BUNDLE = bundle_of([_pull(1, 1), _pull(2, 2), _pull(3, 2)], "someone")


def test_a_second_attempt_has_the_participants_of_its_transactions() -> None:
    """Owners are numbered anew: each participant of an attempt owns a leg."""
    again = cut(Attempt(ATTEMPT, 0, [1, 2], BUNDLE, 3), [1, 2], OTHER)
    assert (again.attempt_id, again.deciding_shard, again.participants, again.count) == (OTHER, 0, [2], 2)
    assert again.bundle == bundle_of([_pull(2, 1), _pull(3, 1)], "someone")
    assert Bundle.unpack(again.bundle).principal == "someone"


class _Shards:
    """Answers the calls of a batch: on the first round the third transaction is BUSY on shard 2."""

    def __init__(self) -> None:
        self.asked: list[Calls] = []

    def answers(self, calls: Calls) -> Answers:
        self.asked.append(calls)
        return {shard: self._answer(shard, call) for shard, call in calls.items()}

    def _answer(self, shard: int, call: object) -> Answer:
        match call:
            case Prepare() as asked if asked.attempts[0].attempt_id == ATTEMPT and shard == 2:
                codes = bytes((0, Outcome.PREPARED, Outcome.BUSY))
                return Answer([codes], [b""], (), [[Other(OTHER, "p")]])
            case Prepare():
                return Answer([PREPARED], [b""], (), [()])
            case Decide() as asked:
                verdicts = asked.attempts[0].verdicts
                codes = bytes(code or Outcome.COMMITTED for code in verdicts) or COMMITTED
                return Answer([codes], [b""], [b""], [()])
            case Abandon():
                return Answer([ABANDONED], unfinished=[{}])
            case _:
                return Answer([FINISHED], (), [b""])


def _run(*, may_abandon: bool) -> tuple[Batch, _Shards]:
    batch = Batch(
        [Attempt(ATTEMPT, 0, [1, 2], BUNDLE, 3)], IDS, lambda: new_attempt_id(9), lambda _: may_abandon
    )
    shards, steps = _Shards(), batch.steps()
    calls = next(steps)
    while True:
        try:
            calls = steps.send(shards.answers(calls))
        except StopIteration:
            return batch, shards


def test_a_busy_transaction_is_tried_again_once_what_was_in_its_way_has_ended() -> None:
    """The other attempt is abandoned, and dropped where it was kept; then a second attempt commits."""
    batch, shards = _run(may_abandon=True)
    assert batch.attempts[0].outcomes == COMMITTED * 3
    assert {1: Abandon([OTHER])} in shards.asked
    assert {2: _finish(OTHER, ABANDONED)} in shards.asked
    assert [len(pairs) for pairs in batch.settled.values()] == [3]


def test_what_others_are_at_work_on_is_left_alone() -> None:
    """An attempt that may not be abandoned is not: the transaction stays unknown, the others commit."""
    batch, shards = _run(may_abandon=False)
    assert batch.attempts[0].outcomes == COMMITTED * 2 + bytes((Outcome.OUTCOME_UNKNOWN,))
    assert not any(isinstance(call, Abandon) for calls in shards.asked for call in calls.values())


def test_what_is_in_the_way_of_an_attempt_that_was_not_decided_is_left_alone() -> None:
    """Another participant did not answer: to abandon the other attempt would help nobody."""
    attempt = _attempt()
    batch = Batch([attempt], IDS, lambda: OTHER, lambda _: True)
    steps = batch.steps()
    next(steps)
    steps.send({1: _said((Outcome.BUSY,), others=[Other(OTHER, "q")]), 2: NoReply.LOST})
    steps.send({})
    with pytest.raises(StopIteration):
        steps.send({})
    assert attempt.outcomes == bytes((Outcome.OUTCOME_UNKNOWN,))


def test_a_batch_ends_some_others_only() -> None:
    """A call that ended all that thousands of transactions wait for would hold its shards for long."""
    attempt = _attempt()
    attempt.codes = bytes((Outcome.ELSEWHERE,))
    attempt.others = [(0, Other(new_attempt_id(number))) for number in range(2 * MAX_OTHERS)]
    batch = Batch([attempt], IDS, lambda: OTHER, lambda _: True)
    assert len(batch._doubts()) == MAX_OTHERS
