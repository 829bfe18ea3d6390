"""A local cluster to measure: started in a temporary folder, durable, with the processes it is made of.

Figures of a cluster count only when every shard syncs each write before it answers, when each transfer that
was counted moved money once, and when none was made or lost; the checks for that are here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import grpc
import redis

from bench.command import Progress
from bench.errors import BenchError
from bench.settings import BenchSettings
from bench.transfers import CURRENCY, MINIMUM_BALANCE
from deploy.local import (
    CALL_TIMEOUT_SECONDS,
    ClusterRecord,
    ClusterSpec,
    Kind,
    LocalCluster,
    cluster_service,
    explain,
)
from deploy.terminal import verify_balance
from tallystick import NewAccount, SyncClient
from tallystick.v1 import cluster_pb2
from tallystick.v1.cluster_pb2_grpc import ClusterServiceStub

# Sixteen shards, their nodes and Redis servers start on as few as two CPUs.
_READY_SECONDS = 180.0
# For each piece of 8192 accounts: the clusters measured here may be slow, they do not hang.
_ACCOUNTS_TIMEOUT_SECONDS = 60.0
_FOLDER = "tallystick-bench-"
_DURABLE = {"appendonly": "yes", "appendfsync": "always"}


class Part(StrEnum):
    """What a process is a part of, in the figures. The order is that of the tables."""

    CLIENT = "client"
    ROUTER = "router"
    COORDINATOR = "coordinator"
    SHARD = "shard"
    SHARD_NODE = "shard node"
    ARCHIVER = "archiver"
    ZOOKEEPER = "zookeeper"


# By the first word of a process' name in the figures of a cluster: "redis:shard-0", "router-1", "client".
_PARTS = {part.replace(" ", "-"): part for part in Part if part is not Part.SHARD} | {"redis": Part.SHARD}


@dataclass(frozen=True, slots=True)
class Machine:
    """What was measured on."""

    cpus: int
    redis: str
    file_system: str

    def __str__(self) -> str:
        return f"Redis {self.redis}, appendfsync always on {self.file_system}, {self.cpus} CPUs"


@contextmanager
def local_cluster(settings: BenchSettings, progress: Progress) -> Iterator[LocalCluster]:
    """A cluster of the settings' shape that runs for as long as the block lasts.

    Raises BenchError for a failed call within the block, DeployError when the cluster does not start.
    """
    spec = ClusterSpec(
        settings.shards,
        settings.routers,
        settings.coordinators,
        archivers=settings.archivers,
        max_backlog=settings.max_backlog,
        archiver_niceness=settings.archiver_niceness,
    )
    with data_folder(settings.data, progress, keep=settings.keep) as folder:
        progress(f"starting a cluster of {spec.shards} shard{'s'[: spec.shards != 1]}")
        with LocalCluster(folder, spec, ready_timeout_seconds=_READY_SECONDS) as cluster:
            try:
                yield cluster
            except grpc.RpcError as error:
                raise BenchError(explain(error)) from error
            except redis.RedisError as error:
                raise BenchError(f"a shard's Redis did not answer: {error}") from error


@contextmanager
def data_folder(named: Path | None, progress: Progress, *, keep: bool = False) -> Iterator[Path]:
    """The folder for a cluster: a temporary one, unless it is named. One that is named, or kept, stays."""
    if named is not None:
        yield named
    elif keep:
        folder = tempfile.mkdtemp(prefix=_FOLDER)
        progress(f"the cluster's data will stay in {folder}")
        yield Path(folder)
    else:
        with tempfile.TemporaryDirectory(prefix=_FOLDER) as passing:
            yield Path(passing)


def read_topology(service: ClusterServiceStub) -> cluster_pb2.Topology:
    """The shards and their slots, as a router knows them."""
    topology: cluster_pb2.Topology = service.GetTopology(
        cluster_pb2.GetTopologyRequest(), timeout=CALL_TIMEOUT_SECONDS
    )
    return topology


def read_backlog(service: ClusterServiceStub) -> int:
    """How many entries wait to be archived, on all shards. Raises BenchError when one does not say."""
    answer = service.ListBacklogs(cluster_pb2.ListBacklogsRequest(), timeout=CALL_TIMEOUT_SECONDS)
    if unknown := [backlog.shard_id for backlog in answer.backlogs if backlog.unknown]:
        raise BenchError(f"{', '.join(unknown)}: it is not known how much waits to be archived")
    return sum(backlog.entries_waiting for backlog in answer.backlogs)


def process_ids(record: ClusterRecord) -> dict[str, int]:
    """The process ids of a cluster, by the names that its processes have in the figures."""
    return {
        # A shard's own name would not say that it is not the Redis.
        f"shard-node:{process.name}" if process.kind is Kind.SHARD_NODE else process.name: process.pid
        for process in record.processes
    }


def part_of(process: str) -> Part:
    """The part that a process, named as in the figures, is of; BenchError for one of an unknown name."""
    # A shard's name follows a colon; other processes of a kind are numbered.
    found = _PARTS.get(process.partition(":")[0].rstrip("-0123456789"))
    if found is None:
        raise BenchError(f"{process} is no process of a cluster")
    return found


def by_part(by_process: Mapping[str, float]) -> dict[Part, float]:
    """The sums over the processes of each part, in the order of the parts; those that are there."""
    sums: dict[Part, float] = {}
    for process, value in by_process.items():
        part = part_of(process)
        sums[part] = sums.get(part, 0.0) + value
    return {part: sums[part] for part in Part if part in sums}


def check_durability(addresses: Mapping[str, str]) -> Machine:
    """Raises BenchError unless every shard syncs each write; what the cluster runs on."""
    versions = set()
    for shard, address in addresses.items():
        with shard_redis(address) as connection:
            found = {}
            for name in _DURABLE:
                found.update(connection.config_get(name))
            versions.add(str(connection.info("server")["redis_version"]))
            folder = Path(str(connection.config_get("dir")["dir"]))
        if found != _DURABLE:
            raise BenchError(f"{shard} does not sync every write: {found}")
    return Machine(os.cpu_count() or 1, ", ".join(sorted(versions)), file_system(folder))


def shard_redis(address: str) -> redis.Redis:
    """A connection to a shard's Redis, to look and not to write. Use it as a context manager."""
    host, _, port = address.rpartition(":")
    return redis.Redis(host=host, port=int(port), decode_responses=True)


def open_accounts(client: SyncClient, ids: Sequence[str], minimum_balance: str = MINIMUM_BALANCE) -> None:
    """Opens the accounts, each with a credit line that no run comes near; BenchError when one is refused."""
    new = [NewAccount(account_id, CURRENCY, minimum_balance) for account_id in ids]
    for result in client.open_accounts(new, timeout_s=_ACCOUNTS_TIMEOUT_SECONDS):
        if result.error is not None:
            raise BenchError(f"an account was refused: {result.error}")


def changes(client: SyncClient, ids: Sequence[str]) -> int:
    """How many changes the accounts together have seen: a transfer makes two."""
    seen = 0
    for result in client.get_accounts(ids, timeout_s=_ACCOUNTS_TIMEOUT_SECONDS):
        if result.account is None:
            raise BenchError(f"an account could not be read: {result.error}")
        seen += result.account.version
    return seen


def check_moves(seen: int, committed: int) -> None:
    """Each committed transfer changed two accounts, once: their versions count that."""
    if seen != 2 * committed:
        raise BenchError(f"{committed} transfers were committed, but accounts changed {seen} times")


def check_balance(routers: list[str]) -> None:
    """Raises BenchError unless every currency sums to zero, and nothing was left in flight."""
    with cluster_service(routers) as service:
        result = verify_balance(service)
    if result.verdict != cluster_pb2.VERDICT_BALANCED:
        raise BenchError(f"not balanced: {cluster_pb2.Verdict.Name(result.verdict)}\n{result}")


def file_system(folder: Path) -> str:
    """The kind of file system that a folder is on: a sync costs nothing on tmpfs, and proves nothing."""
    kind, longest = "unknown", -1
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount_point, found, *_ = line.split()
        mount = Path(mount_point.encode().decode("unicode_escape"))
        if folder.is_relative_to(mount) and len(mount.parts) >= longest:
            kind, longest = found, len(mount.parts)
    return kind
