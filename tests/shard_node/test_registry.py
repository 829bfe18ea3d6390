"""The registry against a real ZooKeeper: compare-and-set, membership, lost sessions, locks."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from kazoo.client import KazooClient

from deploy.launcher import LocalCluster
from shard_node.errors import RegistryError
from shard_node.registry import RESOLVER_LOCKS, Member, MemberKind, Registry, bootstrap
from shard_node.topology import Topology

pytestmark = pytest.mark.cluster

SHARDS = ["shard-0", "shard-1"]
WAIT_SECONDS = 20.0


@pytest.fixture
async def hosts(cluster: LocalCluster) -> str:
    """A folder of its own in the cluster's ZooKeeper, with a first topology."""
    hosts = f"{cluster.zookeeper_address}/{uuid.uuid4().hex}"
    await asyncio.to_thread(bootstrap, hosts, SHARDS)
    return hosts


@pytest.fixture
async def registry(hosts: str) -> AsyncIterator[Registry]:
    """A session."""
    made = Registry(hosts)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def other(hosts: str) -> AsyncIterator[Registry]:
    """Another process' session."""
    made = Registry(hosts)
    await made.start()
    yield made
    await made.stop()


async def test_bootstrap_is_done_once(hosts: str, registry: Registry) -> None:
    """A second bootstrap changes nothing; one with other shards is refused."""
    before = registry.topology
    await asyncio.to_thread(bootstrap, hosts, SHARDS)
    assert await registry.reload() == before
    with pytest.raises(RegistryError, match="is a resize, not a start"):
        await asyncio.to_thread(bootstrap, hosts, [*SHARDS, "shard-2"])
    assert await registry.reload() == before


@pytest.mark.filterwarnings("ignore:No chroot path")
async def test_no_topology_and_no_zookeeper_are_told_apart(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with a sentence that says what to do."""
    monkeypatch.setattr("shard_node.registry.START_TIMEOUT_SECONDS", 1.0)
    for hosts, complaint in (
        (f"{cluster.zookeeper_address}/{uuid.uuid4().hex}", "bootstrap the cluster"),
        ("127.0.0.1:1", "no ZooKeeper answers"),
    ):
        registry = Registry(hosts)
        with pytest.raises(RegistryError, match=complaint):
            await registry.start()
        await registry.stop()


async def test_concurrent_changes_all_take_effect(registry: Registry, other: Registry) -> None:
    """Compare-and-set: nobody writes over what another wrote."""
    start = registry.topology

    async def raise_epoch(session: Registry, shard: str, times: int) -> None:
        for _ in range(times):
            await session.change_topology(lambda t: t.with_primary(shard, f"127.0.0.1:{t.version}"))

    await asyncio.gather(raise_epoch(registry, "shard-0", 10), raise_epoch(other, "shard-1", 10))
    end = await registry.reload()
    assert end.version == start.version + 20
    assert [s.epoch - b.epoch for s, b in zip(end.shards, start.shards, strict=True)] == [10, 10]


async def test_change_of_nothing_writes_nothing(registry: Registry) -> None:
    """None leaves the topology as it is."""
    before = registry.topology
    assert await registry.change_topology(lambda _: None) == before


async def test_watchers_hear_of_each_newer_topology(registry: Registry, other: Registry) -> None:
    """In order, in the event loop, without asking."""
    heard: asyncio.Queue[Topology] = asyncio.Queue()
    other.watch(heard.put_nowait)
    changed = await registry.change_topology(lambda t: t.with_primary("shard-0", "127.0.0.1:1"))
    assert await asyncio.wait_for(heard.get(), WAIT_SECONDS) == changed


async def test_members_come_and_go(registry: Registry, other: Registry) -> None:
    """Registered members are seen by others until they withdraw."""
    heard: asyncio.Queue[list[Member]] = asyncio.Queue()
    await other.watch_members(MemberKind.COORDINATOR, heard.put_nowait)
    assert await asyncio.wait_for(heard.get(), WAIT_SECONDS) == []
    await registry.register(MemberKind.COORDINATOR, "c", "127.0.0.1:5", 7)
    member = Member(MemberKind.COORDINATOR, "c", "127.0.0.1:5", 7)
    assert await asyncio.wait_for(heard.get(), WAIT_SECONDS) == [member]
    assert await other.members() == [member]
    await registry.deregister()
    assert await asyncio.wait_for(heard.get(), WAIT_SECONDS) == []


async def test_a_successor_takes_over_the_name(registry: Registry, other: Registry) -> None:
    """A process that was killed leaves its node for a while; the one started in its place replaces it."""
    await registry.register(MemberKind.ROUTER, "r", "127.0.0.1:5", 1)
    await other.register(MemberKind.ROUTER, "r", "127.0.0.1:6", 2)
    assert await registry.members() == [Member(MemberKind.ROUTER, "r", "127.0.0.1:6", 2)]


async def test_membership_survives_a_lost_session(hosts: str, registry: Registry, other: Registry) -> None:
    """ZooKeeper drops the member with the session; the registry puts it back with the next one."""
    heard: asyncio.Queue[list[Member]] = asyncio.Queue()
    await registry.register(MemberKind.ROUTER, "r", "127.0.0.1:5", 1)
    await other.watch_members(MemberKind.ROUTER, heard.put_nowait)
    assert len(await asyncio.wait_for(heard.get(), WAIT_SECONDS)) == 1
    # Ending a session from outside is what its expiry looks like to its owner.
    thief = KazooClient(hosts=hosts, client_id=registry._client.client_id)
    await asyncio.to_thread(thief.start)
    await asyncio.to_thread(thief.stop)
    while not await asyncio.wait_for(heard.get(), WAIT_SECONDS):
        pass
    assert await other.members() == [Member(MemberKind.ROUTER, "r", "127.0.0.1:5", 1)]
    # The new session sees changes again.
    topologies: asyncio.Queue[Topology] = asyncio.Queue()
    registry.watch(topologies.put_nowait)
    changed = await other.change_topology(lambda t: t.with_primary("shard-0", "127.0.0.1:1"))
    assert await asyncio.wait_for(topologies.get(), WAIT_SECONDS) == changed


async def test_lock_has_one_holder_until_its_session_ends(
    hosts: str, registry: Registry, other: Registry
) -> None:
    """Whoever has it keeps it; when its session ends it is free."""
    path = f"{RESOLVER_LOCKS}/shard-0"
    third = Registry(hosts)
    await third.start()
    assert await third.try_lock(path, "third")
    assert not await registry.try_lock(path, "one")
    assert await third.try_lock(path, "third")
    await third.stop()
    assert await registry.try_lock(path, "one")
    assert not await other.try_lock(path, "other")
