"""Two-phase commit with the decision delegated to one shard, without I/O: one protocol for all transactions.

A batch comes in attempts. An **attempt** has a deciding shard, one or more participants and an id that is
never used again; it is prepared, decided and finished as a whole. :class:`Commit` carries attempts from
prepare to finish; :class:`Recovery` ends attempts that are in doubt, whoever began them. Both are fed the
answers of shards and say which calls to make next; neither knows clocks, sockets or tasks, so that the tests
can walk through every order of events.

The rules R1-R10 are written down in README.md beside this file. Kept here are:

* R2  nobody drops a leg before the deciding shard has answered something else than COMMITTED to its attempt;
* R3  finish applies legs on COMMITTED alone: on SETTLED and ELSEWHERE prepared legs are ghosts, and dropped;
* R6  a participant is settled only after it has acknowledged its finish;
* R7  recovery drops a leg only on the word of the shard that decides its attempt;
* R9  BUSY is no verdict: the transaction is left out of the decision, and what is in its way can be ended.

Codes are strings of bytes, one for all transactions or one each (:mod:`shard_node.contract.commands`).
Bundles have thousands of transactions, so a single one is looked at only where codes differ.

Source: J. Gray, "Notes on Data Base Operating Systems" (1978), for the last-agent form of commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shard_node.client import NoReply
from shard_node.contract import (
    Abandon,
    Answer,
    Command,
    Decide,
    Decided,
    Finish,
    Other,
    Outcome,
    Prepare,
    Prepared,
    Settle,
)

# By the index of the shard in the topology.
Calls = Mapping[int, Command]
Answers = Mapping[int, Answer | NoReply]


def _table(changes: Mapping[Outcome, Outcome]) -> bytes:
    """For bytes.translate: each code as itself, but for these."""
    by_code = {int(code): int(outcome) for code, outcome in changes.items()}
    return bytes(by_code.get(code, code) for code in range(256))


def _one(outcome: Outcome) -> bytes:
    return bytes((outcome,))


_COMMITTED = int(Outcome.COMMITTED)
_PREPARED = int(Outcome.PREPARED)
_BUSY = int(Outcome.BUSY)
_SKIPPED = int(Outcome.SKIPPED)
_MISSING = int(Outcome.MISSING_LEG)
_ID_EXPIRED = int(Outcome.TRANSACTION_ID_EXPIRED)
_ATTEMPT_EXPIRED = _one(Outcome.ATTEMPT_EXPIRED)
_ALL_PREPARED = _one(Outcome.PREPARED)
# What a participant says of transactions that may commit; 0 where it has no leg.
_MAY_COMMIT = bytes((0, _PREPARED))
# What it says of an attempt that it will not keep.
_GONE = frozenset((_one(Outcome.ENDED), _ATTEMPT_EXPIRED))
# Of several reasons for silence the one that says least counts.
_LEAST_KNOWN = (NoReply.LOST, NoReply.STALE, NoReply.FULL)
# What callers are answered when all participants have acknowledged: by what the deciding shard answered.
_ACKNOWLEDGED = {
    Outcome.SETTLED: Outcome.COMMITTED,
    Outcome.ELSEWHERE: Outcome.OUTCOME_UNKNOWN,
    Outcome.BUSY: Outcome.OUTCOME_UNKNOWN,
    Outcome.SKIPPED: Outcome.OUTCOME_UNKNOWN,
    Outcome.ABANDONED: Outcome.OUTCOME_UNKNOWN,
    Outcome.ATTEMPT_EXPIRED: Outcome.OUTCOME_UNKNOWN,
}
_OUTCOMES = _table(_ACKNOWLEDGED)
# The same when a participant has not: a refusal stands, a commit is not acknowledged before it is finished.
_UNFINISHED = {
    NoReply.LOST: _table({**_ACKNOWLEDGED, Outcome.COMMITTED: Outcome.OUTCOME_UNKNOWN}),
    NoReply.STALE: _table({**_ACKNOWLEDGED, Outcome.COMMITTED: Outcome.STALE_EPOCH}),
    NoReply.FULL: _table({**_ACKNOWLEDGED, Outcome.COMMITTED: Outcome.OUTCOME_UNKNOWN}),
}
# What callers are answered of transactions that were not decided.
_UNDECIDED = {
    NoReply.LOST: _one(Outcome.OUTCOME_UNKNOWN),
    NoReply.STALE: _one(Outcome.STALE_EPOCH),
    NoReply.FULL: _one(Outcome.RESOURCE_EXHAUSTED),
}


def each(codes: bytes, count: int) -> bytes:
    """A code for each transaction; of a column of legs, b"" stands for zeros."""
    return codes if len(codes) == count else (codes or b"\0") * count


@dataclass(slots=True)
class InDoubt:
    """An attempt that is prepared or committed, and not known to be finished everywhere.

    ``decider`` is the index of its deciding shard, ``kept_on`` of shards that keep it as participants.
    """

    attempt_id: bytes
    decider: int
    kept_on: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Attempt:
    """One try at ``count`` transactions of a bundle, and what became of them.

    ``participants`` are the shards that the bundle's owners 1, 2, ... name; each owns a leg. Shards are
    indices in the topology. ``codes`` are what the deciding shard answered; ``outcomes`` what callers are
    answered: a transaction whose outcome is not known is OUTCOME_UNKNOWN whatever step it reached, one that
    met another epoch STALE_EPOCH and may be tried again with a newer topology. ``legs`` say which leg a
    refusal concerns. ``balances`` are by owner, as :class:`~shard_node.contract.commands.Answer` has them.
    """

    attempt_id: bytes
    deciding_shard: int
    participants: Sequence[int]
    bundle: bytes
    count: int
    outcomes: bytes = _UNDECIDED[NoReply.LOST]
    codes: bytes = b""
    legs: bytes = b""
    balances: dict[int, bytes] = field(default_factory=dict)
    # What stands in the way of some of its transactions, and where.
    others: list[tuple[int, Other]] = field(default_factory=list)
    # What each participant said: its number, codes and legs.
    prepared: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    # Why a shard gave no answer.
    silence: NoReply | None = None
    is_gone: bool = False


class Commit:
    """Attempts on their way through two-phase commit.

    Call :meth:`prepare`, :meth:`decide`, :meth:`finish` and :meth:`conclude` once each, in this order, and
    hand each one the answers to the calls that the one before returned. Then ``attempts`` have their
    outcomes. ``shard_ids`` are the ids of the topology's shards.
    """

    def __init__(
        self, attempts: Sequence[Attempt], shard_ids: Sequence[str], *, with_balances: bool = True
    ) -> None:
        self.attempts = attempts
        self._shard_ids = shard_ids
        self._with_balances = with_balances
        # What was asked last: attempts by deciding shard; with the participant's number by participant.
        self._deciding: dict[int, list[Attempt]] = {}
        self._taking_part: dict[int, list[tuple[Attempt, int]]] = {}
        # To settle, by deciding shard: the attempt and the number of a participant that has finished.
        self.settled: dict[int, list[tuple[bytes, int]]] = {}
        # Attempts whose legs were lost (R5). Must stay empty; if not, somebody must be woken.
        self.missing: list[bytes] = []

    def prepare(self) -> dict[int, Prepare]:
        """Step 1: the calls to the participants."""
        for attempt in self.attempts:
            for number, shard in enumerate(attempt.participants, start=1):
                self._taking_part.setdefault(shard, []).append((attempt, number))
        names = self._shard_ids
        return {
            shard: Prepare(
                [Prepared(a.attempt_id, names[a.deciding_shard], number, a.bundle) for a, number in asked]
            )
            for shard, asked in self._taking_part.items()
        }

    def decide(self, answers: Answers) -> dict[int, Decide]:
        """Step 2: the calls to the deciding shards.

        An attempt with a participant that gave no answer goes no further, and nothing is dropped (R2): its
        prepare may still be on its way. No more does one that a participant will not keep.
        """
        for shard, asked in self._taking_part.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                for attempt, _ in asked:
                    _fall_silent(attempt, answer)
                continue
            rows = zip(asked, answer.codes, answer.legs, answer.others, strict=True)
            for (attempt, number), codes, legs, others in rows:
                attempt.prepared.append((number, codes, legs))
                if codes in _GONE:
                    attempt.is_gone = True
                if others:
                    attempt.others += [(shard, other) for other in others]
        for attempt in self.attempts:
            if attempt.silence:
                attempt.outcomes = _UNDECIDED[attempt.silence]
            elif not attempt.is_gone:
                self._deciding.setdefault(attempt.deciding_shard, []).append(attempt)
        return {
            shard: Decide([self._decided(attempt) for attempt in attempts], (), self._with_balances)
            for shard, attempts in self._deciding.items()
        }

    def _decided(self, attempt: Attempt) -> Decided:
        names = [self._shard_ids[shard] for shard in attempt.participants]
        return Decided(attempt.attempt_id, names, *_verdicts(attempt), attempt.bundle)

    def finish(self, answers: Answers) -> dict[int, Finish]:
        """Step 3: to participants that keep something; apply what is COMMITTED, drop all else."""
        self._taking_part = {}
        for shard, attempts in self._deciding.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                for attempt in attempts:
                    _fall_silent(attempt, answer)
                    attempt.outcomes = _UNDECIDED[answer]
                continue
            rows = zip(attempts, answer.codes, answer.legs, answer.balances, answer.others, strict=True)
            for attempt, codes, legs, balances, others in rows:
                attempt.codes, attempt.legs, attempt.balances[0] = codes, legs, balances
                attempt.outcomes = codes.translate(_OUTCOMES)
                if others:
                    attempt.others += [(shard, other) for other in others]
                for number, said, _ in attempt.prepared:
                    if _PREPARED in said:
                        self._taking_part.setdefault(attempt.participants[number - 1], []).append(
                            (attempt, number)
                        )
        return {
            shard: Finish([a.attempt_id for a, _ in asked], [a.codes for a, _ in asked], self._with_balances)
            for shard, asked in self._taking_part.items()
        }

    def conclude(self, answers: Answers) -> None:
        """Step 4: reads the last answers; then outcomes, balances and ``settled`` are final."""
        for shard, asked in self._taking_part.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                for attempt, _ in asked:
                    _fall_silent(attempt, answer)
                continue
            for (attempt, number), codes, balances in zip(asked, answer.codes, answer.balances, strict=True):
                if not _acknowledges(attempt.attempt_id, codes, self.missing):
                    attempt.silence = NoReply.LOST
                    continue
                attempt.balances[number] = balances
                if _COMMITTED in attempt.codes:
                    self.settled.setdefault(attempt.deciding_shard, []).append((attempt.attempt_id, number))
        for attempt in self.attempts:
            if attempt.silence and attempt.codes:
                attempt.outcomes = attempt.codes.translate(_UNFINISHED[attempt.silence])


def _acknowledges(attempt_id: bytes, codes: bytes, missing: list[bytes]) -> bool:
    """Whether a participant has finished an attempt (R6). Where it lacks a leg, the attempt is missing."""
    if _MISSING in codes:
        missing.append(attempt_id)
        return False
    return codes != _ATTEMPT_EXPIRED


def _fall_silent(attempt: Attempt, why: NoReply) -> None:
    """Of several reasons the one that says least counts: LOST before STALE before FULL."""
    if attempt.silence is None or _LEAST_KNOWN.index(why) < _LEAST_KNOWN.index(attempt.silence):
        attempt.silence = why


def _verdicts(attempt: Attempt) -> tuple[bytes, bytes]:
    """What the deciding shard is asked to do with each transaction, and the legs that refusals concern."""
    for _, codes, _ in attempt.prepared:
        if codes != _ALL_PREPARED and codes.translate(None, _MAY_COMMIT):
            break
    else:
        return b"", b""
    count = attempt.count
    verdicts, refused_legs = bytearray(count), bytearray(count)
    for _, codes, legs in attempt.prepared:
        for row, (code, leg) in enumerate(zip(each(codes, count), each(legs, count), strict=True)):
            if code in _MAY_COMMIT:
                continue
            if _says_more(code, leg, verdicts[row], refused_legs[row]):
                verdicts[row], refused_legs[row] = (_SKIPPED, 0) if code == _BUSY else (code, leg)
    return bytes(verdicts), bytes(refused_legs)


def _says_more(code: int, leg: int, verdict: int, verdict_leg: int) -> bool:
    """Whether a participant's code counts for more than the verdict so far, whoever answers first.

    BUSY leaves the transaction alone whatever others say. That the id may have been used before says more
    than a balance of today. Of other refusals that of the lowest leg counts.
    """
    if not verdict or code == _BUSY:
        return True
    if verdict in {_SKIPPED, _ID_EXPIRED}:
        return False
    return code == _ID_EXPIRED or leg < verdict_leg


def given_up(attempts: Iterable[Attempt]) -> list[InDoubt]:
    """Attempts that go no further and are kept: a shard was asked by another epoch, is full, or has ended it.

    Not those of which a shard was silent: it would keep the caller waiting once more.
    """
    return [
        InDoubt(attempt.attempt_id, attempt.deciding_shard, kept_on)
        for attempt in attempts
        if not attempt.codes
        and (attempt.is_gone or attempt.silence)
        and attempt.silence is not NoReply.LOST
        and (kept_on := {attempt.participants[n - 1] for n, said, _ in attempt.prepared if _PREPARED in said})
    ]


def in_doubt(attempts: Iterable[Attempt], shard_ids: Sequence[str]) -> list[InDoubt]:
    """What stands in the way of these attempts, unless its deciding shard has left the cluster."""
    found: dict[bytes, InDoubt] = {}
    for attempt in attempts:
        for shard, other in attempt.others:
            if not other.decider:
                # Committed by the other attempt, on the shard that answered.
                found.setdefault(other.attempt_id, InDoubt(other.attempt_id, shard))
            elif other.decider in shard_ids:
                decider = shard_ids.index(other.decider)
                found.setdefault(other.attempt_id, InDoubt(other.attempt_id, decider)).kept_on.add(shard)
    return list(found.values())


class Recovery:
    """Ends attempts that are in doubt: old ones that shards keep, or those that stand in the way of others.

    Call :meth:`abandon`, :meth:`finish`, :meth:`settle` once each with the answers to the calls before. What
    gets no answer is left for the next time.
    """

    def __init__(self, doubts: Sequence[InDoubt], shard_ids: Sequence[str]) -> None:
        self._shard_ids = shard_ids
        self._deciding: dict[int, list[InDoubt]] = {}
        for doubt in doubts:
            self._deciding.setdefault(doubt.decider, []).append(doubt)
        # By participant: the attempt, its codes, and the participant's number where it has to be settled,
        # else 0.
        self._ending: dict[int, list[tuple[InDoubt, bytes, int]]] = {}
        # Shards that have not acknowledged that they finished an attempt.
        self._open: dict[bytes, int] = {}
        self.missing: list[bytes] = []

    def abandon(self) -> dict[int, Abandon]:
        """Asks the deciding shards what became of the attempts; what was not decided never will be (R7)."""
        return {
            shard: Abandon([doubt.attempt_id for doubt in doubts]) for shard, doubts in self._deciding.items()
        }

    def finish(self, answers: Answers) -> dict[int, Finish]:
        """Ends each attempt of which its deciding shard answered, as it answered (R3)."""
        for shard, doubts in self._deciding.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                continue
            for doubt, codes, unfinished in zip(doubts, answer.codes, answer.unfinished, strict=True):
                self._end(doubt, codes, unfinished)
        return {
            shard: Finish(
                [d.attempt_id for d, _, _ in ending], [c for _, c, _ in ending], with_balances=False
            )
            for shard, ending in self._ending.items()
        }

    def _end(self, doubt: InDoubt, codes: bytes, unfinished: Mapping[int, str]) -> None:
        numbers = dict.fromkeys(doubt.kept_on, 0)
        away = 0
        for number, name in unfinished.items():
            if name in self._shard_ids:
                numbers[self._shard_ids.index(name)] = number
            else:
                # It has left the cluster: the commit stays, and somebody must look.
                away += 1
        self._open[doubt.attempt_id] = len(numbers) + away
        for shard, number in numbers.items():
            self._ending.setdefault(shard, []).append((doubt, codes, number))

    def settle(self, answers: Answers) -> dict[int, Settle]:
        """Tells the deciding shards which participants have finished (R6)."""
        settled: dict[int, list[tuple[bytes, int]]] = {}
        for shard, ending in self._ending.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                continue
            for (doubt, _, number), codes in zip(ending, answer.codes, strict=True):
                if not _acknowledges(doubt.attempt_id, codes, self.missing):
                    continue
                self._open[doubt.attempt_id] -= 1
                if number:
                    settled.setdefault(doubt.decider, []).append((doubt.attempt_id, number))
        return {shard: Settle(pairs) for shard, pairs in settled.items()}

    @property
    def ended(self) -> set[bytes]:
        """Attempts that are known to be finished wherever they were known to be kept."""
        return {attempt_id for attempt_id, left in self._open.items() if not left}
