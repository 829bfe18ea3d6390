"""Coordinators and resolvers that break one rule each, to show that the search finds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from coordinator.attempt_steps import Batch
from coordinator.attempts import Answers, Commit, InDoubt, Recovery
from shard_node.client import NoReply
from shard_node.contract import Abandon, Answer, Decide, Finish, Outcome
from tests.model import EngineModel

_COMMITTED = bytes((Outcome.COMMITTED,))
_ABANDONED = bytes((Outcome.ABANDONED,))


def _as_committed(calls: dict[int, Finish], outcome: Outcome) -> dict[int, Finish]:
    return {
        shard: replace(call, codes=[codes.replace(bytes((outcome,)), _COMMITTED) for codes in call.codes])
        for shard, call in calls.items()
    }


class DropsOnTimeout(Commit):
    """Breaks R2: a coordinator that hears nothing of its decide drops the legs by itself."""

    def finish(self, answers: Answers) -> dict[int, Finish]:
        calls = super().finish(answers)
        if NoReply.LOST in answers.values():
            for attempt in self.attempts:
                for shard in attempt.participants:
                    calls[shard] = Finish([attempt.attempt_id], [_ABANDONED])
        return calls


class FinishesSettled(Commit):
    """Breaks R3: SETTLED is taken for COMMITTED, so ghost legs are applied."""

    def finish(self, answers: Answers) -> dict[int, Finish]:
        return _as_committed(super().finish(answers), Outcome.SETTLED)


class FinishesElsewhere(Commit):
    """Breaks R3: what another attempt committed is applied by this one too."""

    def finish(self, answers: Answers) -> dict[int, Finish]:
        return _as_committed(super().finish(answers), Outcome.ELSEWHERE)


class SettlesAtOnce(Commit):
    """Breaks R6: settles when the deciding shard has committed, before any participant has finished."""

    def finish(self, answers: Answers) -> dict[int, Finish]:
        calls = super().finish(answers)
        for attempt in self.attempts:
            if attempt.codes == _COMMITTED:
                numbers = range(1, len(attempt.participants) + 1)
                self.settled[attempt.deciding_shard] = [(attempt.attempt_id, number) for number in numbers]
        return calls


class AnswersAtOnce(Commit):
    """Answers COMMITTED although a participant has not acknowledged its finish."""

    def conclude(self, answers: Answers) -> None:
        super().conclude(answers)
        for attempt in self.attempts:
            if attempt.codes == _COMMITTED:
                attempt.outcomes = _COMMITTED


class AnswersByOne(Commit):
    """Answers COMMITTED when one of several participants has acknowledged."""

    def conclude(self, answers: Answers) -> None:
        super().conclude(answers)
        if any(not isinstance(answer, NoReply) for answer in answers.values()):
            for attempt in self.attempts:
                if attempt.codes == _COMMITTED:
                    attempt.outcomes = _COMMITTED


class RecordsBusy(Commit):
    """Breaks R9: a participant's BUSY is handed on as a refusal."""

    def decide(self, answers: Answers) -> dict[int, Decide]:
        busy, refused = bytes((Outcome.BUSY,)), bytes((Outcome.INSUFFICIENT_FUNDS,))
        heard = {
            shard: answer
            if isinstance(answer, NoReply)
            else replace(answer, codes=[codes.replace(busy, refused) for codes in answer.codes])
            for shard, answer in answers.items()
        }
        return super().decide(heard)


class DropsWithoutAsking(Recovery):
    """Breaks R7: an attempt that is kept is dropped without its deciding shard's word."""

    def abandon(self) -> dict[int, Abandon]:
        return {} if self._is_kept() else super().abandon()

    def finish(self, answers: Answers) -> dict[int, Finish]:
        return super().finish(_all_abandoned(self._deciding) if self._is_kept() else answers)

    def _is_kept(self) -> bool:
        return any(doubt.kept_on for doubts in self._deciding.values() for doubt in doubts)


class TrustsItsReading(Recovery):
    """Breaks R8: a commit that was read on shard 0 is finished on shard 1, though it may not be on disk."""

    def abandon(self) -> dict[int, Abandon]:
        return super().abandon() if self._is_kept() else {}

    def finish(self, answers: Answers) -> dict[int, Finish]:
        read = {0: Answer([_COMMITTED], unfinished=[{1: "1"}])}
        return super().finish(answers if self._is_kept() else read)

    def _is_kept(self) -> bool:
        return any(doubt.kept_on for doubts in self._deciding.values() for doubt in doubts)


class DropsOnSilence(Recovery):
    """Breaks R7: a deciding shard that does not answer is taken for one that abandoned."""

    def finish(self, answers: Answers) -> dict[int, Finish]:
        heard = {shard: answer for shard, answer in answers.items() if not isinstance(answer, NoReply)}
        return super().finish(_all_abandoned(self._deciding) | heard)


def _all_abandoned(doubts: Mapping[int, Sequence[InDoubt]]) -> dict[int, Answer]:
    return {
        shard: Answer([_ABANDONED] * len(asked), unfinished=[{}] * len(asked))
        for shard, asked in doubts.items()
    }


class AsksNewOwner(Batch):
    """Asks the present owner of a transaction's slot, not the shard that the attempt was prepared for."""

    def _doubts(self) -> list[InDoubt]:
        return [replace(doubt, decider=self.attempts[0].deciding_shard) for doubt in super()._doubts()]


def forgets_regardless(shards: Sequence[EngineModel], index: int) -> bool:
    """Breaks R10: forgets without asking whether anything is unsettled."""
    del shards, index
    return True
