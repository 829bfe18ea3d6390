"""Every order of events around one transaction id keeps the promises; each rule is needed for it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from coordinator.protocol import Commit, Recovery
from shard_node.agent.rotation import Peer
from shard_node.client.asking import Answer, NoReply
from shard_node.contract.calls import Finish, Reply, ResolveAttempts
from shard_node.contract.outcomes import Outcome
from tests.coordinator.explorer import MISTAKE, RETRY, STRANGER, Explorer, Setting, ViolationError
from tests.model import Faults

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SOUND = {
    "two coordinators, nothing moves": (Setting(moves=0), 4_000),
    "two coordinators, two moves: shards part, meet and trade places": (Setting(moves=2), 30_000),
    "the accounts share a shard at first": (Setting(start=(0, 0, 0), moves=2), 20_000),
    "a third shard takes over": (Setting(shards=3, moves=1), 30_000),
    "three coordinators": (Setting(tries=(RETRY,) * 3, moves=0, finishes_others=False), 40_000),
    "two payloads under one id": (Setting(tries=(RETRY, MISTAKE), moves=1), 20_000),
    "two payers under one id, who share a shard but no slot": (
        Setting(tries=(RETRY, STRANGER), moves=1),
        70_000,
    ),
    "shards forget, each at its own time": (
        Setting(tries=(RETRY,) * 2, moves=0, forgets=2, payer_has=2),
        10_000,
    ),
    "shards forget, and one slot moves": (
        Setting(tries=(RETRY,) * 2, moves=1, forgets=2, payer_has=2),
        30_000,
    ),
    "money arrives between two tries": (Setting(moves=1, payer_has=0, environment=("fund",)), 20_000),
    "the payee freezes between prepare and finish": (Setting(moves=1, environment=("close",)), 25_000),
}


@pytest.mark.parametrize(
    ("setting", "at_least"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.large] * (case[1] > 8_000))
        for name, case in SOUND.items()
    ],
)
def test_every_order_of_events_is_sound(setting: Setting, at_least: int) -> None:
    """No state is half applied or doubly applied, none contradicts an answer, all heal."""
    states = Explorer(setting).run()
    # Far fewer states would mean that the search no longer goes where it should.
    assert states >= at_least


class FinishesSettled(Commit):
    """Breaks R3 in the coordinator: SETTLED is taken for COMMITTED, so a ghost leg is applied."""

    def finish(self, answers: Mapping[int, Answer]) -> dict[int, Finish]:
        return _as_committed(super().finish(answers), Outcome.SETTLED)


class FinishesElsewhere(Commit):
    """Breaks R3 in the coordinator: what another attempt committed is applied by this one too."""

    def finish(self, answers: Mapping[int, Answer]) -> dict[int, Finish]:
        return _as_committed(super().finish(answers), Outcome.ELSEWHERE)


def _as_committed(calls: dict[int, Finish], outcome: Outcome) -> dict[int, Finish]:
    committed = bytes((Outcome.COMMITTED,))
    return {
        shard: replace(call, verdicts=[v.replace(bytes((outcome,)), committed) for v in call.verdicts])
        for shard, call in calls.items()
    }


class SettlesAtOnce(Commit):
    """Breaks R6: settles when the payer's shard has committed, before the payee's has finished."""

    def finish(self, answers: Mapping[int, Answer]) -> dict[int, Finish]:
        calls = super().finish(answers)
        for part in self.parts:
            if part.commit:
                self.settled[part.payer_shard] = [part.commit]
        return calls


class TellsAtOnce(Commit):
    """Tells COMMITTED when the payee's shard has not acknowledged its finish."""

    def conclude(self, answers: Mapping[int, Answer]) -> None:
        super().conclude(answers)
        for part in self.parts:
            if part.commit:
                part.outcomes = bytes((Outcome.COMMITTED,))


class DropsOnTimeout(Commit):
    """Breaks R2: a coordinator that hears nothing of its decide drops the leg by itself."""

    def finish(self, answers: Mapping[int, Answer]) -> dict[int, Finish]:
        calls = super().finish(answers)
        for part in self.parts:
            if answers.get(part.payer_shard) is NoReply.LOST:
                aborted = bytes((Outcome.ABORTED,))
                calls[part.payee_shard] = Finish([part.attempt.attempt_id], [aborted])
        return calls

    def conclude(self, answers: Mapping[int, Answer]) -> None:
        del answers


class DropsWithoutAsking(Recovery):
    """Breaks R7: an old prepared leg is dropped without the payer's shard's word."""

    def resolve(self) -> dict[int, ResolveAttempts]:
        super().resolve()
        for rows in self._asked.values():
            for ending, row, _, _ in rows:
                ending.verdicts[row] = Outcome.ABORTED
                ending.open_rows.clear()
        self._asked = {}
        return {}


class DropsOnSilence(Recovery):
    """Breaks R7: a payer's shard that does not answer is taken for one that aborted."""

    def finish(self, answers: Mapping[int, Answer]) -> dict[int, Finish]:
        aborted = bytes((Outcome.ABORTED,))
        heard = {
            shard: Reply((aborted * len(self._asked[shard]),)) if isinstance(answer, NoReply) else answer
            for shard, answer in answers.items()
        }
        return super().finish(heard)


def rotates_regardless(elapsed: float, window: float, peers: Sequence[Peer]) -> bool:
    """Forgets without asking the other shards."""
    del peers
    return elapsed >= window


PLANTED = {
    "R1: an outcome is written twice": Setting(faults=Faults(outcome_rewritten=True), moves=0),
    "R2: dropped on a time-out": Setting(commit=DropsOnTimeout, moves=0),
    "R3: a settled transfer is answered COMMITTED": Setting(faults=Faults(settled_forgotten=True)),
    "R3: every attempt is answered COMMITTED": Setting(faults=Faults(elsewhere_committed=True), moves=0),
    "R3: a settled transfer is finished": Setting(commit=FinishesSettled, start=(0, 0, 0)),
    "R3: another attempt's transfer is finished": Setting(commit=FinishesElsewhere, moves=0),
    "R4: ended attempts are forgotten": Setting(faults=Faults(ended_forgotten=True), moves=0),
    "R4: an ended attempt is prepared again": Setting(faults=Faults(late_prepare=True), moves=0),
    "R6: settled before finished": Setting(commit=SettlesAtOnce, moves=0),
    "told before finished": Setting(commit=TellsAtOnce, moves=0),
    "forgotten while unsettled": Setting(may_rotate=rotates_regardless, moves=0, forgets=1),
    "R7: dropped without asking": Setting(recovery=DropsWithoutAsking, moves=0),
    "R7: dropped on silence": Setting(recovery=DropsOnSilence, moves=0),
}


@pytest.mark.parametrize("setting", PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_violation_is_found(setting: Setting) -> None:
    """The search fails, with a trace, when one rule is broken."""
    with pytest.raises(ViolationError) as caught:
        Explorer(setting).run()
    assert caught.value.trace
