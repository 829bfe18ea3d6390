"""Shards that are killed and come back, between any two steps, against real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from shard_node.client import NoReply
from shard_node.contract import Outcome, Transaction
from tests.coordinator.bank import PAYER_HAS, Bank
from tests.coordinator.journal_bank import HAS, JournalBank
from tests.real_shards import RealShards, real_servers

MOVED = (PAYER_HAS - 30, 30)
CLEAN = (0, 0)
AT_REST, SPLIT = (HAS, HAS, HAS), (HAS - 10, HAS - 10, HAS + 20)


@pytest.fixture
def own_shards(tmp_path: Path) -> Iterator[RealShards]:
    """Three shards of this test alone, which it may kill."""
    with real_servers(tmp_path) as servers:
        shards = RealShards(servers)
        shards.wipe()
        yield shards


async def test_shard_down_between_decide_and_finish(own_shards: RealShards) -> None:
    """The caller hears that the outcome is unknown; the resolver finishes when the shard is back."""
    bank = await Bank.open(own_shards)
    row = bank.transfer()
    attempt = bank.attempt(row)
    machine, calls = await bank.start(attempt, 2)
    own_shards.servers[1].kill()
    answer = await bank.ask(1, calls[1])
    assert answer is NoReply.LOST
    machine.conclude({1: answer})
    assert attempt.outcomes == bytes((Outcome.OUTCOME_UNKNOWN,))
    assert not machine.settled

    own_shards.servers[1].start()
    assert await bank.balances() == (MOVED[0], 0)
    assert await bank.in_doubt() == (1, 1)
    await bank.resolve()
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == MOVED
    await bank.close()


async def test_connections_from_before_a_restart_are_not_a_lost_answer(own_shards: RealShards) -> None:
    """They are dead; the call is made on a new one, and moves once."""
    bank = await Bank.open(own_shards)
    rows = [bank.transfer(1) for _ in range(12)]
    # As many calls at once as there are transfers.
    assert set(await asyncio.gather(*map(bank.run, rows))) == {Outcome.COMMITTED}
    for server in own_shards.servers:
        server.restart(killed=True)
    again = [bank.transfer(1) for _ in range(12)]
    assert set(await asyncio.gather(*map(bank.run, [*rows, *again]))) == {Outcome.COMMITTED}
    assert await bank.balances() == (PAYER_HAS - 24, 24)
    await bank.close()


async def test_payers_shard_killed_keeps_what_it_acknowledged(own_shards: RealShards) -> None:
    """Each decide that was answered is there after kill -9."""
    bank = await Bank.open(own_shards)
    rows = [bank.transfer(1) for _ in range(50)]
    acknowledged: list[Transaction] = []
    under_way = asyncio.Event()

    async def work() -> None:
        for row in rows:
            if await bank.run(row) is Outcome.COMMITTED:
                acknowledged.append(row)
            if len(acknowledged) == 10:
                under_way.set()

    working = asyncio.ensure_future(work())
    await under_way.wait()
    await asyncio.to_thread(own_shards.servers[0].restart, killed=True)
    await working
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    payer, payee = await bank.balances()
    assert payer + payee == PAYER_HAS
    assert payee >= len(acknowledged)
    for row in rows:
        assert await bank.run(row) is Outcome.COMMITTED or row not in acknowledged
    await bank.close()


@pytest.mark.parametrize("steps", [1, 2], ids=["after prepare", "after decide"])
@pytest.mark.parametrize("index", [0, 1, 2], ids=["deciding", "debited", "credited"])
async def test_shard_killed(own_shards: RealShards, index: int, steps: int) -> None:
    """The caller hears that the outcome is unknown; when the shard is back the resolver makes it whole."""
    bank = await JournalBank.open(own_shards)
    row = bank.split()
    attempt = bank.attempt(row)
    machine, calls = await bank.start(attempt, steps)
    own_shards.servers[index].kill()
    answers = {shard: await bank.ask(shard, call) for shard, call in calls.items()}
    if steps == 1:
        calls = dict(machine.finish(answers))
        answers = {shard: await bank.ask(shard, call) for shard, call in calls.items()}
    machine.conclude(answers)
    # Only when the deciding shard died after its word is everything done without it.
    done = index == 0 and steps == 2
    assert attempt.outcomes == bytes((Outcome.COMMITTED if done else Outcome.OUTCOME_UNKNOWN,))

    own_shards.servers[index].start()
    # Looks at once, over new connections; a resolver would look again a second later.
    await bank.balances()
    await bank.resolve()
    abandoned = index == 0 and steps == 1
    assert await bank.balances() == (AT_REST if abandoned else SPLIT)
    assert await bank.in_doubt() == CLEAN
    assert await bank.held_minor() == (0, 0, 0)
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == SPLIT
    assert await bank.alarms() == 0
    await bank.close()
