"""The registry: topology, membership and locks in ZooKeeper.

kazoo runs threads of its own and reports a lost session only after it is back. So: every request
has a time-out; callbacks only hand over to the event loop; a listener never calls ZooKeeper; what a
session loss removed (our member nodes) is put back by a task of ours.

    /tallystick/topology                    one JSON document, changed by compare-and-set only
    /tallystick/members/<kind>/<name>       ephemeral: {"name", "address", "pid", ...}
    /tallystick/locks/resolver/<shard>      ephemeral: who resolves this shard
"""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import structlog
from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import BadVersionError, KazooException, NodeExistsError, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError

from shard_node.errors import RegistryError
from shard_node.topology import Topology, TopologyError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from kazoo.protocol.states import ZnodeStat

ROOT = "/tallystick"
TOPOLOGY = f"{ROOT}/topology"
MEMBERS = f"{ROOT}/members"
RESOLVER_LOCKS = f"{ROOT}/locks/resolver"

# After this long without a word ZooKeeper drops a process' member nodes and locks.
SESSION_TIMEOUT_SECONDS = 6.0
REQUEST_TIMEOUT_SECONDS = 5.0
START_TIMEOUT_SECONDS = 20.0
# A compare-and-set that lost this often has something else wrong.
MAX_CHANGE_TRIES = 20

log = structlog.get_logger(__name__)


class MemberKind(Enum):
    """Who registers; the value is the folder."""

    SHARD_NODE = "shard_nodes"
    COORDINATOR = "coordinators"
    ROUTER = "routers"


@dataclass(frozen=True, slots=True)
class Member:
    """A registered process. ``address`` is host:port; a shard node's is its Redis."""

    kind: MemberKind
    name: str
    address: str
    pid: int


def bootstrap(hosts: str, shard_ids: Sequence[str]) -> None:
    """Writes the first topology. Does nothing when one with the same shards is there.

    Raises RegistryError when ZooKeeper cannot be reached, or holds a topology with other shards.
    """
    # "host:port/folder" keeps several clusters in one ZooKeeper; the folder may not be there yet, so
    # this session is not rooted in it.
    servers, slash, folder = hosts.partition("/")
    path = f"{slash}{folder}{TOPOLOGY}"
    client = KazooClient(hosts=servers, timeout=SESSION_TIMEOUT_SECONDS)
    try:
        client.start(timeout=START_TIMEOUT_SECONDS)
        topology = Topology.initial(secrets.token_hex(4), shard_ids)
        try:
            client.create(path, topology.to_json(), makepath=True)
        except NodeExistsError:
            present = Topology.from_json(client.get(path)[0])
            have = [shard.shard_id for shard in present.shards]
            if have != list(shard_ids):
                raise RegistryError(
                    f"the cluster has {len(have)} shards ({', '.join(have)}), not {len(shard_ids)} "
                    f"({', '.join(shard_ids)}): changing the shards of a cluster is a resize, not a start"
                ) from None
    except (KazooException, KazooTimeoutError, TopologyError) as error:
        raise RegistryError(f"ZooKeeper at {hosts}: {error or type(error).__name__}") from error
    finally:
        client.stop()
        client.close()


class Registry:
    """A session with ZooKeeper, for one event loop."""

    def __init__(self, hosts: str) -> None:
        self._hosts = hosts
        self._client = KazooClient(hosts=hosts, timeout=SESSION_TIMEOUT_SECONDS)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._registered: dict[str, bytes] = {}
        # Kept, or the event loop may forget them half-way.
        self._tasks: set[asyncio.Task[None]] = set()
        self._watchers: list[Callable[[Topology], None]] = []
        self._topology: Topology | None = None
        self._arrived = asyncio.Event()
        self._session_lost = False

    @property
    def topology(self) -> Topology:
        """The newest topology seen; it may be behind ZooKeeper's by the time of a message."""
        if self._topology is None:
            raise RegistryError("no topology yet: start the registry first")
        return self._topology

    async def start(self) -> None:
        """Connects and reads the topology. Raises RegistryError when either takes too long."""
        self._loop = asyncio.get_running_loop()
        self._client.add_listener(self._on_state)
        try:
            await asyncio.to_thread(self._client.start, START_TIMEOUT_SECONDS)
        except KazooTimeoutError as error:
            raise RegistryError(f"no ZooKeeper answers at {self._hosts}") from error
        self._client.DataWatch(TOPOLOGY, self._on_topology)
        try:
            await asyncio.wait_for(self._arrived.wait(), START_TIMEOUT_SECONDS)
        except TimeoutError as error:
            raise RegistryError(
                f"ZooKeeper at {self._hosts} holds no topology: bootstrap the cluster"
            ) from error

    async def stop(self) -> None:
        """Ends the session; member nodes and locks go with it."""
        self._registered.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.to_thread(self._client.stop)
        await asyncio.to_thread(self._client.close)

    # ------------------------------------------------------------------ topology

    def watch(self, watcher: Callable[[Topology], None]) -> None:
        """Calls ``watcher`` in the event loop with each newer topology."""
        self._watchers.append(watcher)

    async def reload(self) -> Topology:
        """Reads the topology now, when a shard's refusal says that ours is old."""
        content, _ = await self._request(self._client.get_async, TOPOLOGY)
        self._accept(Topology.from_json(content))
        return self.topology

    async def change_topology(self, change: Callable[[Topology], Topology | None]) -> Topology:
        """Replaces the topology by what ``change`` makes of it, by compare-and-set.

        ``change`` is called again when another writer came first; None leaves all as it is.
        """
        for _ in range(MAX_CHANGE_TRIES):
            content, stat = await self._request(self._client.get_async, TOPOLOGY)
            topology = Topology.from_json(content)
            changed = change(topology)
            if changed is None:
                self._accept(topology)
                return topology
            try:
                # Always with the version read: -1 would write over anything, and 0 is a version too.
                await self._request(self._client.set_async, TOPOLOGY, changed.to_json(), version=stat.version)
            except BadVersionError:
                continue
            self._accept(changed)
            return changed
        raise RegistryError(f"the topology changed {MAX_CHANGE_TRIES} times while it was to be changed")

    def _accept(self, topology: Topology) -> None:
        if self._topology is not None and topology.version <= self._topology.version:
            return
        self._topology = topology
        self._arrived.set()
        log.info("topology", version=topology.version, shards=len(topology.shards))
        for watcher in self._watchers:
            watcher(topology)

    def _on_topology(self, content: bytes | None, _: ZnodeStat | None) -> None:
        """In kazoo's thread: parse and hand over."""
        if content is None or self._loop is None:
            return
        try:
            topology = Topology.from_json(content)
        except TopologyError as error:
            log.error("topology unreadable", error=str(error))
            return
        self._loop.call_soon_threadsafe(self._accept, topology)

    # ------------------------------------------------------------------ membership

    async def register(self, kind: MemberKind, name: str, address: str, pid: int, **more: Any) -> None:
        """Announces this process, again after each loss of the session, until :meth:`deregister`."""
        path = f"{MEMBERS}/{kind.value}/{name}"
        content = json.dumps({"name": name, "address": address, "pid": pid, **more}).encode()
        self._registered[path] = content
        await self._put(path, content)

    async def deregister(self) -> None:
        """Withdraws what this process announced, so that callers stop coming."""
        paths = list(self._registered)
        self._registered.clear()
        for path in paths:
            try:
                await self._request(self._client.delete_async, path)
            except NoNodeError:
                continue

    async def members(self) -> list[Member]:
        """Everyone who is registered now."""
        found: list[Member] = []
        for kind in MemberKind:
            folder = f"{MEMBERS}/{kind.value}"
            try:
                names = await self._request(self._client.get_children_async, folder)
            except NoNodeError:
                continue
            for name in sorted(names):
                try:
                    content, _ = await self._request(self._client.get_async, f"{folder}/{name}")
                except NoNodeError:
                    continue
                raw = json.loads(content)
                found.append(Member(kind, raw["name"], raw["address"], raw["pid"]))
        return found

    async def watch_members(self, kind: MemberKind, watcher: Callable[[list[Member]], None]) -> None:
        """Calls ``watcher`` in the event loop with who is registered, now and after each change."""
        loop = asyncio.get_running_loop()
        folder = f"{MEMBERS}/{kind.value}"

        async def tell() -> None:
            try:
                watcher([m for m in await self.members() if m.kind is kind])
            except RegistryError as error:
                log.warning("cannot read the members", error=str(error))

        def changed(_: list[str]) -> None:
            # In kazoo's thread: reading the members is left to the event loop.
            loop.call_soon_threadsafe(lambda: self._tasks_add(tell()))

        await self._request(self._client.ensure_path_async, folder)
        await asyncio.to_thread(self._client.ChildrenWatch, folder, changed)

    def _tasks_add(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _put(self, path: str, content: bytes) -> None:
        """An ephemeral node of our session, in place of one that an earlier process left."""
        for _ in range(MAX_CHANGE_TRIES):
            try:
                await self._request(self._client.create_async, path, content, ephemeral=True, makepath=True)
            except NodeExistsError:
                try:
                    _, stat = await self._request(self._client.get_async, path)
                    if stat.ephemeralOwner == self._client.client_id[0]:
                        await self._request(self._client.set_async, path, content, version=stat.version)
                        return
                    await self._request(self._client.delete_async, path, version=stat.version)
                except (NoNodeError, BadVersionError):
                    continue
            else:
                return
        raise RegistryError(f"{path} is taken by another process again and again")

    def _on_state(self, state: str) -> None:
        """In kazoo's thread."""
        if state == KazooState.LOST:
            self._session_lost = True
        elif state == KazooState.CONNECTED and self._session_lost and self._loop is not None:
            self._session_lost = False
            self._loop.call_soon_threadsafe(lambda: self._tasks_add(self._restore()))

    async def _restore(self) -> None:
        for path, content in list(self._registered.items()):
            try:
                await self._put(path, content)
                log.info("registered again after a lost session", path=path)
            except (RegistryError, KazooException) as error:
                log.error("cannot register again", path=path, error=str(error))
        await self.reload()

    # ------------------------------------------------------------------ locks

    async def try_lock(self, path: str, owner: str) -> bool:
        """Whether this session holds the lock, taking it when it is free.

        Only to spare work: nothing is wrong when two hold it for a moment.
        """
        try:
            await self._request(
                self._client.create_async, path, owner.encode(), ephemeral=True, makepath=True
            )
        except NodeExistsError:
            try:
                _, stat = await self._request(self._client.get_async, path)
            except NoNodeError:
                return False
            return bool(stat.ephemeralOwner == self._client.client_id[0])
        return True

    # ------------------------------------------------------------------ requests

    async def _request(self, function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        """One request, with a time-out also while the session is suspended."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def resolve(result: Any) -> None:
            if future.done():
                return
            if result.exception is None:
                future.set_result(result.value)
            else:
                future.set_exception(result.exception)

        try:
            pending = function(*arguments, **more)
            pending.rawlink(lambda result: loop.call_soon_threadsafe(resolve, result))
            return await asyncio.wait_for(future, REQUEST_TIMEOUT_SECONDS)
        except (NodeExistsError, NoNodeError, BadVersionError):
            raise
        except TimeoutError as error:
            raise RegistryError(f"ZooKeeper at {self._hosts} did not answer in time") from error
        except KazooException as error:
            raise RegistryError(f"ZooKeeper at {self._hosts}: {error or type(error).__name__}") from error
