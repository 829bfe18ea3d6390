"""Every order of events around journals keeps the promises; each rule is needed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from coordinator.journal_protocol import JournalCommit, JournalRecovery
from coordinator.protocol import GO
from shard_node.client.asking import JournalAnswer, NoReply
from shard_node.contract.journal_calls import DecideJournals, FinishLegs, ResolveJournals
from shard_node.contract.outcomes import Outcome
from tests.coordinator.journal_explorer import JournalExplorer, JournalSetting
from tests.coordinator.test_exhaustive import rotates_regardless
from tests.coordinator.world import ViolationError
from tests.model import Faults

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def _two(tries: tuple[str, ...], **more: Any) -> JournalSetting:
    """Two shards, for journals of two legs, one on each."""
    return JournalSetting(tries=tries, start=(0, 1, 0), shards=2, **more)


def _together(tries: tuple[str, ...], **more: Any) -> JournalSetting:
    """Two shards, all accounts on one of them at first."""
    return JournalSetting(tries=tries, start=(0, 0, 0), shards=2, **more)


SOUND = {
    "three shards, two coordinators, a debit to prepare": (JournalSetting(tries=("split",) * 2), 20_000),
    "three shards, one move": (JournalSetting(tries=("split",), moves=1), 40_000),
    "two participants on one shard, two moves": (
        JournalSetting(tries=("split",), start=(0, 1, 1), shards=2, moves=2),
        40_000,
    ),
    "a participant refuses": (JournalSetting(tries=("split",) * 2, has=(2, 0, 1)), 500),
    "a participant's account freezes": (
        JournalSetting(tries=("split",) * 2, start=(0, 1, 1), shards=2, environment=("freeze",)),
        5_000,
    ),
    "somebody else wants the money that is reserved": (
        JournalSetting(tries=("split", "rival"), start=(0, 1, 1), shards=2),
        5_000,
    ),
    "two payloads under one id": (_two(("pay", "pay more")), 15_000),
    "a refund, tried three times": (_two(("refund",) * 3), 5_000),
    "a refund whose accounts part, meet and trade places": (
        _together(("refund",) * 2, moves=2),
        10_000,
    ),
    "two refunds of one purchase, one move": (
        _two(("refund", "refund again"), moves=1),
        30_000,
    ),
    "a capture, while the hold's time ends, one move": (
        _two(("capture",) * 2, moves=1, environment=("time", "expire")),
        25_000,
    ),
    "two captures of one hold": (_two(("capture", "capture again")), 20_000),
    "a capture and a void, one move": (_two(("capture", "void"), moves=1), 8_000),
    "shards forget, each at its own time": (_two(("pay",) * 2, forgets=2), 5_000),
}


@pytest.mark.parametrize(
    ("setting", "at_least"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.large] * (case[1] > 8_000))
        for name, case in SOUND.items()
    ],
)
def test_every_order_of_events_is_sound(setting: JournalSetting, at_least: int) -> None:
    """All legs or none, nothing reserved for ever, no limit passed, no answer contradicted; all heal."""
    states = JournalExplorer(setting).run()
    # Far fewer states would mean that the search no longer goes where it should.
    assert states >= at_least


class DropsOnTimeout(JournalCommit):
    """Breaks R2: a coordinator that times out in prepare drops the legs by itself."""

    def decide(
        self,
        answers: Mapping[int, JournalAnswer],
        settled: Mapping[int, Sequence[bytes]] | None = None,
    ) -> dict[int, DecideJournals]:
        lost = any(answer is NoReply.LOST for answer in answers.values())
        self._dropping = (
            {shard: [ref.key for ref in call.legs] for shard, call in super().prepare().items()}
            if lost
            else {}
        )
        return super().decide(answers, settled)

    def finish(self, answers: Mapping[int, JournalAnswer]) -> dict[int, FinishLegs]:
        calls = super().finish(answers)
        for shard, keys in self._dropping.items():
            calls[shard] = FinishLegs(keys, [Outcome.ABORTED] * len(keys))
        return calls


class FinishesSettled(JournalCommit):
    """Breaks R3 in the coordinator: SETTLED is taken for COMMITTED, so ghost legs are applied."""

    def finish(self, answers: Mapping[int, JournalAnswer]) -> dict[int, FinishLegs]:
        committed, settled = Outcome.COMMITTED, Outcome.SETTLED
        return {
            shard: FinishLegs(call.keys, [committed if v == settled else v for v in call.verdicts])
            for shard, call in super().finish(answers).items()
        }


class SettlesAtOnce(JournalCommit):
    """Breaks R6: settles when the deciding shard has committed, before any leg is finished."""

    def finish(self, answers: Mapping[int, JournalAnswer]) -> dict[int, FinishLegs]:
        calls = super().finish(answers)
        for row in self._rows:
            if row.decision == Outcome.COMMITTED:
                self.settled[row.deciding_shard] = [row.refs[0].journal_key]
        return calls


class SettlesByOneLeg(JournalCommit):
    """Breaks R6: takes the first leg that is finished for all of them."""

    def conclude(self, answers: Mapping[int, JournalAnswer]) -> None:
        for row in self._rows:
            row.unfinished = set(sorted(row.unfinished)[:1])
        super().conclude(answers)


class RepeatsApplied(JournalCommit):
    """Lets the deciding shard decide anew on a leg that was applied before."""

    def decide(
        self,
        answers: Mapping[int, JournalAnswer],
        settled: Mapping[int, Sequence[bytes]] | None = None,
    ) -> dict[int, DecideJournals]:
        expired = Outcome.TRANSACTION_ID_EXPIRED
        return {
            shard: DecideJournals(
                call.batch,
                [GO if v == expired else v for v in call.verdicts],
                call.refused_legs,
                call.settled,
            )
            for shard, call in super().decide(answers, settled).items()
        }


class DropsWithoutAsking(JournalRecovery):
    """Breaks R7: an old prepared leg is dropped without the deciding shard's word."""

    def resolve(self) -> dict[int, ResolveJournals]:
        super().resolve()
        for legs in self._asked.values():
            for key, body in legs:
                self._ending.setdefault(self._owner[body.slot], []).append((key, Outcome.ABORTED, None))
        self._asked.clear()
        return {}


class DropsOnSilence(JournalRecovery):
    """Breaks R7: a deciding shard that does not answer is taken for one that aborted."""

    def finish(self, answers: Mapping[int, JournalAnswer]) -> dict[int, FinishLegs]:
        for shard, legs in self._asked.items():
            if isinstance(answers[shard], NoReply):
                for key, body in legs:
                    self._ending.setdefault(self._owner[body.slot], []).append((key, Outcome.ABORTED, None))
        return super().finish(answers)


PAY = ("pay",) * 2
SPLIT = ("split",) * 2
PLANTED = {
    "R1: an outcome is written twice": _two(PAY, faults=Faults(outcome_rewritten=True)),
    "R2: dropped on a time-out": JournalSetting(tries=SPLIT, commit=DropsOnTimeout),
    "R3: a settled journal is answered COMMITTED": _together(
        PAY, moves=1, faults=Faults(settled_forgotten=True)
    ),
    "R3: a settled journal is finished": _together(PAY, moves=1, commit=FinishesSettled),
    "R4: applied legs are forgotten": _two(PAY, faults=Faults(applied_forgotten=True)),
    "R6: settled before finished": JournalSetting(tries=SPLIT, commit=SettlesAtOnce),
    "R6: settled when one leg is finished": JournalSetting(tries=SPLIT, commit=SettlesByOneLeg),
    "R7: dropped without asking": JournalSetting(tries=SPLIT, recovery=DropsWithoutAsking),
    "R7: dropped on silence": JournalSetting(tries=SPLIT, recovery=DropsOnSilence),
    "an applied leg is decided anew": _two(PAY, forgets=1, commit=RepeatsApplied),
    "forgotten while unsettled": JournalSetting(tries=SPLIT, forgets=1, may_rotate=rotates_regardless),
    "a prepared debit can be spent": JournalSetting(
        tries=("split", "rival"), start=(0, 1, 1), shards=2, faults=Faults(debit_unreserved=True)
    ),
    "a dropped debit stays reserved": JournalSetting(tries=SPLIT, faults=Faults(debit_kept=True)),
    "a prepared refund does not count": _two(
        ("refund", "refund again"), faults=Faults(refund_uncounted=True)
    ),
    "a dropped refund counts": _two(("refund",), faults=Faults(refund_kept=True)),
    "a hold is captured twice": _two(("capture", "capture again"), faults=Faults(hold_kept=True)),
    "what a capture leaves stays held": _two(("capture",), faults=Faults(rest_kept=True)),
}


@pytest.mark.parametrize("setting", PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_violation_is_found(setting: JournalSetting) -> None:
    """The search fails, with a trace, when one rule is broken."""
    with pytest.raises(ViolationError) as caught:
        JournalExplorer(setting).run()
    assert caught.value.trace
