"""Recovery's limits: what it cannot end stands in nobody's way, and no call grows without bound."""

from __future__ import annotations

import os
from itertools import count
from typing import Any

import pytest

from coordinator import driver, resolver
from coordinator.driver import MAX_PAUSE_SECONDS, Driver, Pace
from coordinator.resolver import Resolver
from shard_node.client import asking
from shard_node.client.asking import NoReply
from shard_node.client.directory import Cluster
from shard_node.client.shard import Shard
from shard_node.cluster.slots import slot
from shard_node.contract.calls import ATTEMPT_BYTES, Attempt, Finish, Prepare, ResolveAttempts, SettleCommits
from shard_node.contract.journal_calls import DecideJournals, FinishLegs, Journals, PrepareLegs, leg_refs
from shard_node.contract.journals import Effect, Journal, Leg
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transfers import Kind, Terms, Transfers
from shard_node.errors import ShardUnavailableError
from shard_node.limits import MAX_BATCH
from tests.coordinator.bank import PAYER_HAS, Bank, joined, name_on, random_id
from tests.real_shards import RealShards


class SilentShard(Shard):
    """A shard that answers nothing."""

    async def call(self, call: Any) -> Any:
        raise ShardUnavailableError("no answer")


def between(payer: str, payee: str, rows: int = 1) -> Attempt:
    """So many transfers of 1 under ids of their own, as a bundle."""
    terms = Terms(1, "EUR", slot(payer), slot(payee), Kind.TRANSFER, payer, payee, b"")
    bundle = Transfers.of([(random_id(), terms) for _ in range(rows)]).bundle()
    return Attempt(os.urandom(ATTEMPT_BYTES), bundle)


async def test_what_cannot_be_ended_stands_in_nobodys_way(
    shards: RealShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Legs whose payer's shard is away fill many looks; those of a living payer are ended all the same."""
    monkeypatch.setattr(resolver, "SCAN_LIMIT", 50)
    bank = await Bank.open(shards)
    try:
        away, here = name_on(shards, 2, "away"), name_on(shards, 0, "here")
        attempts = [between(away, bank.payee) for _ in range(600)]
        attempts += [between(here, bank.payee) for _ in range(20)]
        for attempt in attempts:
            await bank.cluster.shards[1].call(Prepare([attempt]))
        first, second, third = bank.cluster.shards
        silent = SilentShard(third.shard_id, third.fence, third.redis)
        cluster = Cluster(bank.cluster.topology, (first, second, silent))
        looking = Resolver("test", None, None)  # type: ignore[arg-type]  # neither is needed to resolve
        for _ in range(1 + len(attempts) // 50):
            await looking.resolve(cluster, second, 0)
        left = await second.pending("prepared", 0, 1000)
        assert len(left) == 600
        assert {entry.terms.payer for entry in left} == {away}
    finally:
        await bank.close()


async def test_an_attempt_whose_payers_have_parted(shards: RealShards) -> None:
    """Each payer's shard is asked of its own rows; the attempt waits until all of them have answered."""
    bank = await Bank.open(shards)
    try:
        other = Bank(shards, bank.cluster, name_on(shards, 0, "other"), bank.payee)
        await bank.open_account(other.payer, 10)
        mine, theirs = bank.transfer(1), other.transfer(2)
        await bank.prepare(bank.attempt(joined(mine, theirs)))
        await bank.move(other.payer, 2)
        other.cluster = bank.cluster
        assert await other.run(theirs) is Outcome.COMMITTED
        first, second, third = bank.cluster.shards
        silent = SilentShard(third.shard_id, third.fence, third.redis)
        looking = Resolver("test", None, None)  # type: ignore[arg-type]  # neither is needed to resolve
        await looking.resolve(Cluster(bank.cluster.topology, (first, second, silent)), second, 0)
        assert await bank.in_doubt() == (1, 0)
        await bank.resolve()
        assert await bank.in_doubt() == (0, 0)
        assert await bank.run(mine) is Outcome.ABORTED
        assert await bank.balances() == (PAYER_HAS, 2)
    finally:
        await bank.close()


async def test_recovery_of_transfers_keeps_to_the_limit_of_a_call(
    shards: RealShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many bundles wait, no call is about more than a batch of rows."""
    sizes: list[int] = []
    carried_out = asking.ask

    async def ask(shard: Shard, call: Any) -> Any:
        if isinstance(call, ResolveAttempts):
            sizes.append(len(call.attempt_ids))
        elif isinstance(call, Finish):
            sizes.append(sum(map(len, call.verdicts)))
        return await carried_out(shard, call)

    monkeypatch.setattr(driver, "MAX_BATCH", 100)
    bank = await Bank.open(shards)
    try:
        attempts = [between(bank.payer, bank.payee, rows) for rows in (60, 40, 1, 100, 30, 30, 41)]
        for attempt in attempts:
            await bank.prepare(attempt)
        await bank.decide(attempts[0])
        await bank.decide(attempts[1])
        monkeypatch.setattr(asking, "ask", ask)
        await bank.resolve()
        assert max(sizes) == 100
        assert await bank.in_doubt() == (0, 0)
        assert await bank.balances() == (0, PAYER_HAS)
    finally:
        await bank.close()


async def test_recovery_of_journals_keeps_to_the_limit_of_a_call(
    shards: RealShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many legs wait, no call has more than a batch of them."""
    sizes: list[int] = []
    carried_out = asking.ask

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
        monkeypatch.setattr(asking, "ask", ask)
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
        assert await pace.ask_all({0: SettleCommits([])}) != {0: NoReply.LOST}
        clock.now_seconds += 1
        before = await bank.cluster.shards[0].counters()
        assert await pace.ask_all({0: SettleCommits([])}) == {0: NoReply.LOST}
        assert await bank.cluster.shards[0].counters() == before
    finally:
        await bank.close()


async def test_coordinator_that_slept_leaves_its_batch_unknown(
    shards: RealShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between decide and finish: it tells nothing, and recovery ends the transfer."""
    clock = Clock()
    monkeypatch.setattr(driver, "Pace", lambda cluster: Pace(cluster, clock))
    carried_out = asking.ask_all

    async def ask_all(cluster: Cluster, calls: Any) -> Any:
        answers = await carried_out(cluster, calls)
        if any(call.FUNCTION == "decide" for call in calls.values()):
            clock.now_seconds += 2 * MAX_PAUSE_SECONDS
        return answers

    monkeypatch.setattr(driver, "ask_all", ask_all)
    bank = await Bank.open(shards)
    try:
        part = bank.part(bank.attempt(bank.transfer(30)))
        await Driver(bank).commit([part], bank.cluster)  # type: ignore[arg-type]
        assert part.outcomes == bytes((Outcome.OUTCOME_UNKNOWN,))
        assert await bank.in_doubt() == (1, 1)
        await bank.resolve()
        assert await bank.balances() == (70, 30)
    finally:
        await bank.close()
