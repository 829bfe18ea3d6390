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

from coordinator.driver import Driver
from coordinator.protocol import NoReply
from shard_node.calls import Decide, Finish, Post, Prepare, Reply
from shard_node.limits import MAX_MINOR
from shard_node.outcomes import PAYEE, Outcome
from shard_node.redis_process import RedisProcess
from shard_node.slots import slot
from shard_node.transfers import Kind, Terms, Transfers
from tests.coordinator.bank import PAYER_HAS, Bank, name_on
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


def codes(answer: object) -> list[int]:
    """The codes of a reply that must be there."""
    assert isinstance(answer, Reply)
    return list(answer.codes)


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


async def test_decide_arrives_after_the_resolver_aborted(bank: Bank) -> None:
    """The late decide is refused with ABORTED and moves nothing."""
    transfer = bank.transfer()
    await bank.ask(1, Prepare(transfer))
    await bank.resolve()
    assert codes(await bank.ask(0, Decide(transfer, [0]))) == [Outcome.ABORTED]
    assert await bank.balances() == NOT_MOVED
    assert await bank.in_doubt() == CLEAN


async def test_delayed_duplicate_prepare_after_finish(bank: Bank) -> None:
    """It finds the leg applied and does nothing, so that the resolver cannot credit twice."""
    transfer = bank.transfer()
    assert await bank.run(transfer) is Outcome.COMMITTED
    assert codes(await bank.ask(1, Prepare(transfer))) == [Outcome.APPLIED]
    assert await bank.in_doubt() == CLEAN
    await bank.resolve()
    assert await bank.balances() == MOVED


async def test_delayed_duplicate_prepare_after_abort(bank: Bank) -> None:
    """It leaves a stale leg, which the resolver drops."""
    transfer = bank.transfer()
    await bank.ask(1, Prepare(transfer))
    await bank.resolve()
    assert codes(await bank.ask(1, Prepare(transfer))) == [Outcome.PREPARED]
    assert await bank.in_doubt() == (1, 0)
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == NOT_MOVED


async def test_finish_arrives_twice(bank: Bank) -> None:
    """The second one does nothing, also in the same batch."""
    transfer = bank.transfer()
    await bank.ask(1, Prepare(transfer))
    await bank.ask(0, Decide(transfer, [0]))
    key = transfer.keys[0]
    twice = await bank.ask(1, Finish([key, key], [Outcome.COMMITTED] * 2))
    assert codes(twice) == [Outcome.FINISHED, Outcome.FINISHED]
    assert codes(await bank.ask(1, Finish([key], [Outcome.COMMITTED]))) == [Outcome.FINISHED]
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


async def test_same_id_twice_in_one_batch(bank: Bank) -> None:
    """One moves, the other gets the same outcome; another payload in the batch is refused."""
    transfer = bank.transfer()
    other = bank.transfer(31, transaction_id=transfer.keys[0][:16])
    batch = Transfers(
        *([*getattr(transfer, name) * 2, *getattr(other, name)] for name in Transfers.__slots__)
    )
    commit = await Driver(bank).commit(batch, bank.cluster)  # type: ignore[arg-type]
    assert commit.outcomes == [Outcome.COMMITTED, Outcome.COMMITTED, Outcome.TRANSACTION_ID_REUSED]
    assert await bank.balances() == MOVED
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN


@pytest.mark.parametrize("steps", [1, 2, 3], ids=["prepared", "decided", "finished"])
@pytest.mark.parametrize("which", ["payer", "payee"])
async def test_slot_moves_to_another_shard_meanwhile(bank: Bank, which: str, steps: int) -> None:
    """Outcomes, prepared and unsettled entries move along: a retry on the new map moves once."""
    transfer = bank.transfer()
    await bank.start(transfer, steps)
    await bank.move(getattr(bank, which), 2)
    assert await bank.run(transfer) is Outcome.COMMITTED
    assert await bank.balances() == MOVED
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == MOVED


@pytest.mark.parametrize("steps", [1, 2, 3], ids=["prepared", "decided", "finished"])
async def test_message_of_an_old_epoch_is_refused(bank: Bank, steps: int) -> None:
    """Whoever still has the map from before the move is refused, and nothing is written."""
    transfer = bank.transfer()
    await bank.start(transfer, steps)
    old = bank.cluster
    await bank.move(bank.payee, 2)
    doubt, balances = await bank.in_doubt(), await bank.balances()
    for call in (Prepare(transfer), Finish(transfer.keys, [Outcome.COMMITTED])):
        bank.cluster, new = old, bank.cluster
        assert await bank.ask(1, call) is NoReply.STALE
        bank.cluster = new
    assert (await bank.in_doubt(), await bank.balances()) == (doubt, balances)


async def test_first_try_on_one_shard_retry_on_two(bank: Bank) -> None:
    """R3: the commit of one call counts as settled, so the ghost leg of the retry is dropped."""
    transfer = bank.transfer()
    await bank.move(bank.payee, 0)
    assert codes(await bank.ask(0, Post(transfer))) == [Outcome.COMMITTED]
    await bank.move(bank.payee, 1)
    assert await bank.run(transfer) is Outcome.COMMITTED
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN


async def test_first_try_on_one_shard_retry_leaves_a_ghost(bank: Bank) -> None:
    """R3: also the resolver drops the ghost leg."""
    transfer = bank.transfer()
    await bank.move(bank.payee, 0)
    await bank.ask(0, Post(transfer))
    await bank.move(bank.payee, 1)
    assert codes(await bank.ask(1, Prepare(transfer))) == [Outcome.PREPARED]
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == MOVED


async def test_first_try_on_two_shards_retry_on_one(bank: Bank) -> None:
    """While the money is on its way the one call answers unknown; when it has come, COMMITTED."""
    transfer = bank.transfer()
    await bank.start(transfer, 2)
    await bank.move(bank.payee, 0)
    assert codes(await bank.ask(0, Post(transfer))) == [Outcome.OUTCOME_UNKNOWN]
    await bank.resolve()
    assert codes(await bank.ask(0, Post(transfer))) == [Outcome.COMMITTED]
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN


async def test_one_coordinator_times_out_in_prepare_another_commits(bank: Bank) -> None:
    """R2: the one that timed out drops nothing, so that the second try commits and finishes."""
    transfer = bank.transfer()
    second = await bank.start(transfer, 1)
    bank.losing("prepare")
    assert await bank.run(transfer) is Outcome.OUTCOME_UNKNOWN
    bank.losing()
    decided = await bank.ask(0, Decide(transfer, [0]))
    finish = second.finish({0: decided})
    second.conclude({1: await bank.ask(1, finish[1])})
    assert second.outcomes == [Outcome.COMMITTED]
    assert await bank.balances() == MOVED


async def test_payers_shard_forgets_first(bank: Bank) -> None:
    """A retry of a UUIDv4 whose leg is still known is refused: a second debit would go nowhere."""
    transfer = bank.transfer()
    assert await bank.run(transfer) is Outcome.COMMITTED
    for _ in range(2):
        await bank.cluster.shards[0].rotate()
    assert await bank.run(transfer) is Outcome.TRANSACTION_ID_EXPIRED
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN


async def test_huge_credit_on_its_way_does_not_refuse_others(bank: Bank) -> None:
    """What one account has coming counts for that account alone."""
    huge = bank.transfer(MAX_MINOR)
    await bank.ask(1, Prepare(huge))
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
    await bank.ask(0, Decide(transfer, [0]))
    answer = await bank.ask(1, Finish(transfer.keys, [Outcome.COMMITTED]))
    assert codes(answer) == [Outcome.MISSING_LEG]
    await bank.resolve()
    assert await bank.in_doubt() == (0, 1)
    # One for the message here, one for each look of the resolver.
    assert await bank.alarms() == 4
    assert await bank.run(transfer) is not Outcome.ABORTED
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
    process = own_shards.processes[1]
    machine = await bank.start(transfer, 2)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    answer = await bank.ask(1, Finish(transfer.keys, [Outcome.COMMITTED]))
    assert answer is NoReply.LOST
    machine.conclude({1: NoReply.LOST})
    assert machine.outcomes == [Outcome.OUTCOME_UNKNOWN]
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
    assert codes(await bank.ask(1, Post(Transfers.of([(bytes([4] * 16), out)])))) == [Outcome.COMMITTED]
    to_debtor = replace(bank, payee=debtor)
    assert codes(await bank.ask(1, Prepare(to_debtor.transfer(MAX_MINOR)))) == [Outcome.PREPARED]
    assert codes(await bank.ask(1, Prepare(to_debtor.transfer(1)))) == [Outcome.BALANCE_LIMIT + PAYEE]
    await bank.resolve()
