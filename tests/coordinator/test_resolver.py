"""Recovery's limits: what it cannot end stands in nobody's way, and no call grows without bound."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from coordinator import driver as driver_module
from coordinator import resolver
from coordinator.driver import Driver, now_ms
from coordinator.pace import MAX_PAUSE_SECONDS, Cluster, Pace
from coordinator.resolver import Resolver
from shard_node import client
from shard_node.client import NoReply, Shard, asking
from shard_node.contract import Abandon, Answer, Command, Doubt, Finish, Outcome, PreparedAttempt, Settle
from tests.coordinator.bank import PAYER_HAS, Bank, Ground, name_on
from tests.coordinator.payloads import transfer
from tests.real_shards import RealShards, real_servers


@pytest.fixture
async def bank(shards: RealShards) -> AsyncIterator[Bank]:
    """A payer with 100 on one shard, a payee on another."""
    made = await Bank.open(shards)
    yield made
    assert await made.alarms() == 0
    await made.close()


def resolver_of(ground: Ground) -> Resolver:
    """One that is called by the test: it needs no lock."""
    return Resolver("test", None, ground)  # type: ignore[arg-type]


async def test_what_cannot_be_ended_stands_in_nobodys_way(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts whose deciding shard is away fill many looks; those of a living one are ended all the same."""
    monkeypatch.setattr(resolver, "SCAN_LIMIT", 20)
    away, here = name_on(bank.shards, 2, "away"), name_on(bank.shards, 0, "here")
    for payer in [away] * 210 + [here] * 20:
        await bank.prepare(bank.attempt(transfer(payer, bank.payee, 1)))
    cluster = bank.silence(2)
    looking, second = resolver_of(bank), cluster.shards[1]
    looks = [await looking.resolve(cluster, second, 0) for _ in range(1 + 230 // 20)]
    left = [doubt async for doubt in second.all_in_doubt()]
    assert len(left) == 210
    assert {doubt.decider for doubt in left if isinstance(doubt, PreparedAttempt)} == {"shard-2"}
    # There is reason to look again at once only where something was ended.
    assert looks == [False] * 10 + [True, True]


@pytest.fixture
def own_shards(tmp_path: Path) -> Iterator[RealShards]:
    """Three shards of this test alone, whose time is set."""
    with real_servers(tmp_path, manual_clock=True) as servers:
        made = RealShards(servers)
        made.wipe()
        yield made


async def test_what_is_young_is_left_alone(own_shards: RealShards, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its coordinator is likely to be at work. Where all are young their bundles are not even read."""
    now, looks = now_ms(), []
    in_doubt = Shard.in_doubt

    async def counted(self: Shard, after: int, count: int) -> list[Doubt]:
        looks.append(self.shard_id)
        return await in_doubt(self, after, count)

    monkeypatch.setattr(Shard, "in_doubt", counted)
    for server in own_shards.servers:
        server.set_clock(now)
    bank = await Bank.open(own_shards)
    old, young = bank.attempt(bank.transfer(10)), bank.attempt(bank.transfer(20))
    await bank.start(old, 1)
    own_shards.servers[1].set_clock(now + 1000)
    await bank.start(young, 1)
    looking, shard = resolver_of(bank), bank.cluster.shards[1]
    assert not await looking.resolve(bank.cluster, shard, 1001)
    assert looks == []
    await looking.resolve(bank.cluster, shard, 1000)
    assert looks == ["shard-1"]
    assert await bank.in_doubt() == (1, 0)
    assert await bank.decide(young) == [Outcome.COMMITTED]
    await bank.resolve()
    assert await bank.balances() == (PAYER_HAS - 20, 20)
    await bank.close()


async def test_a_deciding_shard_that_has_left_is_reported(
    bank: Bank, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody can say what became of its attempts: they are kept, and somebody must look."""
    attempt = bank.attempt(bank.transfer())
    await bank.prepare(attempt)
    smaller = client.Cluster(bank.cluster.topology, bank.cluster.shards[1:])
    looking = resolver_of(bank)
    assert not await looking.resolve(smaller, smaller.shards[0], 0)
    assert "has left the cluster" in capsys.readouterr().out
    assert await bank.in_doubt() == (1, 0)
    await bank.resolve()


async def test_recovery_keeps_to_the_limit_of_a_call(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much waits, no call is about more than a batch of transactions."""
    sizes: dict[bytes, int] = {}
    asked: list[int] = []
    carried_out = asking.ask

    async def ask(shard: Shard, command: Command) -> Answer | NoReply:
        if isinstance(command, (Abandon, Finish)):
            asked.append(sum(sizes[attempt_id] for attempt_id in command.attempt_ids))
        return await carried_out(shard, command)

    monkeypatch.setattr(resolver, "MAX_BATCH", 100)
    attempts = [
        bank.attempt(*(bank.transfer(1) for _ in range(size))) for size in (60, 40, 1, 100, 30, 30, 41)
    ]
    for attempt in attempts:
        sizes[attempt.attempt_id] = attempt.count
        await bank.prepare(attempt)
    await bank.decide(attempts[0])
    await bank.decide(attempts[1])
    monkeypatch.setattr(asking, "ask", ask)
    await bank.resolve()
    assert max(asked) == 100
    assert await bank.in_doubt() == (0, 0)
    assert await bank.balances() == (0, PAYER_HAS)


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now_seconds = 1000.0

    def __call__(self) -> float:
        return self.now_seconds


async def test_who_slept_too_long_asks_nobody(bank: Bank) -> None:
    """A batch that was stopped for longer than shards surely remember is left to recovery."""
    clock = Clock()
    pace = Pace(bank.cluster, clock)
    clock.now_seconds += MAX_PAUSE_SECONDS
    assert await pace.ask_all({0: Settle([])}) != {0: NoReply.LOST}
    clock.now_seconds += 1
    before = await bank.cluster.shards[0].info()
    assert await pace.ask_all({0: Settle([])}) == {0: NoReply.LOST}
    assert (await bank.cluster.shards[0].info()).calls == before.calls


async def test_coordinator_that_slept_leaves_its_batch_unknown(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between decide and finish: it acknowledges nothing, and recovery ends the transfer."""
    clock = Clock()

    class Sleepy(Pace):
        """Stopped for long after each decide."""

        def __init__(self, cluster: Cluster) -> None:
            super().__init__(cluster, clock)

        async def ask_all(self, calls: dict[int, Command]) -> dict[int, Answer | NoReply]:  # type: ignore[override]
            answers = await super().ask_all(calls)
            if any(call.COMMAND == "tallystick.decide" for call in calls.values()):
                clock.now_seconds += 2 * MAX_PAUSE_SECONDS
            return answers

    monkeypatch.setattr(driver_module, "Pace", Sleepy)
    attempt = bank.attempt(bank.transfer(30))
    await Driver(bank).commit([attempt], bank.cluster)
    assert attempt.outcomes == bytes((Outcome.OUTCOME_UNKNOWN,))
    assert await bank.in_doubt() == (1, 1)
    await bank.resolve()
    assert await bank.balances() == (70, 30)
