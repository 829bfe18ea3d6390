"""Every order of events around one transaction id keeps the promises; each rule is needed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coordinator.protocol import Answer, Commit, NoReply, Recovery
from shard_node.calls import Decide, Finish, Resolve
from shard_node.outcomes import Outcome
from shard_node.rotation import Peer
from tests.coordinator.explorer import MISTAKE, RETRY, STRANGER, Explorer, Setting, ViolationError
from tests.model import Faults

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SOUND = {
    "two coordinators, nothing moves": (Setting(moves=0), 1_000),
    "two coordinators, two moves: shards part, meet and trade places": (Setting(moves=2), 20_000),
    "the accounts share a shard at first": (Setting(start=(0, 0, 0), moves=2), 10_000),
    "a third shard takes over": (Setting(shards=3, moves=1), 15_000),
    "three coordinators, one move": (Setting(tries=(RETRY,) * 3, moves=1), 20_000),
    "two payloads under one id": (Setting(tries=(RETRY, MISTAKE), moves=1), 50_000),
    "two payers under one id, who share a shard but no slot": (
        Setting(tries=(RETRY, STRANGER), moves=1),
        150_000,
    ),
    "shards forget, each at its own time": (
        Setting(tries=(RETRY,) * 3, moves=0, forgets=2, payer_has=2),
        20_000,
    ),
    "shards forget, and one slot moves": (
        Setting(tries=(RETRY,) * 2, moves=1, forgets=2, payer_has=2),
        20_000,
    ),
    "money arrives between two tries": (Setting(moves=1, payer_has=0, environment=("fund",)), 5_000),
    "the payee freezes between prepare and finish": (Setting(moves=1, environment=("close",)), 10_000),
}


@pytest.mark.parametrize(("setting", "at_least"), SOUND.values(), ids=SOUND.keys())
def test_every_order_of_events_is_sound(setting: Setting, at_least: int) -> None:
    """No state is half applied or doubly applied, none contradicts an answer, all heal."""
    states = Explorer(setting).run()
    # Far fewer states would mean that the search no longer goes where it should.
    assert states >= at_least


class DropsOnTimeout(Commit):
    """Breaks R2: a coordinator that times out in prepare drops the leg by itself."""

    def finish(self, answers: Mapping[int, Answer]) -> dict[int, Finish]:
        calls = super().finish(answers)
        for shard in self._lost:
            calls[shard] = Finish(self._transfers.keys, [Outcome.ABORTED])
        return calls

    def decide(
        self, answers: Mapping[int, Answer], settled: Mapping[int, Sequence[bytes]] | None = None
    ) -> dict[int, Decide]:
        self._lost = [shard for shard, answer in answers.items() if answer is NoReply.LOST]
        return super().decide(answers, settled)


class FinishesSettled(Commit):
    """Breaks R3 in the coordinator: SETTLED is taken for COMMITTED, so a ghost leg is applied."""

    def finish(self, answers: Mapping[int, Answer]) -> dict[int, Finish]:
        calls = super().finish(answers)
        return {
            shard: Finish(
                call.keys, [Outcome.COMMITTED if v == Outcome.SETTLED else v for v in call.verdicts]
            )
            for shard, call in calls.items()
        }


class SettlesAtOnce(Commit):
    """Breaks R6: settles when the payer's shard has committed, before the payee's has finished."""

    def finish(self, answers: Mapping[int, Answer]) -> dict[int, Finish]:
        calls = super().finish(answers)
        for shard, answer in answers.items():
            if not isinstance(answer, NoReply) and answer.codes[0] == Outcome.COMMITTED:
                self.settled[shard] = list(self._transfers.keys)
        return calls


class DropsWithoutAsking(Recovery):
    """Breaks R7: an old prepared leg is dropped without the payer's shard's word."""

    def resolve(self) -> dict[int, Resolve]:
        self._ending += self._undecided
        for row in self._undecided:
            self._verdicts[row] = Outcome.ABORTED
        return {}


class DropsOnSilence(Recovery):
    """Breaks R7: a payer's shard that does not answer is taken for one that aborted."""

    def finish(self, answers: Mapping[int, Answer]) -> dict[int, Finish]:
        for shard, rows in self._groups.items():
            if isinstance(answers[shard], NoReply):
                for row in rows:
                    self._verdicts[row] = Outcome.ABORTED
                    self._ending.append(row)
        return super().finish(answers)


class RepeatsApplied(Commit):
    """Lets the payer's shard decide anew on a leg that was applied before."""

    def decide(
        self, answers: Mapping[int, Answer], settled: Mapping[int, Sequence[bytes]] | None = None
    ) -> dict[int, Decide]:
        return {
            shard: Decide(
                call.transfers,
                [0 if v == Outcome.TRANSACTION_ID_EXPIRED else v for v in call.verdicts],
                call.settled,
            )
            for shard, call in super().decide(answers, settled).items()
        }


def rotates_regardless(elapsed: float, window: float, peers: Sequence[Peer]) -> bool:
    """Forgets without asking the other shards."""
    del peers
    return elapsed >= window


PLANTED = {
    "R1: an outcome is written twice": Setting(faults=Faults(outcome_rewritten=True), moves=0),
    "R2: dropped on a time-out": Setting(commit=DropsOnTimeout, moves=0),
    "R3: a settled transfer is answered COMMITTED": Setting(faults=Faults(settled_forgotten=True)),
    "R3: a settled transfer is finished": Setting(commit=FinishesSettled, start=(0, 0, 0)),
    "R4: applied legs are forgotten": Setting(faults=Faults(applied_forgotten=True), moves=0),
    "R6: settled before finished": Setting(commit=SettlesAtOnce, moves=0),
    "an applied leg is decided anew": Setting(commit=RepeatsApplied, moves=0, forgets=1, payer_has=2),
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
