"""Step 4: what is finished is settled sooner or later, and never lost but to recovery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from coordinator import driver as driver_module
from coordinator.driver import Driver, Settlements
from tests.coordinator.journal_bank import JournalBank
from tests.real_shards import RealShards

CLEAN = (0, 0)


@pytest.fixture
async def bank(shards: RealShards) -> AsyncIterator[JournalBank]:
    """Three accounts of 100 on three shards."""
    made = await JournalBank.open(shards)
    yield made
    assert await made.alarms() == 0
    await made.close()


async def test_settlements_ride_on_the_next_decide(bank: JournalBank) -> None:
    """What is finished is settled by the next decide of its shard, or alone before the process ends."""
    driver = Driver(bank)
    await driver.commit([bank.attempt(bank.split())], bank.cluster)
    assert await bank.in_doubt() == (0, 1)
    await driver.commit([bank.attempt(bank.refund())], bank.cluster)
    assert await bank.in_doubt() == (0, 1)
    await driver.settle_now()
    assert await bank.in_doubt() == CLEAN


async def test_settlements_whose_ride_is_lost_wait_again(bank: JournalBank) -> None:
    """The decide that carried them may not have arrived: they are sent once more."""
    driver = Driver(bank)
    await driver.commit([bank.attempt(bank.split())], bank.cluster)
    silent, whole = bank.silence(0), bank.cluster
    await driver.commit([bank.attempt(bank.refund())], silent)
    bank.cluster = whole
    assert await bank.in_doubt() == (1, 1)
    await driver.settle_now()
    assert await bank.in_doubt() == (1, 0)
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN


async def test_settlements_without_a_ride_go_alone(
    bank: JournalBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while; nobody has to send anything."""
    monkeypatch.setattr(driver_module, "SETTLE_IDLE_SECONDS", 0.01)
    driver = Driver(bank)
    await driver.commit([bank.attempt(bank.split())], bank.cluster)
    idle = asyncio.ensure_future(driver.settle_idle())
    while await bank.in_doubt() != CLEAN:
        assert not idle.done()
    idle.cancel()
    assert await bank.in_doubt() == CLEAN


def test_a_call_carries_no_more_than_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest waits for the next one; what waits is bounded, for recovery settles it too."""
    monkeypatch.setattr(driver_module, "MAX_BATCH", 3)
    monkeypatch.setattr(driver_module, "MAX_SETTLEMENTS", 5)
    settlements = Settlements()
    for first in (0, 4, 8):
        settlements.add("shard-0", [(bytes(16), number) for number in range(first, first + 4)])
    assert [[number for _, number in settlements.take("shard-0")] for _ in range(4)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7],
        [],
    ]
