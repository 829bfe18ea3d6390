"""DATA/cluster.json: whose folder it is; what runs, where, as which process; what a later start needs.

Written whole to a second file and renamed, so a reader sees the old content or the new one. After the cluster
has stopped the file stays, without processes: the shape of the cluster and the ports are kept there.

Invariant: a copy of a data folder is never taken for the cluster that it was copied from. So the file says
which folder it belongs to (:class:`~deploy.local.home.Home`), `read` refuses it anywhere else, and a process
counts as this cluster's only while it works in this very folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from deploy.errors import DataError, NoClusterError
from deploy.local import zookeeper
from deploy.local.home import Home
from deploy.local.processes import ProcessIdentity, is_alive, works_in

FILE_NAME = "cluster.json"
ZOOKEEPER_FOLDER = "zookeeper"
DEFAULT_ARCHIVERS = 1
_FORMAT = 1


class Kind(StrEnum):
    """What a process is. In the order in which they start; they stop in the reverse one."""

    ZOOKEEPER = "zookeeper"
    REDIS = "redis"
    SHARD_NODE = "shard-node"
    ARCHIVER = "archiver"
    COORDINATOR = "coordinator"
    ROUTER = "router"


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process of the cluster.

    ``address`` is host:port of what it serves; a shard node's is its Redis, an archiver serves nothing.
    """

    name: str
    kind: Kind
    address: str
    pid: int
    started: str

    @property
    def identity(self) -> ProcessIdentity:
        """The process itself, not whoever has its number now."""
        return ProcessIdentity(self.pid, self.started)

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return is_alive(self.identity)


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """The content of the file. ``ready`` is set once every part has answered."""

    shards: int
    routers: int = 1
    coordinators: int = 1
    dedupe_window_seconds: int | None = None
    # None at all: the ledger stays on the shards, and nobody serves history.
    archivers: int = DEFAULT_ARCHIVERS
    # Where the ledger database is; empty: in the data folder. May hold a password.
    ledger: str = ""
    # Entries that may wait on a shard for the archiver; the shard node's own default when None.
    max_backlog: int | None = None
    # How far archivers give way to the others on a busy machine, as nice(1) has it; 0: not at all.
    archiver_niceness: int = 0
    # The port of every process that listens, by its name; a shard's is that of its Redis. Kept for good.
    ports: Mapping[str, int] = field(default_factory=dict)
    ready: bool = False
    processes: tuple[ProcessRecord, ...] = field(default=())
    # The folder that this file belongs to, from the first start on; None in files of before it was kept.
    home: Home | None = None
    # As the topology has it; empty before the first start.
    cluster_id: str = ""
    # The id that an adoption which is not finished gives the cluster; empty at all other times.
    adopting: str = ""

    @property
    def zookeeper(self) -> str:
        """host:port of ZooKeeper."""
        return f"127.0.0.1:{self.ports['zookeeper']}"

    def of_kind(self, kind: Kind) -> list[ProcessRecord]:
        """The processes of one kind, in the order of their names."""
        return sorted(
            (record for record in self.processes if record.kind is kind),
            key=lambda record: (len(record.name), record.name),
        )

    def process(self, name: str) -> ProcessRecord:
        """The process of that name; NoClusterError when the cluster has none."""
        for record in self.processes:
            if record.name == name:
                return record
        raise NoClusterError(f"the cluster has no process named {name!r}")

    def with_processes(self, records: Iterable[ProcessRecord]) -> ClusterRecord:
        """This record with these processes in place of those of the same names."""
        new = {record.name: record for record in records}
        return replace(self, processes=(*self.without(new).processes, *new.values()))

    def without(self, names: Collection[str]) -> ClusterRecord:
        """This record less the processes of those names."""
        return replace(self, processes=tuple(r for r in self.processes if r.name not in names))

    @property
    def router_addresses(self) -> list[str]:
        """host:port of every router."""
        return [record.address for record in self.of_kind(Kind.ROUTER)]


def read(data: Path) -> ClusterRecord | None:
    """The record in a data folder; None when the folder has never held a cluster.

    Raises DataError when the file is there and cannot be understood, when the folder is a copy of another,
    or when its adoption is not finished.
    """
    record = read_anywhere(data)
    if record is not None and record.adopting:
        raise DataError(
            f"the adoption of {data} as cluster {record.adopting} was not finished: run "
            f"'tallystick adopt --data {data}' again"
        )
    origin = origin_of_copy(data, record)
    if origin is not None:
        raise DataError(
            f"{data} is a copy of the data of cluster {_named(record)}, whose place is {origin}; neither was "
            f"touched. To make the copy a cluster of its own: 'tallystick adopt --data {data}'. If this is "
            f"the cluster itself, moved or restored, and the original is no more: "
            f"'tallystick adopt --moved --data {data}'"
        )
    return record


def read_anywhere(data: Path) -> ClusterRecord | None:
    """As `read`, also of a copy and of a folder whose adoption is not finished."""
    path = data / FILE_NAME
    try:
        content = json.loads(path.read_bytes())
        return _parse(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as a cluster file: {error!r}") from error


def origin_of_copy(data: Path, record: ClusterRecord | None) -> Path | None:
    """The place of the cluster that ``data`` is a copy of; None when it is no copy.

    ZooKeeper's configuration names its folder too, which tells of copies whose cluster.json is from before it
    named a place, was removed, or was edited to fit.
    """
    home = None if record is None else record.home
    configured = zookeeper.configured_folder(data / ZOOKEEPER_FOLDER)
    place = None if configured is None else configured.parent
    elsewhere = place is not None and place.resolve() != data.resolve()
    if home is not None and not home.is_at(data):
        return place if place is not None and elsewhere else Path(home.path)
    if place is None or not elsewhere or (home is not None and not _is_of(record, place, data)):
        return None
    return place


def _is_of(record: ClusterRecord | None, place: Path, data: Path) -> bool:
    """Whether the cluster of ``record`` is also in ``place``, and that is not ``data`` by another path."""
    try:
        present = read_anywhere(place)
        return (
            present is not None
            and record is not None
            and present.cluster_id == record.cluster_id
            and not place.samefile(data)
        )
    except (DataError, OSError):
        return False


def missing_parts(record: ClusterRecord) -> list[tuple[str, Kind]]:
    """What the record's shape asks for and its processes lack, in the order in which it starts."""
    wanted = [("zookeeper", Kind.ZOOKEEPER)]
    wanted += [(f"shard-{i}", Kind.SHARD_NODE) for i in range(record.shards)]
    wanted += [(f"archiver-{i}", Kind.ARCHIVER) for i in range(record.archivers)]
    wanted += [(f"coordinator-{i}", Kind.COORDINATOR) for i in range(record.coordinators)]
    wanted += [(f"router-{i}", Kind.ROUTER) for i in range(record.routers)]
    present = {process.name for process in record.processes}
    return [(name, kind) for name, kind in wanted if name not in present]


def living(data: Path, record: ClusterRecord) -> list[ProcessRecord]:
    """The processes of the record that run, and surely are of the cluster in this folder.

    By process id, start time and working folder: the record may be a copy, or the folder a restored one whose
    predecessor's processes run on. Raises DataError when some run that an earlier version started, which says
    nowhere in the folder that it is theirs: that one started them in any folder.
    """
    alive = [process for process in record.processes if process.is_alive()]
    if record.home is not None:
        return [process for process in alive if works_in(process.pid, _folder_of(data, process))]
    configured = zookeeper.configured_folder(data / ZOOKEEPER_FOLDER)
    if alive and (configured is None or configured.parent.resolve() != data.resolve()):
        names = ", ".join(f"{process.name} (process {process.pid})" for process in alive)
        raise DataError(
            f"{names} may be of another folder, of which {data} is a copy: nothing in it tells that it is "
            f"the place of its cluster; stop them by hand if they are of no other"
        )
    return alive


def _folder_of(data: Path, process: ProcessRecord) -> Path:
    """Where a process works: a Redis in its shard's folder, all others in the data folder."""
    return data / process.name.partition(":")[2] if process.kind is Kind.REDIS else data


def _named(record: ClusterRecord | None) -> str:
    return (record.cluster_id if record is not None else "") or "(of an unknown id)"


def write(data: Path, record: ClusterRecord) -> None:
    """Replaces the record, atomically."""
    path = data / FILE_NAME
    content = {
        "format": _FORMAT,
        "zookeeper": record.zookeeper,
        "router_addresses": record.router_addresses,
        **asdict(record),
    }
    scratch = path.with_name(f".{FILE_NAME}.{os.getpid()}")
    # For its owner alone: the ledger's URL may hold a password.
    scratch.touch(mode=0o600)
    scratch.write_text(json.dumps(content, indent=2) + "\n")
    scratch.replace(path)


def _parse(content: Mapping[str, Any]) -> ClusterRecord:
    if content["format"] != _FORMAT:
        raise ValueError(f"format {content['format']}, this version of tallystick reads {_FORMAT}")
    processes = tuple(
        ProcessRecord(p["name"], Kind(p["kind"]), p["address"], int(p["pid"]), p["started"])
        for p in content["processes"]
    )
    return ClusterRecord(
        shards=int(content["shards"]),
        routers=int(content["routers"]),
        coordinators=int(content["coordinators"]),
        dedupe_window_seconds=content["dedupe_window_seconds"],
        # Files of before there were archivers have neither.
        archivers=int(content.get("archivers", DEFAULT_ARCHIVERS)),
        ledger=str(content.get("ledger", "")),
        # Files of before these could be chosen have neither.
        max_backlog=content.get("max_backlog"),
        archiver_niceness=int(content.get("archiver_niceness", 0)),
        ports={name: int(port) for name, port in content["ports"].items()},
        ready=bool(content["ready"]),
        processes=processes,
        # Files of before a folder knew its own place have none of these.
        home=None if content.get("home") is None else Home(**content["home"]),
        cluster_id=str(content.get("cluster_id", "")),
        adopting=str(content.get("adopting", "")),
    )
