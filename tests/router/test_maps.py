"""Tries by newer and newer maps, work spread over shards, and work that outlives its caller."""

from __future__ import annotations

import asyncio

import pytest

from router.execution import kept, maps
from router.execution.kept import DEFAULT_DEADLINE_SECONDS, KeptTasks, deadline_of
from router.execution.maps import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, Tries, at_owner, spread
from shard_node.client.shard import Shard
from shard_node.cluster.slots import SLOT_COUNT
from shard_node.errors import ShardFullError, ShardNodeError, ShardUnavailableError, StaleEpochError
from tests.router.stand_ins import Clock, Context, MapsStandIn, ShardStandIn, cluster_cut_at

LEFT, RIGHT = ShardStandIn("left"), ShardStandIn("right")
STALE = StaleEpochError("moved on")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of these modules."""
    made = Clock()
    for module in (kept, maps):
        monkeypatch.setattr(module, "time", made)
    return made


async def test_one_try_needs_no_time(clock: Clock) -> None:
    """The first map comes at once, also past the deadline; a loop that is left waits for nothing."""
    stand_in = MapsStandIn(clock, cluster_cut_at(3, SLOT_COUNT, LEFT, RIGHT))
    versions = [cluster.topology.version async for cluster in Tries(stand_in, clock.now - 1)]
    assert versions == [3]
    assert stand_in.waits == []


async def test_further_tries_wait_for_a_newer_map(clock: Clock) -> None:
    """Each try waits longer than the one before, up to a limit, and never past the deadline."""
    later = [cluster_cut_at(version, SLOT_COUNT, LEFT, RIGHT) for version in (3, 4, 9)]
    stand_in = MapsStandIn(clock, *later)
    deadline = clock.now + 3.0
    versions = [cluster.topology.version async for cluster in Tries(stand_in, deadline)]
    assert versions[:4] == [3, 4, 9, 9]
    assert [version for version, _ in stand_in.waits[:3]] == [3, 4, 9]
    pauses = [seconds for _, seconds in stand_in.waits]
    assert pauses[:3] == [FIRST_RETRY_SECONDS, 2 * FIRST_RETRY_SECONDS, 4 * FIRST_RETRY_SECONDS]
    assert max(pauses) == LAST_RETRY_SECONDS
    assert clock.now <= deadline


async def test_spread(clock: Clock) -> None:
    """Each shard is asked once for all its positions, and each position gets its own answer."""
    stand_in = MapsStandIn(clock, cluster_cut_at(1, 100, LEFT, RIGHT))
    asked: list[tuple[str, list[int]]] = []

    async def work(shard: Shard, positions: list[int]) -> list[str]:
        asked.append((shard.shard_id, positions))
        return [f"{shard.shard_id} {position}" for position in positions]

    slots = {4: 99, 2: 100, 7: 0}
    found = await spread(stand_in, slots, work, clock.now + 1)
    assert found == {4: "left 4", 2: "right 2", 7: "left 7"}
    assert sorted(asked) == [("left", [4, 7]), ("right", [2])]
    assert await spread(stand_in, {}, work, clock.now + 1) == {}


async def test_spread_repeats_only_what_was_stale(clock: Clock) -> None:
    """A failing shard concerns its own positions; only those that met another epoch are asked again."""
    clusters = [cluster_cut_at(1, 100, LEFT, RIGHT), cluster_cut_at(2, SLOT_COUNT, LEFT, RIGHT)]
    failing: dict[str, list[ShardNodeError]] = {"left": [ShardFullError("full")], "right": [STALE]}
    asked: list[list[int]] = []

    async def work(shard: Shard, positions: list[int]) -> list[int]:
        asked.append(positions)
        if failing[shard.shard_id]:
            raise failing[shard.shard_id].pop()
        return positions

    found = await spread(MapsStandIn(clock, *clusters), {0: 0, 1: 200, 2: 300}, work, clock.now + 1)
    assert isinstance(found.pop(0), ShardFullError)
    assert found == {1: 1, 2: 2}
    assert asked == [[0], [1, 2], [1, 2]]


async def test_spread_gives_up_at_the_deadline(clock: Clock) -> None:
    """What is stale to the end has that as its answer; a defect of ours is raised, not swallowed."""
    stand_in = MapsStandIn(clock, cluster_cut_at(1, 100, LEFT, RIGHT))

    async def stale(_: Shard, __: list[int]) -> list[int]:
        raise STALE

    assert await spread(stand_in, {0: 0}, stale, clock.now + 1) == {0: STALE}

    async def defect(_: Shard, __: list[int]) -> list[int]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await spread(stand_in, {0: 0}, defect, clock.now + 1)


async def test_at_owner(clock: Clock) -> None:
    """The shard of the slot is asked; its errors are raised as they are."""
    stand_in = MapsStandIn(clock, cluster_cut_at(1, 100, LEFT, RIGHT))

    async def name(shard: Shard) -> str:
        return shard.shard_id

    assert await at_owner(stand_in, 99, name, clock.now + 1) == "left"
    assert await at_owner(stand_in, 100, name, clock.now + 1) == "right"

    async def away(_: Shard) -> str:
        raise ShardUnavailableError

    with pytest.raises(ShardUnavailableError):
        await at_owner(stand_in, 0, away, clock.now + 1)


async def test_kept_work_outlives_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelling the caller cancels nothing else; what goes on counts until it ends, and is waited for."""
    monkeypatch.setattr(kept, "MAX_IN_HAND", 3)
    tasks, gate = KeptTasks(), asyncio.Event()

    async def work() -> str:
        await gate.wait()
        return "done"

    calls = [asyncio.ensure_future(tasks.run(work(), 1)) for _ in range(2)]
    await asyncio.sleep(0)
    calls[0].cancel()
    await asyncio.wait((calls[0],))
    assert (tasks.has_room(1), tasks.has_room(2)) == (True, False)
    finished = asyncio.ensure_future(tasks.finish_all())
    await asyncio.sleep(0)
    assert not finished.done()
    gate.set()
    await finished
    assert await calls[1] == "done"
    assert tasks.has_room(3)
    await tasks.finish_all()


async def test_done_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that ends in time is done, or raises its error; work that does not goes on."""
    monkeypatch.setattr(kept, "LEAST_SECONDS", 0.0)
    tasks, gate = KeptTasks(), asyncio.Event()

    async def waits() -> None:
        await gate.wait()

    async def fails() -> None:
        raise ZeroDivisionError

    assert not await tasks.done_by(waits(), 0.0)
    gate.set()
    await tasks.finish_all()
    assert await tasks.done_by(waits(), float("inf"))
    with pytest.raises(ZeroDivisionError):
        await tasks.done_by(fails(), float("inf"))


def test_deadlines(clock: Clock) -> None:
    """A call is answered a little before its caller gives up, and within ten seconds in any case."""

    class Hasty(Context):
        def time_remaining(self) -> float | None:
            return 2.0

    assert deadline_of(Hasty()) == pytest.approx(clock.now + 1.8)
    assert deadline_of(Context()) == pytest.approx(clock.now + 0.9 * DEFAULT_DEADLINE_SECONDS)
