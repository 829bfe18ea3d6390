"""Starts the parts of a local cluster that do not run, in order, and waits until each has registered.

The record of what runs is written right after every start, before anything else depends on it: whatever
happens to the launcher, `down` finds every process again.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.errors import DataError, StartError
from deploy.local import cluster_file, ports, processes, zookeeper
from deploy.local.cluster_file import ZOOKEEPER_FOLDER, ClusterRecord, Kind, ProcessRecord, missing_parts
from deploy.local.cluster_survey import Part, State, survey
from deploy.local.ledger_url import default_url
from deploy.local.membership import Member, membership
from deploy.local.processes import ProcessIdentity
from deploy.local.stopper import redis_servers
from shard_node.cluster import bootstrap
from shard_node.errors import RegistryError, ShardNodeError
from shard_node.redis_files import CONFIGURATION as REDIS_CONFIGURATION

# As in shard_node.ledger.store.schema, which would import SQLAlchemy into every command.
_LEDGER_VARIABLE = "TALLYSTICK_LEDGER"
# Keeps all logs small, ZooKeeper's too: one process does, and this one is in every cluster.
_LOG_KEEPER = "shard-0"
# Longer than a session with ZooKeeper takes to be lost and begun anew.
_SETTLE_SECONDS = 15.0
# How often readiness is looked at.
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class _Child:
    """A process that this object started, and where its log begins for this run."""

    process: subprocess.Popen[bytes]
    log: Path
    log_start: int

    def log_tail(self) -> str:
        return processes.tail(self.log, since=self.log_start)


class Starter:
    """Starts processes for the cluster in one data folder, and knows its own children."""

    def __init__(self, data: Path, ready_timeout_seconds: float) -> None:
        self._data = data
        self._ready_timeout_seconds = ready_timeout_seconds
        self._children: dict[str, _Child] = {}

    def log(self, name: str) -> Path:
        """Where a process' output goes."""
        return self._data / "logs" / f"{name}.log"

    def exited(self) -> list[str]:
        """The children that have ended since they were ready, each named once."""
        gone = [name for name, child in self._children.items() if child.process.poll() is not None]
        for name in gone:
            del self._children[name]
        return gone

    def start(self, record: ClusterRecord) -> ClusterRecord:
        """Starts what ``record`` asks for and does not list as running; returns it with all of it.

        Raises StartError when this machine lacks the server or the shard engine, a part exits or is not ready
        in time, DataError when the topology kept in the data folder is another one. What had been started
        until then runs, and is in the file.
        """
        missing = missing_parts(record)
        # A whole cluster starts well or not at all. A part that comes back to a running one does not have to
        # wait for others that are away, nor for the ledger's database.
        whole = not record.processes
        if whole and record.archivers and record.ledger:
            from deploy.local.ledger_probe import require_answer  # noqa: PLC0415 - see there

            require_answer(record.ledger)
        if any(kind is Kind.SHARD_NODE for _, kind in missing):
            _require_parts_of_a_shard()
        with ports.chosen(self._without_port(record, missing)) as found:
            record = replace(record, ports={**record.ports, **found}, ready=False)
            record = self._start_missing(record, missing)
            self.await_ready(record, [name for name, _ in missing], whole=whole)
        record = replace(record, ready=True)
        cluster_file.write(self._data, record)
        return record

    def _start_missing(self, record: ClusterRecord, missing: Sequence[tuple[str, Kind]]) -> ClusterRecord:
        if ("zookeeper", Kind.ZOOKEEPER) in missing:
            record = self.start_zookeeper(record)
        record = self._bootstrap(record)
        # The shards are there before those who call them ask where they are.
        for kinds in ((Kind.SHARD_NODE,), (Kind.ARCHIVER, Kind.COORDINATOR, Kind.ROUTER)):
            names = []
            for name, kind in missing:
                if kind in kinds:
                    record = self._spawn(record, name, kind, self._command(record, name, kind))
                    names.append(name)
            if names:
                record = self._await_members(record, names)
        return record

    def _without_port(self, record: ClusterRecord, missing: Sequence[tuple[str, Kind]]) -> list[str]:
        """Those to be started for which a port must be chosen.

        Raises StartError when a port that was chosen before is not free.
        """
        listening = [(name, kind) for name, kind in missing if kind is not Kind.ARCHIVER]
        # A Redis may run without its shard node, and is taken over by it.
        running = {name.partition(":")[2] for name in redis_servers(self._data).values()}
        ports.require_free(
            {
                name: record.ports[name]
                for name, _ in listening
                if name in record.ports and name not in running
            }
        )
        return [
            name
            for name, kind in listening
            if name not in record.ports
            and not (kind is Kind.SHARD_NODE and (self._data / name / REDIS_CONFIGURATION).exists())
        ]

    def start_zookeeper(self, record: ClusterRecord) -> ClusterRecord:
        """Starts ZooKeeper on the port that the record has for it, and waits until it serves (StartError)."""
        port = record.ports["zookeeper"]
        command = zookeeper.command(zookeeper.write_configuration(self._data / ZOOKEEPER_FOLDER, port))
        record = self._spawn(record, "zookeeper", Kind.ZOOKEEPER, command)

        def lacking() -> dict[str, str]:
            return {} if zookeeper.is_serving(port) else {"zookeeper": "it does not answer"}

        self._wait_until(lacking, ["zookeeper"])
        return record

    def _bootstrap(self, record: ClusterRecord) -> ClusterRecord:
        """The record with the cluster's id, of a topology that is there and fits."""
        try:
            topology = bootstrap(record.zookeeper, [f"shard-{i}" for i in range(record.shards)])
        except RegistryError as error:
            raise DataError(f"the topology kept in {self._data} does not fit: {error}") from error
        if record.cluster_id not in {"", topology.cluster_id}:
            raise DataError(
                f"{self._data} holds the topology of cluster {topology.cluster_id}, but its "
                f"{cluster_file.FILE_NAME} is of cluster {record.cluster_id}: one of the two was changed or "
                f"comes from another folder"
            )
        return replace(record, cluster_id=topology.cluster_id)

    def _command(self, record: ClusterRecord, name: str, kind: Kind) -> list[str]:
        # -P: a file named router.py in the folder where `tallystick up` is typed is not our router.
        start = [sys.executable, "-P", "-m"]
        if kind is Kind.SHARD_NODE:
            command = [*start, "shard_node", "--shard", name, "--data", str(self._data / name)]
            if name in record.ports:
                command += ["--port", str(record.ports[name])]
            if record.dedupe_window_seconds is not None:
                command += ["--dedupe-window-seconds", str(record.dedupe_window_seconds)]
            if record.max_backlog is not None:
                command += ["--max-backlog", str(record.max_backlog)]
            if name == _LOG_KEEPER:
                command += ["--logs", str(self.log(name).parent)]
        elif kind is Kind.ARCHIVER:
            command = [*start, "shard_node.archiver", "--name", name]
            if record.archiver_niceness:
                # nice(1) becomes the archiver: the process stays the one that was started.
                command = ["nice", "-n", str(record.archiver_niceness), *command]
        else:
            listen = f"{ports.HOST}:{record.ports[name]}"
            command = [*start, kind.value, "--name", name, "--listen", listen]
        return [*command, "--zookeeper", record.zookeeper]

    def _environment(self, record: ClusterRecord, kind: Kind) -> dict[str, str]:
        """The ledger's URL, which may hold a password; none for whom it does not concern."""
        concerned = kind is Kind.ARCHIVER or (kind is Kind.ROUTER and record.archivers)
        return {_LEDGER_VARIABLE: (record.ledger or default_url(self._data)) if concerned else ""}

    def _spawn(self, record: ClusterRecord, name: str, kind: Kind, command: list[str]) -> ClusterRecord:
        log = self.log(name)
        log_start = log.stat().st_size if log.exists() else 0
        process = processes.spawn(command, log, self._environment(record, kind), self._data)
        self._children[name] = _Child(process, log, log_start)
        identity = processes.identify(process.pid) or ProcessIdentity(process.pid, "ended at once")
        address = record.zookeeper if kind is Kind.ZOOKEEPER else ""
        started = ProcessRecord(name, kind, address, identity.pid, identity.started)
        record = record.with_processes([started])
        cluster_file.write(self._data, record)
        return record

    def _await_members(self, record: ClusterRecord, names: Sequence[str]) -> ClusterRecord:
        """Waits until the named children have registered; the record with what they registered."""
        pids = {name: self._children[name].process.pid for name in names}
        found: dict[str, Member] = {}

        def unregistered() -> dict[str, str]:
            found.update(members.read() or {})
            return {
                name: "it has not registered"
                for name, pid in pids.items()
                if name not in found or found[name].pid != pid
            }

        with membership(record.zookeeper) as members:
            self._wait_until(unregistered, names)
        found = {name: found[name] for name in names}
        record = record.with_processes(
            replace(process, address=found[process.name].address)
            for process in record.processes
            if process.name in found
        ).with_processes(r for member in found.values() if (r := redis_record(member)) is not None)
        told = {m.name: int(m.address.rpartition(":")[2]) for m in found.values() if m.address}
        record = replace(record, ports={**record.ports, **told})
        cluster_file.write(self._data, record)
        return record

    def await_ready(self, record: ClusterRecord, names: Sequence[str], *, whole: bool) -> None:
        """Waits until every part is well; when not the ``whole`` was started, until the named ones are.

        Others that lost touch with a ZooKeeper that comes back get some time to register again.
        """
        fine = {State.PRESENT} if whole else {State.PRESENT, State.FAILING}
        settled = time.monotonic() + _SETTLE_SECONDS

        def awaited(part: Part) -> bool:
            if whole or part.name in names:
                return part.state not in fine
            return part.state is State.UNREGISTERED and time.monotonic() < settled

        def lacking() -> dict[str, str]:
            parts = survey(self._data, record).parts
            return {part.name: f"{part.state}: {part.how}" for part in parts if awaited(part)}

        self._wait_until(lacking, names)

    def _wait_until(self, lacking: Callable[[], Mapping[str, str]], names: Sequence[str]) -> None:
        """Waits until nothing is lacking, by name and reason; StartError with those when the time is over.

        So when one of the named children exits.
        """
        deadline = time.monotonic() + self._ready_timeout_seconds
        children = {name: self._children[name] for name in names}
        while reasons := lacking():
            for name, child in children.items():
                if (status := child.process.poll()) is not None:
                    del self._children[name]
                    raise StartError(
                        f"{name} exited with status {status} while it started; the end of {child.log}:\n"
                        f"{child.log_tail()}"
                    )
            if time.monotonic() > deadline:
                why = ", ".join(f"{name} ({reason})" for name, reason in reasons.items())
                logs = "".join(
                    f"\n--- {child.log}\n{child.log_tail()}"
                    for name, child in children.items()
                    if name in reasons
                )
                raise StartError(f"not ready within {self._ready_timeout_seconds:g} s: {why}{logs}")
            time.sleep(_POLL_SECONDS)


def _require_parts_of_a_shard() -> None:
    """Raises StartError, with what to do, when this machine lacks the server or the shard engine."""
    # Loads what talks to a Redis, which takes long: not for every command.
    from shard_node.agent import require_parts  # noqa: PLC0415

    try:
        require_parts()
    except ShardNodeError as error:
        raise StartError(f"no shard can start: {error}") from error


def redis_record(member: Member) -> ProcessRecord | None:
    """The Redis of a registered shard node; None when it is gone, or the member is none."""
    identity = processes.identify(member.redis_pid) if member.redis_pid else None
    if identity is None:
        return None
    return ProcessRecord(f"redis:{member.name}", Kind.REDIS, member.address, identity.pid, identity.started)
