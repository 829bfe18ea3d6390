"""Up to which moment the archive is complete, by real shards and real archives: never later than it is."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from shard_node.client.ledger_state import LedgerState
from shard_node.ledger.questions.history import MAX_CLOCK_SKEW_MS, History
from shard_node.ledger.questions.reach import Completeness, Reach, completeness
from shard_node.ledger.store.archive import Archive
from shard_node.ledger.store.schema import batches, open_ledger
from tests.ledger.books import fresh_ledger
from tests.ledger.streams import START_MS, Stream
from tests.ledger.test_archiver import archiver
from tests.ledger.town import Town, town_on
from tests.real_shards import RealShards, real_servers

BEHIND_MS = 5_000


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An empty ledger in a file: what is asked here is the same of either database."""
    made = fresh_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield made
    made.dispose()


@pytest.fixture
async def town(shards: RealShards, engine: Engine) -> AsyncIterator[Town]:
    """Accounts with money on three shards, nothing archived."""
    async with town_on(shards, engine) as made:
        yield made


async def asked(town: Town) -> dict[str, LedgerState | None]:
    """What the shards say now."""
    return {shard.shard_id: await shard.ledger_state() for shard in town.cluster.shards}


async def look(town: Town, states: dict[str, LedgerState | None] | None = None) -> Completeness:
    """How far the town's archive is complete now, or by what its shards said."""
    states = await asked(town) if states is None else states
    return await asyncio.to_thread(completeness, History(town.engine), states)


def caught_up(found: Completeness) -> list[bool]:
    """By shard."""
    return [reach.caught_up for reach in found.reaches]


async def test_all_archived_is_complete_up_to_the_shards_present_time(town: Town) -> None:
    """As of the shard that was asked first, and not the very millisecond in which more may still happen."""
    await town.archive()
    states = await asked(town)
    found = await look(town, states)
    assert caught_up(found) == [True, True, True]
    assert found.until_ms == min(state.now_ms for state in states.values() if state) - 1


async def test_a_shard_with_a_backlog_is_complete_up_to_its_last_archived_entry(town: Town) -> None:
    """And so is the whole, though the others have caught up."""
    await town.archive()
    await town.pay(town.names[1][0], town.names[1][1], 5)
    found = await look(town)
    assert caught_up(found) == [True, False, True]
    (head,) = [head for head in found.heads.values() if head.shard_id == "shard-1"]
    assert found.until_ms == found.reaches[1].until_ms == head.last_at_ms - 1
    assert [reach.shard_id for reach in found.lacking(2**50)] == ["shard-1"]
    await town.archive(1)
    assert caught_up(await look(town)) == [True, True, True]


async def test_the_oldest_entry_that_waits_is_where_a_shard_ends(town: Town) -> None:
    """Just before it; of a shard whose very first entry waits nothing is known unless somebody looked."""
    await town.archive(0, 1)
    states = await asked(town)
    found = await look(town, states)
    assert (found.reaches[2].until_ms, found.until_ms) == (None, None)
    state = states["shard-2"]
    assert state is not None
    found = await look(town, {**states, "shard-2": replace(state, oldest_ms=12_345)})
    assert (found.reaches[2].until_ms, found.until_ms) == (12_344, 12_344)


async def test_a_shard_that_does_not_answer_counts_up_to_its_last_archived_entry(town: Town) -> None:
    """Though all it made may be archived; and of one that never archived anything nothing is known."""
    await town.archive(0, 1)
    states = await asked(town)
    found = await look(town, {**states, "shard-1": None, "shard-2": None})
    assert found.reaches[1] == Reach("shard-1", found.reaches[1].until_ms, answered=False, caught_up=False)
    (head,) = [head for head in found.heads.values() if head.shard_id == "shard-1"]
    assert found.reaches[1].until_ms == head.last_at_ms - 1
    assert (found.reaches[2].until_ms, found.until_ms) == (None, None)


async def test_a_database_that_lags_behind_is_judged_by_what_it_has(town: Town, tmp_path: Path) -> None:
    """Shards say that all is archived; a replica, which lacks the last batch of one, does not have it."""
    await town.archive()
    copy = tmp_path / "replica.db"
    with town.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    shutil.copy(tmp_path / "ledger.db", copy)
    await town.pay(town.names[0][0], town.names[0][1], 5)
    await town.archive()
    states = await asked(town)
    assert caught_up(await look(town, states)) == [True, True, True]
    replica = open_ledger(f"sqlite:///{copy}")
    try:
        history = History(replica)
        found = await asyncio.to_thread(completeness, history, states)
        told = [
            (shard_id, state.number, state.head) for shard_id, state in states.items() if state is not None
        ]
        assert [history.has_batch(*one) for one in told] == caught_up(found)
    finally:
        replica.dispose()
    assert caught_up(found) == [False, True, True]
    (head,) = [head for head in found.heads.values() if head.shard_id == "shard-0"]
    assert found.until_ms == head.last_at_ms - 1


async def test_a_batch_counts_once_the_shard_vouches_for_it(town: Town) -> None:
    """Not when an archiver died between storing and telling, nor when another's archive has its number."""
    await town.archive()
    before = await asked(town)
    name = town.names[0]
    await town.pay(name[0], name[1], 5)
    waiting = await asked(town)
    await town.archive()
    assert caught_up(await look(town, waiting)) == [False, True, True]
    assert caught_up(await look(town)) == [True, True, True]
    # A shard that was restored from an old copy, and has made other entries since.
    old = before["shard-0"]
    assert old is not None
    found = await look(town, {**before, "shard-0": replace(old, length=1, backlog=1)})
    assert caught_up(found) == [False, True, True]
    with town.engine.begin() as connection:
        changed = update(batches).where(batches.c.shard_number == 1).values(hash=bytes(32))
        connection.execute(changed)
    found = await look(town)
    assert (found.reaches[0].until_ms, found.until_ms) == (None, None)


async def test_a_shard_whose_money_went_back_in_time_has_not_caught_up(town: Town) -> None:
    """Restored from an old copy, or emptied: nothing waits on it, and the archive has more of it."""
    await town.archive()
    old = (await asked(town))["shard-0"]
    assert old is not None
    await town.pay(town.names[0][0], town.names[0][1], 5)
    # Asked between the entry and the batch: that one is the shard's own, and newer.
    assert caught_up(await look(town, {"shard-0": old})) == [True]
    await town.archive()
    later = (await asked(town))["shard-0"]
    assert later is not None
    emptied = LedgerState(0, b"", "0-0", 0, 0, 0, later.now_ms)
    for state in (replace(old, now_ms=later.now_ms), emptied):
        found = await look(town, {"shard-0": state})
        assert caught_up(found) == [False]
        assert found.until_ms is not None
        assert found.until_ms < later.now_ms - 1
    assert caught_up(await look(town, {"shard-0": old})) == [True]


@pytest.mark.servers
async def test_what_had_happened_is_told_by_a_count_not_by_a_clock(engine: Engine, tmp_path: Path) -> None:
    """While a shard's time stands still its next frames make nothing complete that is not archived.

    All frames are of one moment: by times the second would count as archived.
    """
    stream = Stream()
    with (
        real_servers(tmp_path, 1, manual_clock=True) as servers,
        ThreadPoolExecutor(1) as threads,
    ):
        servers[0].set_clock(START_MS)
        shards = RealShards(servers)
        shards.bind()
        async with shards.shard(0) as shard:
            one = archiver(Archive(engine), threads)

            async def found(arrived: LedgerState | None = None, behind_ms: int = 0) -> Completeness:
                state = await shard.ledger_state()
                states = {shard.shard_id: replace(state, now_ms=state.now_ms - behind_ms)}
                first = {shard.shard_id: arrived} if arrived else None
                return await asyncio.to_thread(completeness, History(engine), states, first)

            await stream.add(shard, 1)
            await one.step(shard)
            # Of a shard whose clock is behind its last frame, too, the next one is not earlier than that.
            for behind_ms in (0, BEHIND_MS):
                assert (await found(behind_ms=behind_ms)).until_ms == START_MS - 1
            await stream.add(shard, 1)
            arrived = await shard.ledger_state()
            assert (await found()).until_ms == START_MS - 1
            assert (await found(arrived)).lacking(START_MS)
            await one.step(shard)
            # More comes all the time; what had come is archived all the same.
            await stream.add(shard, 1)
            assert not (await found(arrived)).lacking(START_MS)
            assert (await found(await shard.ledger_state())).lacking(START_MS)


def test_clocks_are_compared_with_a_margin() -> None:
    """What is archived must reach a minute past a moment of somebody else's clock, or nothing may wait."""
    behind = Reach("shard-0", 10**12, answered=True, caught_up=False, waiting=1)
    assert behind.has(10**12 - MAX_CLOCK_SKEW_MS)
    assert not behind.has(10**12 - MAX_CLOCK_SKEW_MS + 1)
    assert replace(behind, caught_up=True).has(2**50)
    assert not Reach("shard-0", None, answered=False, caught_up=False).has(0)
