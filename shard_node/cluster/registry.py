"""The registry: topology, membership and locks in ZooKeeper.

kazoo runs threads of its own and reports a lost session only after it is back. So: every request
has a time-out; callbacks only hand over to the event loop; a listener never calls ZooKeeper; nothing
blocks the event loop. What has to happen in the end, whatever a single request comes to (reading on
after a change, putting back the member nodes that went with a lost session), is an errand: one task,
which repeats it until it is done.

    /tallystick/topology                    one JSON document, changed by compare-and-set only
    /tallystick/currencies                  one JSON document, the same: {"EUR": 2, ...}; only ever added to
    /tallystick/members/<kind>/<name>       ephemeral: {"name", "address", "pid", "problem", ...}
    /tallystick/locks/resolver/<shard>      ephemeral: who resolves this shard
    /tallystick/locks/archiver/<shard>      ephemeral: who archives its ledger
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import structlog
from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import BadVersionError, KazooException, NodeExistsError, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError

from shard_node.cluster.currencies import Exponents, from_json, to_json
from shard_node.cluster.topology import Topology, TopologyError
from shard_node.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

ROOT = "/tallystick"
TOPOLOGY = f"{ROOT}/topology"
CURRENCIES = f"{ROOT}/currencies"
MEMBERS = f"{ROOT}/members"
RESOLVER_LOCKS = f"{ROOT}/locks/resolver"
ARCHIVER_LOCKS = f"{ROOT}/locks/archiver"

# After this long without a word ZooKeeper drops a process' member nodes and locks.
SESSION_TIMEOUT_SECONDS = 6.0
REQUEST_TIMEOUT_SECONDS = 5.0
# For a reading that a request waits for: its caller is told before it gives up waiting (a client, after 4 s).
ANEW_TIMEOUT_SECONDS = 2.0
# For each step of a start: longer than a ZooKeeper needs to start beside us, or to choose a new leader.
START_TIMEOUT_SECONDS = 20.0
# Between two tries of an errand: a ZooKeeper that is away is not hurried, and the session time-out,
# after which others take note of us, is several tries long.
REPEAT_PAUSE_SECONDS = 1.0
# A compare-and-set that lost this often has something else wrong.
MAX_CHANGE_TRIES = 20

log = structlog.get_logger(__name__)


class MemberKind(Enum):
    """Who registers; the value is the folder."""

    SHARD_NODE = "shard_nodes"
    COORDINATOR = "coordinators"
    ROUTER = "routers"
    ARCHIVER = "archivers"


@dataclass(frozen=True, slots=True)
class Member:
    """A registered process. ``address`` is host:port; a shard node's is its Redis; an archiver has none.

    ``problem`` is why it does not do its work at the moment, in its own words.
    """

    kind: MemberKind
    name: str
    address: str
    pid: int
    problem: str = ""


def bootstrap(hosts: str, shard_ids: Sequence[str]) -> Topology:
    """Writes the first topology, unless one with the same shards is there; the one that is there then.

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
            topology = present
    except (KazooException, KazooTimeoutError, TopologyError) as error:
        raise RegistryError(f"ZooKeeper at {hosts}: {str(error) or type(error).__name__}") from error
    finally:
        client.stop()
        client.close()
    return topology


class _Errand:
    """Work that is repeated until it is done: never twice at a time, and anew if asked for meanwhile."""

    def __init__(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._work = work
        self._asked = False
        self._task: asyncio.Task[None] | None = None
        self.done_once = asyncio.Event()

    def ask(self) -> None:
        """Has the work done from its beginning, after what is under way."""
        self._asked = True
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())

    async def end(self) -> None:
        """Drops what is under way; returns when it no longer runs."""
        self._asked = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._asked:
            self._asked = False
            try:
                await self._work()
            except (RegistryError, KazooException) as error:
                self._asked = True
                log.warning("to be repeated", errand=self._name, error=str(error) or type(error).__name__)
                await asyncio.sleep(REPEAT_PAUSE_SECONDS)
            else:
                self.done_once.set()


class Registry:
    """A session with ZooKeeper, for one event loop."""

    def __init__(self, hosts: str) -> None:
        self._hosts = hosts
        try:
            self._client = KazooClient(hosts=hosts, timeout=SESSION_TIMEOUT_SECONDS)
        except ValueError as error:
            raise RegistryError(f"{hosts!r} is no address of ZooKeeper, host:port: {error}") from error
        self._loop: asyncio.AbstractEventLoop | None = None
        self._registered: dict[str, bytes] = {}
        self._restoring = _Errand("register again", self._restore)
        self._returning = _Errand("register where another process has gone", self._return)
        self._member_changed = self._asking(self._returning)
        self._announcing = asyncio.Lock()
        # Each sets its watch anew when it reads. The topology's is the first, the currencies' the second.
        self._readers = [
            _Errand("read the topology", self._read_topology),
            _Errand("read the currencies", self._read_currencies),
        ]
        self._topology_changed, self._currencies_changed = map(self._asking, self._readers)
        self._exponents = Exponents()
        self._reading_currencies = asyncio.Lock()
        # Numbers of the last reading anew that was begun, and that was answered, and its error.
        self._currencies_asked = self._currencies_read = 0
        self._currencies_error: RegistryError | None = None
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

    @property
    def exponents(self) -> Exponents:
        """The stored exponents that are known here: always the same object, which grows."""
        return self._exponents

    async def start(self) -> None:
        """Connects, reads topology and currencies. Raises RegistryError when either takes too long."""
        self._loop = asyncio.get_running_loop()
        self._client.add_listener(self._on_state)
        async with contextlib.AsyncExitStack() as failing:
            failing.push_async_callback(self.stop)
            # Not KazooClient.start, which ends with a request that has no time-out.
            connected = await asyncio.to_thread(self._client.start_async)
            await asyncio.to_thread(connected.wait, START_TIMEOUT_SECONDS)
            if not self._client.connected:
                raise RegistryError(f"no ZooKeeper answers at {self._hosts}")
            for reader in self._readers:
                reader.ask()
            for reader in self._readers:
                await self._finished(reader)
            try:
                async with asyncio.timeout(START_TIMEOUT_SECONDS):
                    await self._arrived.wait()
            except TimeoutError as error:
                raise RegistryError(
                    f"ZooKeeper at {self._hosts} holds no topology: bootstrap the cluster"
                ) from error
            failing.pop_all()

    async def stop(self) -> None:
        """Ends the session; member nodes and locks go with it."""
        self._registered.clear()
        try:
            await asyncio.to_thread(self._client.stop)
        except KazooException as error:
            # ZooKeeper does not answer the farewell: the session then ends by its time-out.
            log.warning("session left open", error=str(error) or type(error).__name__)
        else:
            await asyncio.to_thread(self._client.close)
        # Only now: until the client has stopped, its watches ask for more.
        self._loop = None
        for errand in (self._restoring, self._returning, *self._readers):
            await errand.end()

    async def _finished(self, reader: _Errand) -> None:
        """Waits until ``reader`` has read for the first time."""
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                await reader.done_once.wait()
        except TimeoutError as error:
            raise RegistryError(f"ZooKeeper at {self._hosts} did not answer in time") from error

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

    async def _read_topology(self) -> None:
        """Reads the topology, and has itself called again when it changes or appears."""
        content = await self._watched(TOPOLOGY, self._readers[0], self._topology_changed)
        try:
            if content is not None:
                self._accept(Topology.from_json(content))
        except TopologyError as error:
            # Reading it again changes nothing; a better one calls us.
            log.error("topology unreadable", error=str(error))

    async def _watched(self, path: str, reader: _Errand, changed: Callable[[object], None]) -> bytes | None:
        """A node's content, None when there is none; ``changed`` is called when that is no longer so."""
        try:
            content, _ = await self._request(self._client.get_async, path, watch=changed)
        except NoNodeError:
            if await self._request(self._client.exists_async, path, watch=changed):
                reader.ask()
            return None
        return bytes(content)

    def _asking(self, reader: _Errand) -> Callable[[object], None]:
        """A watch: in kazoo's thread, so it only hands over."""

        def changed(_: object) -> None:
            loop = self._loop
            if loop is not None:
                loop.call_soon_threadsafe(reader.ask)

        return changed

    # ------------------------------------------------------------------ currencies

    async def require_exponents(self, currencies: Iterable[str]) -> None:
        """Returns when the exponents of all these are known here; reads them anew when one is not.

        Raises ExponentUnknownError when the cluster has stored none for one of them, and RegistryError when
        ZooKeeper does not answer.
        """
        missing = [currency for currency in currencies if currency not in self._exponents]
        if missing:
            await self._read_currencies_anew()
        for currency in missing:
            self._exponents[currency]

    async def store_exponents(self, wanted: Mapping[str, int]) -> None:
        """Stores an exponent for each of these currencies that has none, all by one compare-and-set.

        All are known here afterwards; of two that store one at the same moment, the first is obeyed by both.
        Raises RegistryError when ZooKeeper does not answer: they may be stored or not.
        """
        for _ in range(MAX_CHANGE_TRIES):
            stored: dict[str, int] = {}
            version = None
            with contextlib.suppress(NoNodeError):
                content, stat = await self._request(self._client.get_async, CURRENCIES)
                stored, version = self._learn(content), stat.version
            if wanted.keys() <= stored.keys():
                return
            content = to_json({**wanted, **stored})
            try:
                if version is None:
                    await self._request(self._client.create_async, CURRENCIES, content, makepath=True)
                else:
                    # Always with the version read: -1 would write over anything, and 0 is a version too.
                    await self._request(self._client.set_async, CURRENCIES, content, version=version)
            except (BadVersionError, NodeExistsError):
                continue
            self._learn(content)
            return
        raise RegistryError(f"the currencies changed {MAX_CHANGE_TRIES} times while one was to be added")

    async def _read_currencies(self) -> None:
        """Reads the exponents, and has itself called again when there are more."""
        content = await self._watched(CURRENCIES, self._readers[1], self._currencies_changed)
        try:
            if content is not None:
                self._learn(content)
        except RegistryError as error:
            # As with the topology. Money of a currency that is not known here rests.
            log.error("currencies unreadable", error=str(error))

    async def _read_currencies_anew(self) -> None:
        """One reading at a time, for all that asked before it began. Raises RegistryError."""
        if not self._client.connected:
            # At once: a caller that repeats itself hears why until its time is up.
            raise RegistryError(f"there is no connection to ZooKeeper at {self._hosts}")
        asked, is_under_way = self._currencies_asked, self._reading_currencies.locked()
        async with self._reading_currencies:
            # What has failed while we waited is no more likely to succeed now.
            has_failed = is_under_way and self._currencies_read == asked and self._currencies_error
            if self._currencies_read <= asked and not has_failed:
                self._currencies_asked += 1
                self._currencies_error = await self._read_currencies_in_time()
                # Not reached when whoever asked is cancelled: others then ask for themselves.
                self._currencies_read = self._currencies_asked
            if self._currencies_error is not None:
                raise self._currencies_error

    async def _read_currencies_in_time(self) -> RegistryError | None:
        try:
            async with asyncio.timeout(ANEW_TIMEOUT_SECONDS):
                # The server that answers may be behind the one that took another process' change.
                await self._request(self._client.sync_async, CURRENCIES)
                with contextlib.suppress(NoNodeError):
                    self._learn((await self._request(self._client.get_async, CURRENCIES))[0])
        except TimeoutError:
            return RegistryError(f"ZooKeeper at {self._hosts} did not answer in time")
        except RegistryError as error:
            return error
        return None

    def _learn(self, content: bytes) -> dict[str, int]:
        try:
            stored = from_json(content)
        except ValueError as error:
            raise RegistryError(f"{CURRENCIES} is unreadable: {error}") from error
        self._exponents.learn(stored)
        return stored

    # ------------------------------------------------------------------ membership

    async def register(self, kind: MemberKind, name: str, address: str, pid: int, **more: Any) -> None:
        """Announces this process, again after each loss of the session, until :meth:`deregister`."""
        path = f"{MEMBERS}/{kind.value}/{name}"
        content = json.dumps({"name": name, "address": address, "pid": pid, **more}).encode()
        self._registered[path] = content
        await self._announce(path)

    def tell_problem(self, problem: str) -> None:
        """Announces, as soon as ZooKeeper answers, why this process does not do its work; empty: it does."""
        for path, content in self._registered.items():
            self._registered[path] = json.dumps({**json.loads(content), "problem": problem}).encode()
        self._restoring.ask()

    async def deregister(self) -> None:
        """Withdraws what this process announced, so that callers stop coming."""
        paths = list(self._registered)
        self._registered.clear()
        # Or it may put back what is withdrawn here. ZooKeeper keeps the order of a session's requests.
        await self._restoring.end()
        await self._returning.end()
        for path in paths:
            try:
                _, stat = await self._request(self._client.get_async, path)
                # A successor of the same name may have put its own node in place of ours.
                if stat.ephemeralOwner == self._client.client_id[0]:
                    await self._request(self._client.delete_async, path, version=stat.version)
            except (NoNodeError, BadVersionError):
                continue

    async def members(self) -> list[Member]:
        """Everyone who is registered now."""
        return [member for kind in MemberKind for member in await self._members(kind)]

    async def _members(self, kind: MemberKind, watch: Callable[[object], None] | None = None) -> list[Member]:
        """Those of one kind; ``watch`` is called, once, when one comes or goes."""
        folder = f"{MEMBERS}/{kind.value}"
        try:
            names = await self._request(self._client.get_children_async, folder, watch=watch)
        except NoNodeError:
            if watch is None:
                return []
            # Only a folder that is there can be watched.
            await self._request(self._client.ensure_path_async, folder)
            names = await self._request(self._client.get_children_async, folder, watch=watch)
        found: list[Member] = []
        for name in sorted(names):
            try:
                content, _ = await self._request(self._client.get_async, f"{folder}/{name}")
            except NoNodeError:
                continue
            try:
                raw = json.loads(content)
                found.append(Member(kind, raw["name"], raw["address"], raw["pid"], raw.get("problem", "")))
            except (ValueError, KeyError, TypeError) as error:
                raise RegistryError(f"{folder}/{name} is unreadable") from error
        return found

    async def watch_members(self, kind: MemberKind, watcher: Callable[[list[Member]], None]) -> None:
        """Calls ``watcher`` in the event loop with who is registered, now and after each change.

        Returns after the first call. Calls follow the order of the changes; the last one is of the
        newest state, also when ZooKeeper was away meanwhile. Raises RegistryError when the first
        answer takes too long.
        """

        async def tell() -> None:
            watcher(await self._members(kind, changed))

        reader = _Errand(f"read the {kind.value}", tell)
        changed = self._asking(reader)
        self._readers.append(reader)
        reader.ask()
        await self._finished(reader)

    async def _announce(self, path: str) -> None:
        # One at a time, or what was announced before could be put over what is announced now.
        async with self._announcing:
            if path in self._registered:
                await self._put(path, self._registered[path])
                if not await self._request(self._client.exists_async, path, watch=self._member_changed):
                    self._returning.ask()

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
        loop = self._loop
        if state == KazooState.LOST:
            self._session_lost = True
        elif state == KazooState.CONNECTED and loop is not None:
            if self._session_lost:
                self._session_lost = False
                loop.call_soon_threadsafe(self._restoring.ask)
            loop.call_soon_threadsafe(self._read_on)

    def _read_on(self) -> None:
        # The watches went with the connection, and nobody tells what changed meanwhile.
        for reader in self._readers:
            reader.ask()

    async def _restore(self) -> None:
        for path in list(self._registered):
            await self._announce(path)
            log.info("registered again", path=path)

    async def _return(self) -> None:
        """Puts back what another process of the same name took over, and left behind when it ended.

        A node that is there is left alone, whosever it is: two that are alive must not take it in turns.
        """
        # A successor deletes the node just before it makes its own.
        await asyncio.sleep(REPEAT_PAUSE_SECONDS)
        for path in list(self._registered):
            if not await self._request(self._client.exists_async, path, watch=self._member_changed):
                await self._announce(path)
                log.warning("registered again: another process of this name was here", path=path)

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
            # Not wait_for, which in Python 3.11 may swallow a cancellation.
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                return await future
        except (NodeExistsError, NoNodeError, BadVersionError):
            raise
        except TimeoutError as error:
            raise RegistryError(f"ZooKeeper at {self._hosts} did not answer in time") from error
        except KazooException as error:
            raise RegistryError(
                f"ZooKeeper at {self._hosts}: {str(error) or type(error).__name__}"
            ) from error
