"""Random messages against the engine and the model: nothing breaks, and planted faults are found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from coordinator import resolver
from coordinator.attempts import Answers, Commit, Recovery
from shard_node.client import NoReply
from shard_node.contract import Abandon, Decide, Finish, Kind, Outcome
from tests.coordinator.fuzz_coordinator import Setting
from tests.coordinator.fuzz_shards import BrokenError
from tests.coordinator.fuzzer import FuzzError, fuzz
from tests.engine.server import EngineServer
from tests.model import Faults
from tests.real_shards import RealShards, real_servers

STEPS = 1000
SOUND = {
    "UUIDv4": Setting(1, STEPS),
    "UUIDv7": Setting(2, STEPS, time_ordered=True),
    "UUIDv4, big amounts": Setting(3, STEPS, big=True),
    "UUIDv7, big amounts": Setting(4, STEPS, time_ordered=True, big=True),
}
KINDS = {Kind.JOURNAL, Kind.HOLD, Kind.CAPTURE, Kind.VOID, Kind.REFUND, Kind.PURCHASE, Kind.EXPIRY}
CODES = {
    Outcome.PREPARED,
    Outcome.COMMITTED,
    Outcome.ELSEWHERE,
    Outcome.SETTLED,
    Outcome.FINISHED,
    Outcome.DROPPED,
    Outcome.ENDED,
    Outcome.ABANDONED,
    Outcome.ATTEMPT_EXPIRED,
    Outcome.BUSY,
}
# Of whom some run meets none.
RARE = {Outcome.BUSY, Outcome.ATTEMPT_EXPIRED}
# Steps of a longer search, for whoever has changed the protocol. It is many runs, each from a seed of its
# own: in a long one limits are reached and less moves.
LONG_STEPS = int(os.environ.get("TALLYSTICK_FUZZ_STEPS", "0"))
FIRST_SEED = int(os.environ.get("TALLYSTICK_FUZZ_SEED", "1000"))


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EngineServer]]:
    """Three servers whose time is set."""
    with real_servers(tmp_path_factory.mktemp("fuzzed"), manual_clock=True) as servers:
        yield servers


@pytest.fixture
def shards(module_server: list[EngineServer]) -> RealShards:
    """The servers under one topology."""
    return RealShards(module_server)


@pytest.mark.parametrize("setting", SOUND.values(), ids=SOUND.keys())
async def test_random_messages_break_nothing(shards: RealShards, setting: Setting) -> None:
    """Money, answers, ledgers, engine and model agree all the time."""
    summary = await fuzz(shards, setting)
    # Else the run no longer goes where it should.
    assert summary.committed >= 40
    assert setting.big or summary.kinds >= KINDS
    assert setting.big or set(summary.steps) >= CODES - RARE
    assert setting.big or setting.time_ordered or summary.moves > 0


async def test_what_runs_reach_together() -> None:
    """Over some seeds each code of the protocol comes, also those of messages that are very late."""
    seen: set[Outcome] = set()
    for seed in range(8):
        seen |= set((await fuzz(None, Setting(seed, STEPS, faults=Faults()))).steps)
    assert seen >= CODES


@pytest.mark.skipif(not LONG_STEPS, reason="TALLYSTICK_FUZZ_STEPS says how many steps")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("setting", SOUND.values(), ids=SOUND.keys())
async def test_many_random_messages_break_nothing(shards: RealShards, setting: Setting) -> None:
    """The same, many times: TALLYSTICK_FUZZ_STEPS steps, from TALLYSTICK_FUZZ_SEED on."""
    for run in range(-(-LONG_STEPS // STEPS)):
        await fuzz(RealShards(shards.servers), replace(setting, seed=FIRST_SEED + run))


# ------------------------------------------------------------------ planted faults


class DropsOnSilence(Commit):
    """Breaks R2: a coordinator that hears nothing of its decide drops the legs by itself."""

    def finish(self, answers: Answers) -> dict[int, Finish]:
        calls = super().finish(answers)
        for attempt in self.attempts:
            if answers.get(attempt.deciding_shard) is NoReply.LOST:
                for shard in set(attempt.participants) - calls.keys():
                    calls[shard] = Finish([attempt.attempt_id], [bytes((Outcome.ABANDONED,))])
        return calls


class DecidesOnSilence(Commit):
    """Commits though a participant did not answer."""

    def decide(self, answers: Answers) -> dict[int, Decide]:
        self._taking_part = {
            shard: asked for shard, asked in self._taking_part.items() if answers[shard] is not NoReply.LOST
        }
        return super().decide(answers)


class FinishesElsewhere(Commit):
    """Breaks R3: what another attempt committed is applied by this one too."""

    def finish(self, answers: Answers) -> dict[int, Finish]:
        elsewhere, committed = bytes((Outcome.ELSEWHERE,)), bytes((Outcome.COMMITTED,))
        return {
            shard: replace(call, codes=[codes.replace(elsewhere, committed) for codes in call.codes])
            for shard, call in super().finish(answers).items()
        }


class SettlesAtOnce(Commit):
    """Breaks R6: settled when the deciding shard has committed, before participants have finished."""

    def conclude(self, answers: Answers) -> None:
        super().conclude(answers)
        for attempt in self.attempts:
            if Outcome.COMMITTED in attempt.codes:
                numbers = range(1, 1 + len(attempt.participants))
                self.settled[attempt.deciding_shard] = [(attempt.attempt_id, number) for number in numbers]


class DropsWithoutAsking(Recovery):
    """Breaks R7: an old attempt is dropped without the deciding shard's word."""

    def abandon(self) -> dict[int, Abandon]:
        for doubts in self._deciding.values():
            for doubt in doubts:
                self._end(doubt, bytes((Outcome.ABANDONED,)), {})
        self._deciding = {}
        return {}


MACHINES: dict[str, Setting] = {
    "R2: dropped on silence": Setting(1, STEPS, commit=DropsOnSilence),
    "R2: decided on silence": Setting(1, STEPS, commit=DecidesOnSilence),
    "R3: another attempt's transaction is finished": Setting(1, STEPS, commit=FinishesElsewhere),
    "R6: settled at once": Setting(1, STEPS, commit=SettlesAtOnce),
    "R7: dropped without asking": Setting(1, STEPS, recovery=DropsWithoutAsking),
}
# Faults of shards that show in what shards hold together, or in what callers are answered.
FAULTS: dict[str, Faults] = {
    "R1: outcomes are written again": Faults(outcome_rewritten=True),
    "R3: what is settled is committed again": Faults(settled_forgotten=True),
    "R3: every attempt is answered COMMITTED": Faults(elsewhere_committed=True),
    "R3: an abandoned attempt is decided": Faults(abandoned_decided=True),
    "R4: ended attempts are forgotten": Faults(ended_forgotten=True),
    "R4: an ended attempt is prepared again": Faults(late_prepare=True),
    "R6: one participant settles for all": Faults(settled_by_one=True),
    "R10: old prepares are taken": Faults(prepare_horizon_ignored=True),
    "R10: old decides are taken": Faults(decide_horizon_ignored=True),
    "R10: old finishes are alarms": Faults(finish_horizon_ignored=True),
    "a pinned hold expires": Faults(pin_ignored_by_expiry=True),
    "a pinned hold is captured by another": Faults(pin_ignored=True),
    "a captured hold is captured again": Faults(hold_kept=True),
    "prepared debits are not reserved": Faults(debit_unreserved=True),
    "a transaction is posted in half": Faults(half_posted=True),
    "maximum balances overlook what is coming": Faults(coming_ignored=True),
    "dropped debits stay held": Faults(debit_kept=True),
    "dropped credits stay expected": Faults(credit_kept=True),
    "prepared refunds do not count": Faults(refund_uncounted=True),
    "dropped refunds still count": Faults(refund_kept=True),
    "what a capture leaves stays held": Faults(rest_kept=True),
}
# Runs in which a fault must be found, from its first seed on.
FAULT_RUNS = 25


@pytest.mark.parametrize("setting", MACHINES.values(), ids=MACHINES.keys())
async def test_a_fault_of_a_coordinator_is_found(monkeypatch: pytest.MonkeyPatch, setting: Setting) -> None:
    """Within a few runs."""
    monkeypatch.setattr(resolver, "Recovery", setting.recovery)
    await _found(replace(setting, faults=Faults()))


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
async def test_a_fault_of_a_shard_is_found(faults: Faults) -> None:
    """Within a few runs."""
    await _found(Setting(1, STEPS, faults=faults))


async def test_a_forgotten_horizon_is_found() -> None:
    """Ids that tell their age would move once more when they are forgotten."""
    await _found(Setting(1, STEPS, time_ordered=True, faults=Faults(id_horizon_ignored=True)))


async def _found(setting: Setting) -> None:
    with pytest.raises(FuzzError) as caught:
        await _fuzz_often(setting)
    # Not a fault of the fault itself.
    assert isinstance(caught.value.__cause__, BrokenError)
    # It can be seen again.
    assert "seed=" in str(caught.value)


async def _fuzz_often(setting: Setting) -> None:
    for run in range(FAULT_RUNS):
        await fuzz(None, replace(setting, seed=setting.seed + run))
