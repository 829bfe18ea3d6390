"""Each fault that journals must survive, one by one, against real Redis: splits, refunds, captures, holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ResponseError

from coordinator.driver import MINIMUM_AGE_MS, now_ms
from shard_node.client import NoReply
from shard_node.contract import Decide, Decided, Finish, Outcome, Prepare, Prepared, new_attempt_id
from tests.coordinator.bank import codes, name_on
from tests.coordinator.journal_bank import HAS, LONG_MS, REFUNDABLE, JournalBank
from tests.real_shards import RealShards

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
    assert await bank.reserved_minor() == NOTHING


STEPS = pytest.mark.parametrize(
    "steps", [0, 1, 2, 3], ids=["before prepare", "after prepare", "after decide", "after finish"]
)


@STEPS
async def test_coordinator_of_a_split_dies(bank: JournalBank, steps: int) -> None:
    """Another ends what it left on three shards; a retry gets the one true outcome."""
    row = bank.split()
    await bank.start(bank.attempt(row), steps)
    await bank.resolve()
    await nothing_left(bank)
    assert await bank.balances() == (SPLIT if steps > 1 else AT_REST)
    for _ in range(2):
        assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == SPLIT
    await nothing_left(bank)


@STEPS
async def test_coordinator_of_a_refund_dies(bank: JournalBank, steps: int) -> None:
    """The purchase bears the refund once; then another of the rest is possible."""
    row = bank.refund(30)
    await bank.start(bank.attempt(row), steps)
    await bank.resolve()
    assert await bank.refunded_minor() == (30 if steps > 1 else 0)
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.refunded_minor() == 30
    assert await bank.balances() == (HAS - 30, HAS + 30, HAS)
    assert await bank.run(bank.refund(REFUNDABLE - 29)) is Outcome.REFUND_EXCEEDS_PURCHASE
    assert await bank.run(bank.refund(REFUNDABLE - 30)) is Outcome.COMMITTED
    assert await bank.refunded_minor() == REFUNDABLE
    await nothing_left(bank)


@STEPS
async def test_coordinator_of_a_capture_dies(bank: JournalBank, steps: int) -> None:
    """The hold is captured once; what it leaves is available."""
    hold = await bank.held(40)
    row = bank.capture(hold, 25)
    await bank.start(bank.attempt(row), steps)
    await bank.resolve()
    assert await bank.held_minor() == ((0 if steps > 1 else 40), 0, 0)
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == (HAS - 25, HAS + 25, HAS)
    assert await bank.held_minor() == NOTHING
    assert await bank.run(bank.capture(hold, 1)) is Outcome.HOLD_NOT_ACTIVE
    await nothing_left(bank)


@STEPS
async def test_coordinator_of_a_capture_on_a_participant_dies(bank: JournalBank, steps: int) -> None:
    """A hold that was pinned is free again, and captured once by the retry."""
    hold = await bank.held(40)
    row = bank.capture_elsewhere(hold, 25)
    await bank.start(bank.attempt(row), steps)
    await bank.resolve()
    assert await bank.held_minor() == ((0 if steps > 1 else 40), 0, 0)
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == (HAS - 25, HAS - 1, HAS + 26)
    assert await bank.held_minor() == NOTHING
    await nothing_left(bank)


@pytest.mark.parametrize("reached", [1, 2])
@pytest.mark.parametrize(("steps", "expected"), [(0, AT_REST), (2, SPLIT)], ids=["prepare", "finish"])
async def test_coordinator_dies_within_a_step(
    bank: JournalBank, reached: int, steps: int, expected: tuple[int, int, int]
) -> None:
    """Of two participants only one got the call: the journal is whole all the same, or nothing of it."""
    row = bank.split()
    _, calls = await bank.start(bank.attempt(row), steps)
    assert sorted(calls) == [1, 2]
    await bank.ask(reached, calls[reached])
    await bank.resolve()
    await nothing_left(bank)
    assert await bank.balances() == expected
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == SPLIT


async def test_a_refusal_is_undelivered(bank: JournalBank) -> None:
    """The deciding account lacks funds, the coordinator dies before it drops the legs: they are freed."""
    row = bank.split(HAS + 1, second=10)
    await bank.start(bank.attempt(row), 2)
    assert await bank.in_doubt() == (2, 0)
    assert await bank.reserved_minor() == (0, 10, 0)
    await bank.resolve()
    await nothing_left(bank)
    assert await bank.run(row) is Outcome.INSUFFICIENT_FUNDS
    assert await bank.balances() == AT_REST


async def test_a_participants_refusal_is_remembered_with_its_leg(bank: JournalBank) -> None:
    """The leg that was refused is named, also when asked again; the others are freed."""
    row = bank.split(10, second=HAS + 1)
    for _ in range(2):
        assert await bank.commit(row) == [(Outcome.INSUFFICIENT_FUNDS, 1)]
        # Money that comes meanwhile changes nothing.
        assert await bank.pay(bank.first, bank.second, 5) is Outcome.COMMITTED
    assert await bank.balances() == (HAS - 10, HAS + 10, HAS)
    await nothing_left(bank)


@pytest.mark.parametrize("command", ["prepare", "decide", "finish"])
async def test_answer_lost(bank: JournalBank, command: str) -> None:
    """The caller hears that the outcome is unknown; a retry of the same id moves once."""
    row = bank.split()
    bank.losing(command)
    assert await bank.run(row) is Outcome.OUTCOME_UNKNOWN
    bank.losing()
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == SPLIT
    await bank.resolve()
    await nothing_left(bank)


async def test_decide_arrives_after_the_resolver_abandoned(bank: JournalBank) -> None:
    """The late decide is answered ABANDONED; what was reserved is free."""
    _, calls = await bank.start(bank.attempt(bank.split()), 1)
    await bank.resolve()
    assert codes(await bank.ask(0, calls[0])) == [Outcome.ABANDONED]
    assert await bank.balances() == AT_REST
    await nothing_left(bank)


async def test_delayed_duplicate_prepare_after_finish(bank: JournalBank) -> None:
    """Its attempt has ended: no money is reserved again, no refund counted twice."""
    for row in (bank.split(), bank.refund()):
        attempt = bank.attempt(row)
        _, calls = await bank.start(attempt, 0)
        await bank.start(attempt, 3)
        for index, call in calls.items():
            assert codes(await bank.ask(index, call)) == [Outcome.ENDED]
    assert await bank.refunded_minor() == 30
    await bank.resolve()
    await nothing_left(bank)


async def test_delayed_duplicate_prepare_after_it_was_abandoned(bank: JournalBank) -> None:
    """Nothing is kept, reserved or counted any more."""
    for row in (bank.split(), bank.refund()):
        _, calls = await bank.start(bank.attempt(row), 0)
        for index, call in calls.items():
            assert codes(await bank.ask(index, call)) == [Outcome.PREPARED]
        await bank.resolve()
        for index, call in calls.items():
            assert codes(await bank.ask(index, call)) == [Outcome.ENDED]
        assert (await bank.reserved_minor(), await bank.refunded_minor()) == (NOTHING, 0)
    assert await bank.balances() == AT_REST
    await nothing_left(bank)


async def test_finish_arrives_twice(bank: JournalBank) -> None:
    """The second one does nothing, also in the same call."""
    attempt = bank.attempt(bank.split())
    await bank.start(attempt, 2)
    name, committed = attempt.attempt_id, bytes((Outcome.COMMITTED,))
    for number in (1, 2):
        twice = await bank.ask(number, Finish([name, name], [committed, committed]))
        assert not isinstance(twice, NoReply)
        assert list(twice.codes) == [bytes((Outcome.FINISHED,))] * 2
        assert await bank.finish(attempt, number=number) == [Outcome.FINISHED]
    assert await bank.balances() == SPLIT
    await bank.resolve()
    await nothing_left(bank)


async def test_a_commit_waits_for_all_its_participants(bank: JournalBank) -> None:
    """R6: settled by one of two it stays, and another coordinator finishes the other one."""
    attempt = bank.attempt(bank.split())
    await bank.start(attempt, 2)
    assert await bank.finish(attempt, number=2) == [Outcome.FINISHED]
    with_second_away = bank.silence(1)
    bank.cluster, whole = with_second_away, bank.cluster
    await bank.resolve(0)
    bank.cluster = whole
    (commit,) = await bank.cluster.shards[0].in_doubt()
    assert commit.participants == (("shard-1", False), ("shard-2", True))  # type: ignore[union-attr]
    await bank.resolve(0)
    assert await bank.balances() == SPLIT
    await nothing_left(bank)


async def test_same_id_with_another_payload(bank: JournalBank) -> None:
    """It is refused on its first leg; the original stands untouched."""
    row = bank.split()
    assert await bank.run(row) is Outcome.COMMITTED
    other = bank.split(11, transaction_id=row.transaction_id)
    assert await bank.commit(other) == [(Outcome.TRANSACTION_ID_REUSED, 0)]
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == SPLIT
    await nothing_left(bank)


async def test_same_id_twice_in_one_batch(bank: JournalBank) -> None:
    """One moves, the other gets the same outcome; another payload in the batch is refused."""
    row = bank.split()
    other = bank.split(11, transaction_id=row.transaction_id)
    found = [outcome for outcome, _ in await bank.commit(row, row, other)]
    assert found == [Outcome.COMMITTED, Outcome.COMMITTED, Outcome.TRANSACTION_ID_REUSED]
    await bank.resolve()
    assert await bank.balances() == SPLIT
    await nothing_left(bank)


async def test_a_batch_of_all_kinds(bank: JournalBank) -> None:
    """Each transaction has an outcome of its own, whoever takes part in it."""
    hold = await bank.held(40)
    rows = [bank.split(), bank.refund(), bank.capture(hold), bank.split(HAS, second=1), bank.refund(40)]
    found = await bank.commit(*rows)
    assert found[:3] == [(Outcome.COMMITTED, 0)] * 3
    assert found[3:] == [(Outcome.INSUFFICIENT_FUNDS, 0), (Outcome.REFUND_EXCEEDS_PURCHASE, 1)]
    assert await bank.balances() == (HAS - 65, HAS + 45, HAS + 20)
    await nothing_left(bank)


MAY_MOVE = [("second", 0, 2), ("second", 3, 2), ("third", 3, 0), ("first", 1, 1)]
IN_THE_WAY = [("first", 2, 1), ("first", 3, 1), ("second", 1, 2), ("second", 2, 2), ("third", 2, 0)]


@pytest.mark.parametrize(("which", "steps", "target"), MAY_MOVE)
async def test_slot_moves_to_another_shard_meanwhile(
    bank: JournalBank, which: str, steps: int, target: int
) -> None:
    """Outcomes move along, attempts and commits stay: a retry on the new map moves once."""
    row = bank.split()
    await bank.start(bank.attempt(row), steps)
    await bank.move(getattr(bank, which), target)
    await bank.resolve()
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == SPLIT
    await nothing_left(bank)


@pytest.mark.parametrize(("which", "steps", "target"), IN_THE_WAY)
async def test_slot_with_something_in_doubt_stays(
    bank: JournalBank, which: str, steps: int, target: int
) -> None:
    """A slot with a prepared leg, or with an unsettled decision, goes only when that has ended."""
    row = bank.split()
    await bank.start(bank.attempt(row), steps)
    with pytest.raises(ResponseError, match="cannot be dropped"):
        await bank.move(getattr(bank, which), target)
    await bank.resolve()
    await bank.move(getattr(bank, which), target)
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == SPLIT
    await nothing_left(bank)


async def test_purchases_and_holds_move_with_their_slots(bank: JournalBank) -> None:
    """What was refunded and what is held is on the new shard."""
    hold = await bank.held(40)
    assert await bank.run(bank.refund()) is Outcome.COMMITTED
    await bank.move(bank.first, 2)
    await bank.move(bank.second, 0)
    assert await bank.refunded_minor() == 30
    assert await bank.run(bank.refund(REFUNDABLE - 29)) is Outcome.REFUND_EXCEEDS_PURCHASE
    assert await bank.run(bank.capture(hold)) is Outcome.COMMITTED
    assert await bank.run(bank.capture(hold, 1)) is Outcome.HOLD_NOT_ACTIVE
    assert await bank.balances() == (HAS - 55, HAS + 55, HAS)
    await bank.resolve()
    await nothing_left(bank)


@pytest.mark.parametrize("steps", [0, 2, 3], ids=["nothing", "decided", "finished"])
async def test_message_of_an_old_epoch_is_refused(bank: JournalBank, steps: int) -> None:
    """Whoever still has the map from before a move is refused, and nothing is written."""
    attempt = bank.attempt(bank.split())
    await bank.start(attempt, steps)
    old = bank.cluster
    await bank.move(name_on(bank.shards, 1, "neighbour"), 2)
    doubt, balances = await bank.in_doubt(), await bank.balances()
    for call in (
        Prepare([Prepared(attempt.attempt_id, "shard-0", 1, attempt.bundle)]),
        Decide([Decided(attempt.attempt_id, ["shard-1", "shard-2"], b"", b"", attempt.bundle)]),
        Finish([attempt.attempt_id], [bytes((Outcome.COMMITTED,))]),
    ):
        bank.cluster, new = old, bank.cluster
        assert await bank.ask(1, call) is NoReply.STALE
        bank.cluster = new
    assert (await bank.in_doubt(), await bank.balances()) == (doubt, balances)


async def test_first_try_on_one_shard_retry_on_two(bank: JournalBank) -> None:
    """R3: the commit of one call counts as settled, so the ghost legs of the retry are dropped."""
    row = bank.refund()
    await bank.move(bank.second, 0)
    assert await bank.post([row]) == [Outcome.COMMITTED]
    await bank.move(bank.second, 1)
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.refunded_minor() == 30
    assert await bank.balances() == (HAS - 30, HAS + 30, HAS)
    await nothing_left(bank)


async def test_first_try_on_two_shards_retry_on_one(bank: JournalBank) -> None:
    """While the commit is not settled the one call answers unknown; then COMMITTED."""
    row = bank.refund()
    await bank.start(bank.attempt(row), 3)
    await bank.move(bank.second, 0)
    assert await bank.post([row]) == [Outcome.OUTCOME_UNKNOWN]
    await bank.resolve()
    assert await bank.post([row]) == [Outcome.COMMITTED]
    assert await bank.refunded_minor() == 30
    assert await bank.balances() == (HAS - 30, HAS + 30, HAS)
    await nothing_left(bank)


# ------------------------------------------------------------------ R9: what earlier tries keep


async def test_an_earlier_try_does_not_refuse_a_refund(bank: JournalBank) -> None:
    """What a dead coordinator's try counts against the purchase is no verdict on the retry."""
    row = bank.refund(REFUNDABLE)
    await bank.start(bank.attempt(row), 1)
    # Not yet: its coordinator is likely to be at work.
    assert await bank.run(row) is Outcome.OUTCOME_UNKNOWN
    assert await bank.run(bank.refund(1)) is Outcome.REFUND_EXCEEDS_PURCHASE
    await bank.resolve()
    assert await bank.refunded_minor() == 0
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.refunded_minor() == REFUNDABLE
    await nothing_left(bank)


async def test_a_retry_ends_an_old_try_in_its_way(bank: JournalBank) -> None:
    """Its coordinator has had its time: the retry abandons it, and commits in a second attempt at once."""
    row = bank.split(HAS)
    old = bank.attempt(row, attempt_id=new_attempt_id(now_ms() - MINIMUM_AGE_MS))
    await bank.start(old, 1)
    assert await bank.reserved_minor() == (0, HAS, 0)
    assert await bank.commit(row, bank.split(1)) == [(Outcome.COMMITTED, 0), (Outcome.INSUFFICIENT_FUNDS, 1)]
    assert await bank.decide(old) == [Outcome.ABANDONED]
    assert await bank.balances() == (0, 0, 3 * HAS)
    # Where nothing of the old one was in the way recovery has to look for it.
    assert await bank.in_doubt() == (1, 0)
    await bank.resolve()
    await nothing_left(bank)


async def test_a_retry_leaves_a_young_try_alone(bank: JournalBank) -> None:
    """Its coordinator is likely to be at work: it is not abandoned, and the retry is unknown."""
    row = bank.split(HAS)
    young = bank.attempt(row, attempt_id=new_attempt_id(now_ms()))
    machine, calls = await bank.start(young, 1)
    assert await bank.run(row) is Outcome.OUTCOME_UNKNOWN
    machine.finish({0: await bank.ask(0, calls[0])})
    assert young.outcomes == bytes((Outcome.COMMITTED,))
    await bank.resolve()
    assert await bank.balances() == (0, 0, 3 * HAS)
    await nothing_left(bank)


async def test_a_late_finish_of_an_old_try_changes_nothing(bank: JournalBank) -> None:
    """Its legs were dropped on the deciding shard's word, and are acknowledged so."""
    row = bank.split(HAS)
    old = bank.attempt(row)
    await bank.start(old, 1)
    await bank.resolve()
    assert await bank.run(row) is Outcome.COMMITTED
    for number in (1, 2):
        assert await bank.finish(old, Outcome.ABANDONED, number) == [Outcome.DROPPED]
    assert await bank.balances() == (0, 0, 3 * HAS)
    await nothing_left(bank)


# ------------------------------------------------------------------ what several want


async def test_concurrent_refunds_keep_to_the_purchase(bank: JournalBank) -> None:
    """Of many refunds at once, each with a retry, so many are committed as the purchase bears."""
    rows = [bank.refund(20) for _ in range(6)]
    outcomes = await asyncio.gather(*map(bank.run, [*rows, *rows]))
    await bank.resolve()
    again = await asyncio.gather(*map(bank.run, rows))
    assert set(again) == {Outcome.COMMITTED, Outcome.REFUND_EXCEEDS_PURCHASE}
    for before, after in zip(outcomes, again * 2, strict=True):
        assert before in {after, Outcome.OUTCOME_UNKNOWN}
    # 20 twice is 40 of 50.
    assert again.count(Outcome.COMMITTED) == 2
    assert await bank.refunded_minor() == 40
    assert await bank.balances() == (HAS - 40, HAS + 40, HAS)
    await nothing_left(bank)
    assert await bank.run(bank.refund(11)) is Outcome.REFUND_EXCEEDS_PURCHASE
    assert await bank.run(bank.refund(10)) is Outcome.COMMITTED


async def test_money_reserved_by_one_journal_is_refused_to_another(bank: JournalBank) -> None:
    """Until the first is decided nobody else can spend it; none waits for the other."""
    first = bank.split(HAS)
    attempt = bank.attempt(first)
    machine, calls = await bank.start(attempt, 1)
    assert await bank.reserved_minor() == (0, HAS, 0)
    assert await bank.commit(bank.split(1)) == [(Outcome.INSUFFICIENT_FUNDS, 1)]
    for step in (machine.finish, machine.conclude):
        answers = {index: await bank.ask(index, call) for index, call in calls.items()}
        calls = dict(step(answers) or {})
    assert attempt.outcomes == bytes((Outcome.COMMITTED,))
    assert await bank.balances() == (0, 0, 3 * HAS)
    await bank.resolve()
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
    assert await bank.commit(bank.capture(hold, 41)) == [(Outcome.CAPTURE_EXCEEDS_HOLD, 0)]
    assert await bank.post([bank.void(hold)]) == [Outcome.COMMITTED]
    assert await bank.post([bank.void(hold)]) == [Outcome.HOLD_NOT_ACTIVE]
    assert await bank.balances() == AT_REST
    await nothing_left(bank)


async def test_a_pinned_hold_waits_for_its_attempt(bank: JournalBank) -> None:
    """Its time is over, and another wants it: neither may end it before the attempt has."""
    hold = await bank.held(40, life_ms=200)
    row = bank.capture_elsewhere(hold)
    attempt = bank.attempt(row)
    await bank.start(attempt, 1)
    shard = bank.shard_of(bank.first)
    # By the shard's clock, which nothing else advances.
    until_ms = await shard.clock_ms() + 200
    while await shard.clock_ms() <= until_ms:
        pass
    assert await shard.expire_holds(10) == 0
    assert await bank.post([bank.void(hold)]) == [Outcome.BUSY]
    assert await bank.decide(attempt) == [Outcome.COMMITTED]
    await bank.resolve()
    assert await bank.balances() == (HAS - 25, HAS - 1, HAS + 26)
    assert await bank.post([bank.void(hold)]) == [Outcome.HOLD_NOT_ACTIVE]
    await nothing_left(bank)


async def test_a_hold_lives_by_the_shards_clock(bank: JournalBank) -> None:
    """A hold that is not over is not ended; one whose time is over is not active, and then ended."""
    shard = bank.shard_of(bank.first)
    await bank.held(10, life_ms=LONG_MS)
    assert await shard.expire_holds(10) == 0
    hold = await bank.held(40, life_ms=1)
    begun_ms = await shard.clock_ms()
    while await shard.clock_ms() <= begun_ms + 1:
        pass
    assert await bank.run(bank.capture(hold)) is Outcome.HOLD_NOT_ACTIVE
    assert await bank.post([bank.void(hold)]) == [Outcome.HOLD_NOT_ACTIVE]
    assert await bank.held_minor() == (50, 0, 0)
    assert await shard.expire_holds(10) == 1
    assert await bank.held_minor() == (10, 0, 0)
    assert await bank.balances() == AT_REST
    await nothing_left(bank)


@pytest.mark.parametrize("life_ms", [1, 2, 4, 8, 16, 32])
async def test_hold_expiry_races_with_capture(bank: JournalBank, life_ms: int) -> None:
    """Whichever comes first ends the hold, the other finds it gone; in between the money is reserved."""
    shard = bank.shard_of(bank.first)
    hold = await bank.held(40, life_ms=life_ms)
    rows = [bank.capture(hold, 25) for _ in range(3)]

    async def expire() -> int:
        """Until nothing is held: the hold was captured, or its time is over and it is ended."""
        ended = 0
        while (await bank.held_minor())[0]:
            ended += await shard.expire_holds(10)
        return ended

    ended, *outcomes = await asyncio.gather(expire(), *map(bank.run, rows))
    captured = outcomes.count(Outcome.COMMITTED)
    assert ended + captured == 1
    assert outcomes.count(Outcome.HOLD_NOT_ACTIVE) == 3 - captured
    assert await bank.balances() == (HAS - 25 * captured, HAS + 25 * captured, HAS)
    assert [await bank.run(row) for row in rows] == outcomes
    assert (await shard.info()).holds == 0
    await nothing_left(bank)
