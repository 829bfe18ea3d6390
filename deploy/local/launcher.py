"""A whole cluster on this machine: ZooKeeper, shard nodes with their Redis, archivers, coordinators, routers.

Every part is the real server, started as an operator would start it. `tallystick up` and `down`, the demo,
the tests and the benchmarks all go through :class:`LocalCluster`.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from deploy.errors import DataError, NoClusterError, StartError
from deploy.local import cluster_file, processes
from deploy.local.cluster_file import ClusterRecord, Kind, ProcessRecord, living, missing_parts
from deploy.local.home import Home
from deploy.local.ledger_url import checked, default_url, rebased
from deploy.local.membership import membership
from deploy.local.processes import ProcessIdentity
from deploy.local.starter import Starter, redis_record
from deploy.local.stopper import STOP_GRACE_SECONDS, redis_servers, stop_processes
from shard_node.redis_files import CONFIGURATION as REDIS_CONFIGURATION

# Java and five Python processes on two busy cores take some seconds; a hang is not worth waiting for.
READY_TIMEOUT_SECONDS = 60.0
DEFAULT_SHARDS = 3
# More of one kind is no longer one machine's work.
MAX_OF_A_KIND = 64
# The most that the kernel knows.
MAX_NICENESS = 19
_POLL_SECONDS = 0.05
_REDIS_PREFIX = "redis:"


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """The shape asked for. None stands for what the data folder remembers, or else the default."""

    shards: int | None = None
    routers: int | None = None
    coordinators: int | None = None
    # How long a shard remembers outcomes; the shard node's own default when None.
    dedupe_window_seconds: int | None = None
    # 0: no ledger database.
    archivers: int | None = None
    # The URL of the ledger database; a file in the data folder when None.
    ledger: str | None = None
    # Entries that may wait on a shard for the archiver; the shard node's own default when None.
    max_backlog: int | None = None
    # 0 to 19, as nice(1) has it: archiving is work for later, and may give way to the transfers.
    archiver_niceness: int | None = None
    # Other ports than the remembered ones.
    new_ports: bool = False


class LocalCluster:
    """One cluster in one data folder. As a context manager: started on entry, stopped on exit.

    Processes are named "zookeeper", "shard-0" (the shard node), "redis:shard-0" (its Redis),
    "archiver-0", "coordinator-0" and "router-0", with higher numbers for further ones.
    """

    def __init__(
        self,
        data: Path,
        spec: ClusterSpec | None = None,
        *,
        ready_timeout_seconds: float = READY_TIMEOUT_SECONDS,
    ) -> None:
        self.data = data.absolute()
        self._spec = spec or ClusterSpec()
        self._ready_timeout_seconds = ready_timeout_seconds
        self._starter = Starter(self.data, ready_timeout_seconds)

    def __repr__(self) -> str:
        return f"LocalCluster({self.data})"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def record(self) -> ClusterRecord:
        """What the data folder says of the cluster; NoClusterError when it never held one."""
        record = cluster_file.read(self.data)
        if record is None:
            raise NoClusterError(f"there is no cluster in {self.data}")
        return record

    @property
    def zookeeper_address(self) -> str:
        """host:port of ZooKeeper."""
        return self.record.zookeeper

    @property
    def router_addresses(self) -> list[str]:
        """host:port of every router."""
        return self.record.router_addresses

    @property
    def coordinator_addresses(self) -> list[str]:
        """host:port of every coordinator."""
        return [process.address for process in self.record.of_kind(Kind.COORDINATOR)]

    @property
    def ledger_url(self) -> str:
        """The URL of the ledger database. May hold a password: see `deploy.local.ledger_url.masked`."""
        return self.record.ledger or default_url(self.data)

    @property
    def shard_addresses(self) -> dict[str, str]:
        """host:port of every shard's Redis, by shard id."""
        return {process.name: process.address for process in self.record.of_kind(Kind.SHARD_NODE)}

    @property
    def names(self) -> list[str]:
        """The names of all processes that were started."""
        return [process.name for process in self.record.processes]

    def log(self, name: str) -> Path:
        """The file that a process' output goes to. A Redis logs where its shard node tells it to."""
        return self._starter.log(name)

    def pid(self, name: str) -> int:
        """The id of the process that has this name now; NoClusterError when it does not run."""
        return self._identity(name).pid

    def exited(self) -> list[str]:
        """The processes started by this object that have ended since, each named once."""
        return self._starter.exited()

    def start(self) -> bool:
        """Starts what does not run and waits until it is ready; False when everything ran already.

        Raises DataError when the folder holds a cluster of another shape, and StartError, with the end of
        the log, when a part exits or is not ready in time. If it raises, what it had started is stopped.
        """
        self.data.mkdir(parents=True, exist_ok=True)
        with _locked(self.data):
            record = self._planned()
            if record.processes and not record.ready:
                # Left by a launcher that was killed while it started them: nobody knows how far it got.
                self._stop()
                record = self._planned()
            if record.ready and not missing_parts(record):
                return False
            record = self._at_home(record)
            if self._spec.new_ports:
                record = self._without_ports(record)
            try:
                self._starter.start(record)
            except BaseException:
                self._stop(keep=record.processes)
                raise
            return True

    def stop(self) -> list[str]:
        """Stops every process of the cluster, whoever started it; the names of those that ran."""
        if not self.data.is_dir():
            return []
        with _locked(self.data):
            return self._stop()

    def adopt(self, cluster_id: str | None = None, ledger: str | None = None) -> list[str]:
        """Makes this folder, a copy of another cluster's, a cluster of its own: see `adoption`."""
        from deploy.local import adoption  # noqa: PLC0415 - see there

        with self._locked_copy():
            return adoption.adopt(self.data, self._starter, cluster_id, ledger)

    def adopt_moved(self) -> None:
        """Makes this folder the place of the cluster that was moved or restored there."""
        from deploy.local import adoption  # noqa: PLC0415 - see there

        with self._locked_copy():
            adoption.adopt_moved(self.data)

    def kill(self, name: str) -> None:
        """Ends one process at once (SIGKILL), as a crash would. It stays away until `restart`.

        A Redis comes back by itself: its shard node watches it.
        """
        processes.kill(self._identity(name))
        self._starter.exited()

    def restart(self, name: str) -> None:
        """Stops the process if it runs, starts it again and waits until it is ready.

        A Redis is started by its shard node: for one, this waits until the shard node has registered a
        Redis that runs.
        """
        if name.startswith(_REDIS_PREFIX):
            self._await_redis(name)
            return
        with _locked(self.data):
            record = self.record
            # Unless the cluster has no such process.
            record.process(name)
            old = [process.identity for process in living(self.data, record) if process.name == name]
            processes.stop(old, grace_seconds=STOP_GRACE_SECONDS)
            self._starter.exited()
            self._starter.start(record.without([name]))

    @contextmanager
    def _locked_copy(self) -> Iterator[None]:
        if not self.data.is_dir():
            raise NoClusterError(f"there is no folder {self.data}")
        with _locked(self.data):
            yield

    def _planned(self) -> ClusterRecord:
        """The record to start from: what is remembered, with what was asked for, and what runs."""
        spec = self._spec
        old = cluster_file.read(self.data) or ClusterRecord(
            DEFAULT_SHARDS if spec.shards is None else spec.shards
        )
        if spec.shards is not None and spec.shards != old.shards:
            raise DataError(
                f"{self.data} holds a cluster of {old.shards} shards, not {spec.shards}: "
                f"leave --shards out, or choose another folder with --data"
            )
        asked = {name: value for name, value in asdict(spec).items() if value is not None}
        new_ports = asked.pop("new_ports")
        if "ledger" in asked:
            asked["ledger"] = checked(asked["ledger"])
        new = replace(old, **asked)
        if not all(1 <= count <= MAX_OF_A_KIND for count in (new.shards, new.routers, new.coordinators)):
            raise DataError(f"a local cluster has 1 to {MAX_OF_A_KIND} shards, routers and coordinators each")
        if not 0 <= new.archivers <= MAX_OF_A_KIND:
            raise DataError(f"a local cluster has 0 to {MAX_OF_A_KIND} archivers")
        if not 0 <= new.archiver_niceness <= MAX_NICENESS:
            raise DataError(f"the niceness of archivers is 0 to {MAX_NICENESS}")
        alive = living(self.data, old)
        if alive and (new != old or new_ports):
            raise DataError(f"the cluster in {self.data} runs with other settings: 'tallystick down' first")
        return replace(new, processes=tuple(alive))

    def _at_home(self, record: ClusterRecord) -> ClusterRecord:
        """The record for a start: the folder it starts in is its place from now on.

        Raises DataError when processes run that were started through another path, or before folders knew
        their place: new ones beside them would not find what these have.
        """
        here = Home.of(self.data)
        if record.processes and record.home != here:
            how = "by an earlier version" if record.home is None else f"from {record.home.path}"
            raise DataError(
                f"what runs of the cluster in {self.data} was started {how}: "
                f"'tallystick down --data {self.data}' first"
            )
        if record.home is None:
            return replace(record, home=here)
        return replace(record, home=here, ledger=rebased(record.ledger, Path(record.home.path), self.data))

    def _without_ports(self, record: ClusterRecord) -> ClusterRecord:
        """The record of a cluster that shall have other ports; nothing of it may run."""
        if redis_servers(self.data):
            raise DataError(f"a Redis of {self.data} still runs: 'tallystick down' first")
        for configuration in self.data.glob(f"shard-*/{REDIS_CONFIGURATION}"):
            configuration.unlink()
        return replace(record, ports={})

    def _stop(self, keep: tuple[ProcessRecord, ...] = ()) -> list[str]:
        record = cluster_file.read(self.data)
        if record is None:
            return []
        kept = {process.name for process in keep}
        stopped = stop_processes(self.data, record, keep=kept)
        self._starter.exited()
        cluster_file.write(self.data, replace(record, processes=keep, ready=bool(keep)))
        return stopped

    def _identity(self, name: str) -> ProcessIdentity:
        if name.startswith(_REDIS_PREFIX):
            for identity, found in redis_servers(self.data).items():
                if found == name:
                    return identity
        for process in living(self.data, self.record):
            if process.name == name:
                return process.identity
        raise NoClusterError(f"{name} does not run in {self.data}")

    def _await_redis(self, name: str) -> None:
        shard = name.removeprefix(_REDIS_PREFIX)
        deadline = time.monotonic() + self._ready_timeout_seconds
        with membership(self.zookeeper_address) as members:
            while True:
                member = (members.read([Kind.SHARD_NODE]) or {}).get(shard)
                redis = redis_record(member) if member is not None else None
                if redis is not None:
                    break
                if time.monotonic() > deadline:
                    raise StartError(f"{name} did not come back within {self._ready_timeout_seconds:.0f} s")
                time.sleep(_POLL_SECONDS)
        with _locked(self.data):
            cluster_file.write(self.data, self.record.with_processes([redis]))


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    """One launcher at a time works on a data folder; a second one waits until the first is done."""
    with (data / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
