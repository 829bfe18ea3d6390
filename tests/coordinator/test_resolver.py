"""Recovery's limits: what it cannot end stands in nobody's way, and no call grows without bound."""

from __future__ import annotations

import os
from itertools import count
from typing import Any

import pytest

from coordinator import driver, resolver
from coordinator.driver import MAX_PAUSE_SECONDS, Driver, Pace
from coordinator.protocol import NoReply
from coordinator.resolver import Resolver
from shard_node import shard as shard_module
from shard_node.calls import Prepare, Settle
from shard_node.directory import Cluster
from shard_node.errors import ShardUnavailableError
from shard_node.journal_calls import DecideJournals, FinishLegs, Journals, PrepareLegs, leg_refs
from shard_node.journals import Effect, Journal, Leg
from shard_node.limits import MAX_BATCH
from shard_node.outcomes import Outcome
from shard_node.shard import Shard
from shard_node.slots import slot
from shard_node.transfers import Kind, Terms, Transfers
from tests.coordinator.bank import Bank, name_on
from tests.real_shards import RealShards


class SilentShard(Shard):
    """A shard that answers nothing."""

    async def call(self, call: Any) -> Any:
        raise ShardUnavailableError("no answer")


def between(payer: str, payee: str) -> Transfers:
    """A transfer of 1 under an id of its own."""
    raw = bytearray(os.urandom(16))
    raw[6] = 0x40
    terms = Terms(1, "EUR", slot(payer), slot(payee), Kind.TRANSFER, payer, payee, b"")
    return Transfers.of([(bytes(raw), terms)])


async def test_what_cannot_be_ended_stands_in_nobodys_way(
    shards: RealShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Legs whose payer's shard is away fill many looks; those of a living payer are ended all the same."""
    monkeypatch.setattr(resolver, "SCAN_LIMIT", 50)
    monkeypatch.setattr(shard_module, "SCAN_PAGE", 10)
    bank = await Bank.open(shards)
    try:
        away, here = name_on(shards, 2, "away"), name_on(shards, 0, "here")
        rows = [between(away, bank.payee) for _ in range(600)] + [
            between(here, bank.payee) for _ in range(20)
        ]
        for row in rows:
            await bank.cluster.shards[1].call(Prepare(row))
        first, second, third = bank.cluster.shards
        silent = SilentShard(third.shard_id, third.fence, third.redis)
        cluster = Cluster(bank.cluster.topology, (first, second, silent))
        looking = Resolver("test", None, None)  # type: ignore[arg-type]  # neither is needed to resolve
        for _ in range(1 + len(rows) // 50):
            await looking.resolve(cluster, second, 0)
        left = await second.pending("prepared", 0, 1000)
        assert len(left) == 600
        assert {entry.terms.payer for entry in left} == {away}
    finally:
        await bank.close()


async def test_recovery_of_journals_keeps_to_the_limit_of_a_call(
    shards: RealShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many legs wait, no call has more than a batch of them."""
    sizes: list[int] = []
    carried_out = driver.ask

    async def ask(shard: Shard, call: Any) -> Any:
        if isinstance(call, FinishLegs):
            sizes.append(len(call.keys))
        return await carried_out(shard, call)

    bank = await Bank.open(shards)
    try:
        payees = _names_on(shards, 1, 99)
        shard = bank.cluster.shards[1]
        await shard.open(payees, [slot(name) for name in payees], ["EUR"] * 99, [0] * 99)
        batch = Journals.of([(os.urandom(16), _payroll(bank.payer, payees)) for _ in range(100)])
        for row in range(len(batch)):
            await shard.call(PrepareLegs(leg_refs(batch, row)[1:]))
        decided = await bank.cluster.shards[0].call(DecideJournals(batch, [0] * 100, [0] * 100))
        committed = list(decided.codes).count(Outcome.COMMITTED)
        assert committed == 1
        monkeypatch.setattr(driver, "ask", ask)
        await bank.resolve()
        assert sum(sizes) >= 99 * 100
        assert max(sizes) <= MAX_BATCH
        assert await bank.in_doubt() == (0, 0)
        accounts = await shard.accounts(payees)
        assert {account.available_minor for account in accounts if account} == {committed}
    finally:
        await bank.close()


def _names_on(shards: RealShards, index: int, wanted: int) -> list[str]:
    names = (f"wage-{n}" for n in count())
    owner = shards.topology.owner
    return [next(name for name in names if owner[slot(name)] == index) for _ in range(wanted)]


def _payroll(payer: str, payees: list[str]) -> Journal:
    debit = Leg(payer, slot(payer), Effect.DEBIT, len(payees), "EUR")
    wages = [Leg(name, slot(name), Effect.CREDIT, 1, "EUR") for name in payees]
    return Journal(Kind.JOURNAL, (debit, *wages), b"\0\0")


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now_seconds = 1000.0

    def __call__(self) -> float:
        return self.now_seconds


async def test_who_slept_too_long_asks_nobody(shards: RealShards) -> None:
    """A batch that was stopped for longer than shards surely remember is left to recovery."""
    bank = await Bank.open(shards)
    try:
        clock = Clock()
        pace = Pace(bank.cluster, clock)
        clock.now_seconds += MAX_PAUSE_SECONDS
        assert await pace.ask_all({0: Settle([])}) != {0: NoReply.LOST}
        clock.now_seconds += 1
        before = await bank.cluster.shards[0].counters()
        assert await pace.ask_all({0: Settle([])}) == {0: NoReply.LOST}
        assert await bank.cluster.shards[0].counters() == before
    finally:
        await bank.close()


async def test_coordinator_that_slept_leaves_its_batch_unknown(
    shards: RealShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between decide and finish: it tells nothing, and recovery ends the transfer."""
    clock = Clock()
    monkeypatch.setattr(driver, "Pace", lambda cluster: Pace(cluster, clock))
    carried_out = driver.ask_all

    async def ask_all(cluster: Cluster, calls: Any) -> Any:
        answers = await carried_out(cluster, calls)
        if any(call.FUNCTION == "decide" for call in calls.values()):
            clock.now_seconds += 2 * MAX_PAUSE_SECONDS
        return answers

    monkeypatch.setattr(driver, "ask_all", ask_all)
    bank = await Bank.open(shards)
    try:
        machine = await Driver(bank).commit(bank.transfer(30), bank.cluster)  # type: ignore[arg-type]
        assert machine.outcomes == [Outcome.OUTCOME_UNKNOWN]
        assert await bank.in_doubt() == (1, 1)
        await bank.resolve()
        assert await bank.balances() == (70, 30)
    finally:
        await bank.close()
