"""The registry against a real ZooKeeper: compare-and-set, membership, lost sessions, locks."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from kazoo.client import KazooClient, KazooState
from structlog.testing import capture_logs

from deploy.local.launcher import LocalCluster
from shard_node.cluster.currencies import Exponents
from shard_node.cluster.registry import CURRENCIES, RESOLVER_LOCKS, Member, MemberKind, Registry, bootstrap
from shard_node.cluster.topology import Topology
from shard_node.errors import ExponentUnknownError, RegistryError

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


def intercept(registry: Registry, before: Callable[[str], Any]) -> None:
    """Awaits ``before``, given the request's name, ahead of each request of this session."""
    real = registry._request

    async def request(function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        await before(function.__name__)
        return await real(function, *arguments, **more)

    registry._request = request  # type: ignore[method-assign]


def fail_first(registry: Registry, times: int) -> None:
    """The next requests of this session get no answer in time; those after them do."""
    left = times

    async def fail(_: str) -> None:
        nonlocal left
        if left:
            left -= 1
            raise RegistryError("did not answer in time")

    intercept(registry, fail)


async def hear(heard: asyncio.Queue[list[Member]], names: list[str]) -> None:
    """Waits until the watcher was told of exactly these."""
    async with asyncio.timeout(WAIT_SECONDS):
        while [m.name for m in await heard.get()] != names:
            pass


async def lose_session(registry: Registry, path: str) -> None:
    """What the owner of ``path`` sees of an expired session: its node gone, then a new connection."""
    await registry._request(registry._client.delete_async, path)
    registry._on_state(KazooState.LOST)


async def test_bootstrap_is_done_once(hosts: str, registry: Registry) -> None:
    """A second bootstrap changes nothing; one with other shards is refused."""
    before = registry.topology
    await asyncio.to_thread(bootstrap, hosts, SHARDS)
    assert await registry.reload() == before
    with pytest.raises(RegistryError, match="is a resize, not a start"):
        await asyncio.to_thread(bootstrap, hosts, [*SHARDS, "shard-2"])
    assert await registry.reload() == before


async def test_no_topology_and_no_zookeeper_are_told_apart(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with a sentence that says what to do."""
    monkeypatch.setattr("shard_node.cluster.registry.START_TIMEOUT_SECONDS", 1.0)
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


async def test_the_end_of_a_process_leaves_its_successor_registered(
    registry: Registry, other: Registry
) -> None:
    """Withdrawing removes this session's node, not the one that took over the name."""
    await registry.register(MemberKind.ROUTER, "r", "127.0.0.1:5", 1)
    await other.register(MemberKind.ROUTER, "r", "127.0.0.1:6", 2)
    await registry.deregister()
    assert await other.members() == [Member(MemberKind.ROUTER, "r", "127.0.0.1:6", 2)]
    await other.deregister()
    assert await other.members() == []


async def test_whose_name_was_taken_over_is_back_when_the_other_has_gone(
    registry: Registry, other: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second process of one name, started by mistake, does not leave the first unregistered for ever."""
    monkeypatch.setattr("shard_node.cluster.registry.REPEAT_PAUSE_SECONDS", 0.01)
    first = Member(MemberKind.COORDINATOR, "c", "127.0.0.1:5", 1)
    second = Member(MemberKind.COORDINATOR, "c", "127.0.0.1:6", 2)
    await registry.register(first.kind, first.name, first.address, first.pid)
    for _ in range(2):
        await other.register(second.kind, second.name, second.address, second.pid)
        heard: asyncio.Queue[list[Member]] = asyncio.Queue()
        await other.watch_members(MemberKind.COORDINATOR, heard.put_nowait)
        assert await asyncio.wait_for(heard.get(), WAIT_SECONDS) == [second]
        await other.deregister()
        while (now := await asyncio.wait_for(heard.get(), WAIT_SECONDS)) != [first]:
            assert now == []


async def test_restoring_is_repeated_until_it_succeeds(
    registry: Registry, other: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that fail right after the session is back do not leave the process unregistered."""
    monkeypatch.setattr("shard_node.cluster.registry.REPEAT_PAUSE_SECONDS", 0.01)
    heard: asyncio.Queue[list[Member]] = asyncio.Queue()
    await other.watch_members(MemberKind.ROUTER, heard.put_nowait)
    await registry.register(MemberKind.ROUTER, "r", "127.0.0.1:5", 1)
    await lose_session(registry, "/tallystick/members/routers/r")
    await hear(heard, [])
    fail_first(registry, 5)
    registry._on_state(KazooState.CONNECTED)
    await hear(heard, ["r"])


async def test_restoring_ends_with_the_wish_to_be_registered(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that withdraws while it is being registered again stays withdrawn."""
    monkeypatch.setattr("shard_node.cluster.registry.REPEAT_PAUSE_SECONDS", 0.01)
    await registry.register(MemberKind.ROUTER, "r", "127.0.0.1:5", 1)
    await lose_session(registry, "/tallystick/members/routers/r")
    tried = asyncio.Event()
    open_again = False

    async def fail_to_create(name: str) -> None:
        if name == "create_async":
            tried.set()
            if not open_again:
                raise RegistryError("did not answer in time")

    intercept(registry, fail_to_create)
    registry._on_state(KazooState.CONNECTED)
    await asyncio.wait_for(tried.wait(), WAIT_SECONDS)
    await registry.deregister()
    open_again = True
    tried.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(tried.wait(), 0.2)
    assert await registry.members() == []


async def test_following_members_survives_failed_reads(
    registry: Registry, other: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watcher is told of a change although the first reads after it fail."""
    monkeypatch.setattr("shard_node.cluster.registry.REPEAT_PAUSE_SECONDS", 0.01)
    heard: asyncio.Queue[list[Member]] = asyncio.Queue()
    await other.watch_members(MemberKind.ROUTER, heard.put_nowait)
    fail_first(other, 3)
    await registry.register(MemberKind.ROUTER, "r", "127.0.0.1:5", 1)
    await hear(heard, ["r"])


async def test_the_last_word_about_members_is_the_newest(registry: Registry, other: Registry) -> None:
    """A slow read is not overtaken: the change that came meanwhile is told after it."""
    told: list[list[str]] = []
    newest = asyncio.Event()

    def tell(members: list[Member]) -> None:
        told.append([m.name for m in members])
        if told[-1] == ["a", "b"]:
            newest.set()

    await other.watch_members(MemberKind.ROUTER, tell)
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def hold(name: str) -> None:
        if name == "get_async":
            reading.set()
            await go_on.wait()

    intercept(other, hold)
    await registry.register(MemberKind.ROUTER, "a", "127.0.0.1:5", 1)
    await asyncio.wait_for(reading.wait(), WAIT_SECONDS)
    await registry.register(MemberKind.ROUTER, "b", "127.0.0.1:6", 1)
    go_on.set()
    await asyncio.wait_for(newest.wait(), WAIT_SECONDS)
    assert told == [[], ["a"], ["a", "b"]]


async def test_following_begins_with_the_first_list(
    registry: Registry, other: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever follows knows who is there when the call returns; or is told that nobody answers."""
    monkeypatch.setattr("shard_node.cluster.registry.REPEAT_PAUSE_SECONDS", 0.01)
    await registry.register(MemberKind.ROUTER, "r", "127.0.0.1:5", 1)
    told: list[list[Member]] = []
    fail_first(other, 2)
    await other.watch_members(MemberKind.ROUTER, told.append)
    assert told == [[Member(MemberKind.ROUTER, "r", "127.0.0.1:5", 1)]]

    monkeypatch.setattr("shard_node.cluster.registry.START_TIMEOUT_SECONDS", 0.1)
    fail_first(other, 1_000_000)
    with pytest.raises(RegistryError, match="did not answer in time"):
        await other.watch_members(MemberKind.COORDINATOR, told.append)


async def test_a_start_is_bounded_when_zookeeper_falls_silent(
    hosts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connected, but no answer to the first read: an error in time, with the event loop free meanwhile."""
    monkeypatch.setattr("shard_node.cluster.registry.START_TIMEOUT_SECONDS", 1.0)
    silent = Registry(hosts)

    async def never(_: str) -> None:
        await asyncio.Event().wait()

    intercept(silent, never)
    with pytest.raises(RegistryError, match="did not answer in time"):
        await asyncio.wait_for(silent.start(), WAIT_SECONDS)
    assert not silent._client.connected


# ---------------------------------------------------------------------- currencies


@pytest.mark.parametrize("step", ["create_async", "set_async"])
async def test_of_two_exponents_stored_at_once_the_first_is_everybodys(
    registry: Registry, other: Registry, step: str
) -> None:
    """Both have seen that a currency has none, be it the first of all or the next (at znode version 0)."""
    if step == "set_async":
        await registry.store_exponents({"EUR": 2})
        await other.require_exponents(["EUR"])
    both_are_there = asyncio.Barrier(2)
    for session in (registry, other):

        async def wait_once(name: str, waited: list[bool] = [False]) -> None:  # noqa: B006 -- one a session
            if name == step and not waited[0]:
                waited[0] = True
                await both_are_there.wait()

        intercept(session, wait_once)
    await asyncio.gather(
        registry.store_exponents({"XAA": 2, "XAB": 0}), other.store_exponents({"XAA": 3, "XAC": 1})
    )
    await registry.require_exponents(["XAC"])
    await other.require_exponents(["XAB"])
    assert registry.exponents == other.exponents
    assert registry.exponents["XAA"] in {2, 3}
    assert (registry.exponents["XAB"], registry.exponents["XAC"]) == (0, 1)


async def test_exponents_come_by_a_watch_and_are_read_anew_where_one_is_missing(
    registry: Registry, other: Registry
) -> None:
    """Others learn of a currency by themselves; who cannot wait reads; who gets no answer knows nothing."""
    with pytest.raises(ExponentUnknownError, match="'XAA'"):
        await registry.require_exponents(["XAA"])
    known = other.exponents
    await registry.store_exponents({"XAA": 2})
    async with asyncio.timeout(WAIT_SECONDS):
        while "XAA" not in known:  # noqa: ASYNC110 -- what it waits for is a plain dict
            await asyncio.sleep(0.01)
    fail_first(other, 1)
    with pytest.raises(RegistryError, match="did not answer in time"):
        await other.store_exponents({"XAB": 2})
    assert known == {"XAA": 2}
    await other.require_exponents(["XAA"])


async def test_without_a_connection_a_new_currency_is_not_waited_for(hosts: str) -> None:
    """A caller is told why at once, again and again; what is known goes on."""
    away = Registry(hosts)
    away.exponents.learn({"EUR": 2})
    await away.require_exponents(["EUR"])
    with pytest.raises(RegistryError, match="there is no connection to ZooKeeper at"):
        await away.require_exponents(["EUR", "XAA"])


async def test_a_currencies_node_that_is_something_else_is_left_alone(hosts: str, registry: Registry) -> None:
    """Nobody guesses what it meant, and nobody writes over it."""
    client = KazooClient(hosts)
    await asyncio.to_thread(client.start)
    try:
        await asyncio.to_thread(client.create, CURRENCIES, b'{"EUR": -2}')
        with pytest.raises(RegistryError, match="currencies is unreadable: -2 is no exponent, of 'EUR'"):
            await registry.store_exponents({"XAA": 2})
        with pytest.raises(RegistryError, match="is unreadable"):
            await registry.require_exponents(["EUR"])
        assert (await asyncio.to_thread(client.get, CURRENCIES))[0] == b'{"EUR": -2}'
    finally:
        await asyncio.to_thread(client.stop)
        client.close()
    assert registry.exponents == {}


def test_a_package_that_differs_is_said_once_and_not_obeyed() -> None:
    """A currency that the package has otherwise, or has dropped, keeps its stored exponent."""
    exponents = Exponents()
    with capture_logs() as logs:
        exponents.learn({"EUR": 2, "JPY": 2})
        exponents.learn({"EUR": 2, "JPY": 2, "XAA": 1})
    assert [(log["currency"], log["stored"], log["package"]) for log in logs] == [
        ("JPY", 2, 0),
        ("XAA", 1, None),
    ]
    with capture_logs() as logs:
        exponents.learn({"EUR": 3})
    assert [(log["log_level"], log["first"], log["changed"]) for log in logs] == [("error", 2, 3)]
    assert exponents == {"EUR": 2, "JPY": 2, "XAA": 1}
