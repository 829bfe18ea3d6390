"""The engine splits a batch by the newest map, and repeats only what met another map."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.execution import kept
from router.execution import maps as maps_module
from router.execution.engine import Engine
from router.execution.maps import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS
from router.requests.reader import columns
from shard_node.client.asking import NoReply
from shard_node.cluster.slots import SLOT_COUNT, slot
from shard_node.contract.calls import Post, Reply
from shard_node.contract.outcomes import PAYEE, Outcome
from shard_node.contract.records import RememberedOutcome
from shard_node.contract.transfers import Kind, Terms, Transfers
from shard_node.errors import ShardDefectError, ShardFullError, ShardUnavailableError, StaleEpochError
from shard_node.limits import NO_BALANCE
from tallystick.v1 import coordinator_pb2
from tests.router.samples import Asked, reader, uuid7
from tests.router.stand_ins import (
    COMMITTED,
    Clock,
    CommitAnswer,
    CommittersStandIn,
    MapsStandIn,
    ShardStandIn,
    cluster_cut_at,
    commits,
    packed,
    told,
)

if TYPE_CHECKING:
    from shard_node.client.directory import Cluster

UNKNOWN = int(Outcome.OUTCOME_UNKNOWN)
STALE = int(Outcome.STALE_EPOCH)
LOW, HIGH = sorted(["alice", "bob"], key=slot)
# A map cut here has LOW on the left shard and HIGH on the right one.
BETWEEN = slot(HIGH)
MINUTE = 60.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The engine's time."""
    made = Clock()
    for module in (kept, maps_module):
        monkeypatch.setattr(module, "time", made)
    return made


def payments(*pairs: tuple[str, str]) -> Transfers:
    """One transfer a pair of accounts; the first is of 1 minor unit, the next of 2, and so on."""
    return columns(
        [
            reader().transfer(Asked(uuid7(0, seed=n), payer, payee, f"{n / 100:.2f}"))
            for n, (payer, payee) in enumerate(pairs, 1)
        ]
    )


LL, HH, LH, HL = (LOW, "{" + LOW + "}"), (HIGH, "{" + HIGH + "}"), (LOW, HIGH), (HIGH, LOW)


@given(shards=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_split(shards: list[tuple[int, int]]) -> None:
    """Each row goes to exactly one part, that of its pair of shards, in order; no part is empty."""
    rows = [row for row in range(len(shards)) if row % 3]
    terms = [Terms(1, "EUR", payer, payee, Kind.TRANSFER, "a", "b", b"") for payer, payee in shards]
    # Each slot is its own shard's.
    parts = Transfers.of([(bytes(16), one) for one in terms]).split(rows, range(4))
    assert {(part.payer_shard, part.payee_shard): list(part.rows) for part in parts} == {
        pair: [row for row in rows if shards[row] == pair] for pair in {shards[row] for row in rows}
    }
    assert all(part.bundle.count == len(part.rows) for part in parts)


async def test_each_part_goes_its_way(clock: Clock) -> None:
    """One call a shard for what stays, one commit for all that crosses; results keep the order.

    What crosses is parted by who pays and who is paid, for shards see nothing but whole parts.
    """
    left, right = ShardStandIn("left"), ShardStandIn("right")
    maps = MapsStandIn(clock, cluster_cut_at(7, BETWEEN, left, right))
    committers = CommittersStandIn()
    batch = payments(LH, LL, HH, HL, LL, LH)
    results = await Engine(maps, committers).execute(batch, clock.now + MINUTE)
    assert left.posted() == [[2, 5]]
    assert right.posted() == [[3]]
    assert committers.batches == [({(0, 1): [1, 6], (1, 0): [4]}, 7)]
    assert list(results.outcomes) == [COMMITTED] * 6
    assert list(results.payee_balances) == [1, 2, 3, 4, 5, 6]
    assert list(results.payer_balances) == [-1, -2, -3, -4, -5, -6]
    assert maps.waits == []


async def test_balances_that_nobody_wants(clock: Clock) -> None:
    """Neither shards nor coordinators are asked for them, and outcomes come as ever."""
    left, right = ShardStandIn("left"), ShardStandIn("right")
    asked: list[bool] = []

    class Committers(CommittersStandIn):
        async def commit(self, *arguments: Any, with_balances: bool = True) -> CommitAnswer:
            asked.append(with_balances)
            return await super().commit(*arguments, with_balances=with_balances)

    engine = Engine(MapsStandIn(clock, cluster_cut_at(7, BETWEEN, left, right)), Committers())
    results = await engine.execute(payments(LH, LL, HL), clock.now + MINUTE, with_balances=False)
    assert list(results.outcomes) == [COMMITTED] * 3
    assert [call.with_balances for call in left.calls if isinstance(call, Post)] == [False]
    assert asked == [False]
    assert not any(results.payer_balances)
    assert not any(results.payee_balances)


async def test_parts_go_at_once(clock: Clock) -> None:
    """No part waits for another: a shard that is slow to answer does not hold up the others."""
    reached: list[str] = []
    all_reached = asyncio.Event()

    def reach(name: str) -> None:
        reached.append(name)
        if len(reached) == 3:
            all_reached.set()

    class SlowShard(ShardStandIn):
        async def call(self, call: Any) -> Any:
            reach(self.shard_id)
            await all_reached.wait()
            return commits(call)

    class SlowCommitters(CommittersStandIn):
        async def commit(self, *arguments: Any, with_balances: bool = True) -> CommitAnswer:
            reach("coordinator")
            await all_reached.wait()
            return await super().commit(*arguments, with_balances=with_balances)

    cluster = cluster_cut_at(1, BETWEEN, SlowShard("left"), SlowShard("right"))
    engine = Engine(MapsStandIn(clock, cluster), SlowCommitters())
    async with asyncio.timeout(5):
        results = await engine.execute(payments(LL, HH, LH), clock.now + MINUTE)
    assert sorted(reached) == ["coordinator", "left", "right"]
    assert list(results.outcomes) == [COMMITTED] * 3


async def test_empty_batch(clock: Clock) -> None:
    """No rows, no calls, no results."""
    left, right = ShardStandIn("left"), ShardStandIn("right")
    committers = CommittersStandIn()
    engine = Engine(MapsStandIn(clock, cluster_cut_at(1, BETWEEN, left, right)), committers)
    results = await engine.execute(columns([]), clock.now + MINUTE)
    assert list(results.outcomes) == []
    assert (left.calls, right.calls, committers.batches) == ([], [], [])


async def test_refusals_are_handed_on(clock: Clock) -> None:
    """What shards and coordinators say of a row stays as it is, the mark of the payee's side too."""
    refused = bytes((Outcome.INSUFFICIENT_FUNDS, Outcome.ACCOUNT_NOT_FOUND + PAYEE))
    unknown = packed([NO_BALANCE] * 2)
    left = ShardStandIn("left", lambda _: Reply((refused,), (unknown,), (unknown,)))
    answer = told(refused[::-1])
    maps = MapsStandIn(clock, cluster_cut_at(1, BETWEEN, left, ShardStandIn("right")))
    results = await Engine(maps, CommittersStandIn(answer)).execute(
        payments(LL, LH, LL, LH), clock.now + MINUTE
    )
    assert list(results.outcomes) == [refused[0], refused[1], refused[1], refused[0]]
    assert list(results.payer_balances) == list(results.payee_balances) == [NO_BALANCE] * 4


async def test_one_code_for_a_whole_part(clock: Clock) -> None:
    """Shards and coordinators say once what holds for all rows of a part, and of no other part."""
    frozen, poor = bytes((Outcome.ACCOUNT_FROZEN + PAYEE,)), bytes((Outcome.INSUFFICIENT_FUNDS,))
    left = ShardStandIn("left", lambda _: Reply((poor,), (packed([NO_BALANCE] * 3),), (b"",)))
    some = bytes((COMMITTED, Outcome.ABORTED))
    answer = coordinator_pb2.CommitResponse(
        results=[
            coordinator_pb2.CommitResult(outcomes=frozen),
            coordinator_pb2.CommitResult(
                outcomes=some, payer_balances=packed([-5, NO_BALANCE]), payee_balances=packed([5, NO_BALANCE])
            ),
        ]
    )
    maps = MapsStandIn(clock, cluster_cut_at(1, BETWEEN, left, ShardStandIn("right")))
    batch = payments(LH, LL, LH, LL, HL, LL, HL, HH)
    results = await Engine(maps, CommittersStandIn(answer)).execute(batch, clock.now + MINUTE)
    assert list(results.outcomes) == [
        *(frozen[0], poor[0], frozen[0], poor[0]),
        *(COMMITTED, poor[0], Outcome.ABORTED, COMMITTED),
    ]
    assert list(results.payer_balances) == [*[NO_BALANCE] * 4, -5, NO_BALANCE, NO_BALANCE, -8]
    assert list(results.payee_balances) == [*[NO_BALANCE] * 4, 5, NO_BALANCE, NO_BALANCE, 8]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ShardUnavailableError("no answer"), Outcome.OUTCOME_UNKNOWN),
        (ShardDefectError("a Lua error"), Outcome.OUTCOME_UNKNOWN),
        (ShardFullError("out of memory"), Outcome.RESOURCE_EXHAUSTED),
    ],
)
async def test_a_shard_that_fails(clock: Clock, error: Exception, outcome: Outcome) -> None:
    """A failing shard concerns its own rows only; the router does not send them again by itself."""
    left, right = ShardStandIn("left", error), ShardStandIn("right")
    maps = MapsStandIn(clock, cluster_cut_at(1, BETWEEN, left, right))
    results = await Engine(maps, CommittersStandIn()).execute(payments(LL, HH, LH), clock.now + MINUTE)
    assert list(results.outcomes) == [outcome, COMMITTED, COMMITTED]
    assert results.payer_balances[0] == results.payee_balances[0] == NO_BALANCE
    assert left.posted() == [[1]]
    assert maps.waits == []


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(NoReply.LOST, Outcome.OUTCOME_UNKNOWN), (NoReply.FULL, Outcome.RESOURCE_EXHAUSTED)],
)
async def test_coordinators_that_fail(clock: Clock, answer: NoReply, outcome: Outcome) -> None:
    """Without a coordinator what crosses is unknown or, when nothing was begun, refused for load."""
    left = ShardStandIn("left")
    committers = CommittersStandIn(answer)
    engine = Engine(MapsStandIn(clock, cluster_cut_at(1, BETWEEN, left, ShardStandIn("right"))), committers)
    results = await engine.execute(payments(LL, LH), clock.now + MINUTE)
    assert list(results.outcomes) == [COMMITTED, outcome]
    assert len(committers.batches) == 1


async def test_a_stale_part_is_repeated_by_the_newer_map(clock: Clock) -> None:
    """Rows that met another epoch are split anew; rows that have an outcome are not sent again."""
    left, right = ShardStandIn("left", StaleEpochError("moved on")), ShardStandIn("right")
    all_left = cluster_cut_at(7, SLOT_COUNT, left, right)
    parted = cluster_cut_at(8, BETWEEN, left, right)
    maps, committers = MapsStandIn(clock, all_left, parted), CommittersStandIn()
    results = await Engine(maps, committers).execute(payments(LL, LH, HH), clock.now + MINUTE)
    # One call by the old map, then each row where it belongs by the new one.
    assert left.posted() == [[1, 2, 3], [1]]
    assert right.posted() == [[3]]
    assert committers.batches == [({(0, 1): [2]}, 8)]
    assert maps.waits == [(7, FIRST_RETRY_SECONDS)]
    assert list(results.outcomes) == [COMMITTED] * 3
    assert list(results.payee_balances) == [1, 2, 3]


async def test_a_full_shard_after_a_stale_try_is_not_known(clock: Clock) -> None:
    """What a try that ended stale began is not known, so the next one's "nothing was begun" is not told."""
    answers = told(bytes((STALE,))), told(bytes((Outcome.RESOURCE_EXHAUSTED,)))
    left = ShardStandIn("left", ShardFullError("out of memory"))
    maps = MapsStandIn(clock, cluster_cut_at(1, BETWEEN, left, ShardStandIn("right")))
    results = await Engine(maps, CommittersStandIn(*answers)).execute(payments(LH, LL), clock.now + MINUTE)
    # The row that met a full shard at its only try is refused as before.
    assert list(results.outcomes) == [UNKNOWN, Outcome.RESOURCE_EXHAUSTED]


async def test_what_crossed_may_come_to_stay(clock: Clock) -> None:
    """Rows that a coordinator gives back as stale may be local by the newer map; the others stand."""
    left, right = ShardStandIn("left"), ShardStandIn("right")
    answer = coordinator_pb2.CommitResponse(
        results=[
            coordinator_pb2.CommitResult(outcomes=bytes((STALE,))),
            coordinator_pb2.CommitResult(
                outcomes=bytes((COMMITTED, STALE)),
                payer_balances=packed([-2, NO_BALANCE]),
                payee_balances=packed([2, NO_BALANCE]),
            ),
        ]
    )
    maps = MapsStandIn(
        clock, cluster_cut_at(1, BETWEEN, left, right), cluster_cut_at(2, SLOT_COUNT, left, right)
    )
    committers = CommittersStandIn(answer)
    results = await Engine(maps, committers).execute(payments(LH, HL, HL), clock.now + MINUTE)
    assert committers.batches == [({(0, 1): [1], (1, 0): [2, 3]}, 1)]
    assert left.posted() == [[1, 3]]
    assert list(results.outcomes) == [COMMITTED] * 3
    assert list(results.payee_balances) == [1, 2, 3]


async def test_waits_for_a_map_no_longer_than_the_deadline(clock: Clock) -> None:
    """Without a newer map it tries again at growing intervals, and at the deadline says unknown."""
    left = ShardStandIn("left", *[StaleEpochError("moved on")] * 1000)
    maps = MapsStandIn(clock, cluster_cut_at(3, SLOT_COUNT, left, ShardStandIn("right")))
    deadline = clock.now + 3.0
    results = await Engine(maps, CommittersStandIn()).execute(payments(LL), deadline)
    assert list(results.outcomes) == [UNKNOWN]
    assert clock.now <= deadline
    pauses = [timeout for _, timeout in maps.waits]
    assert pauses[:3] == [FIRST_RETRY_SECONDS, 2 * FIRST_RETRY_SECONDS, 4 * FIRST_RETRY_SECONDS]
    assert max(pauses) == LAST_RETRY_SECONDS
    assert len(left.calls) == len(pauses) + 1


async def test_the_shard_may_be_behind_the_map(clock: Clock) -> None:
    """A shard about to learn of its new epoch is asked again though the map stays the same."""
    left = ShardStandIn("left", StaleEpochError("not there yet"), StaleEpochError("not there yet"))
    maps = MapsStandIn(clock, cluster_cut_at(3, SLOT_COUNT, left, ShardStandIn("right")))
    results = await Engine(maps, CommittersStandIn()).execute(payments(LL), clock.now + MINUTE)
    assert list(results.outcomes) == [COMMITTED]
    assert left.posted() == [[1], [1], [1]]


async def test_a_passed_deadline_still_gives_one_try(clock: Clock) -> None:
    """A batch that comes late is tried once, not dropped: its caller may have retried it for long."""
    left = ShardStandIn("left")
    maps = MapsStandIn(clock, cluster_cut_at(3, SLOT_COUNT, left, ShardStandIn("right")))
    results = await Engine(maps, CommittersStandIn()).execute(payments(LL), clock.now - 1)
    assert list(results.outcomes) == [COMMITTED]


async def test_answers_by_the_deadline(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a silent shard are unknown at the deadline, the others known; the call is not cancelled."""
    monkeypatch.setattr(kept, "LEAST_SECONDS", 0.0)
    left, right = ShardStandIn("left"), ShardStandIn("right", ShardFullError("out of memory"))
    left.open_gate.clear()
    engine = Engine(MapsStandIn(clock, cluster_cut_at(1, BETWEEN, left, right)), CommittersStandIn())
    async with asyncio.timeout(5):
        results = await engine.execute(payments(LL, HH, LH), clock.now + 0.05)
    # "Nothing was begun" is told only of batches that have ended.
    assert list(results.outcomes) == [UNKNOWN, UNKNOWN, COMMITTED]
    assert list(results.payer_balances) == [NO_BALANCE, NO_BALANCE, -3]
    finished = asyncio.ensure_future(engine.finish_all())
    await asyncio.sleep(0)
    assert not finished.done()
    left.open_gate.set()
    await finished
    assert left.posted() == [[1]]
    # What was told stays as it was told.
    assert list(results.outcomes) == [UNKNOWN, UNKNOWN, COMMITTED]


def remembering(clock: Clock, *errors: Exception) -> tuple[Engine, ShardStandIn, Cluster]:
    """An engine over a shard that remembers one refusal, once it has raised its errors."""
    left = ShardStandIn("left", *errors)
    left.remembered = RememberedOutcome(Outcome.INSUFFICIENT_FUNDS, 5, 6, "EUR", bytes(19))
    cluster = cluster_cut_at(3, SLOT_COUNT, left, ShardStandIn("right"))
    return Engine(MapsStandIn(clock, cluster), CommittersStandIn()), left, cluster


async def test_a_remembered_outcome_is_read_by_the_newest_map(clock: Clock) -> None:
    """A read that met another epoch is made again, under the key of the id and the payer's slot."""
    engine, left, _ = remembering(clock, StaleEpochError("moved on"))
    found = await engine.outcome(bytes(range(16)), 258, clock.now + MINUTE)
    assert found is left.remembered
    assert left.decisions == [bytes(range(16)) + b"\x02\x01"] * 2


async def test_a_remembered_outcome_that_cannot_be_read(clock: Clock) -> None:
    """No answer by the deadline is raised: it is not the same as nothing remembered."""
    engine, left, _ = remembering(clock, *[StaleEpochError("moved on")] * 1000)
    with pytest.raises(StaleEpochError):
        await engine.outcome(bytes(16), 0, clock.now + 1.0)
    left.answers[:] = [ShardUnavailableError("no answer")]
    with pytest.raises(ShardUnavailableError):
        await engine.outcome(bytes(16), 0, clock.now + MINUTE)
