"""Each fault that the commit protocol must survive, one by one, against real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from shard_node.agent.redis_process import RedisProcess
from shard_node.client.asking import NoReply
from shard_node.cluster.slots import slot
from shard_node.contract.calls import Finish, Prepare
from shard_node.contract.outcomes import PAYEE, Outcome
from shard_node.contract.transfers import Kind, Terms, Transfers
from shard_node.errors import StaleEpochError
from shard_node.limits import MAX_MINOR
from tests.coordinator.bank import PAYER_HAS, Bank, joined, name_on, random_id
from tests.coordinator.moving import SlotInUseError
from tests.real_shards import RealShards

MOVED = (PAYER_HAS - 30, 30)
NOT_MOVED = (PAYER_HAS, 0)
CLEAN = (0, 0)


@pytest.fixture
async def bank(shards: RealShards) -> AsyncIterator[Bank]:
    """A payer with 100 on one shard, a payee on another."""
    made = await Bank.open(shards)
    yield made
    assert await made.alarms() == 0
    await made.close()


def timed_id(at_ms: int) -> bytes:
    """A UUIDv7 of that time."""
    raw = bytearray(at_ms.to_bytes(6) + random_id()[6:])
    raw[6] = 0x70 | raw[6] & 0x0F
    return bytes(raw)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(0, Outcome.COMMITTED), (1, Outcome.ABORTED), (2, Outcome.COMMITTED), (3, Outcome.COMMITTED)],
    ids=["before prepare", "after prepare", "after decide", "after finish"],
)
async def test_coordinator_dies_after_any_step(bank: Bank, steps: int, expected: Outcome) -> None:
    """Another resolves what it left; the client's retry gets the one true outcome."""
    transfer = bank.transfer()
    await bank.start(transfer, steps)
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.run(transfer) is expected
    assert await bank.run(transfer) is expected
    assert await bank.balances() == (MOVED if expected is Outcome.COMMITTED else NOT_MOVED)
    assert await bank.in_doubt() == CLEAN


async def test_coordinator_dies_with_a_refusal_undelivered(bank: Bank) -> None:
    """The payer lacks funds, the coordinator dies before it drops the leg: the refusal stands."""
    transfer = bank.transfer(PAYER_HAS + 1)
    await bank.start(transfer, 2)
    assert await bank.in_doubt() == (1, 0)
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.run(transfer) is Outcome.INSUFFICIENT_FUNDS
    assert await bank.balances() == NOT_MOVED


@pytest.mark.parametrize("function", ["prepare", "decide", "finish"])
async def test_reply_lost(bank: Bank, function: str) -> None:
    """The caller hears that the outcome is unknown; a retry of the same id moves once."""
    transfer = bank.transfer()
    bank.losing(function)
    assert await bank.run(transfer) is Outcome.OUTCOME_UNKNOWN
    bank.losing()
    assert await bank.run(transfer) is Outcome.COMMITTED
    assert await bank.run(transfer) is Outcome.COMMITTED
    assert await bank.balances() == MOVED
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN


async def test_reply_lost_after_decide_ends_with_the_retry(bank: Bank) -> None:
    """A retry meets a commit that is not its own: it ends that one itself, and is told COMMITTED at once."""
    transfer = bank.transfer()
    bank.losing("decide")
    assert await bank.run(transfer) is Outcome.OUTCOME_UNKNOWN
    bank.losing()
    assert await bank.in_doubt() == (1, 1)
    assert await bank.run(transfer) is Outcome.COMMITTED
    # No resolver has looked; both attempts have ended.
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == MOVED


async def test_retry_of_what_others_committed_is_unknown_while_it_cannot_be_ended(bank: Bank) -> None:
    """The other commit's finish gets no answer: it may be told only when the payee has the money."""
    transfer = bank.transfer()
    await bank.start(transfer, 2)
    bank.losing("finish")
    assert await bank.run(transfer) is Outcome.OUTCOME_UNKNOWN
    bank.losing()
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.run(transfer) is Outcome.COMMITTED
    assert await bank.balances() == MOVED


async def test_retry_among_others_waits_for_its_own_commit_only(bank: Bank) -> None:
    """One row of a bundle is in another's commit: all are told COMMITTED, and each moves once."""
    transfer = bank.transfer(10)
    await bank.start(transfer, 2)
    bundle = joined(bank.transfer(20), transfer, bank.transfer(PAYER_HAS))
    expected = [Outcome.COMMITTED, Outcome.COMMITTED, Outcome.INSUFFICIENT_FUNDS]
    assert await bank.commit(bundle) == expected
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == MOVED


async def test_decide_arrives_after_the_resolver_aborted(bank: Bank) -> None:
    """The late decide is refused with ABORTED and moves nothing."""
    attempt = bank.attempt(bank.transfer())
    await bank.prepare(attempt)
    await bank.resolve()
    assert await bank.decide(attempt) == [Outcome.ABORTED]
    assert await bank.balances() == NOT_MOVED
    assert await bank.in_doubt() == CLEAN


async def test_decide_arrives_twice(bank: Bank) -> None:
    """The second one moves nothing, and tells of each row what the first one told."""
    attempt = bank.attempt(joined(bank.transfer(), bank.transfer(PAYER_HAS)))
    await bank.prepare(attempt)
    first = await bank.decide(attempt)
    assert first == [Outcome.COMMITTED, Outcome.INSUFFICIENT_FUNDS]
    assert await bank.decide(attempt) == first
    await bank.resolve()
    assert await bank.decide(attempt) == [Outcome.SETTLED, Outcome.INSUFFICIENT_FUNDS]
    assert await bank.balances() == MOVED


async def test_delayed_duplicate_prepare_after_finish(bank: Bank) -> None:
    """R4: its attempt has ended, so that it does nothing, and the resolver cannot credit twice."""
    attempt = bank.attempt(bank.transfer())
    await bank.start(attempt, 3)
    assert await bank.prepare(attempt) == [Outcome.ENDED]
    assert await bank.in_doubt() == (0, 1)
    await bank.resolve()
    assert await bank.prepare(attempt) == [Outcome.ENDED]
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == MOVED


async def test_delayed_duplicate_prepare_after_abort(bank: Bank) -> None:
    """R4: an attempt that was dropped stays so; a new one finds the outcome."""
    transfer = bank.transfer()
    attempt = bank.attempt(transfer)
    await bank.prepare(attempt)
    await bank.resolve()
    assert await bank.prepare(attempt) == [Outcome.ENDED]
    assert await bank.in_doubt() == CLEAN
    assert await bank.run(transfer) is Outcome.ABORTED
    assert await bank.balances() == NOT_MOVED


async def test_ended_attempts_are_known_through_a_rotation(bank: Bank) -> None:
    """R4: a shard forgets them only when it forgets the second time, which no message lives to see."""
    attempt = bank.attempt(bank.transfer())
    await bank.start(attempt, 3)
    await bank.resolve()
    for expected in (Outcome.ENDED, Outcome.ENDED, Outcome.PREPARED):
        assert await bank.prepare(attempt) == [expected]
        await bank.cluster.shards[1].rotate()
    # And even then the payers' shard, if it has not forgotten, has it dropped.
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == MOVED


async def test_delayed_prepare_of_an_attempt_that_was_refused(bank: Bank) -> None:
    """Of an attempt with no leg nothing is remembered: it becomes a stale leg, which the resolver drops."""
    attempt = bank.attempt(bank.transfer())
    shard = bank.cluster.shards[1]
    await shard.set_state([bank.payee], [Kind.FREEZE])
    await bank.start(attempt, 3)
    await shard.set_state([bank.payee], [Kind.UNFREEZE])
    assert await bank.prepare(attempt) == [Outcome.PREPARED]
    assert await bank.in_doubt() == (1, 0)
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == NOT_MOVED


async def test_finish_arrives_twice(bank: Bank) -> None:
    """The second one does nothing, also in the same batch."""
    attempt = bank.attempt(bank.transfer())
    await bank.prepare(attempt)
    await bank.decide(attempt)
    name, verdict = attempt.attempt_id, bytes((Outcome.COMMITTED,))
    twice = await bank.ask(1, Finish([name, name], [verdict, verdict]))
    assert list(twice.codes) == [bytes((Outcome.FINISHED,))] * 2
    assert await bank.finish(attempt) == [Outcome.FINISHED]
    assert await bank.balances() == MOVED


@pytest.mark.parametrize("change", [{"amount": 31}, {"reference": b"other"}])
async def test_same_id_with_another_payload(bank: Bank, change: dict[str, object]) -> None:
    """It is refused; the original stands untouched, and no leg is left."""
    transfer = bank.transfer()
    assert await bank.run(transfer) is Outcome.COMMITTED
    other = bank.transfer(transaction_id=transfer.keys[0][:16], **change)  # type: ignore[arg-type]
    assert await bank.run(other) is Outcome.TRANSACTION_ID_REUSED
    assert await bank.run(transfer) is Outcome.COMMITTED
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN


@pytest.fixture
def thrice(bank: Bank) -> Transfers:
    """A transfer twice, and another payload under its id."""
    transfer = bank.transfer()
    return joined(transfer, transfer, bank.transfer(31, transaction_id=transfer.keys[0][:16]))


THRICE = [Outcome.COMMITTED, Outcome.COMMITTED, Outcome.TRANSACTION_ID_REUSED]


async def test_same_id_twice_in_one_batch(bank: Bank, thrice: Transfers) -> None:
    """One moves, the other gets the same outcome; another payload in the batch is refused."""
    assert await bank.commit(thrice) == THRICE
    assert await bank.balances() == MOVED
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN


@pytest.mark.parametrize("first", [0, 1], ids=["by its commit", "by its legs"])
async def test_same_id_twice_in_a_batch_that_others_end(bank: Bank, thrice: Transfers, first: int) -> None:
    """Whoever ends the attempt, and from whichever shard, applies the transfer once."""
    await bank.start(thrice, 2)
    await bank.resolve(first, 1 - first)
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN
    assert await bank.commit(thrice) == THRICE
    assert await bank.balances() == MOVED


async def test_same_id_twice_in_a_batch_that_is_decided_twice(bank: Bank, thrice: Transfers) -> None:
    """As when a connection breaks under the call, which is then repeated: the same answer."""
    attempt = bank.attempt(thrice)
    await bank.prepare(attempt)
    first = await bank.decide(attempt)
    assert first == [Outcome.COMMITTED, Outcome.ELSEWHERE, Outcome.TRANSACTION_ID_REUSED]
    assert await bank.decide(attempt) == first
    await bank.resolve(1, 0)
    assert await bank.balances() == MOVED


async def test_same_id_twice_in_one_call_on_one_shard(bank: Bank, thrice: Transfers) -> None:
    """The same without two phases."""
    await bank.move(bank.payee, 0)
    assert await bank.post(thrice) == THRICE
    assert await bank.balances() == MOVED


MEETS_NOTHING = [("payer", 0), ("payer", 1), ("payee", 0), ("payee", 3)]
IS_IN_THE_WAY = [("payer", 2), ("payer", 3), ("payee", 1), ("payee", 2)]


@pytest.mark.parametrize(("which", "steps"), MEETS_NOTHING)
async def test_slot_moves_to_another_shard_meanwhile(bank: Bank, which: str, steps: int) -> None:
    """Outcomes move along, attempts and commits stay: a retry on the new map moves once."""
    transfer = bank.transfer()
    await bank.start(transfer, steps)
    await bank.move(getattr(bank, which), 2)
    assert await bank.run(transfer) is Outcome.COMMITTED
    assert await bank.balances() == MOVED
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.run(transfer) is Outcome.COMMITTED
    assert await bank.balances() == MOVED


@pytest.mark.parametrize(("which", "steps"), IS_IN_THE_WAY)
async def test_slot_with_something_in_doubt_stays(bank: Bank, which: str, steps: int) -> None:
    """Neither a slot that waits for a credit may go nor one that paid what is not settled, before it ends."""
    transfer = bank.transfer()
    await bank.start(transfer, steps)
    with pytest.raises(SlotInUseError):
        await bank.move(getattr(bank, which), 2)
    await bank.resolve()
    await bank.move(getattr(bank, which), 2)
    assert await bank.run(transfer) is (Outcome.ABORTED if steps == 1 else Outcome.COMMITTED)
    assert await bank.in_doubt() == CLEAN


async def test_slot_moves_with_outcomes_of_both_generations(bank: Bank) -> None:
    """Where it comes to, both are the younger generation: its next rotation must not forget them."""
    old, young = (bank.transfer(1, transaction_id=timed_id(ms)) for ms in (2000, 3000))
    assert await bank.run(old) is Outcome.COMMITTED
    await bank.cluster.shards[0].rotate()
    assert await bank.run(young) is Outcome.COMMITTED
    await bank.move(bank.payer, 2)
    assert await bank.run(old) is Outcome.COMMITTED
    for expected in (Outcome.COMMITTED, Outcome.TRANSACTION_ID_EXPIRED):
        await bank.cluster.shards[2].rotate()
        assert await bank.run(young) is expected
        assert await bank.run(old) is expected
    assert await bank.balances() == (PAYER_HAS - 2, 2)


@pytest.mark.parametrize("steps", [1, 2, 3], ids=["prepared", "decided", "finished"])
async def test_message_of_an_old_epoch_is_refused(bank: Bank, steps: int) -> None:
    """Whoever still has the map from before the move is refused, and nothing is written."""
    attempt = bank.attempt(bank.transfer())
    await bank.start(attempt, steps)
    old = bank.cluster
    # Another slot of the payees' shard.
    await bank.move(name_on(bank.shards, 1, "neighbour"), 2)
    doubt, balances = await bank.in_doubt(), await bank.balances()
    for call in (Prepare([attempt]), Finish([attempt.attempt_id], [bytes((Outcome.COMMITTED,))])):
        bank.cluster, new = old, bank.cluster
        assert await bank.ask(1, call) is NoReply.STALE
        bank.cluster = new
    assert (await bank.in_doubt(), await bank.balances()) == (doubt, balances)


async def test_commits_are_not_read_by_an_old_map(bank: Bank) -> None:
    """What another epoch's shard does not have is not thereby finished."""
    old = bank.cluster.shards[0]
    await bank.start(bank.transfer(), 2)
    (commit,) = (await bank.cluster.shards[0].pending_bundles_from(0, "unsettled", 0, 10))[0]
    await bank.move(name_on(bank.shards, 0, "neighbour"), 2)
    assert await bank.cluster.shards[0].commits([commit.name]) == [commit]
    with pytest.raises(StaleEpochError):
        await old.commits([commit.name])


async def test_first_try_on_one_shard_retry_on_two(bank: Bank) -> None:
    """R3: the commit of one call counts as settled, so the ghost leg of the retry is dropped."""
    transfer = bank.transfer()
    await bank.move(bank.payee, 0)
    assert await bank.post(transfer) == [Outcome.COMMITTED]
    await bank.move(bank.payee, 1)
    assert await bank.run(transfer) is Outcome.COMMITTED
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN


async def test_first_try_on_one_shard_retry_leaves_a_ghost(bank: Bank) -> None:
    """R3: also the resolver drops the ghost leg."""
    transfer = bank.transfer()
    await bank.move(bank.payee, 0)
    await bank.post(transfer)
    await bank.move(bank.payee, 1)
    assert await bank.prepare(bank.attempt(transfer)) == [Outcome.PREPARED]
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == MOVED


@pytest.mark.parametrize(
    ("steps", "at_once"), [(1, Outcome.COMMITTED), (3, Outcome.COMMITTED)], ids=["prepared", "finished"]
)
async def test_first_try_on_two_shards_retry_on_one(bank: Bank, steps: int, at_once: Outcome) -> None:
    """The payer moves to the payee before it paid, or the payee to the payer when it has been paid."""
    transfer = bank.transfer()
    await bank.start(transfer, steps)
    index = 1 if steps == 1 else 0
    await bank.move(bank.payer if steps == 1 else bank.payee, index)
    if steps == 3:
        # Not settled yet: to one call it is as if it were on its way.
        assert await bank.post(transfer, index) == [Outcome.OUTCOME_UNKNOWN]
        await bank.resolve()
    assert await bank.post(transfer, index) == [at_once]
    await bank.resolve()
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN


async def test_one_coordinator_times_out_in_prepare_another_commits(bank: Bank) -> None:
    """R2: the one that timed out drops nothing, so that the second try commits and finishes."""
    transfer = bank.transfer()
    second = bank.attempt(transfer)
    await bank.prepare(second)
    bank.losing("prepare")
    assert await bank.run(transfer) is Outcome.OUTCOME_UNKNOWN
    bank.losing()
    assert await bank.in_doubt() == (2, 0)
    assert await bank.decide(second) == [Outcome.COMMITTED]
    assert await bank.finish(second) == [Outcome.FINISHED]
    assert await bank.balances() == MOVED
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == MOVED


async def test_two_coordinators_at_once(bank: Bank) -> None:
    """Both have prepared; the one that comes second to decide drops its own leg, and only that."""
    transfer = bank.transfer()
    first, second = bank.attempt(transfer), bank.attempt(transfer)
    for attempt in (first, second):
        assert await bank.prepare(attempt) == [Outcome.PREPARED]
    assert await bank.decide(first) == [Outcome.COMMITTED]
    assert await bank.decide(second) == [Outcome.ELSEWHERE]
    assert await bank.finish(second, Outcome.ELSEWHERE) == [Outcome.DROPPED]
    assert await bank.balances() == (MOVED[0], 0)
    assert await bank.finish(first) == [Outcome.FINISHED]
    await bank.resolve()
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN


async def test_payers_shard_forgets_first(bank: Bank) -> None:
    """A retry under an id that tells its age is refused: nobody knows any more whether it moved."""
    transfer = bank.transfer(transaction_id=timed_id(1000))
    assert await bank.run(transfer) is Outcome.COMMITTED
    for _ in range(2):
        await bank.cluster.shards[0].rotate()
    assert await bank.run(transfer) is Outcome.TRANSACTION_ID_EXPIRED
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN


async def test_forgotten_id_that_tells_no_age_is_a_new_one(bank: Bank) -> None:
    """It moves once more, as a whole: money is neither made nor lost."""
    transfer = bank.transfer()
    assert await bank.run(transfer) is Outcome.COMMITTED
    for _ in range(2):
        await bank.cluster.shards[0].rotate()
    assert await bank.run(transfer) is Outcome.COMMITTED
    assert await bank.balances() == (PAYER_HAS - 60, 60)
    assert await bank.in_doubt() == CLEAN


async def test_unsettled_commit_is_never_forgotten(bank: Bank) -> None:
    """However often its shard forgets, until it is finished."""
    transfer = bank.transfer(transaction_id=timed_id(1000))
    await bank.start(transfer, 2)
    for _ in range(3):
        await bank.cluster.shards[0].rotate()
    assert await bank.run(transfer) is Outcome.COMMITTED
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN


async def test_huge_credit_on_its_way_does_not_refuse_others(bank: Bank) -> None:
    """What one account has coming counts for that account alone."""
    huge = bank.transfer(MAX_MINOR)
    await bank.prepare(bank.attempt(huge))
    assert await bank.run(bank.transfer(30)) is Outcome.BALANCE_LIMIT
    neighbour = replace(bank, payee=name_on(bank.shards, 1, "neighbour"))
    shard = bank.cluster.shards[1]
    await shard.open([neighbour.payee], [slot(neighbour.payee)], ["EUR"], [0])
    assert await neighbour.run(neighbour.transfer(30)) is Outcome.COMMITTED
    await bank.resolve()
    assert await bank.run(bank.transfer(30)) is Outcome.COMMITTED
    assert await bank.in_doubt() == CLEAN


async def test_finish_of_a_leg_that_is_nowhere_raises_the_alarm(shards: RealShards) -> None:
    """R5: it is refused and counted, never answered with ok, and never settled."""
    bank = await Bank.open(shards)
    transfer = bank.transfer()
    attempt = bank.attempt(transfer)
    await bank.decide(attempt)
    assert await bank.finish(attempt) == [Outcome.MISSING_LEG]
    await bank.resolve()
    assert await bank.in_doubt() == (0, 1)
    # One for the message here, one for each look of the resolver.
    assert await bank.alarms() == 4
    assert await bank.run(transfer) is Outcome.OUTCOME_UNKNOWN
    await bank.close()


@pytest.fixture
async def own_shards(tmp_path: Path) -> AsyncIterator[RealShards]:
    """Two shards of this test alone, which it may kill."""
    processes = [RedisProcess(tmp_path / f"redis-{i}", "127.0.0.1", None, 0) for i in range(2)]
    try:
        for process in processes:
            await process.start()
        made = RealShards([process.address for process in processes], processes)
        await made.wipe()
        yield made
    finally:
        for process in processes:
            await process.stop()


async def test_shard_down_between_decide_and_finish(own_shards: RealShards) -> None:
    """The caller hears that the outcome is unknown; the resolver finishes when the shard is back."""
    bank = await Bank.open(own_shards)
    transfer = bank.transfer()
    attempt = bank.attempt(transfer)
    process = own_shards.processes[1]
    machine = await bank.start(attempt, 2)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    answer = await bank.ask(1, Finish([attempt.attempt_id], [bytes((Outcome.COMMITTED,))]))
    assert answer is NoReply.LOST
    machine.conclude({1: NoReply.LOST})
    assert machine.parts[0].outcomes == bytes((Outcome.OUTCOME_UNKNOWN,))
    assert not machine.settled

    await process.start()
    assert await bank.balances() == (MOVED[0], 0)
    assert await bank.in_doubt() == (1, 1)
    await bank.resolve()
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN
    assert await bank.run(transfer) is Outcome.COMMITTED
    assert await bank.balances() == MOVED
    await bank.close()


async def test_connections_from_before_a_restart_are_not_a_lost_answer(own_shards: RealShards) -> None:
    """They are dead; the call is made on a new one, and moves once."""
    bank = await Bank.open(own_shards)
    transfers = [bank.transfer(1) for _ in range(12)]
    # As many connections as there are transfers at once.
    assert set(await asyncio.gather(*map(bank.run, transfers))) == {Outcome.COMMITTED}
    for process in own_shards.processes:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        await process.start()
    again = [bank.transfer(1) for _ in range(12)]
    assert set(await asyncio.gather(*map(bank.run, [*transfers, *again]))) == {Outcome.COMMITTED}
    assert await bank.balances() == (PAYER_HAS - 24, 24)
    await bank.close()


async def test_payers_shard_killed_keeps_what_it_acknowledged(own_shards: RealShards) -> None:
    """Each decide that was answered is there after kill -9 (appendfsync always)."""
    bank = await Bank.open(own_shards)
    process = own_shards.processes[0]
    transfers = [bank.transfer(1) for _ in range(50)]
    acknowledged: list[Transfers] = []
    under_way = asyncio.Event()

    async def work() -> None:
        for transfer in transfers:
            if await bank.run(transfer) is Outcome.COMMITTED:
                acknowledged.append(transfer)
            if len(acknowledged) == 10:
                under_way.set()

    working = asyncio.ensure_future(work())
    await under_way.wait()
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    await process.start()
    await working
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    payer, payee = await bank.balances()
    assert payer + payee == PAYER_HAS
    assert payee >= len(acknowledged)
    for transfer in transfers:
        assert await bank.run(transfer) is Outcome.COMMITTED or transfer not in acknowledged
    await bank.resolve()
    with contextlib.suppress(OSError):
        await bank.close()


async def test_credits_to_an_account_below_zero_have_a_limit_too(bank: Bank) -> None:
    """The sum of what is coming stays within 2^53 - 1, whatever the balance leaves room for."""
    debtor = name_on(bank.shards, 1, "debtor")
    shard = bank.cluster.shards[1]
    await shard.open([debtor], [slot(debtor)], ["EUR"], [-100])
    out = Terms(1, "EUR", slot(debtor), slot(debtor), Kind.WITHDRAWAL, debtor, "@world:EUR", b"")
    assert await bank.post(Transfers.of([(bytes([4] * 16), out)]), 1) == [Outcome.COMMITTED]
    to_debtor = replace(bank, payee=debtor)
    assert await bank.prepare(bank.attempt(to_debtor.transfer(MAX_MINOR))) == [Outcome.PREPARED]
    refused = await bank.prepare(bank.attempt(to_debtor.transfer(1)))
    assert refused == [Outcome.BALANCE_LIMIT + PAYEE]
    await bank.resolve()
