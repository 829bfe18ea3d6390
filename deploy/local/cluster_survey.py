"""What of a cluster should run, and what does: the facts behind `tallystick status`, and when `up` is ready.

Of a cluster on this machine, cluster.json says what should run; the process table, ZooKeeper, and every
router and coordinator say what does. Any of them may be away: the others are asked all the same. Of a cluster
elsewhere one router tells what it knows (`deploy.local.remote_survey`).

Invariant: what could not be asked is UNKNOWN, never taken for well or for missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.errors import StartError
from deploy.local import zookeeper
from deploy.local.cluster_file import ClusterRecord, Kind, ProcessRecord, living, missing_parts
from deploy.local.connection import CALL_TIMEOUT_SECONDS, CONNECT_SECONDS, channel_to, said
from deploy.local.membership import Member, membership
from deploy.local.stopper import redis_servers
from deploy.moments import moment_text
from deploy.quiet_logs import quiet_logs
from shard_node.cluster import Registry
from shard_node.errors import ShardNodeError
from tallystick.v1 import cluster_pb2
from tallystick.v1.cluster_pb2_grpc import ClusterServiceStub

# More are not counted: `tallystick in-doubt` lists them.
_IN_DOUBT_LIMIT = 10_000
_SERVICE = "tallystick.v1.ClusterService"
# Stands for a router where none answers.
_DIRECTLY = "this command"


class State(StrEnum):
    """What is known of one part. All but PRESENT and UNKNOWN mean that something is wrong."""

    PRESENT = "present"
    # Its process runs, but it has not registered: it starts, or has lost touch with ZooKeeper.
    UNREGISTERED = "not registered"
    RESTARTING = "restarting"
    SILENT = "does not answer"
    # It says itself that it cannot do its work.
    FAILING = "failing"
    MISSING = "missing"
    UNKNOWN = "unknown"


class Verdict(StrEnum):
    """What is known of the whole."""

    WELL = "well"
    IMPAIRED = "impaired"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Part:
    """One part. ``how`` says why, and how that is known, when its state is not PRESENT."""

    name: str
    kind: Kind
    state: State
    address: str = ""
    pid: int | None = None
    how: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """The parts, and what a router or coordinator told of the whole; ``topology`` is None when none did."""

    cluster_id: str
    parts: tuple[Part, ...]
    topology: cluster_pb2.Topology | None = None
    # What waits to be archived, of the shards that told.
    backlogs: Mapping[str, cluster_pb2.Backlog] = field(default_factory=dict)
    # None: not known.
    in_doubt: int | None = None
    # What else is not known, and why.
    notes: tuple[str, ...] = ()

    @property
    def full(self) -> frozenset[str]:
        """The shards that refuse every transfer, for as much waits to be archived as they may keep."""
        return frozenset(
            shard
            for shard, one in self.backlogs.items()
            if one.entries_limit and one.entries_waiting >= one.entries_limit
        )

    @property
    def verdict(self) -> Verdict:
        """WELL only when all is known, and well."""
        states = {part.state for part in self.parts}
        if self.full or states - {State.PRESENT, State.UNKNOWN}:
            return Verdict.IMPAIRED
        if State.UNKNOWN in states or self.topology is None or self.in_doubt is None:
            return Verdict.UNKNOWN
        return Verdict.WELL


@dataclass(frozen=True, slots=True)
class Answer:
    """What one router or coordinator answered; nothing but ``problem`` when it did not."""

    problem: str = ""
    topology: cluster_pb2.Topology = field(default_factory=cluster_pb2.Topology)
    backlogs: Mapping[str, cluster_pb2.Backlog] = field(default_factory=dict)


def survey(data: Path, record: ClusterRecord) -> Survey:
    """Looks at the cluster in a data folder on this machine, whatever of it is away."""
    alive = {process.name: process for process in living(data, record)}
    for identity, name in redis_servers(data).items():
        alive[name] = ProcessRecord(name, Kind.REDIS, "", identity.pid, identity.started)
    servers = {p.name: p.address for p in alive.values() if p.kind in {Kind.ROUTER, Kind.COORDINATOR}}
    answers = _ask(servers)
    members = _members(record) if "zookeeper" in alive else None
    speaker = next((name for name, answer in answers.items() if not answer.problem), "")
    if not speaker and members is not None:
        answers[_DIRECTLY] = _ask_shards(record.zookeeper)
    look = _Look(data, record, alive, answers, members)
    wanted = missing_parts(replace(record, processes=()))
    parts = tuple(part for name, kind in wanted for part in look.parts(name, kind))
    answer = answers.get(speaker or _DIRECTLY)
    if answer is None or answer.problem:
        note = "of slots, backlogs and what is in doubt nothing is known: nobody answers who could tell"
        return Survey(record.cluster_id, parts, notes=(note,))
    in_doubt, problem = None, "what is in doubt is not known: no router and no coordinator answers"
    if speaker:
        with channel_to(servers[speaker]) as channel:
            in_doubt, problem = count_in_doubt(ClusterServiceStub(channel))
    known = {shard: backlog for shard, backlog in answer.backlogs.items() if not backlog.unknown}
    return Survey(record.cluster_id, parts, answer.topology, known, in_doubt, (problem,) if problem else ())


def count_in_doubt(service: ClusterServiceStub) -> tuple[int | None, str]:
    """How many transfers are in doubt; None and why when that is not known."""
    request = cluster_pb2.ListInDoubtRequest(limit=_IN_DOUBT_LIMIT)
    try:
        return len(service.ListInDoubt(request, timeout=CALL_TIMEOUT_SECONDS).transfers), ""
    except grpc.RpcError as error:
        return None, f"what is in doubt is not known: {said(error)}"


def redis_part(name: str, address: str, pid: int | None, answers: Mapping[str, Answer]) -> Part:
    """A shard's Redis, by whether each router and coordinator gets an answer from it, at their epoch."""
    shard = name.partition(":")[2]
    silent = [
        server for server, one in answers.items() if shard not in one.backlogs or one.backlogs[shard].unknown
    ]
    state, how = State.PRESENT, ""
    if not answers:
        state, how = State.UNKNOWN, "nobody answers who could tell whether it serves"
    elif silent:
        state, how = State.SILENT, f"{', '.join(silent)} got no answer from it at the topology's epoch"
    return Part(name, Kind.REDIS, state, address, pid, how)


@dataclass(frozen=True, slots=True)
class _Look:
    """All that was seen of a cluster on this machine. ``members`` is None when ZooKeeper does not answer."""

    data: Path
    record: ClusterRecord
    alive: Mapping[str, ProcessRecord]
    answers: Mapping[str, Answer]
    members: Mapping[str, Member] | None

    def parts(self, name: str, kind: Kind) -> list[Part]:
        """One part that should run; a shard's are its shard node and its Redis."""
        found = [self._part(name, kind)]
        if kind is Kind.SHARD_NODE:
            found.append(self._redis(name))
        return found

    def _part(self, name: str, kind: Kind) -> Part:
        process = self.alive.get(name)
        if process is None:
            return Part(name, kind, State.MISSING, self._address(name), how=self._gone(name))
        state, how = State.PRESENT, ""
        if kind is Kind.ZOOKEEPER:
            if self.members is None:
                state, how = State.SILENT, f"its process runs; its log is {self._log(name)}"
        elif kind in {Kind.ROUTER, Kind.COORDINATOR} and (problem := self.answers[name].problem):
            state, how = State.SILENT, f"its process runs; {problem}; its log is {self._log(name)}"
        elif self.members is None:
            if kind in {Kind.SHARD_NODE, Kind.ARCHIVER}:
                state, how = State.UNKNOWN, "its process runs; ZooKeeper, where it registers, does not answer"
        elif name not in self.members or self.members[name].pid != process.pid:
            state, how = State.UNREGISTERED, f"its process runs; its log is {self._log(name)}"
        elif problem := self.members[name].problem:
            state, how = State.FAILING, problem
        return Part(name, kind, state, self._address(name), process.pid, how)

    def _redis(self, shard: str) -> Part:
        name = f"redis:{shard}"
        address, process = self._address(shard), self.alive.get(name)
        if process is not None:
            answers = {server: answer for server, answer in self.answers.items() if not answer.problem}
            return redis_part(name, address, process.pid, answers)
        if shard in self.alive:
            how = f"its shard node starts it again; its log is {self._log(name)}"
            return Part(name, Kind.REDIS, State.RESTARTING, address, how=how)
        return Part(name, Kind.REDIS, State.MISSING, address, how=self._gone(name))

    def _address(self, name: str) -> str:
        port = self.record.ports.get(name)
        return "" if port is None else f"127.0.0.1:{port}"

    def _log(self, name: str) -> Path:
        shard = name.partition(":")[2]
        return self.data / shard / "redis.log" if shard else self.data / "logs" / f"{name}.log"

    def _gone(self, name: str) -> str:
        """How a process is known to be gone, and since when at the latest it may have been."""
        pids = [process.pid for process in self.record.processes if process.name == name]
        if not pids:
            return "it was not started"
        log = self._log(name)
        try:
            last = datetime.fromtimestamp(log.stat().st_mtime, UTC)
        except OSError:
            return f"process {pids[0]} is gone"
        return f"process {pids[0]} is gone; it was last heard at {moment_text(last)}, in {log}"


def _ask(addresses: Mapping[str, str]) -> dict[str, Answer]:
    """What each router and coordinator answers, all asked at once."""
    with ExitStack() as stack:
        channels = {
            name: stack.enter_context(channel_to(address)) for name, address in addresses.items() if address
        }
        checks = {
            name: health_pb2_grpc.HealthStub(channel).Check.future(  # type: ignore[attr-defined]
                health_pb2.HealthCheckRequest(service=_SERVICE), timeout=CONNECT_SECONDS, wait_for_ready=True
            )
            for name, channel in channels.items()
        }
        answers = {name: Answer("it has told no address yet") for name in addresses}
        for name, check in checks.items():
            try:
                status = check.result().status
                if status == health_pb2.HealthCheckResponse.SERVING:
                    answers[name] = _answer(ClusterServiceStub(channels[name]))
                else:
                    answers[name] = Answer(
                        f"its health is {health_pb2.HealthCheckResponse.ServingStatus.Name(status)}"
                    )
            except grpc.RpcError as error:
                answers[name] = Answer(said(error))
        return answers


def _answer(service: ClusterServiceStub) -> Answer:
    topology = service.GetTopology(cluster_pb2.GetTopologyRequest(), timeout=CALL_TIMEOUT_SECONDS)
    listed = service.ListBacklogs(cluster_pb2.ListBacklogsRequest(), timeout=CALL_TIMEOUT_SECONDS)
    return Answer("", topology, {backlog.shard_id: backlog for backlog in listed.backlogs})


def _ask_shards(hosts: str) -> Answer:
    """What ZooKeeper and the shards answer to this process, when there is no router to ask them."""
    from coordinator import ClusterService  # noqa: PLC0415 - seldom needed
    from shard_node.client import Directory  # noqa: PLC0415 - the same

    async def ask() -> Answer:
        registry = Registry(hosts)
        await registry.start()
        try:
            directory = Directory(registry)
            service = ClusterService(registry, directory)
            topology = await service.GetTopology(cluster_pb2.GetTopologyRequest(), None)
            listed = await service.ListBacklogs(cluster_pb2.ListBacklogsRequest(), None)
            await directory.close()
        finally:
            await registry.stop()
        return Answer("", topology, {backlog.shard_id: backlog for backlog in listed.backlogs})

    try:
        # In a thread: the caller may run an event loop of its own.
        with quiet_logs(), ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: asyncio.run(ask())).result()
    except ShardNodeError as error:
        return Answer(str(error))


def _members(record: ClusterRecord) -> dict[str, Member] | None:
    """Who is registered; None when ZooKeeper does not answer."""
    if not zookeeper.is_serving(record.ports["zookeeper"]):
        return None
    try:
        with membership(record.zookeeper) as members:
            return members.read()
    except StartError:
        return None
