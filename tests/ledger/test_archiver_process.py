"""Archiver processes: killed under load, replaced, without a database, stopped in order. Nothing is lost."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from sqlalchemy import Engine, text

from deploy.local.launcher import LocalCluster
from shard_node.client.shard import Shard
from shard_node.cluster.currencies import to_json
from shard_node.cluster.registry import ARCHIVER_LOCKS, CURRENCIES, TOPOLOGY
from shard_node.cluster.slots import slot
from shard_node.contract.accounts import AccountTerms
from shard_node.contract.commands import Post
from shard_node.ledger.store.archive import Archive
from shard_node.ledger.store.rows import Entry
from tests.coordinator.payloads import posted_bundle, transfer
from tests.exponents import EXPONENTS
from tests.ledger.scribe import DONE
from tests.ledger.test_archive import verified_rows
from tests.ledger.test_frozen_writers import frozen_store, hurried
from tests.postgresql import PostgresqlServer
from tests.real_shards import RealShards

pytestmark = pytest.mark.cluster

WAIT_SECONDS = 60.0
SHARDS = 3
ACCOUNTS = 30


@pytest.fixture
def zookeeper(cluster: LocalCluster, shards: RealShards) -> str:
    """A folder of its own in the cluster's ZooKeeper: the tests' own shards, and exponents."""
    folder = uuid.uuid4().hex
    client = KazooClient(hosts=cluster.zookeeper_address)
    client.start(timeout=WAIT_SECONDS)
    client.create(f"/{folder}{TOPOLOGY}", shards.topology.to_json(), makepath=True)
    client.create(f"/{folder}{CURRENCIES}", to_json(EXPONENTS))
    client.stop()
    client.close()
    return f"{cluster.zookeeper_address}/{folder}"


def free_locks(zookeeper: str) -> None:
    """Does at once what ZooKeeper does when the session of a killed process ends."""
    client = KazooClient(hosts=zookeeper)
    client.start(timeout=WAIT_SECONDS)
    for shard in client.get_children(ARCHIVER_LOCKS):
        client.delete(f"{ARCHIVER_LOCKS}/{shard}")
    client.stop()
    client.close()


@dataclass(slots=True)
class Processes:
    """Archiver processes with their logs; those that still run at the end are killed."""

    zookeeper: str
    ledger: str
    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts one."""
        command = [sys.executable, "-m", "shard_node.archiver", "--zookeeper", self.zookeeper, "--name", name,
                   "--ledger", self.ledger, *arguments]  # fmt: skip
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(command, stderr=log)
        return self.running[name]

    def kill(self, name: str) -> None:
        """No farewell."""
        process = self.running.pop(name)
        process.kill()
        process.wait(WAIT_SECONDS)

    def terminate(self, name: str) -> int:
        """SIGTERM; its exit code."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(WAIT_SECONDS)

    def events(self, name: str) -> list[dict[str, Any]]:
        """What it has logged so far."""
        lines = (self.folder / f"{name}.log").read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


@pytest.fixture
def processes(zookeeper: str, ledger_url: str, tmp_path: Path) -> Iterator[Processes]:
    """None to begin with."""
    made = Processes(zookeeper, ledger_url, tmp_path)
    yield made
    for name in list(made.running):
        made.kill(name)


@pytest.fixture
async def opened(shards: RealShards) -> AsyncIterator[list[Shard]]:
    """Every shard, for calls of the test's own."""
    made = [shards.shard(index) for index in range(SHARDS)]
    yield made
    for shard in made:
        await shard.close()


class Traffic:
    """Transfers among accounts of each shard, one shard's never to another's."""

    def __init__(self, shards: list[Shard], seed: int = 1) -> None:
        self._shards = shards
        self._dice = random.Random(seed)
        self.committed = 0

    async def begin(self) -> None:
        """Opens the accounts, which may overdraw."""
        for index, shard in enumerate(self._shards):
            await shard.open([AccountTerms(name, slot(name), "EUR", -(10**9)) for name in self._names(index)])

    async def send(self, index: int, transfers: int) -> None:
        """One call with that many transfers, all of which commit."""
        rows = []
        for _ in range(transfers):
            payer, payee = self._dice.sample(self._names(index), 2)
            rows.append(transfer(payer, payee, self._dice.randint(1, 99)))
        assert (await self._shards[index].call(Post(posted_bundle(rows)))).codes == (DONE,)
        self.committed += transfers

    @staticmethod
    def _names(index: int) -> list[str]:
        return [f"shard-{index}:{number}" for number in range(ACCOUNTS)]

    async def check(self, engine: Engine) -> None:
        """Waits until all is archived; then every entry is there once, and says what the shard says."""
        await until(self._archived)
        archive = Archive(engine)
        seen = 0
        for shard in await asyncio.to_thread(archive.shards):
            rows = [Entry._make(row) for row in await asyncio.to_thread(verified_rows, archive, shard)]
            by_account: dict[str, list[Entry]] = defaultdict(list)
            for row in rows:
                by_account[row.account_id].append(row)
            live = await self._shards[int(shard.shard_id[-1])].accounts(list(by_account))
            for account, its in zip(live, by_account.values(), strict=True):
                assert account is not None
                assert [row.version for row in its] == list(range(account.version + 1))
                assert sum(row.delta for row in its) == its[-1].balance == account.available_minor
            assert sum(row.delta for row in rows) == 0
            seen += len(rows)
        assert seen == 2 * self.committed + SHARDS * ACCOUNTS

    async def _archived(self) -> bool:
        states = [await shard.ledger_state() for shard in self._shards]
        return all((state.backlog, state.length) == (0, 0) and state.number for state in states)


async def until(condition: Callable[[], Any]) -> None:
    """Looks every 50 ms whether it is so by now."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            result = condition()
            if await result if asyncio.iscoroutine(result) else result:
                return
            await asyncio.sleep(0.05)


async def test_killed_at_random_under_load(processes: Processes, opened: list[Shard], engine: Engine) -> None:
    """Archivers that are killed again and again while transfers go on store everything exactly once."""
    dice = random.Random(5)
    traffic = Traffic(opened)
    await traffic.begin()
    done = asyncio.Event()

    async def load(index: int) -> None:
        while not done.is_set():
            await traffic.send(index, dice.randint(1, 30))
            # A load that leaves the archiver some of the machine.
            await asyncio.sleep(0.02)

    async def kill() -> None:
        for life in range(4):
            name = f"archiver-{life}"
            # Small batches, so that most of the time one is under way.
            processes.start(name, "--limit", "200")
            told = [state.number for state in [await shard.ledger_state() for shard in opened]]

            async def goes_on(told: list[int] = told) -> bool:
                return [(await shard.ledger_state()).number for shard in opened] != told

            await until(goes_on)
            # No wait for a state of things, but a moment at random.
            await asyncio.sleep(dice.random() * 0.3)
            processes.kill(name)
            await asyncio.to_thread(free_locks, processes.zookeeper)
        done.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(kill())
        for index in range(SHARDS):
            group.create_task(load(index))
    processes.start("last")
    await traffic.check(engine)


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
async def test_another_takes_over(processes: Processes, opened: list[Shard], engine: Engine) -> None:
    """Shards are shared out by locks; those of one that dies go to the others when its session ends."""
    traffic = Traffic(opened)
    await traffic.begin()
    processes.start("one")
    await until(lambda: [e["event"] for e in processes.events("one")].count("archiving") == SHARDS)
    processes.start("two")
    await until(lambda: "serving" in [e["event"] for e in processes.events("two")])
    processes.kill("one")
    await traffic.send(0, 100)
    await traffic.check(engine)
    assert [e["event"] for e in processes.events("two")].count("archiving") == SHARDS
    assert processes.terminate("two") == 0


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
async def test_stopped_in_order(processes: Processes, opened: list[Shard], engine: Engine) -> None:
    """SIGTERM has what is there stored, gives the locks back at once, and ends with code 0."""
    traffic = Traffic(opened)
    await traffic.begin()
    processes.start("one")
    await until(lambda: [e["event"] for e in processes.events("one")].count("archiving") == SHARDS)
    for index in range(SHARDS):
        await traffic.send(index, 500)
    assert processes.terminate("one") == 0
    await traffic.check(engine)
    assert processes.events("one")[-1]["event"] == "stopped"
    processes.start("two")
    await until(lambda: [e["event"] for e in processes.events("two")].count("archiving") == SHARDS)


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
async def test_a_lost_end_is_said_and_not_gone_on_with(
    processes: Processes, opened: list[Shard], engine: Engine
) -> None:
    """An archive that lost batches stops its shard alone, loudly, while the process lives."""
    traffic = Traffic(opened)
    await traffic.begin()
    await opened[0].archived("0-1", 7, bytes(32), 1)
    processes.start("one")
    for index in range(SHARDS):
        await traffic.send(index, 10)

    def refusals() -> list[dict[str, Any]]:
        return [e for e in processes.events("one") if e["level"] == "error"]

    await until(refusals)
    assert refusals()[0]["shard"] == "shard-0"
    assert "ends at batch 0, but batch 7 was stored" in refusals()[0]["error"]
    assert refusals()[0]["backlog"] > 0
    for shard in opened[1:]:

        async def archived(shard: Shard = shard) -> bool:
            return (await shard.ledger_state()).backlog == 0

        await until(archived)
    assert (await opened[0].ledger_state()).length == 2
    assert processes.terminate("one") == 0


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
async def test_while_the_database_is_down(
    processes: Processes, opened: list[Shard], engine: Engine, postgresql: PostgresqlServer
) -> None:
    """Entries wait on the shards, the log tells how many, and all are stored when the database is back."""
    traffic = Traffic(opened)
    await traffic.begin()
    processes.start("one")
    await until(lambda: [e["event"] for e in processes.events("one")].count("archiving") == SHARDS)
    await until(traffic._archived)
    await asyncio.to_thread(postgresql.stop)
    try:
        for index in range(SHARDS):
            await traffic.send(index, 10)

        def told() -> set[str]:
            return {
                e["shard"]
                for e in processes.events("one")
                if e["event"] == "to be archived later" and e["backlog"] == 20 and e["backlog_limit"] > 0
            }

        await until(lambda: len(told()) == SHARDS)
        # One that starts meanwhile waits for it too.
        processes.start("two")
        await until(lambda: "no ledger database yet" in [e["event"] for e in processes.events("two")])
    finally:
        await asyncio.to_thread(postgresql.start)
    await traffic.check(engine)
    await until(lambda: "serving" in [e["event"] for e in processes.events("two")])
    assert processes.terminate("two") == 0


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
async def test_stopped_while_the_database_gives_no_answer(
    processes: Processes, opened: list[Shard], engine: Engine
) -> None:
    """SIGTERM ends it in bounded time and not as if all were well; the shard is told of nothing."""
    traffic = Traffic(opened)
    await traffic.begin()
    with frozen_store(hurried(processes.ledger, idle_in_transaction_session_timeout="0")):
        waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

        def hangs() -> bool:
            with engine.connect() as connection:
                return bool(connection.execute(waiting).scalar_one() == 1)

        given, processes.ledger = processes.ledger, hurried(processes.ledger, lock_timeout="0")
        processes.start("one")
        await until(hangs)
        assert await asyncio.to_thread(processes.terminate, "one") == 1
        assert processes.events("one")[-1]["event"].startswith("ended by force")
        assert (await opened[0].ledger_state()).number == 0
    processes.ledger = given
    await asyncio.to_thread(free_locks, processes.zookeeper)
    processes.start("two")
    await traffic.check(engine)


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
async def test_takes_over_from_a_frozen_one(
    processes: Processes, opened: list[Shard], engine: Engine
) -> None:
    """It says that it waits, and goes on once the server has ended the other's transaction."""
    traffic = Traffic(opened)
    await traffic.begin()
    processes.ledger = hurried(processes.ledger, lock_timeout="100ms")
    with frozen_store(hurried(processes.ledger, idle_in_transaction_session_timeout="5s")):
        processes.start("one")

        def told() -> list[dict[str, Any]]:
            return [e for e in processes.events("one") if e["event"] == "to be archived later"]

        await until(told)
        assert (told()[0]["shard"], told()[0]["kind"]) == ("shard-0", "LedgerUnavailableError")
        assert "lock timeout" in told()[0]["error"]
        await traffic.check(engine)
    assert processes.terminate("one") == 0


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
async def test_a_ledger_that_is_none_ends_the_process(processes: Processes) -> None:
    """A URL that can never work is one line of log and exit code 1."""
    processes.ledger = "mysql://somewhere"
    assert await asyncio.to_thread(processes.start("one").wait, WAIT_SECONDS) == 1
    assert "not in mysql" in processes.events("one")[-1]["error"]
