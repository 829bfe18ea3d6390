"""The shard node looks after its Redis, and only after its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.launcher import ClusterSpec, LocalCluster
from shard_node.redis_process import RedisProcess
from shard_node.registry import Registry
from shard_node.shard import connect
from shard_node.topology import Topology

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two shards of these tests alone."""
    with LocalCluster(tmp_path_factory.mktemp("agent") / "data", ClusterSpec(shards=2)) as started:
        yield started


async def test_settings_make_acknowledged_writes_durable(own_cluster: LocalCluster) -> None:
    """What section "Durability" of ARCHITECTURE.md promises is what the running Redis has."""
    client = connect(own_cluster.shard_addresses["shard-0"])
    expected = {
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "maxmemory-policy": "noeviction",
        "bind": "127.0.0.1",
        "save": "",
    }
    found = {name: (await client.config_get(name))[name] for name in expected}
    await client.aclose()
    assert found == expected


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
    process = RedisProcess(tmp_path, "127.0.0.1", None, 0)
    await process.start()
    client = connect(process.address)
    await client.hset("meta", mapping={"shard": "other/shard-1", "epoch": 7})
    await client.aclose()
    await process.stop()
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
