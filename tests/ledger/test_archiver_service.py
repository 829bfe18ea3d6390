"""What an archiver says, and that it goes on without ZooKeeper: in this process, with a real shard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from shard_node.archiver import service
from shard_node.archiver.service import Archiver
from shard_node.client.directory import Cluster, Directory
from shard_node.client.shard import Shard
from shard_node.cluster.currencies import Exponents
from shard_node.cluster.registry import Registry
from shard_node.errors import RegistryError
from shard_node.ledger.store.archive import Archive
from tests.exponents import EXPONENTS
from tests.ledger.streams import LATER, START_MS, Stream
from tests.ledger.test_archiver import check_all_archived
from tests.real_shards import ENDLESS_WINDOW_MS, RealShards

WAIT_SECONDS = 30.0
LIMIT = 100

Events = list[dict[str, Any]]


@dataclass(slots=True)
class Locks:
    """ZooKeeper as far as an archiver asks it: it gives the lock, keeps it, or is away; what it was told."""

    exponents: ClassVar[Exponents] = EXPONENTS
    mine: bool = True
    away: bool = False
    asked: int = 0
    problems: list[str] = field(default_factory=list)

    def tell_problem(self, problem: str) -> None:
        self.problems.append(problem)

    async def try_lock(self, path: str, owner: str) -> bool:
        assert (path, owner) == ("/tallystick/locks/archiver/shard-0", "one")
        self.asked += 1
        if self.away:
            raise RegistryError("ZooKeeper is away")
        return self.mine


@dataclass(slots=True)
class OneShard:
    """A directory that knows one shard."""

    shard: Shard

    @property
    def current(self) -> Cluster:
        return cast("Cluster", type("Current", (), {"shards": (self.shard,)}))


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes moments."""
    for name in ("IDLE_SECONDS", "LOCK_SECONDS", "GAUGE_SECONDS"):
        monkeypatch.setattr(service, name, 0.02)


@pytest.fixture
async def shard(shards: RealShards) -> AsyncIterator[Shard]:
    """An empty shard that refuses new transfers when 100 entries wait."""
    async with shards.shard(0) as opened:
        await opened.bind(ENDLESS_WINDOW_MS, LIMIT)
        yield opened


@asynccontextmanager
async def running(shard: Shard, engine: Engine, locks: Locks) -> AsyncIterator[Events]:
    """An archiver that runs; what it logs. It is stopped in order."""
    stopping = asyncio.Event()
    with ThreadPoolExecutor(1) as executor, capture_logs() as logs:
        archiver = Archiver(
            "one",
            cast("Registry", locks),
            cast("Directory", OneShard(shard)),
            Archive(engine),
            executor,
            batch_entries=8,
        )
        task = asyncio.ensure_future(archiver.run(stopping))
        try:
            yield cast("Events", logs)
        finally:
            stopping.set()
            await task


async def until(condition: Callable[[], bool]) -> None:
    """Lets everything go on until it is so."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 -- what it waits for is a list that grows
            await asyncio.sleep(0.01)


def figures(logs: Events, **wanted: object) -> Events:
    """The lines of figures whose shard has these values."""
    lines = [line for line in logs if line["event"] == "archived" and "shard-0" in line["shards"]]
    return [line for line in lines if wanted.items() <= line["shards"]["shard-0"].items()]


async def test_figures(shard: Shard, engine: Engine) -> None:
    """A line tells how much is stored and waits; none follows when nothing changed."""
    stream = Stream()
    await stream.add(shard, *[3] * 4)
    locks = Locks()
    async with running(shard, engine, locks) as logs:
        await until(lambda: bool(figures(logs, archived_batch=4, backlog=0, backlog_limit=LIMIT)))
        lines = len([line for line in logs if line["event"] == "archived"])
        asked = locks.asked
        await until(lambda: locks.asked > asked + 20)
        assert len([line for line in logs if line["event"] == "archived"]) <= lines + 1
    last = figures(logs)[-1]
    assert (last["entries"], last["log_level"]) == (24, "info")
    assert sum(line["entries_per_second"] for line in figures(logs)) > 0
    await check_all_archived(shard, engine, stream.frames)


async def test_a_crowded_shard_is_a_warning(shard: Shard, engine: Engine) -> None:
    """Past half of what a shard may keep the figures are a warning, and what stands in the way an error.

    It is registered, once, until the lock is lost: then it is another archiver's.
    """
    locks = Locks()
    await shard.redis.xadd("ledger", LATER, id=f"{START_MS - 1}-0")
    await Stream().add(shard, 30)
    async with running(shard, engine, locks) as logs:
        await until(lambda: bool(figures(logs, backlog=60, backlog_limit=LIMIT)))
        await until(lambda: len([line for line in logs if line["log_level"] == "error"]) > 1)
        assert ["unreadable" in problem for problem in locks.problems] == [True]
        locks.mine = False
        await until(lambda: locks.problems[1:] == [""])
    assert {line["log_level"] for line in figures(logs)} == {"warning"}
    refusal = next(line for line in logs if line["log_level"] == "error")
    assert (refusal["shard"], refusal["backlog"], refusal["backlog_limit"]) == ("shard-0", 60, LIMIT)
    assert "unreadable" in refusal["error"]


async def test_it_goes_on_without_zookeeper(shard: Shard, engine: Engine) -> None:
    """Who holds a lock goes on while nobody tells of it; who has none does not begin."""
    stream = Stream()
    await stream.add(shard, 1)
    locks = Locks(away=True)
    async with running(shard, engine, locks) as logs:
        await until(lambda: locks.asked > 5)
        assert (await shard.ledger_state()).number == 0
        locks.away = False
        await until(lambda: bool(figures(logs, archived_batch=1)))
        locks.away = True
        await until(lambda: any(line["event"] == "no word of the lock" for line in logs[-2:]))
        await stream.add(shard, 1)
        await until(lambda: bool(figures(logs, archived_batch=2)))
    await check_all_archived(shard, engine, stream.frames)


async def test_a_lost_lock_ends_the_work(shard: Shard, engine: Engine) -> None:
    """What another archiver holds is left to it, also at the end."""
    stream = Stream()
    locks = Locks()
    await stream.add(shard, 1)
    async with running(shard, engine, locks) as logs:
        await until(lambda: bool(figures(logs, archived_batch=1)))
        locks.mine = False
        asked = locks.asked
        await until(lambda: locks.asked > asked + 2)
        await stream.add(shard, 1)
        asked = locks.asked
        await until(lambda: locks.asked > asked + 5)
    assert (await shard.ledger_state()).backlog == 2


async def test_what_is_there_is_stored_before_the_end(shard: Shard, engine: Engine) -> None:
    """A stop has the streams emptied first, in as many batches as it takes."""
    stream = Stream()
    locks = Locks()
    async with running(shard, engine, locks) as logs:
        await until(lambda: any(line["event"] == "archiving" for line in logs))
        await stream.add(shard, *[4] * 6)
    await check_all_archived(shard, engine, stream.frames)
