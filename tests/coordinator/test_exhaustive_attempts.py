"""Every order of events around attempts keeps the promises; each rule of the protocol is needed for it.

`make search` searches the larger settings too: some minutes, and some gigabytes of memory.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.coordinator import broken_attempts as broken
from tests.coordinator.attempt_explorer import Alone, AttemptSetting, Explorer
from tests.coordinator.attempt_world import ViolationError, nothing_in_doubt, nothing_long_unsettled
from tests.model import Faults

# The sample alone takes most of a minute: left out of `make check`.
pytestmark = pytest.mark.large

PAY, PULL = ("pay",) * 2, ("pull",) * 2
# Rotations to the full: shards forget while there are commits that are not old.
TIMED: dict[str, Any] = {"timed": True, "may_rotate": nothing_long_unsettled}


def _two(tries: tuple[str, ...], **more: Any) -> AttemptSetting:
    """Two shards, for transactions of one participant."""
    return AttemptSetting(tries=tries, start=(0, 1, 0), **more)


def _three(tries: tuple[str, ...], **more: Any) -> AttemptSetting:
    """An account on each of three shards."""
    return AttemptSetting(tries=tries, start=(0, 1, 2), shards=3, **more)


# Two tries of an id that does not expire, both begun before a shard forgets.
LATE_DECIDE: dict[str, Any] = {
    "tries": ("pay v4",) * 2,
    "rotations": 2,
    "has": (2, 0, 0),
    "tries_again": False,
    "late_tries": False,
    "batch": Alone,
}

# The first attempt is refused in part by shard 0; then the slot of what was refused moves on to shard 2.
REFUSED_IN_PART: dict[str, Any] = {
    "tries": ("pay+pay third", "pay"),
    "start": (0, 1, 0),
    "shards": 3,
    "moves": 1,
    "may_move": ((0, 2),),
    "maximum": 2,
    "has": (0, 0, 1),
}
# The deciding slot moves to a shard that keeps an earlier attempt at the same transaction.
DECIDES_AND_KEEPS: dict[str, Any] = {
    "tries": ("split",) * 2,
    "moves": 1,
    "may_move": ((0, 1),),
    "has": (1, 1, 0),
}

SOUND = {
    "two coordinators": (_two(PAY, must_commit=True), 11_000),
    "two coordinators, a debit on the participant": (_two(PULL, must_commit=True), 11_000),
    "two participants on one shard": (
        AttemptSetting(tries=("split",) * 2, start=(0, 1, 1), must_commit=True),
        11_000,
    ),
    "three shards": (_three(("split",), must_commit=True), 2_500),
    "three shards, a participant refuses": (_three(("split",) * 2, has=(1, 0, 0), batch=Alone), 7_500),
    "a transaction twice in a batch, and another try": (
        _two(("pay+pay", "pay"), must_commit=True, batch=Alone),
        19_000,
    ),
    "of two transactions in an attempt one is busy": (
        _two(("pull", "pull+give"), must_commit=True, batch=Alone),
        41_000,
    ),
    "two attempts in one batch": (_three(("pay+pay another",), has=(2, 0, 0), must_commit=True), 4_000),
    "two transactions want the same money": (_two(("pull", "rival")), 7_000),
    "two payloads under one id": (_two(("pay", "pay more"), has=(2, 0, 0)), 7_000),
    "a participant's account freezes": (_two(PAY, environment=("freeze",), batch=Alone), 19_000),
    "money arrives between two tries": (_two(PAY, environment=("fund",), has=(0, 0, 0)), 18_000),
    "a refund, tried twice": (_two(("refund",) * 2, must_commit=True), 11_000),
    "two refunds of one purchase": (_two(("refund", "refund again")), 7_000),
    "a capture, while the hold's time ends": (
        _two(("capture",) * 2, environment=("time", "expire"), batch=Alone),
        19_000,
    ),
    "two captures of one hold": (_two(("capture", "capture all")), 20_000),
    "a capture and a void": (_two(("capture", "void")), 1_000),
    "of two transactions in an attempt one is refused": (
        AttemptSetting(tries=("split+give", "give"), start=(0, 1, 1), has=(1, 1, 0), batch=Alone),
        20_000,
    ),
    "the same, and shards forget": (
        AttemptSetting(tries=("split+give",), start=(0, 1, 1), has=(1, 1, 0), rotations=3),
        4_000,
    ),
    "the same, and a shard crashes": (
        AttemptSetting(tries=("split+give",), start=(0, 1, 1), has=(1, 1, 0), crashes=1),
        400,
    ),
    "a refund, while a slot moves": (
        _two(("refund",) * 2, moves=1, must_commit=True, batch=Alone),
        8_500,
    ),
    "a capture and a void, while a slot moves": (_two(("capture", "void"), moves=1, batch=Alone), 4_000),
    "a slot moves": (_two(PAY, moves=1, must_commit=True, batch=Alone), 15_000),
    "a slot moves, a debit on the participant": (
        _two(PULL, moves=1, must_commit=True, batch=Alone),
        8_500,
    ),
    "two accounts part, and meet again": (
        AttemptSetting(tries=PULL, start=(0, 0, 0), moves=2, must_commit=True, batch=Alone),
        18_000,
    ),
    "two accounts part": (AttemptSetting(tries=PULL, start=(0, 0, 0), moves=1, must_commit=True), 23_000),
    "the deciding shard keeps an earlier attempt": (
        _two(must_commit=True, batch=Alone, **DECIDES_AND_KEEPS),
        18_000,
    ),
    "a shard crashes, two coordinators": (_two(PAY, crashes=1, batch=Alone), 68_000),
    "a shard crashes twice": (_two(("pay",), crashes=2), 500),
    "a shard crashes, and shards forget": (_two(("pay",), crashes=1, rotations=2), 7_000),
    "shards forget four times": (_two(("pay",), rotations=4), 5_000),
    "shards forget while there are commits": (_two(("pay",), rotations=4, **TIMED), 19_000),
    "the same, with every message that was ever sent": (
        _two(("pay",), rotations=3, prunes=False, **TIMED),
        13_000,
    ),
    "an id that does not expire is forgotten": (
        _two(("pay v4",), rotations=4, has=(2, 0, 0), tries_again=False, **TIMED),
        19_000,
    ),
    "an id that does not expire is tried twice, and forgotten": (
        _two(may_rotate=nothing_in_doubt, **LATE_DECIDE),
        54_000,
    ),
    "abandon does not look at the horizon, which does no harm": (
        _two(("pay",), rotations=3, faults=Faults(abandon_horizon_ignored=True)),
        4_000,
    ),
}

LARGE = {
    "three coordinators": (_two(("pay",) * 3, must_commit=True, batch=Alone), 500_000),
    "three coordinators, a debit on the participant": (
        _two(("pull",) * 3, must_commit=True, batch=Alone),
        95_000,
    ),
    "two participants on one shard, three coordinators": (
        AttemptSetting(tries=("split",) * 3, start=(0, 1, 1), must_commit=True, batch=Alone),
        95_000,
    ),
    "three shards, two coordinators": (_three(("split",) * 2, must_commit=True, batch=Alone), 600_000),
    "of two transactions one is busy, and tried again": (
        _two(("pull", "pull+give"), must_commit=True),
        180_000,
    ),
    "a capture tried again, while the hold's time ends": (
        _two(("capture",) * 2, environment=("time", "expire")),
        62_000,
    ),
    "the slot of what was refused has moved on": (AttemptSetting(batch=Alone, **REFUSED_IN_PART), 450_000),
    "the slot of what was refused has moved on, and it is tried again": (
        AttemptSetting(**REFUSED_IN_PART),
        980_000,
    ),
    "the deciding shard keeps what is in its way": (_two(must_commit=True, **DECIDES_AND_KEEPS), 38_000),
    "two attempts in one batch, and another try": (
        _three(("pay+pay another", "pay"), has=(2, 0, 0), must_commit=True, batch=Alone),
        480_000,
    ),
    "slots trade places": (_two(PAY, moves=2, must_commit=True, batch=Alone), 52_000),
    "two coordinators, and shards forget": (_two(PAY, rotations=2, must_commit=True), 350_000),
    "the same, a debit on the participant": (_two(PULL, rotations=2, must_commit=True, batch=Alone), 120_000),
    "the same, with clocks the wrong way round": (
        _two(PAY, rotations=2, clock_step_ms=-1, tries_again=False, batch=Alone),
        270_000,
    ),
    "the same, with a slot that moves": (
        _two(PAY, rotations=2, moves=1, may_move=((0, 1),), has=(2, 0, 0), batch=Alone),
        530_000,
    ),
    "the same, while there are commits": (
        _two(PAY, rotations=2, must_commit=True, batch=Alone, **TIMED),
        1_000_000,
    ),
    "three shards forget": (_three(("split",), rotations=2, **TIMED), 310_000),
}


@pytest.mark.parametrize(("setting", "at_least"), SOUND.values(), ids=SOUND.keys())
def test_every_order_of_events_is_sound(setting: AttemptSetting, at_least: int) -> None:
    """All legs or none, once; nothing reserved for ever; no answer contradicted; recovery alone heals all."""
    # Far fewer states would mean that the search no longer goes where it should.
    assert Explorer(setting).run() >= at_least


@pytest.mark.skipif("TALLYSTICK_SEARCH" not in os.environ, reason="minutes and gigabytes: make search")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("setting", "at_least"), LARGE.values(), ids=LARGE.keys())
def test_more_orders_of_events_are_sound(setting: AttemptSetting, at_least: int) -> None:
    """The same promises, with more tries, moves and rotations at once."""
    assert Explorer(setting).run() >= at_least


PLANTED = {
    "R1: an outcome is written twice": _two(PAY, has=(2, 0, 0), faults=Faults(outcome_rewritten=True)),
    "R2: dropped on a time-out": _two(PAY, commit=broken.DropsOnTimeout),
    "R3: a settled transaction is answered COMMITTED": _two(PAY, faults=Faults(settled_forgotten=True)),
    "R3: every attempt is answered COMMITTED": _two(PAY, faults=Faults(elsewhere_committed=True)),
    "R3: an abandoned attempt is decided": _two(("pay",), faults=Faults(abandoned_decided=True)),
    "R3: an attempt is decided again": _two(
        batch=Alone, faults=Faults(decided_again=True), **DECIDES_AND_KEEPS
    ),
    "R3: a settled transaction is finished": _two(PAY, commit=broken.FinishesSettled),
    "R3: another attempt's transaction is finished": _two(PAY, commit=broken.FinishesElsewhere),
    "R4: ended attempts are forgotten": _two(("pay",), faults=Faults(ended_forgotten=True)),
    "R4: an ended attempt is prepared again": _two(("pay",), faults=Faults(late_prepare=True)),
    "R5, R10: a finish past the horizon is an alarm": _two(
        ("pay",), rotations=2, faults=Faults(finish_horizon_ignored=True)
    ),
    "R6: settled before finished": _two(("pay",), commit=broken.SettlesAtOnce),
    "R6: settled when one participant has finished": _three(("split",), faults=Faults(settled_by_one=True)),
    "COMMITTED before it is finished": _two(("pay",), commit=broken.AnswersAtOnce),
    "COMMITTED when one participant has finished": _three(("split",), commit=broken.AnswersByOne),
    "R7: dropped without asking": _two(("pay",), recovery=broken.DropsWithoutAsking),
    "R7: dropped on silence": _two(("pay",), recovery=broken.DropsOnSilence),
    "R8: a repeated answer is not written": _two(
        ("pay",), crashes=1, faults=Faults(repetition_unlogged=True)
    ),
    "R8: recovery acts on what it read": _two(("pay",), crashes=1, recovery=broken.TrustsItsReading),
    "R9: a shard refuses for the sake of an earlier try": _two(
        PULL, must_commit=True, faults=Faults(busy_ignored=True)
    ),
    "R9: a coordinator records BUSY as a refusal": _two(PULL, must_commit=True, commit=broken.RecordsBusy),
    "R9: the slot's new owner is asked about an attempt": AttemptSetting(
        batch=broken.AsksNewOwner, **REFUSED_IN_PART
    ),
    "R10: prepare ignores the horizon": _two(
        ("pay",), rotations=2, faults=Faults(prepare_horizon_ignored=True)
    ),
    "R10: decide ignores the horizon": _two(
        ("pay v4",),
        rotations=2,
        has=(2, 0, 0),
        tries_again=False,
        faults=Faults(decide_horizon_ignored=True),
    ),
    "R10: ids do not expire": _two(
        PAY, rotations=2, has=(2, 0, 0), batch=Alone, faults=Faults(id_horizon_ignored=True)
    ),
    "R10: the horizon does not move with a slot": _two(
        PAY,
        rotations=2,
        moves=1,
        may_move=((0, 1),),
        has=(2, 0, 0),
        batch=Alone,
        faults=Faults(horizon_left_behind=True),
    ),
    "R10: forgotten while unsettled": _two(("pay",), rotations=2, may_rotate=broken.forgets_regardless),
    "R10: forgotten while an attempt is prepared": _two(**LATE_DECIDE),
    "R10: forgotten on what others have not on disk": _two(("pay",), rotations=2, crashes=1, marks=False),
    "a slot moves with a commit unsettled": _two(
        PAY, moves=1, batch=Alone, faults=Faults(commits_undrained=True)
    ),
    "a slot moves with a leg prepared": _two(
        PAY, moves=1, batch=Alone, faults=Faults(attempts_undrained=True)
    ),
    "a pinned hold ends by its time": _two(
        ("capture",), environment=("time", "expire"), faults=Faults(pin_ignored_by_expiry=True)
    ),
    "a pinned hold is captured by another": _two(("capture", "capture all"), faults=Faults(pin_ignored=True)),
    "a dropped capture pins its hold": _two(("capture",), faults=Faults(pin_kept=True)),
    "a hold is captured twice": _two(("capture", "capture all"), faults=Faults(hold_kept=True)),
    "what a capture leaves stays held": _two(("capture",), faults=Faults(rest_kept=True)),
    "a prepared refund does not count": _two(
        ("refund", "refund again"), has=(2, 0, 0), faults=Faults(refund_uncounted=True)
    ),
    "a dropped refund counts": _two(("refund",), faults=Faults(refund_kept=True)),
    "a prepared debit can be spent": _two(("pull", "rival"), faults=Faults(debit_unreserved=True)),
    "a dropped debit stays reserved": _two(("pull",), faults=Faults(debit_kept=True)),
    "a dropped credit stays expected": _two(("pay",), faults=Faults(credit_kept=True)),
    "a maximum balance ignores what is prepared": _two(
        ("pay", "pay third"), maximum=2, faults=Faults(coming_ignored=True)
    ),
    "half of a refused transaction is posted": AttemptSetting(
        tries=("pay",), start=(0, 0, 0), has=(0, 0, 0), faults=Faults(half_posted=True)
    ),
}


@pytest.mark.parametrize("setting", PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_violation_is_found(setting: AttemptSetting) -> None:
    """The search fails, with what is wrong and a shortest trace, when one rule is broken."""
    with pytest.raises(ViolationError) as caught:
        Explorer(setting).run()
    assert caught.value.what
