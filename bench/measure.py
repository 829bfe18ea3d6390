"""The measurement: a local cluster, the load process, CPU time read around every run, the proof at the end.

A figure comes out only when it is worth something: every shard syncs each write to its disk before it
answers; each transfer that the client counted moved money exactly once; no money was made or lost.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import grpc
import redis

from bench.client import Failed, LoadSettings, Moves, OpenAccounts, Order, ReadAccounts, Run, RunResult, serve
from bench.cpu import CpuSpent, read_cpu
from bench.errors import BenchError
from bench.workload import CrossShare, slot_owners
from deploy.cli_operate import verify_balance
from deploy.cluster_file import Kind, ProcessRecord
from deploy.connection import CALL_TIMEOUT_SECONDS, cluster_service, explain
from deploy.launcher import ClusterSpec, LocalCluster
from tallystick.v1 import cluster_pb2

# On top of a run's own bound: its last batches, and a machine that is busy with something else.
_ANSWER_SECONDS = 60.0
# Opening or reading all accounts, a million of them on a slow machine.
_ACCOUNTS_SECONDS = 300.0
_JOIN_SECONDS = 10.0
CLIENT = "client"

A = TypeVar("A", Moves, RunResult)


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """What to measure. A run ends after ``seconds``, or after ``transfers`` when that is given."""

    shards: int
    routers: int
    coordinators: int
    accounts: int
    batch: int
    concurrency: int
    seconds: float
    transfers: int | None
    runs: int
    seed: int
    cross_share: CrossShare
    hot_payee: bool
    archivers: int
    # A temporary folder when None, removed at the end unless ``keep``.
    data: Path | None
    keep: bool


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run: what the client saw, and the CPU time it took, by process."""

    result: RunResult
    cpu: CpuSpent


@dataclass(frozen=True, slots=True)
class Measurement:
    """All runs, and where they ran."""

    runs: tuple[MeasuredRun, ...]
    redis_version: str
    file_system: str
    verified: cluster_pb2.VerifyResult


def measure(settings: BenchSettings, progress: Callable[[str], None]) -> Measurement:
    """Starts the cluster, runs the load, verifies, stops everything.

    Raises BenchError when the figures are not worth printing, DeployError when the cluster does not start.
    """
    with _data_folder(settings, progress) as data:
        progress("starting the cluster")
        spec = ClusterSpec(
            settings.shards, settings.routers, settings.coordinators, archivers=settings.archivers
        )
        with LocalCluster(data, spec) as cluster:
            try:
                return _measure(settings, cluster, progress)
            except grpc.RpcError as error:
                raise BenchError(explain(error)) from error


def _measure(settings: BenchSettings, cluster: LocalCluster, progress: Callable[[str], None]) -> Measurement:
    redis_version = _check_durability(cluster.shard_addresses)
    with cluster_service(cluster.router_addresses) as service:
        topology = service.GetTopology(cluster_pb2.GetTopologyRequest(), timeout=CALL_TIMEOUT_SECONDS)
        load = LoadSettings(
            cluster.router_addresses,
            slot_owners(topology),
            settings.accounts,
            settings.batch,
            settings.concurrency,
            settings.seed,
            settings.cross_share,
            settings.hot_payee,
        )
        with LoadProcess(load) as client:
            progress(f"opening {settings.accounts:,} accounts")
            before = client.ask(OpenAccounts(), Moves, _ACCOUNTS_SECONDS)
            pids = {CLIENT: client.pid} | {_role(p): p.pid for p in cluster.record.processes}
            runs = []
            for number in range(1, settings.runs + 1):
                progress(f"run {number} of {settings.runs}")
                runs.append(_run(Run(number, settings.seconds, settings.transfers), client, pids))
            progress("verifying")
            after = client.ask(ReadAccounts(), Moves, _ACCOUNTS_SECONDS)
        _check_moves(after.changes - before.changes, sum(run.result.committed for run in runs))
        verified = _verified(verify_balance(service))
    return Measurement(tuple(runs), redis_version, _file_system(cluster.data), verified)


def _role(process: ProcessRecord) -> str:
    """The name a process has in the figures: a shard's own name would not say that it is not the Redis."""
    return f"shard-node:{process.name}" if process.kind is Kind.SHARD_NODE else process.name


def _run(order: Run, client: LoadProcess, pids: Mapping[str, int]) -> MeasuredRun:
    before = read_cpu(pids)
    result = client.ask(order, RunResult, order.seconds + _ANSWER_SECONDS)
    cpu = before.until(read_cpu(pids))
    if not result.committed:
        raise BenchError("nothing was committed: the run was too short, or nobody had funds")
    return MeasuredRun(result, cpu)


class LoadProcess:
    """The load in a process of its own, which ends with this context."""

    def __init__(self, settings: LoadSettings) -> None:
        # Spawned, not forked: it must be as fresh as a service's own process, and gRPC does not fork well.
        context = multiprocessing.get_context("spawn")
        self._orders, self._far_end = context.Pipe()
        self._process = context.Process(
            target=serve, args=(self._far_end, settings), name="bench-client", daemon=True
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid or 0

    def ask(self, order: Order, kind: type[A], timeout_seconds: float) -> A:
        """Sends an order and waits for its answer; BenchError when it fails, or takes too long."""
        try:
            self._orders.send(order)
            if not self._orders.poll(timeout_seconds):
                raise BenchError(f"the load process did not answer within {timeout_seconds:.0f} s")
            answer = self._orders.recv()
        except (EOFError, OSError) as error:
            self._process.join(_JOIN_SECONDS)
            raise BenchError(f"the load process ended by itself, status {self._process.exitcode}") from error
        if isinstance(answer, Failed):
            raise BenchError(answer.message)
        if not isinstance(answer, kind):
            raise TypeError(f"{order} was answered with {answer}")
        return answer

    def __enter__(self) -> Self:
        self._process.start()
        # Only the process itself may hold its end, or its death would go unnoticed.
        self._far_end.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._orders.close()
        # It ends when it sees the closed pipe; in the middle of a failed run nobody waits for it.
        self._process.join(_JOIN_SECONDS if error is None else 0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextmanager
def _data_folder(settings: BenchSettings, progress: Callable[[str], None]) -> Iterator[Path]:
    """The folder for the cluster. One that was named, or is to be kept, stays."""
    if settings.data is not None:
        yield settings.data
    elif settings.keep:
        folder = tempfile.mkdtemp(prefix="tallystick-bench-")
        progress(f"the cluster's data will stay in {folder}")
        yield Path(folder)
    else:
        with tempfile.TemporaryDirectory(prefix="tallystick-bench-") as passing:
            yield Path(passing)


def _check_durability(addresses: Mapping[str, str]) -> str:
    """Raises BenchError unless every shard syncs each write; the version of Redis."""
    versions = set()
    for shard, address in addresses.items():
        host, _, port = address.rpartition(":")
        with redis.Redis(host=host, port=int(port), decode_responses=True) as connection:
            settings = {}
            for name in ("appendonly", "appendfsync"):
                settings.update(connection.config_get(name))
            versions.add(connection.info("server")["redis_version"])
        if settings != {"appendonly": "yes", "appendfsync": "always"}:
            raise BenchError(f"{shard} does not sync every write: {settings}")
    return ", ".join(sorted(versions))


def _check_moves(changes: int, committed: int) -> None:
    """Each committed transfer changed two accounts, once: their versions count that."""
    if changes != 2 * committed:
        raise BenchError(f"{committed} transfers were committed, but accounts changed {changes} times")


def _verified(result: cluster_pb2.VerifyResult) -> cluster_pb2.VerifyResult:
    """Raises BenchError unless every currency sums to zero, and nothing was left in flight."""
    if result.verdict != cluster_pb2.VERDICT_BALANCED:
        raise BenchError(f"not balanced: {cluster_pb2.Verdict.Name(result.verdict)}\n{result}")
    return result


def _file_system(folder: Path) -> str:
    """The kind of file system that a folder is on: a sync costs nothing on tmpfs, and proves nothing."""
    kind, longest = "unknown", -1
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount_point, found, *_ = line.split()
        mount = Path(mount_point.encode().decode("unicode_escape"))
        if folder.is_relative_to(mount) and len(mount.parts) >= longest:
            kind, longest = found, len(mount.parts)
    return kind
