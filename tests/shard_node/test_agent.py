"""The shard node looks after its Redis, and only after its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deploy.local.launcher import ClusterSpec, LocalCluster
from shard_node.__main__ import main
from shard_node.agent import agent as agent_module
from shard_node.agent.agent import Agent, AgentSettings
from shard_node.agent.binding import Holding, bind, claim
from shard_node.client.connection import connect
from shard_node.client.shard import Shard
from shard_node.cluster.registry import Registry, bootstrap
from shard_node.cluster.topology import Topology
from shard_node.errors import ShardNodeError, StaleEpochError, WrongShardError
from shard_node.logs import MAX_LOG_BYTES
from tests.shard_node.redis_on import client_of, running

if TYPE_CHECKING:
    from shard_node.client.connection import ShardRedis

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two shards of these tests alone."""
    with LocalCluster(tmp_path_factory.mktemp("agent") / "data", ClusterSpec(shards=2)) as started:
        yield started


def test_logs_that_have_grown_are_cut(own_cluster: LocalCluster) -> None:
    """Of every process, of Redis and ZooKeeper too; they go on writing, and what was there is kept."""
    router, redis = own_cluster.log("router-0"), own_cluster.data / "shard-0" / "redis.log"
    small = own_cluster.log("coordinator-0").read_bytes()
    for file in (router, redis, own_cluster.log("zookeeper")):
        os.truncate(file, MAX_LOG_BYTES + 1)
    own_cluster.kill("shard-0")
    own_cluster.restart("shard-0")
    deadline = time.monotonic() + 30
    while any(file.stat().st_size > MAX_LOG_BYTES for file in (router, redis, own_cluster.log("zookeeper"))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for file in (router, redis, own_cluster.log("zookeeper")):
        assert file.with_name(f"{file.name}.1").stat().st_size > MAX_LOG_BYTES
    assert own_cluster.log("coordinator-0").read_bytes().startswith(small)
    own_cluster.restart("router-0")
    assert b"\0" not in router.read_bytes()
    assert router.stat().st_size > 0


def test_a_new_agent_adopts_the_running_redis(own_cluster: LocalCluster) -> None:
    """The agent's death does not take Redis along, nor does its return restart it."""
    before = own_cluster.pid("redis:shard-0")
    own_cluster.kill("shard-0")
    assert Path(f"/proc/{before}").exists()
    own_cluster.restart("shard-0")
    assert own_cluster.pid("redis:shard-0") == before


def test_redis_comes_back_with_its_data_and_address(own_cluster: LocalCluster) -> None:
    """The agent starts a killed Redis again, on the port that everybody knows."""
    address, before = own_cluster.shard_addresses["shard-1"], own_cluster.pid("redis:shard-1")
    own_cluster.kill("redis:shard-1")
    own_cluster.restart("redis:shard-1")
    assert own_cluster.pid("redis:shard-1") != before
    assert own_cluster.shard_addresses["shard-1"] == address


async def topology_of(cluster: LocalCluster) -> Topology:
    """What ZooKeeper holds."""
    registry = Registry(cluster.zookeeper_address)
    await registry.start()
    found = registry.topology
    await registry.stop()
    return found


def start_agent(cluster: LocalCluster, shard: str, data: Path) -> subprocess.CompletedProcess[str]:
    """Starts an agent that is expected to refuse."""
    command = [sys.executable, "-m", "shard_node", "--zookeeper", cluster.zookeeper_address]
    command += ["--shard", shard, "--data", str(data)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, env=dict(os.environ)
    )


def test_a_shard_the_topology_does_not_have_is_refused(own_cluster: LocalCluster, tmp_path: Path) -> None:
    """The agent ends with a sentence, and starts no Redis."""
    ended = start_agent(own_cluster, "shard-9", tmp_path)
    assert ended.returncode == 1
    assert "has no shard 'shard-9'" in ended.stderr
    assert not (tmp_path / "redis.pid").exists()


async def test_data_of_another_shard_is_refused(own_cluster: LocalCluster, tmp_path: Path) -> None:
    """A Redis with another cluster's data never gets to serve; its data stays as it was."""
    async with running(tmp_path) as (_, redis):
        await bind(redis, Topology.initial("other", ["shard-0", "shard-1"]), "shard-1", 3_600_000)
    before = await topology_of(own_cluster)
    ended = start_agent(own_cluster, "shard-1", tmp_path)
    assert ended.returncode == 1
    assert "this Redis holds other/shard-1" in ended.stderr
    assert await topology_of(own_cluster) == before


async def test_an_empty_redis_does_not_take_a_shards_place(own_cluster: LocalCluster, tmp_path: Path) -> None:
    """It would be the loss of all the shard's money: the topology stays as it was."""
    before = await topology_of(own_cluster)
    ended = start_agent(own_cluster, "shard-1", tmp_path / "wrong-folder")
    assert ended.returncode == 1
    assert "this Redis is empty, but shard-1 has served" in ended.stderr
    assert await topology_of(own_cluster) == before


async def test_a_restart_of_everything_keeps_addresses_and_epochs(tmp_path: Path) -> None:
    """The ports are remembered, so nobody needs a new map."""
    own = LocalCluster(tmp_path / "data", ClusterSpec(shards=1))
    with own:
        before = await topology_of(own)
    with own:
        assert await topology_of(own) == before


async def test_an_agent_whose_shard_is_served_elsewhere_ends(tmp_path: Path) -> None:
    """Its Redis stays at the old epoch and refuses every call; the agent says who took over."""
    with LocalCluster(tmp_path / "data", ClusterSpec(shards=1)) as own:
        registry = Registry(own.zookeeper_address)
        await registry.start()
        await registry.change_topology(lambda t: t.with_primary("shard-0", "127.0.0.1:1"))
        await registry.stop()
        deadline = time.monotonic() + 20
        while "shard-0" not in own.exited():
            assert time.monotonic() < deadline, "the agent goes on"
        assert "127.0.0.1:1 is now the primary of shard-0" in own.log("shard-0").read_text()


@contextlib.asynccontextmanager
async def registry_of(hosts: str) -> AsyncIterator[Registry]:
    """A registry of its own, ended after use."""
    registry = Registry(hosts)
    await registry.start()
    try:
        yield registry
    finally:
        await registry.stop()


def wait_for_end(pid: int) -> None:
    """Returns when the process is gone, or a zombie that its stopped parent has not seen."""
    deadline = time.monotonic() + 20
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "the process does not end"
        time.sleep(0.01)


async def until_bound(registry: Registry) -> Shard:
    """The shard of a one-shard topology once it answers at the topology's epoch. The caller closes it."""
    deadline = time.monotonic() + 20
    while True:
        topology = await registry.reload()
        info = topology.shards[0]
        if info.primary:
            shard = Shard(info.shard_id, topology.fence(info), connect(info.primary))
            try:
                await shard.info()
            except ShardNodeError:
                await shard.close()
            else:
                return shard
        assert time.monotonic() < deadline, "the shard is not bound to its epoch"
        await asyncio.sleep(0.05)


async def test_of_two_agents_with_empty_folders_the_later_is_refused(
    own_cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it looked while the shard had no primary: what counts is the topology it would change."""
    hosts = f"{own_cluster.zookeeper_address}/two-agents"
    await asyncio.to_thread(bootstrap, hosts, ["shard-0"])
    looked, go_on = asyncio.Event(), asyncio.Event()

    async def slow_claim(redis: ShardRedis, topology: Topology, shard_id: str) -> Holding:
        holding = await claim(redis, topology, shard_id)
        if not looked.is_set():
            looked.set()
            await go_on.wait()
        return holding

    monkeypatch.setattr(agent_module, "claim", slow_claim)
    stopping = asyncio.Event()
    later = asyncio.ensure_future(Agent(AgentSettings(hosts, "shard-0", tmp_path / "b")).run(stopping))
    await looked.wait()
    first = asyncio.ensure_future(Agent(AgentSettings(hosts, "shard-0", tmp_path / "a")).run(stopping))
    async with registry_of(hosts) as registry:
        shard = await until_bound(registry)
        await shard.close()
        before = await registry.reload()
        go_on.set()
        with pytest.raises(WrongShardError, match="this Redis is empty, but shard-0 has served"):
            await later
        assert await registry.reload() == before
    assert not first.done()
    stopping.set()
    await first


def test_what_a_redis_holds_decides_whether_it_may_be_named() -> None:
    """Never another's data; nothing empty in the place of a shard that served."""
    new = Topology.initial("c", ["shard-0"])
    named = new.with_primary("shard-0", "127.0.0.1:1")
    empty, claimed = Holding(None, served=False), Holding("c/shard-0", served=False)
    served, foreign = Holding("c/shard-0", served=True), Holding("d/shard-0", served=True)
    allowed = [
        (claimed, new, "127.0.0.1:1"),
        (claimed, named, "127.0.0.1:1"),
        (served, named, "127.0.0.1:1"),
        (served, named, "127.0.0.1:2"),
    ]
    for holding, topology, address in allowed:
        holding.may_be_named(topology, "shard-0", address)
    refused = [
        (empty, named, "127.0.0.1:1", "is empty"),
        (empty, named, "127.0.0.1:2", "is empty"),
        (claimed, named, "127.0.0.1:2", "is empty"),
        (foreign, new, "127.0.0.1:1", "holds d/shard-0"),
        (foreign, named, "127.0.0.1:1", "holds d/shard-0"),
    ]
    for holding, topology, address, sentence in refused:
        with pytest.raises(WrongShardError, match=sentence):
            holding.may_be_named(topology, "shard-0", address)


async def test_an_agent_comes_back_to_a_full_shard(tmp_path: Path) -> None:
    """At its memory limit a shard refuses new transfers, not its own agent."""
    with LocalCluster(tmp_path / "data", ClusterSpec(shards=1)) as own:
        redis_pid = own.pid("redis:shard-0")
        own.kill("shard-0")
        async with client_of(own.shard_addresses["shard-0"]) as client:
            await client.config_set("maxmemory", 1)
        own.restart("shard-0")
        assert own.pid("redis:shard-0") == redis_pid
        async with registry_of(own.zookeeper_address) as registry:
            shard = await until_bound(registry)
            assert await shard.accounts(["nobody"]) == [None]
            await shard.close()


async def test_an_agent_that_cannot_start_leaves_an_adopted_redis_alone(own_cluster: LocalCluster) -> None:
    """It served before and may serve again; here it is taken for another shard's."""
    redis_pid = own_cluster.pid("redis:shard-1")
    own_cluster.kill("shard-1")
    folder = own_cluster.data / "shard-1"
    ended = await asyncio.to_thread(start_agent, own_cluster, "shard-0", folder)
    assert ended.returncode == 1
    assert "WrongShardError" in ended.stderr
    own_cluster.restart("shard-1")
    assert own_cluster.pid("redis:shard-1") == redis_pid


async def test_an_epoch_that_could_not_be_bound_is_tried_again(own_cluster: LocalCluster) -> None:
    """The shard's Redis refuses at first; nobody would bind it later if the agent gave up."""
    async with (
        registry_of(own_cluster.zookeeper_address) as registry,
        client_of(own_cluster.shard_addresses["shard-0"]) as client,
    ):
        # A replica, though of nobody who answers, refuses all writes.
        await client.replicaof("127.0.0.1", "1")
        raised = await registry.change_topology(
            lambda t: t.changed(
                replace(s, epoch=s.epoch + 1) if s.shard_id == "shard-0" else s for s in t.shards
            )
        )
        info = raised.shard("shard-0")
        async with Shard(info.shard_id, raised.fence(info), connect(info.primary)) as shard:
            deadline = time.monotonic() + 20
            while "cannot raise the epoch yet" not in own_cluster.log("shard-0").read_text():
                assert time.monotonic() < deadline, "the agent did not try"
                await asyncio.sleep(0.05)
            with pytest.raises(StaleEpochError):
                await shard.info()
            await client.replicaof("NO", "ONE")
            while True:
                try:
                    await shard.info()
                    break
                except StaleEpochError:
                    assert time.monotonic() < deadline, "the agent did not try again"
                    await asyncio.sleep(0.05)


def take_port(host: str, port: int) -> socket.socket:
    """Listens on a port as soon as the threads of the Redis that had it have let go of it."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_server((host, port))
        except OSError:
            assert time.monotonic() < deadline, "the port stays taken"


async def test_a_redis_whose_port_is_taken_comes_back_when_it_is_free(tmp_path: Path) -> None:
    """Not on another port, which nobody would know of, and its agent stays meanwhile."""
    with LocalCluster(tmp_path / "data", ClusterSpec(shards=1)) as own:
        host, _, port = own.shard_addresses["shard-0"].rpartition(":")
        async with registry_of(own.zookeeper_address) as registry:
            agent, redis = own.pid("shard-0"), own.pid("redis:shard-0")
            os.kill(agent, signal.SIGSTOP)
            os.kill(redis, signal.SIGKILL)
            await asyncio.to_thread(wait_for_end, redis)
            # Its port is taken, and the topology changes, before the agent has seen anything.
            with take_port(host, int(port)):
                await registry.change_topology(
                    lambda t: t.changed(replace(s, epoch=s.epoch + 1) for s in t.shards)
                )
                os.kill(agent, signal.SIGCONT)
                refused = f"port {port} of this Redis is held"
                while refused not in own.log("shard-0").read_text():  # noqa: ASYNC110 - another process'
                    await asyncio.sleep(0.05)
                assert registry.topology.shards[0].primary == f"{host}:{port}"
            shard = await until_bound(registry)
            assert registry.topology.shards[0].primary == f"{host}:{port}"
            await shard.close()
        assert own.exited() == []


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--port", "0", "--port must be 1 to 65535, is 0"),
        ("--max-memory-bytes", "0", "--max-memory-bytes must be at least 1, is 0"),
        ("--max-backlog", "0", "--max-backlog must be at least 1, is 0"),
        ("--dedupe-window-seconds", "nan", "--dedupe-window-seconds must be at least 120, is nan"),
    ],
)
def test_what_an_option_cannot_be(
    option: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Zero stands for no default: the option, its limit and the value are named."""
    started = ["shard_node", "--zookeeper", "127.0.0.1:1", "--shard", "shard-0", "--data", "none"]
    monkeypatch.setattr("sys.argv", [*started, option, value])
    with pytest.raises(SystemExit):
        main()
    assert told in capsys.readouterr().err
