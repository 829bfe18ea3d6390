"""Calls that are carried out twice, tries of one transfer in each other's way, and full shards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from shard_node.contract import Kind, Outcome
from shard_node.limits import MAX_BATCH
from tests.coordinator.bank import PAYER_HAS, Bank, name_on
from tests.coordinator.payloads import WORLD, transfer
from tests.real_shards import ENDLESS_WINDOW_MS, RealShards

CLEAN = (0, 0)


@pytest.fixture
async def bank(shards: RealShards) -> AsyncIterator[Bank]:
    """A payer with 100 on one shard, a payee on another."""
    made = await Bank.open(shards)
    yield made
    assert await made.alarms() == 0
    await made.close()


async def test_an_attempt_commits_once(bank: Bank) -> None:
    """A decide repeated after its shard forgot why it had refused a row does not commit that row."""
    payer_shard = bank.cluster.shards[0]
    old = bank.transfer(1)
    assert await bank.run(old) is Outcome.COMMITTED
    await bank.rotate(0)
    reused = bank.transfer(20, transaction_id=old.transaction_id)
    attempt = bank.attempt(bank.transfer(10), reused)
    await bank.prepare(attempt)
    first = await bank.decide(attempt)
    await bank.rotate(0)
    assert await payer_shard.outcome(old.decision) is None
    again = await bank.decide(attempt)
    assert first == again == [Outcome.COMMITTED, Outcome.TRANSACTION_ID_REUSED]
    await bank.resolve()
    assert await bank.balances() == (PAYER_HAS - 11, 11)
    assert await bank.in_doubt() == CLEAN


async def test_a_repetition_refused_by_a_full_shard_is_unknown(
    shards: RealShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decide whose answer was lost filled the shard's backlog: "nothing was begun" would be untrue."""
    bank = await Bank.open(shards)
    payer_shard = bank.cluster.shards[0]
    shards.backlog_limit = (await payer_shard.info()).backlog_entries + 1
    shards.bind()
    link = payer_shard.redis.link
    carried_out = link.call
    lost: list[str] = []

    async def call(*arguments: Any) -> Any:
        answer = await carried_out(*arguments)
        if arguments[0] == "tallystick.decide" and not lost:
            lost.append("decide")
            raise RedisConnectionError("reset before the answer")
        return answer

    monkeypatch.setattr(link, "call", call)
    row = bank.transfer(30)
    assert await bank.run(row) is Outcome.OUTCOME_UNKNOWN
    found = await payer_shard.outcome(row.decision)
    assert found is not None
    assert found.outcome is Outcome.COMMITTED
    await bank.resolve()
    assert await bank.balances() == (PAYER_HAS - 30, 30)
    await bank.close()


@pytest.mark.parametrize("full", [0, 1], ids=["the payer's", "the payee's"])
async def test_a_full_shard_begins_nothing(shards: RealShards, full: int) -> None:
    """The caller may try again later; what is in flight ends all the same."""
    bank = await Bank.open(shards)
    decided = bank.transfer(10)
    await bank.start(bank.attempt(decided), 2)
    await bank.cluster.shards[full].bind(ENDLESS_WINDOW_MS, 1)
    assert await bank.run(bank.transfer(30)) is Outcome.RESOURCE_EXHAUSTED
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == (PAYER_HAS - 10, 10)
    await bank.close()


async def test_earlier_tries_are_not_in_the_way(bank: Bank) -> None:
    """Near its payee's maximum they are no verdict on the transfer, and nothing of them is left."""
    bank.payee = name_on(bank.shards, 1, "limited")
    await bank.open_account(bank.payee, 0, maximum_balance_minor=100)
    row = bank.transfer(60)
    # Prepared, and then the coordinator is gone.
    await bank.start(bank.attempt(row), 1)
    # Another transaction's credit does count what is on its way.
    assert await bank.run(bank.transfer(50)) is Outcome.BALANCE_LIMIT
    assert await bank.run(row) is Outcome.OUTCOME_UNKNOWN
    await bank.resolve()
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == (PAYER_HAS - 60, 60)
    assert await bank.in_doubt() == CLEAN
    assert await bank.run(bank.transfer(40)) is Outcome.COMMITTED


async def test_large_attempts_of_others_are_ended(bank: Bank) -> None:
    """Whoever waits for two of them ends both, though one call could not be about so many transactions."""
    deposit = transfer(WORLD, bank.payer, 2 * MAX_BATCH, Kind.DEPOSIT)
    assert await bank.post([deposit]) == [Outcome.COMMITTED]
    found = []
    for _ in range(2):
        rows = [bank.transfer(1) for _ in range(MAX_BATCH * 2 // 3)]
        await bank.start(bank.attempt(*rows), 2)
        found.append(rows[0])
    assert await bank.commit(*found) == [(Outcome.COMMITTED, 0), (Outcome.COMMITTED, 0)]
    assert await bank.in_doubt() == CLEAN
