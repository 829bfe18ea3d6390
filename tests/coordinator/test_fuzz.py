"""Random messages, lost, late and doubled, break no promise; and whatever is made to break one is found."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest

from coordinator import resolver
from coordinator.journal_protocol import JournalCommit, JournalRecovery
from coordinator.protocol import Commit, Recovery
from shard_node import library
from shard_node.client.asking import Answer, JournalAnswer, NoReply
from shard_node.contract.calls import Finish, ResolveAttempts
from shard_node.contract.journal_calls import DecideJournals, FinishLegs, ResolveJournals
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transfers import Kind
from tests.coordinator.fuzz_attempts import Setting
from tests.coordinator.fuzz_books import BrokenError
from tests.coordinator.fuzzer import FuzzError, fuzz
from tests.real_shards import RealShards

STEPS = 1000
SOUND = {
    "UUIDv4": Setting(1, STEPS),
    "UUIDv7": Setting(2, STEPS, time_ordered=True),
    "UUIDv4, big amounts": Setting(3, STEPS, big=True),
    "UUIDv7, big amounts": Setting(4, STEPS, time_ordered=True, big=True),
}
JOURNALS = {Kind.JOURNAL, Kind.HOLD, Kind.CAPTURE, Kind.REFUND, Kind.EXPIRY}
STEPS_OF_BUNDLES = {
    Outcome.PREPARED,
    Outcome.COMMITTED,
    Outcome.ELSEWHERE,
    Outcome.SETTLED,
    Outcome.FINISHED,
    Outcome.DROPPED,
}
# Steps of a longer search, for whoever has changed the protocol, at some hundred a second. It is many runs,
# each from a seed of its own: in a long one limits are reached and less moves.
LONG_STEPS = int(os.environ.get("TALLYSTICK_FUZZ_STEPS", "0"))
FIRST_SEED = int(os.environ.get("TALLYSTICK_FUZZ_SEED", "1000"))


@pytest.mark.parametrize("setting", SOUND.values(), ids=SOUND.keys())
async def test_random_messages_break_nothing(shards: RealShards, setting: Setting) -> None:
    """Money, holds, refunds, ledgers and answers agree all the time."""
    summary = await fuzz(shards, setting)
    # Else the run no longer goes where it should.
    assert setting.big or summary.kinds >= JOURNALS
    assert summary.committed >= 40
    assert summary.outcomes[Outcome.ABORTED] > 0
    assert summary.outcomes[Outcome.HOLD_NOT_ACTIVE] > 0
    # With big amounts most is refused; some runs move one slot or none.
    assert setting.big or set(summary.steps) >= STEPS_OF_BUNDLES
    assert setting.big or setting.time_ordered or summary.moves > 0


@pytest.mark.skipif(not LONG_STEPS, reason="TALLYSTICK_FUZZ_STEPS says how many steps")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("setting", SOUND.values(), ids=SOUND.keys())
async def test_many_random_messages_break_nothing(shards: RealShards, setting: Setting) -> None:
    """The same, many times: TALLYSTICK_FUZZ_STEPS steps, from TALLYSTICK_FUZZ_SEED on."""
    assert await _fuzz_often(shards, replace(setting, seed=FIRST_SEED), -(-LONG_STEPS // STEPS)) > 0


async def test_a_failure_tells_how_to_see_it_again(
    shards: RealShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seed, and what was done last."""
    _plant(monkeypatch, Lua("return leave({ codes, balances })", "return nil", 2))
    with pytest.raises(FuzzError) as caught:
        await _fuzz_often(shards, Setting(7, STEPS), 1)
    text = str(caught.value)
    assert "seed=7" in text
    assert "coordinator 1 begins" in text
    assert text.endswith("which fails")


# ------------------------------------------------------------------ faults


@dataclass(frozen=True, slots=True)
class Lua:
    """A change of the library's text, which is there so many times."""

    text: str
    instead: str
    times: int = 1


class DropsOnTimeout(JournalCommit):
    """Breaks R2: a coordinator that times out in prepare drops the legs by itself."""

    def decide(
        self, answers: Mapping[int, JournalAnswer], settled: Mapping[int, Sequence[bytes]] | None = None
    ) -> dict[int, DecideJournals]:
        self._lost = {s: legs for s, legs in self._asked_legs.items() if answers[s] is NoReply.LOST}
        return super().decide(answers, settled)

    def finish(self, answers: Mapping[int, JournalAnswer]) -> dict[int, FinishLegs]:
        calls = super().finish(answers)
        for shard, legs in self._lost.items():
            if shard not in calls:
                keys = [self._rows[i].refs[leg].key for i, leg in legs]
                calls[shard] = FinishLegs(keys, [Outcome.ABORTED] * len(keys))
                self._asked_legs[shard] = legs
        return calls


class DropsBundlesOnTimeout(Commit):
    """Breaks R2: a coordinator that hears nothing of its decide drops the legs by itself."""

    def finish(self, answers: Mapping[int, Answer]) -> dict[int, Finish]:
        calls = super().finish(answers)
        for part in self.parts:
            if answers.get(part.payer_shard) is NoReply.LOST and part.payee_shard not in calls:
                aborted = bytes((Outcome.ABORTED,))
                calls[part.payee_shard] = Finish([part.attempt.attempt_id], [aborted])
        return calls

    def conclude(self, answers: Mapping[int, Answer]) -> None:
        """Of calls of its own it has nothing to read."""
        for shard in answers.keys() - self._groups.keys():
            self._groups[shard] = []
        super().conclude(answers)


class SettlesBundlesAtOnce(Commit):
    """Breaks R6: settled when the payer's shard has committed, before the payee's has finished."""

    def conclude(self, answers: Mapping[int, Answer]) -> None:
        super().conclude(answers)
        for part in self.parts:
            if part.commit:
                self.settled[part.payer_shard] = [part.commit]


class FinishesElsewhere(Commit):
    """Breaks R3: what another attempt committed is applied by this one too."""

    def finish(self, answers: Mapping[int, Answer]) -> dict[int, Finish]:
        calls = super().finish(answers)
        committed = bytes((Outcome.COMMITTED,))
        return {
            shard: replace(
                call, verdicts=[v.replace(bytes((Outcome.ELSEWHERE,)), committed) for v in call.verdicts]
            )
            for shard, call in calls.items()
        }


class SettlesAtFirst(JournalCommit):
    """Breaks R6: settled, and told, when one leg is finished rather than all."""

    def conclude(self, answers: Mapping[int, JournalAnswer]) -> None:
        for row in self._rows:
            row.unfinished = set(sorted(row.unfinished)[:1])
        super().conclude(answers)


class DecidesOnSilence(JournalCommit):
    """Commits though a participant did not answer."""

    def decide(
        self, answers: Mapping[int, JournalAnswer], settled: Mapping[int, Sequence[bytes]] | None = None
    ) -> dict[int, DecideJournals]:
        answered = {shard: a for shard, a in answers.items() if not isinstance(a, NoReply)}
        self._asked_legs = {shard: legs for shard, legs in self._asked_legs.items() if shard in answered}
        return super().decide(answered, settled)


class DropsWithoutAsking(JournalRecovery):
    """Breaks R7: an old prepared leg is dropped without the deciding shard's word."""

    def resolve(self) -> dict[int, ResolveJournals]:
        for key, body in self._prepared:
            self._ending.setdefault(self._owner[body.slot], []).append((key, Outcome.ABORTED, None))
        return {}


class DropsBundlesWithoutAsking(Recovery):
    """Breaks R7: an old attempt is dropped without the payers' shard's word."""

    def resolve(self) -> dict[int, ResolveAttempts]:
        super().resolve()
        for rows in self._asked.values():
            for ending, row, _, _ in rows:
                ending.verdicts[row] = Outcome.ABORTED
                ending.open_rows.clear()
        self._asked = {}
        return {}


Fault = type[Commit | Recovery | JournalCommit | JournalRecovery] | Lua

# Runs in which a fault must be found, from its first seed on. Nearly all need one or two.
FAULT_RUNS = 25
FAULTS: dict[str, tuple[Fault, Setting]] = {
    "ended attempts are forgotten": (
        Lua("  write('SADD', 'ended:current', ids, #ids)\n", ""),
        Setting(1, STEPS),
    ),
    "an ended attempt is prepared again": (
        Lua("    elseif ended[n] then\n", "    elseif false then\n"),
        Setting(7, STEPS),
    ),
    "every attempt is answered COMMITTED": (
        Lua("elseif commit.attempt == attempt and not commit.told[decision] then", "else"),
        Setting(1, STEPS),
    ),
    "an id that a bundle has twice is answered COMMITTED twice": (
        Lua("commit.attempt == attempt and not commit.told[decision]", "commit.attempt == attempt"),
        Setting(1, STEPS),
    ),
    "a settled transfer is answered COMMITTED": (
        Lua("  if not commit then\n    return SETTLED\n", "  if not commit then\n    return COMMITTED\n"),
        Setting(1, STEPS),
    ),
    "the older generation is not looked for": (
        Lua("  if oldest > tonumber(meta[8] or 0) then\n", "  if true then\n"),
        Setting(3, STEPS),
    ),
    "prepared credits are not taken off again": (
        Lua("  redis.call('HINCRBY', 'meta', 'credits', string.format('%.0f', 0 - ending.sum))\n", ""),
        Setting(1, STEPS),
    ),
    "a refused row is applied": (
        Lua("    if not all and byte(verdicts, k) ~= COMMITTED then\n", "    if false then\n"),
        Setting(1, STEPS),
    ),
    "a dropped refund still counts": (
        Lua("refunded(conditions, related) - amount)", "refunded(conditions, related))"),
        Setting(1, STEPS),
    ),
    "a refund that waits does not count": (
        Lua(
            "          if effect == REFUND then\n            set_refunded(conditions, legs",
            "          if false then\n            set_refunded(conditions, legs",
        ),
        Setting(1, STEPS),
    ),
    "a dropped debit is not given back": (
        Lua("available[k] = available[k] - amount\n      else", "available[k] = available[k]\n      else"),
        Setting(1, STEPS),
    ),
    "a hold is captured twice": (
        Lua("    set_hold(conditions, related, false)\n  else", "  else"),
        Setting(1, STEPS),
    ),
    "a leg is prepared again when it was applied": (
        Lua(
            "if applied[j] or applied_before[j] then\n      -- R4: a late duplicate must not prepare an",
            "if false then\n      -- R4: a late duplicate must not prepare an",
        ),
        Setting(6, STEPS),
    ),
    "an applied leg stays prepared": (
        Lua("    write('HDEL', 'prepared', gone, g)\n    close_book(book)", "    close_book(book)"),
        Setting(1, STEPS),
    ),
    "the end of a hold makes no entry": (
        Lua(
            "      add_entry(entries, leg_key(sub(records[i], 17, 40), 1), ended, 0, -amount, book, k)\n", ""
        ),
        Setting(1, STEPS),
    ),
    "an expired hold is captured": (
        Lua("hold.account == name and hold.expires > conditions.now", "hold.account == name"),
        Setting(1, STEPS),
    ),
    "recovery does not keep what it aborted": (
        Lua(
            "done[n + 1], done[n + 2] = id, record\n      n = n + 2\n      codes[i] = ABORTED",
            "codes[i] = ABORTED",
        ),
        Setting(1, STEPS),
    ),
    "what is settled is committed again": (
        Lua("if code == COMMITTED and redis.call('HEXISTS', 'unsettled', key) == 0 then", "if false then"),
        Setting(4, STEPS),
    ),
    "forgotten ids are not expired": (
        Lua(
            "local horizon = math.max(tonumber(meta[2] or 0), tonumber(more[1] or 0) + 1)",
            "local horizon = 0",
        ),
        Setting(1, STEPS, time_ordered=True),
    ),
    "limits overlook what is coming": (
        Lua("    arrivals.coming[payee] = sum - amount", "    arrivals.coming[payee] = sum"),
        Setting(1, STEPS),
    ),
    "sums near 2^53 are rounded": (
        Lua("available[k] + (delta - held_delta)", "available[k] + delta - held_delta"),
        Setting(1, STEPS, big=True),
    ),
    "what is held passes 2^53": (
        Lua("if not code and book.held[k] + amount > MAX_MINOR then", "if false then"),
        Setting(1, STEPS, big=True),
    ),
    "R2: a bundle is dropped on a time-out": (DropsBundlesOnTimeout, Setting(1, STEPS)),
    "R3: another attempt's transfer is finished": (FinishesElsewhere, Setting(1, STEPS)),
    "R6: a bundle is settled at once": (SettlesBundlesAtOnce, Setting(1, STEPS)),
    "R7: a bundle is dropped without asking": (DropsBundlesWithoutAsking, Setting(1, STEPS)),
    "R2: dropped on a time-out": (DropsOnTimeout, Setting(300, STEPS)),
    "R2: decided on silence": (DecidesOnSilence, Setting(1, STEPS)),
    "R6: settled with the first leg": (SettlesAtFirst, Setting(200, STEPS)),
    "R7: dropped without asking": (DropsWithoutAsking, Setting(1, STEPS)),
}


@pytest.mark.parametrize(("fault", "setting"), FAULTS.values(), ids=FAULTS.keys())
async def test_a_planted_fault_is_found(
    shards: RealShards,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    setting: Setting,
) -> None:
    """Within a few runs."""
    if isinstance(fault, Lua):
        _plant(monkeypatch, fault)
    elif issubclass(fault, JournalCommit):
        setting = replace(setting, journal_commit=fault)
    elif issubclass(fault, Commit):
        setting = replace(setting, commit=fault)
    elif issubclass(fault, Recovery):
        monkeypatch.setattr(resolver, "Recovery", fault)
    else:
        monkeypatch.setattr(resolver, "JournalRecovery", fault)
    with pytest.raises(FuzzError) as caught:
        await _fuzz_often(shards, setting, FAULT_RUNS)
    # Not a fault of the fault itself, such as text that Lua does not understand.
    assert isinstance(caught.value.__cause__, BrokenError)


async def _fuzz_often(shards: RealShards, setting: Setting, runs: int) -> int:
    """Runs from the setting's seed on, each with empty shards; how many transactions they committed."""
    committed = 0
    for run in range(runs):
        await shards.wipe()
        committed += (await fuzz(shards, replace(setting, seed=setting.seed + run))).committed
    return committed


def _plant(monkeypatch: pytest.MonkeyPatch, fault: Lua) -> None:
    """Changes the library that shards load when they are emptied, until the test ends."""
    source = library.source()
    assert source.count(fault.text) == fault.times
    monkeypatch.setattr(library, "source", lambda: source.replace(fault.text, fault.instead))
