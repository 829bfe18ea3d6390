"""Whatever is killed under load: acknowledged transfers are there once, unknown ones go one way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from deploy.local.launcher import ClusterSpec, LocalCluster
from tests.integration.load import BATCH, Load

pytestmark = pytest.mark.cluster

BATCHES = 150


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three shards, two coordinators, two routers, of these tests alone."""
    spec = ClusterSpec(shards=3, routers=2, coordinators=2)
    with LocalCluster(tmp_path_factory.mktemp("killed") / "data", spec) as started:
        yield started


@pytest.mark.parametrize(
    "victims",
    [
        ("coordinator-0",),
        ("router-1",),
        ("redis:shard-1",),
        ("shard-2",),
        ("zookeeper",),
        ("coordinator-0", "coordinator-1", "redis:shard-0", "redis:shard-2"),
    ],
    ids="+".join,
)
async def test_killed_under_load(own_cluster: LocalCluster, victims: tuple[str, ...]) -> None:
    """SIGKILL with transfers under way, then started again: nothing lost, nothing twice."""
    load = await Load.begin(own_cluster)
    try:
        running = asyncio.ensure_future(load.run(BATCHES))
        await load.acknowledge(BATCHES * BATCH // 5)
        for victim in victims:
            own_cluster.kill(victim)
        for victim in victims:
            await asyncio.to_thread(own_cluster.restart, victim)
        await running
        assert len(load.sent) == BATCHES * BATCH
        await load.prove()
    finally:
        await load.close()


async def test_transfers_go_on_while_zookeeper_is_away(own_cluster: LocalCluster) -> None:
    """The topology is known: nothing on the transfer path asks ZooKeeper."""
    load = await Load.begin(own_cluster)
    try:
        own_cluster.kill("zookeeper")
        await load.run(20)
        assert len(load.told) == len(load.sent) == 20 * BATCH
        await asyncio.to_thread(own_cluster.restart, "zookeeper")
        await load.prove()
    finally:
        await load.close()
