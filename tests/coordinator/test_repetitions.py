"""Calls that are carried out twice, tries of one transfer in each other's way, and a clock that was ahead."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from shard_node.cluster.slots import slot
from shard_node.contract.outcomes import Outcome
from tests.coordinator.bank import PAYER_HAS, Bank, joined, name_on
from tests.real_shards import RealShards

CLEAN = (0, 0)
# A day in the ticks of 16 microseconds that outcomes are dated in.
DAY_TICKS = 24 * 3600 * 62_500


@pytest.fixture
async def bank(shards: RealShards) -> AsyncIterator[Bank]:
    """A payer with 100 on one shard, a payee on another."""
    made = await Bank.open(shards)
    yield made
    assert await made.alarms() == 0
    await made.close()


async def test_an_attempt_commits_once(bank: Bank) -> None:
    """A decide repeated after its shard forgot what it had refused a row for does not commit that row."""
    payer_shard = bank.cluster.shards[0]
    old = bank.transfer(1)
    assert await bank.run(old) is Outcome.COMMITTED
    await payer_shard.rotate()
    reused = bank.transfer(20, transaction_id=old.keys[0][:16])
    attempt = bank.attempt(joined(bank.transfer(10), reused))
    await bank.prepare(attempt)
    first = await bank.decide(attempt)
    await payer_shard.rotate()
    assert await payer_shard.outcome(old.bundle().decisions) is None
    again = await bank.decide(attempt)
    assert list(first) == list(again) == [Outcome.COMMITTED, Outcome.TRANSACTION_ID_REUSED]
    await bank.resolve()
    assert await bank.balances() == (PAYER_HAS - 11, 11)
    assert await bank.in_doubt() == CLEAN


async def test_a_repetition_refused_by_a_full_shard_is_unknown(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decide whose answer was lost filled the shard's backlog: "nothing was begun" would be untrue."""
    payer_shard = bank.cluster.shards[0]
    backlog = int(await payer_shard.redis.hget("meta", "backlog") or 0)
    await payer_shard.redis.hset("meta", "backlog_limit", str(backlog + 1))
    link = payer_shard.redis.link
    carried_out = link.call
    lost: list[str] = []

    async def call(*arguments: Any) -> Any:
        answer = await carried_out(*arguments)
        if arguments[1] == "decide" and not lost:
            lost.append("decide")
            raise RedisConnectionError("reset before the answer")
        return answer

    monkeypatch.setattr(link, "call", call)
    transfer = bank.transfer(30)
    assert await bank.run(transfer) is Outcome.OUTCOME_UNKNOWN
    found = await payer_shard.outcome(transfer.bundle().decisions)
    assert found is not None
    assert found.outcome is Outcome.COMMITTED
    await bank.resolve()
    assert await bank.balances() == (PAYER_HAS - 30, 30)


async def test_earlier_tries_are_not_in_the_way(shards: RealShards) -> None:
    """Of all tries of one transfer at most one is applied: near its payee's maximum they count once."""
    bank = await Bank.open(shards)
    try:
        limited = name_on(shards, 1, "limited")
        await bank.cluster.shards[1].open([limited], [slot(limited)], ["EUR"], [0], [100], [0])
        bank.payee = limited
        transfer = bank.transfer(60)
        for _ in range(2):
            # Prepared, and then the coordinator is gone.
            await bank.start(transfer, 1)
        # Another one's credit does count what is on its way.
        assert await bank.run(bank.transfer(30)) is Outcome.BALANCE_LIMIT
        assert await bank.run(transfer) is Outcome.COMMITTED
        await bank.resolve()
        assert await bank.balances() == (PAYER_HAS - 60, 60)
        assert await bank.in_doubt() == CLEAN
        assert await bank.cluster.shards[1].redis.exists("coming") == 0
        # Nothing is left of what was on its way.
        assert await bank.run(bank.transfer(40)) is Outcome.COMMITTED
    finally:
        await bank.close()


async def test_a_commit_is_as_old_as_the_clock_says(bank: Bank) -> None:
    """The shard's clock was a day ahead once: commits' names stay ahead, recovery finds them all the same."""
    payer_shard = bank.cluster.shards[0]
    assert await bank.run(bank.transfer(1)) is Outcome.COMMITTED
    clock = int(await payer_shard.redis.hget("meta", "clock") or 0)
    await payer_shard.redis.hset("meta", "clock", str(clock + DAY_TICKS))
    await bank.start(bank.transfer(30), 2)
    assert await bank.in_doubt() == (1, 1)
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == (PAYER_HAS - 31, 31)
