"""The measurement: a cluster, the load processes, CPU time read around every run, the proof at the end.

A figure comes out only when it is worth something: every shard syncs each write to its disk before it
answers; each transfer that the client counted moved money exactly once; no money was made or lost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import grpc
import redis

from bench.cluster import (
    CpuSpent,
    Machine,
    check_balance,
    check_durability,
    check_moves,
    local_cluster,
    process_ids,
    read_backlog,
    read_cpu,
    read_topology,
)
from bench.errors import BenchError
from bench.load.client import LoadHandler, LoadSettings
from bench.load.processes import Load, RunResult, load_processes
from bench.load.worker import Handler
from bench.settings import BenchSettings
from bench.transfers import make_accounts, slot_owners
from deploy.local import cluster_service, explain
from tallystick.v1.cluster_pb2_grpc import ClusterServiceStub

# A committed transfer makes two: one for the payer, one for the payee.
ENTRIES_A_TRANSFER = 2
_UNKNOWN = "unknown"
# Archivers store some 50,000 entries a second; a million accounts are not worth waiting for.
_ARCHIVED_SECONDS = 30.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Archiving:
    """What archivers did during a run. ``backlog_growth`` is in entries, below zero when they caught up."""

    archived_entries: int
    backlog_growth: int
    backlog_entries: int


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run: what the clients saw, the CPU time it took by process, what was archived meanwhile."""

    result: RunResult
    cpu: CpuSpent
    archiving: Archiving


@dataclass(frozen=True, slots=True)
class Measurement:
    """All runs, and where they ran. ``accounts`` are all that were opened, and found in balance.

    Of an external cluster the machine is not known, ``durable`` only when its shards could be asked, and
    CPU time is that of the clients alone.
    """

    runs: tuple[MeasuredRun, ...]
    machine: Machine
    accounts: int
    shards: int
    durable: bool
    external: bool


@dataclass(frozen=True, slots=True)
class _Target:
    """The cluster that is measured."""

    routers: list[str]
    machine: Machine
    durable: bool
    pids: Mapping[str, int] = field(default_factory=dict)


def measure(
    settings: BenchSettings,
    progress: Callable[[str], None],
    make: Callable[[LoadSettings], Handler] = LoadHandler,
    warm_up_seconds: float = 0.0,
) -> Measurement:
    """Starts the cluster, runs the load, verifies, stops everything.

    Raises BenchError when the figures are not worth printing, DeployError when the cluster does not start.

    Args:
        settings: what to measure.
        progress: gets what is done next, in words.
        make: the load process; it carries out the orders of `bench.load.client`.
        warm_up_seconds: how long calls are sent before the first run.
    """
    target = _external if settings.routers_at else _local
    try:
        with (
            target(settings, progress) as cluster,
            cluster_service(cluster.routers) as service,
            load_processes(settings, cluster.routers, slot_owners(read_topology(service)), make) as load,
        ):
            return _measure(settings, cluster, service, load, warm_up_seconds, progress)
    except grpc.RpcError as error:
        raise BenchError(explain(error)) from error


def _measure(
    settings: BenchSettings,
    cluster: _Target,
    service: ClusterServiceStub,
    load: Load,
    warm_up_seconds: float,
    progress: Callable[[str], None],
) -> Measurement:
    total = len(make_accounts(settings.shape).ids)
    progress(f"opening {total:,} accounts")
    before = load.open_accounts()
    if settings.archivers and not settings.routers_at:
        _await_archived(service, progress)
    committed = load.run(0, warm_up_seconds, None).committed if warm_up_seconds else 0
    pids = {**load.pids, **cluster.pids}
    runs = []
    for number in range(1, settings.runs + 1):
        progress(f"run {number} of {settings.runs}")
        runs.append(_run(number, settings, load, service, pids))
    progress("verifying")
    committed += sum(run.result.committed for run in runs)
    check_moves(load.read_accounts() - before, committed)
    check_balance(cluster.routers)
    return Measurement(
        tuple(runs),
        cluster.machine,
        total,
        len(read_topology(service).shards),
        cluster.durable,
        external=bool(settings.routers_at),
    )


def _run(
    number: int,
    settings: BenchSettings,
    load: Load,
    service: ClusterServiceStub,
    pids: Mapping[str, int],
) -> MeasuredRun:
    backlog_before = read_backlog(service)
    before = read_cpu(pids)
    result = load.run(number, settings.longest_seconds, settings.transfers)
    cpu = before.until(read_cpu(pids))
    backlog = read_backlog(service)
    if not result.committed and settings.rejections < 1:
        raise BenchError("nothing was committed: the run was too short, or nobody had funds")
    growth = backlog - backlog_before
    archived = ENTRIES_A_TRANSFER * result.committed - growth
    return MeasuredRun(result, cpu, Archiving(archived, growth, backlog))


def _await_archived(service: ClusterServiceStub, progress: Callable[[str], None]) -> None:
    """Waits until nothing waits to be archived: what opening accounts left is no part of the first run."""
    deadline = time.monotonic() + _ARCHIVED_SECONDS
    while backlog := read_backlog(service):
        if time.monotonic() > deadline:
            progress(f"{backlog:,} entries of opening the accounts are archived during the first run")
            return
        time.sleep(_POLL_SECONDS)


@contextmanager
def _local(settings: BenchSettings, progress: Callable[[str], None]) -> Iterator[_Target]:
    """A cluster of its own on this machine."""
    with local_cluster(settings, progress) as cluster:
        machine = check_durability(cluster.shard_addresses)
        yield _Target(cluster.router_addresses, machine, durable=True, pids=process_ids(cluster.record))


@contextmanager
def _external(settings: BenchSettings, progress: Callable[[str], None]) -> Iterator[_Target]:
    """A cluster that runs already."""
    routers = [address.strip() for address in settings.routers_at.split(",") if address.strip()]
    with cluster_service(routers) as service:
        topology = read_topology(service)
    try:
        machine = check_durability({shard.shard_id: shard.primary for shard in topology.shards})
    except redis.RedisError as error:
        progress(f"whether shards sync every write was not checked: {error}")
        yield _Target(routers, Machine(os.cpu_count() or 1, _UNKNOWN, _UNKNOWN), durable=False)
    else:
        # The folder that a shard names is on a machine of its own.
        yield _Target(routers, replace(machine, file_system=_UNKNOWN), durable=True)
