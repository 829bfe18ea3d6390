"""Journals go the ways of transfers: one call a shard, or a coordinator, and again by a newer map."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from router.execution import kept, maps
from router.execution.journal_engine import JournalEngine, JournalResult, split_journals
from router.execution.maps import FIRST_RETRY_SECONDS
from shard_node.client.asking import NoReply
from shard_node.cluster.slots import SLOT_COUNT, slot
from shard_node.contract.journal_calls import JournalReply, Journals
from shard_node.contract.journals import Effect, Journal, Leg
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transfers import Kind
from shard_node.errors import ShardFullError, ShardUnavailableError, StaleEpochError
from shard_node.limits import NO_BALANCE
from tallystick.v1 import coordinator_pb2
from tests.router.samples import uuid7
from tests.router.stand_ins import (
    COMMITTED,
    Clock,
    CommittersStandIn,
    MapsStandIn,
    ShardStandIn,
    cluster_cut_at,
)

UNKNOWN, STALE = int(Outcome.OUTCOME_UNKNOWN), int(Outcome.STALE_EPOCH)
FULL = int(Outcome.RESOURCE_EXHAUSTED)
LOW, HIGH = sorted(["alice", "bob"], key=slot)
# A map cut here has LOW on the left shard and HIGH on the right one.
BETWEEN = slot(HIGH)
MINUTE = 60.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The engine's time."""
    made = Clock()
    for module in (kept, maps):
        monkeypatch.setattr(module, "time", made)
    return made


def batch_of(*accounts: tuple[str, ...]) -> Journals:
    """A journal for each tuple of accounts; the amounts 1, 2, 3 ... tell all legs apart."""
    rows, amount = [], 0
    for number, names in enumerate(accounts):
        legs: list[Leg] = []
        for name in names:
            amount += 1
            legs.append(Leg(name, slot(name), Effect.CREDIT if legs else Effect.DEBIT, amount, "EUR"))
        rows.append((UUID(uuid7(0, number)).bytes, Journal(Kind.JOURNAL, tuple(legs), b"\0\0")))
    return Journals.of(rows)


def posted(shard: ShardStandIn) -> list[list[int]]:
    """The first amounts of the journals of each call."""
    return [[journal.legs[0].amount_minor for journal in call.batch.journals] for call in shard.calls]  # type: ignore[union-attr]


def test_split() -> None:
    """A journal stays when all its legs are on one shard, however many they are."""
    shards = [[0, 0, 0], [1], [0, 1], [1, 1, 0], [1, 1]]
    assert split_journals([0, 1, 2, 3, 4], shards) == ({0: [0], 1: [1, 4]}, [2, 3])
    assert split_journals([2], shards) == ({}, [2])


async def test_each_part_goes_its_way(clock: Clock) -> None:
    """One call a shard, one commit for all that crosses; results, balances leg by leg, keep the order."""
    left, right = ShardStandIn("left"), ShardStandIn("right")
    committers = CommittersStandIn()
    engine = JournalEngine(MapsStandIn(clock, cluster_cut_at(7, BETWEEN, left, right)), committers)
    friend = "{" + LOW + "}"
    batch = batch_of((LOW, HIGH), (LOW,), (HIGH,), (LOW, friend), (HIGH, LOW, friend))
    results = await engine.execute(batch, clock.now + MINUTE)
    assert posted(left) == [[3, 5]]
    assert posted(right) == [[4]]
    assert committers.journal_batches == [([batch.journals[0], batch.journals[4]], 7)]
    assert results.rows() == [
        JournalResult(COMMITTED, 0, (1, 2)),
        JournalResult(COMMITTED, 0, (3,)),
        JournalResult(COMMITTED, 0, (4,)),
        JournalResult(COMMITTED, 0, (5, 6)),
        JournalResult(COMMITTED, 0, (7, 8, 9)),
    ]


async def test_refusals_keep_their_leg(clock: Clock) -> None:
    """What a shard or a coordinator refuses comes with the leg it concerns, at the right journal."""
    frozen, closed = int(Outcome.ACCOUNT_FROZEN), int(Outcome.ACCOUNT_CLOSED)
    left = ShardStandIn("left", lambda _: JournalReply([frozen], [1], [NO_BALANCE, NO_BALANCE]))
    answer = coordinator_pb2.CommitJournalsResponse(
        outcomes=bytes([COMMITTED, closed]), legs=[0, 2], balances_minor=[1, 2, *[NO_BALANCE] * 3]
    )
    engine = JournalEngine(
        MapsStandIn(clock, cluster_cut_at(1, BETWEEN, left, ShardStandIn("right"))),
        CommittersStandIn(journal_answers=[answer]),
    )
    friend = "{" + LOW + "}"
    results = await engine.execute(
        batch_of((LOW, HIGH), (LOW, friend), (LOW, HIGH, friend)), clock.now + MINUTE
    )
    assert (results.outcomes, results.legs) == ([COMMITTED, frozen, closed], [0, 1, 2])
    assert results.balances == [(1, 2), (NO_BALANCE,) * 2, (NO_BALANCE,) * 3]


@pytest.mark.parametrize(
    ("error", "outcome"), [(ShardUnavailableError("no answer"), UNKNOWN), (ShardFullError("full"), FULL)]
)
async def test_a_shard_that_fails(clock: Clock, error: Exception, outcome: int) -> None:
    """A failing shard concerns its own journals only, and is not asked again."""
    left = ShardStandIn("left", error)
    maps_ = MapsStandIn(clock, cluster_cut_at(1, BETWEEN, left, ShardStandIn("right")))
    engine = JournalEngine(maps_, CommittersStandIn())
    results = await engine.execute(batch_of((LOW,), (HIGH,)), clock.now + MINUTE)
    assert results.outcomes == [outcome, COMMITTED]
    assert len(left.calls) == 1


@pytest.mark.parametrize(("answer", "outcome"), [(NoReply.LOST, UNKNOWN), (NoReply.FULL, FULL)])
async def test_coordinators_that_fail(clock: Clock, answer: NoReply, outcome: int) -> None:
    """Without a coordinator what crosses is unknown or, when nothing was begun, refused for load."""
    committers = CommittersStandIn(journal_answers=[answer])
    cluster = cluster_cut_at(1, BETWEEN, ShardStandIn("left"), ShardStandIn("right"))
    results = await JournalEngine(MapsStandIn(clock, cluster), committers).execute(
        batch_of((LOW, HIGH), (LOW,)), clock.now + MINUTE
    )
    assert results.outcomes == [outcome, COMMITTED]


async def test_a_stale_journal_is_repeated_by_the_newer_map(clock: Clock) -> None:
    """Journals that met another epoch are split anew; those with an outcome are not sent again."""
    left, right = ShardStandIn("left", StaleEpochError("moved on")), ShardStandIn("right")
    later = [cluster_cut_at(7, SLOT_COUNT, left, right), cluster_cut_at(8, BETWEEN, left, right)]
    maps_, committers = MapsStandIn(clock, *later), CommittersStandIn()
    batch = batch_of((LOW,), (LOW, HIGH), (HIGH,))
    results = await JournalEngine(maps_, committers).execute(batch, clock.now + MINUTE)
    assert posted(left) == [[1, 2, 4], [1]]
    assert posted(right) == [[4]]
    assert committers.journal_batches == [([batch.journals[1]], 8)]
    assert maps_.waits == [(7, FIRST_RETRY_SECONDS)]
    assert results.outcomes == [COMMITTED] * 3
    assert results.balances == [(1,), (2, 3), (4,)]


async def test_a_full_shard_after_a_stale_try_is_not_known(clock: Clock) -> None:
    """What a try that ended stale began is not known, so the next one's "nothing was begun" is not told."""
    answers = [
        coordinator_pb2.CommitJournalsResponse(outcomes=bytes([o]), legs=[0], balances_minor=[0, 0])
        for o in (STALE, FULL)
    ]
    cluster = cluster_cut_at(1, BETWEEN, ShardStandIn("left"), ShardStandIn("right"))
    engine = JournalEngine(MapsStandIn(clock, cluster), CommittersStandIn(journal_answers=answers))
    results = await engine.execute(batch_of((LOW, HIGH)), clock.now + MINUTE)
    assert results.outcomes == [UNKNOWN]


async def test_stale_until_the_deadline_is_unknown(clock: Clock) -> None:
    """Without a newer map it tries again until the deadline, and then says that it does not know."""
    left = ShardStandIn("left", *[StaleEpochError("moved on")] * 1000)
    cluster = cluster_cut_at(3, SLOT_COUNT, left, ShardStandIn("right"))
    deadline = clock.now + 3.0
    results = await JournalEngine(MapsStandIn(clock, cluster), CommittersStandIn()).execute(
        batch_of((LOW,)), deadline
    )
    assert results.outcomes == [UNKNOWN]
    assert clock.now <= deadline


async def test_answers_by_the_deadline(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Journals of a silent shard are unknown at the deadline; the call goes on, and is waited for."""
    monkeypatch.setattr(kept, "LEAST_SECONDS", 0.0)
    left, right = ShardStandIn("left"), ShardStandIn("right", ShardFullError("out of memory"))
    left.open_gate.clear()
    engine = JournalEngine(MapsStandIn(clock, cluster_cut_at(1, BETWEEN, left, right)), CommittersStandIn())
    async with asyncio.timeout(5):
        results = await engine.execute(batch_of((LOW,), (HIGH,), (LOW, HIGH)), clock.now + 0.05)
    # "Nothing was begun" is told only of batches that have ended.
    assert results.outcomes == [UNKNOWN, UNKNOWN, COMMITTED]
    finished = asyncio.ensure_future(engine.finish_all())
    await asyncio.sleep(0)
    assert not finished.done()
    left.open_gate.set()
    await finished
    assert results.outcomes == [UNKNOWN, UNKNOWN, COMMITTED]
