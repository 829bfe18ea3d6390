"""Each fault that journals must survive, one by one, against real Redis: splits, refunds, captures, holds."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.driver import Driver
from shard_node.agent.redis_process import RedisProcess
from shard_node.client.asking import NoReply
from shard_node.contract.journal_calls import DecideJournals, FinishLegs, Journals, PrepareLegs, leg_refs
from shard_node.contract.outcomes import Outcome
from tests.coordinator.journal_bank import HAS, LONG_MS, REFUNDABLE, JournalBank, codes
from tests.real_shards import RealShards, read_hash

CLEAN = (0, 0)
SPLIT = (HAS - 10, HAS - 10, HAS + 20)
AT_REST = (HAS, HAS, HAS)
NOTHING = (0, 0, 0)


@pytest.fixture
async def bank(shards: RealShards) -> AsyncIterator[JournalBank]:
    """Three accounts of 100 on three shards."""
    made = await JournalBank.open(shards)
    yield made
    assert await made.alarms() == 0
    await made.close()


async def nothing_left(bank: JournalBank) -> None:
    """Nothing is in doubt, and no money is reserved but by holds."""
    assert await bank.in_doubt() == CLEAN
    holds = 0
    for shard in bank.cluster.shards:
        holds += sum(
            int.from_bytes(v[8:16], "little") for v in (await read_hash(shard.redis, "holds")).values()
        )
        assert await shard.redis.hget("meta", "reserved") in (None, b"0")
    assert sum(await bank.reserved()) == holds


STEPS = pytest.mark.parametrize(
    ("steps", "expected"),
    [(0, Outcome.COMMITTED), (1, Outcome.ABORTED), (2, Outcome.COMMITTED), (3, Outcome.COMMITTED)],
    ids=["before prepare", "after prepare", "after decide", "after finish"],
)


@STEPS
async def test_coordinator_of_a_split_dies(bank: JournalBank, steps: int, expected: Outcome) -> None:
    """Another resolves what it left on three shards; a retry gets the one true outcome."""
    batch = bank.split()
    await bank.start(batch, steps)
    await bank.resolve()
    await nothing_left(bank)
    assert await bank.run(batch) is expected
    assert await bank.run(batch) is expected
    assert await bank.balances() == (SPLIT if expected is Outcome.COMMITTED else AT_REST)
    await nothing_left(bank)


@STEPS
async def test_coordinator_of_a_refund_dies(bank: JournalBank, steps: int, expected: Outcome) -> None:
    """The purchase bears the refund once, or not at all; then another of the rest is possible."""
    batch = bank.refund(30)
    await bank.start(batch, steps)
    await bank.resolve()
    assert await bank.run(batch) is expected
    done = 30 if expected is Outcome.COMMITTED else 0
    assert await bank.refunded() == done
    assert await bank.balances() == (HAS - done, HAS + done, HAS)
    assert await bank.run(bank.refund(REFUNDABLE - done + 1)) is Outcome.REFUND_EXCEEDS_PURCHASE
    assert await bank.run(bank.refund(REFUNDABLE - done)) is Outcome.COMMITTED
    assert await bank.refunded() == REFUNDABLE
    await nothing_left(bank)


@STEPS
async def test_coordinator_of_a_capture_dies(bank: JournalBank, steps: int, expected: Outcome) -> None:
    """The hold is captured once, or is still there to be captured; what it leaves is available."""
    hold = await bank.held(40)
    batch = bank.capture(hold, 25)
    await bank.start(batch, steps)
    await bank.resolve()
    assert await bank.run(batch) is expected
    if expected is Outcome.ABORTED:
        assert await bank.reserved() == (40, 0, 0)
        assert await bank.run(bank.capture(hold, 25)) is Outcome.COMMITTED
    assert await bank.balances() == (HAS - 25, HAS + 25, HAS)
    assert await bank.reserved() == NOTHING
    assert await bank.run(bank.capture(hold, 1)) is Outcome.HOLD_NOT_ACTIVE
    await nothing_left(bank)


@pytest.mark.parametrize("reached", [1, 2])
@pytest.mark.parametrize(("steps", "expected"), [(0, Outcome.ABORTED), (2, Outcome.COMMITTED)])
async def test_coordinator_dies_within_a_step(
    bank: JournalBank, reached: int, steps: int, expected: Outcome
) -> None:
    """Of two participants only one got the call: the journal is whole all the same, or nothing of it."""
    batch = bank.split()
    _, calls = await bank.start(batch, steps)
    assert sorted(calls) == [1, 2]
    await bank.ask(reached, calls[reached])
    await bank.resolve()
    await nothing_left(bank)
    assert await bank.balances() == (SPLIT if expected is Outcome.COMMITTED else AT_REST)
    assert await bank.run(batch) is expected


async def test_a_refusal_is_undelivered(bank: JournalBank) -> None:
    """The deciding account lacks funds, the coordinator dies before it drops the legs: they are freed."""
    batch = bank.split(HAS + 1, second=10)
    await bank.start(batch, 2)
    assert await bank.in_doubt() == (2, 0)
    assert await bank.reserved() == (0, 10, 0)
    await bank.resolve()
    await nothing_left(bank)
    assert await bank.run(batch) is Outcome.INSUFFICIENT_FUNDS
    assert await bank.balances() == AT_REST


async def test_a_participants_refusal_is_remembered_with_its_leg(bank: JournalBank) -> None:
    """The leg that was refused is named, also when asked again; the others are freed."""
    batch = bank.split(10, second=HAS + 1)
    for _ in range(2):
        machine = await bank.commit(batch)
        assert (machine.outcomes, machine.legs) == ([Outcome.INSUFFICIENT_FUNDS], [1])
        # Money that comes meanwhile changes nothing.
        await bank.run(bank.refund(5))
    assert await bank.balances() == (HAS - 10, HAS + 10, HAS)
    await nothing_left(bank)


@pytest.mark.parametrize("function", ["prepare_legs", "decide_journals", "finish_legs"])
async def test_reply_lost(bank: JournalBank, function: str) -> None:
    """The caller hears that the outcome is unknown; a retry of the same id moves once."""
    batch = bank.split()
    bank.losing(function)
    assert await bank.run(batch) is Outcome.OUTCOME_UNKNOWN
    bank.losing()
    assert await bank.run(batch) is Outcome.COMMITTED
    assert await bank.run(batch) is Outcome.COMMITTED
    assert await bank.balances() == SPLIT
    await bank.resolve()
    await nothing_left(bank)


async def test_decide_arrives_after_the_resolver_aborted(bank: JournalBank) -> None:
    """The late decide is refused with ABORTED; what was reserved is free."""
    batch = bank.split()
    _, calls = await bank.start(batch, 1)
    await bank.resolve()
    assert codes(await bank.ask(0, calls[0])) == [Outcome.ABORTED]
    assert await bank.balances() == AT_REST
    await nothing_left(bank)


async def test_delayed_duplicate_prepare_after_finish(bank: JournalBank) -> None:
    """It finds its legs applied: no money is reserved again, no refund counted twice."""
    for batch in (bank.split(), bank.refund()):
        _, calls = await bank.start(batch, 0)
        assert await bank.run(batch) is Outcome.COMMITTED
        for index, call in calls.items():
            assert codes(await bank.ask(index, call)) == [Outcome.APPLIED] * len(call.legs)
    assert await bank.refunded() == 30
    await nothing_left(bank)


async def test_delayed_duplicate_prepare_after_abort(bank: JournalBank) -> None:
    """It leaves stale legs, which the resolver drops, with all they had reserved and counted."""
    for batch, reserved, refunded in ((bank.split(), (0, 10, 0), 0), (bank.refund(), NOTHING, 30)):
        _, calls = await bank.start(batch, 0)
        for _ in range(2):
            for index, call in calls.items():
                assert set(codes(await bank.ask(index, call))) == {Outcome.PREPARED}
            assert (await bank.reserved(), await bank.refunded()) == (reserved, refunded)
            await bank.resolve()
            assert (await bank.reserved(), await bank.refunded()) == (NOTHING, 0)
        assert await bank.run(batch) is Outcome.ABORTED
    assert await bank.balances() == AT_REST


async def test_finish_arrives_twice(bank: JournalBank) -> None:
    """The second one does nothing, also in the same call."""
    batch = bank.split()
    await bank.start(batch, 2)
    committed = Outcome.COMMITTED
    for number in (1, 2):
        key = leg_refs(batch, 0)[number].key
        assert (
            codes(await bank.ask(number, FinishLegs([key, key], [committed] * 2))) == [Outcome.FINISHED] * 2
        )
        assert codes(await bank.ask(number, FinishLegs([key], [committed]))) == [Outcome.FINISHED]
    assert await bank.balances() == SPLIT
    await bank.resolve()
    await nothing_left(bank)


async def test_same_id_with_another_payload(bank: JournalBank) -> None:
    """It is refused on its first leg; the original stands untouched."""
    batch = bank.split()
    assert await bank.run(batch) is Outcome.COMMITTED
    machine = await bank.commit(bank.split(11, transaction_id=batch.keys[0][:16]))
    assert (machine.outcomes, machine.legs) == ([Outcome.TRANSACTION_ID_REUSED], [0])
    assert await bank.run(batch) is Outcome.COMMITTED
    assert await bank.balances() == SPLIT
    await nothing_left(bank)


async def test_same_id_twice_in_one_batch(bank: JournalBank) -> None:
    """One moves, the other gets the same outcome; another payload in the batch is refused."""
    batch = bank.split()
    other = bank.split(11, transaction_id=batch.keys[0][:16])
    both = Journals.unpack([batch.keys[0][:16]] * 3, [*batch.bodies * 2, *other.bodies])
    machine = await bank.commit(both)
    assert machine.outcomes == [Outcome.COMMITTED, Outcome.COMMITTED, Outcome.TRANSACTION_ID_REUSED]
    await bank.resolve()
    assert await bank.balances() == SPLIT
    await nothing_left(bank)


@pytest.mark.parametrize("steps", [1, 2, 3], ids=["prepared", "decided", "finished"])
@pytest.mark.parametrize(("which", "target"), [("first", 1), ("second", 2), ("third", 0)])
async def test_slot_moves_to_another_shard_meanwhile(
    bank: JournalBank, which: str, target: int, steps: int
) -> None:
    """Outcomes, legs and what they reserved move along: a retry on the new map moves once."""
    batch = bank.split()
    await bank.start(batch, steps)
    await bank.move(getattr(bank, which), target)
    assert await bank.run(batch) is Outcome.COMMITTED
    assert await bank.balances() == SPLIT
    await bank.resolve()
    assert await bank.balances() == SPLIT
    await nothing_left(bank)


@pytest.mark.parametrize("steps", [1, 2, 3], ids=["prepared", "decided", "finished"])
async def test_purchases_and_holds_move_with_their_slots(bank: JournalBank, steps: int) -> None:
    """What was refunded and what is held is on the new shard, whatever is under way."""
    hold = await bank.held(40)
    capture, refund = bank.capture(hold), bank.refund()
    for batch in (capture, refund):
        await bank.start(batch, steps)
    await bank.move(bank.first, 2)
    await bank.move(bank.second, 0)
    for batch in (capture, refund):
        assert await bank.run(batch) is Outcome.COMMITTED
    assert await bank.refunded() == 30
    assert await bank.run(bank.refund(REFUNDABLE - 29)) is Outcome.REFUND_EXCEEDS_PURCHASE
    assert await bank.run(bank.capture(hold, 1)) is Outcome.HOLD_NOT_ACTIVE
    assert await bank.balances() == (HAS - 55, HAS + 55, HAS)
    await bank.resolve()
    await nothing_left(bank)


@pytest.mark.parametrize("steps", [1, 2, 3], ids=["prepared", "decided", "finished"])
async def test_message_of_an_old_epoch_is_refused(bank: JournalBank, steps: int) -> None:
    """Whoever still has the map from before a move is refused, and nothing is written."""
    batch = bank.split()
    await bank.start(batch, steps)
    old = bank.cluster
    await bank.move(bank.second, 2)
    doubt, balances = await bank.in_doubt(), await bank.balances()
    leg = leg_refs(batch, 0)[1]
    for call in (
        PrepareLegs([leg]),
        FinishLegs([leg.key], [Outcome.COMMITTED]),
        DecideJournals(batch, [0], [0]),
    ):
        bank.cluster, new = old, bank.cluster
        assert await bank.ask(1, call) is NoReply.STALE
        bank.cluster = new
    assert (await bank.in_doubt(), await bank.balances()) == (doubt, balances)


async def test_first_try_on_one_shard_retry_on_two(bank: JournalBank) -> None:
    """R3: the commit of one call counts as settled, so the ghost legs of the retry are dropped."""
    batch = bank.refund()
    await bank.move(bank.second, 0)
    assert await bank.post(batch) == Outcome.COMMITTED
    await bank.move(bank.second, 1)
    assert await bank.run(batch) is Outcome.COMMITTED
    assert await bank.refunded() == 30
    assert await bank.balances() == (HAS - 30, HAS + 30, HAS)
    await nothing_left(bank)


async def test_first_try_on_two_shards_retry_on_one(bank: JournalBank) -> None:
    """While the money is on its way the one call answers unknown; when it has come, COMMITTED."""
    batch = bank.refund()
    await bank.start(batch, 2)
    await bank.move(bank.second, 0)
    assert await bank.post(batch) == Outcome.OUTCOME_UNKNOWN
    await bank.resolve()
    assert await bank.post(batch) == Outcome.COMMITTED
    assert await bank.refunded() == 30
    assert await bank.balances() == (HAS - 30, HAS + 30, HAS)
    await nothing_left(bank)


async def test_its_own_prepared_leg_does_not_refuse_a_journal(bank: JournalBank) -> None:
    """A try that died still counts against the purchase: its retry, on one shard now, is not refused."""
    batch = bank.refund(REFUNDABLE)
    await bank.start(batch, 1)
    await bank.move(bank.second, 0)
    assert await bank.post(batch) == Outcome.OUTCOME_UNKNOWN
    await bank.resolve()
    assert await bank.post(batch) == Outcome.ABORTED
    assert await bank.refunded() == 0
    assert await bank.run(bank.refund(REFUNDABLE)) is Outcome.COMMITTED
    await nothing_left(bank)


# ------------------------------------------------------------------ what several want


async def test_concurrent_refunds_keep_to_the_purchase(bank: JournalBank) -> None:
    """Of many refunds at once, each with a retry, so many are committed as the purchase bears."""
    batches = [bank.refund(20) for _ in range(6)]
    outcomes = await asyncio.gather(*map(bank.run, [*batches, *batches]))
    again = await asyncio.gather(*map(bank.run, batches))
    committed = again.count(Outcome.COMMITTED)
    assert set(again) == {Outcome.COMMITTED, Outcome.REFUND_EXCEEDS_PURCHASE}
    assert outcomes == again * 2
    # 20 twice is 40 of 50.
    assert committed == 2
    assert await bank.refunded() == 20 * committed
    assert await bank.balances() == (HAS - 20 * committed, HAS + 20 * committed, HAS)
    await nothing_left(bank)
    rest = REFUNDABLE - 20 * committed
    assert await bank.run(bank.refund(rest + 1)) is Outcome.REFUND_EXCEEDS_PURCHASE
    assert await bank.run(bank.refund(rest)) is Outcome.COMMITTED


async def test_money_reserved_by_one_journal_is_refused_to_another(bank: JournalBank) -> None:
    """Until the first is decided nobody else can spend it; none waits for the other."""
    first = bank.split(HAS)
    await bank.start(first, 1)
    assert await bank.reserved() == (0, HAS, 0)
    machine = await bank.commit(bank.split(1))
    assert (machine.outcomes, machine.legs) == ([Outcome.INSUFFICIENT_FUNDS], [1])
    assert await bank.run(first) is Outcome.COMMITTED
    assert await bank.balances() == (0, 0, 3 * HAS)
    await nothing_left(bank)


async def test_captures_of_one_hold_at_once(bank: JournalBank) -> None:
    """One of them is committed, all others find the hold gone."""
    hold = await bank.held(40)
    outcomes = await asyncio.gather(*(bank.run(bank.capture(hold, amount)) for amount in (10, 20, 30, 40)))
    assert sorted(outcomes) == [Outcome.COMMITTED] + [Outcome.HOLD_NOT_ACTIVE] * 3
    captured = (10, 20, 30, 40)[outcomes.index(Outcome.COMMITTED)]
    assert await bank.balances() == (HAS - captured, HAS + captured, HAS)
    await nothing_left(bank)


async def test_a_capture_of_more_than_is_held(bank: JournalBank) -> None:
    """It is refused on its first leg, the payee's leg dropped; the hold stays."""
    hold = await bank.held(40)
    machine = await bank.commit(bank.capture(hold, 41))
    assert (machine.outcomes, machine.legs) == ([Outcome.CAPTURE_EXCEEDS_HOLD], [0])
    assert await bank.post(bank.void(hold)) == Outcome.COMMITTED
    assert await bank.post(bank.void(hold)) == Outcome.HOLD_NOT_ACTIVE
    assert await bank.balances() == AT_REST
    await nothing_left(bank)


async def test_a_hold_lives_by_the_shards_clock(bank: JournalBank) -> None:
    """Its time begins when it is made; a hold that is not over is not ended."""
    shard = bank.shard_of(bank.first)
    before = await shard.clock_ms()
    await bank.held(40)
    after = await shard.clock_ms()
    (record,) = (await read_hash(shard.redis, "holds")).values()
    assert before + LONG_MS <= int.from_bytes(record[:8], "little") <= after + LONG_MS
    assert await shard.expire_holds(10) == 0
    assert await bank.reserved() == (40, 0, 0)


async def test_a_hold_whose_time_is_over_is_not_active(bank: JournalBank) -> None:
    """It can be neither captured nor voided from that moment on, though its money is still reserved."""
    shard = bank.shard_of(bank.first)
    hold = await bank.held(40, life_ms=1)
    begun_ms = await shard.clock_ms()
    while await shard.clock_ms() <= begun_ms:
        pass
    assert await bank.run(bank.capture(hold)) is Outcome.HOLD_NOT_ACTIVE
    assert await bank.post(bank.void(hold)) == Outcome.HOLD_NOT_ACTIVE
    assert await bank.reserved() == (40, 0, 0)
    assert await shard.expire_holds(10) == 1
    assert await bank.balances() == AT_REST
    await nothing_left(bank)


@pytest.mark.parametrize("life_ms", [1, 2, 4, 8, 16, 32])
async def test_hold_expiry_races_with_capture(bank: JournalBank, life_ms: int) -> None:
    """Whichever comes first ends the hold, the other finds it gone; in between the money is reserved."""
    shard = bank.shard_of(bank.first)
    hold = await bank.held(40, life_ms=life_ms)
    captures = [bank.capture(hold, 25) for _ in range(3)]

    async def expire() -> int:
        """Until nothing is held: the hold was captured, or its time is over and it is ended."""
        ended = 0
        while (await bank.reserved())[0]:
            ended += await shard.expire_holds(10)
        return ended

    ended, *outcomes = await asyncio.gather(expire(), *map(bank.run, captures))
    captured = outcomes.count(Outcome.COMMITTED)
    assert ended + captured == 1
    assert outcomes.count(Outcome.HOLD_NOT_ACTIVE) == 3 - captured
    assert await bank.balances() == (HAS - 25 * captured, HAS + 25 * captured, HAS)
    assert [await bank.run(batch) for batch in captures] == outcomes
    assert await shard.redis.exists("holds", "holds:due") == 0
    await nothing_left(bank)


# ------------------------------------------------------------------ shards that die


@pytest.fixture
async def own_shards(tmp_path: Path) -> AsyncIterator[RealShards]:
    """Three shards of this test alone, which it may kill."""
    processes = [RedisProcess(tmp_path / f"redis-{i}", "127.0.0.1", None, 0) for i in range(3)]
    try:
        for process in processes:
            await process.start()
        made = RealShards([process.address for process in processes], processes)
        await made.wipe()
        yield made
    finally:
        for process in processes:
            await process.stop()


@pytest.mark.parametrize("steps", [1, 2], ids=["after prepare", "after decide"])
@pytest.mark.parametrize("index", [0, 1, 2], ids=["deciding", "debited", "credited"])
async def test_shard_killed(own_shards: RealShards, index: int, steps: int) -> None:
    """The caller hears that the outcome is unknown; when the shard is back the resolver makes it whole."""
    bank = await JournalBank.open(own_shards)
    batch = bank.split()
    machine, calls = await bank.start(batch, steps)
    process = own_shards.processes[index]
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    answers = {shard: await bank.ask(shard, call) for shard, call in calls.items()}
    if steps == 1:
        calls = dict(machine.finish(answers))
        answers = {shard: await bank.ask(shard, call) for shard, call in calls.items()}
    machine.conclude(answers)
    # Only when the deciding shard died after its word is everything done without it.
    done = index == 0 and steps == 2
    assert machine.outcomes == [Outcome.COMMITTED if done else Outcome.OUTCOME_UNKNOWN]

    await process.start()
    # Looks at once, over new connections; a resolver would look again a second later.
    await bank.balances()
    await bank.resolve()
    expected = Outcome.ABORTED if index == 0 and steps == 1 else Outcome.COMMITTED
    assert await bank.balances() == (SPLIT if expected is Outcome.COMMITTED else AT_REST)
    await nothing_left(bank)
    assert await bank.run(batch) is expected
    assert await bank.alarms() == 0
    await bank.close()


async def test_settlements_that_ride_on_a_journal(bank: JournalBank) -> None:
    """What is finished is settled by the next decide of its shard."""
    driver = Driver(bank)  # type: ignore[arg-type]  # of a directory it needs the cluster only
    await driver.commit_journals(bank.split(), bank.cluster)
    assert await bank.in_doubt() == (0, 1)
    await driver.commit_journals(bank.refund(), bank.cluster)
    assert await bank.in_doubt() == (0, 1)
    await driver.settle_now()
    await nothing_left(bank)
