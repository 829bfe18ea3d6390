"""The cluster of a test: whether it is there, its accounts, and what it says itself of what was done.

Every transfer changes two accounts, and an account's version counts its changes; nobody else moves money of
the rig's accounts. So what the shards did is known from them, whatever Locust was told. CPU time can be read
where the cluster's own file names processes of this machine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

import grpc

from bench.cluster import (
    Part,
    by_part,
    changes,
    open_accounts,
    process_ids,
    read_cpu,
    read_topology,
    read_tree,
)
from bench.errors import BenchError
from bench.locust_rig.settings import RigSettings
from deploy.errors import DeployError, NoClusterError
from deploy.local import cluster_file, cluster_service, explain
from shard_node.limits import MAX_BATCH
from tallystick import SyncClient

_MICROS = 1_000_000
_PROGRESS_STEPS = 10
_HELP = "start one with 'make locust' (with this rig) or 'tallystick up --detach', or name its --routers"

_log = logging.getLogger(__name__)


def check_cluster(settings: RigSettings) -> None:
    """Raises BenchError unless a router answers."""
    try:
        with cluster_service(list(settings.routers)) as service:
            read_topology(service)
    except NoClusterError as error:
        raise BenchError(f"no router answers at {', '.join(settings.routers)}: {_HELP}") from error
    except grpc.RpcError as error:
        raise BenchError(f"{explain(error)}; {_HELP}") from error


def open_all(client: SyncClient, settings: RigSettings) -> None:
    """Opens all accounts; those that are open already stay as they are. Raises BenchError when it cannot."""
    accounts = settings.all_accounts
    piece = max(MAX_BATCH, -(-accounts.rich // _PROGRESS_STEPS))
    for first in range(0, accounts.rich, piece):
        last = min(first + piece, accounts.rich)
        open_accounts(client, accounts.ids[first:last])
        _log.info("opened %s of %s accounts", f"{last:,}", f"{accounts.rich:,}")
    open_accounts(client, accounts.ids[accounts.rich :], "0")


@dataclass(frozen=True, slots=True)
class ClusterSide:
    """What the cluster did during a test.

    ``cpu_seconds`` is by part, Locust's own processes of this machine as the client; empty when
    ``cpu_unknown`` says why it is not known.
    """

    moved: int
    cpu_seconds: Mapping[Part, float]
    cpu_unknown: str = ""

    def cpu_us(self) -> dict[str, float]:
        """CPU microseconds for a transfer that was moved, by part."""
        return {str(part): spent * _MICROS / max(1, self.moved) for part, spent in self.cpu_seconds.items()}


class Watch:
    """Looks at the cluster when a test begins, its accounts being open, and again at its end."""

    def __init__(self, settings: RigSettings, client: SyncClient) -> None:
        self._client = client
        self._accounts = settings.all_accounts.ids
        self._pids, self._cpu_unknown = _processes(settings)
        self._changes = changes(client, self._accounts)
        self._cpu, self._load = read_cpu(self._pids), _load_seconds()

    def seen(self) -> ClusterSide:
        """What was done since. Raises BenchError or TallystickError when the cluster does not say."""
        load = _load_seconds() - self._load
        spent: dict[Part, float] = {}
        unknown = self._cpu_unknown
        if self._pids:
            try:
                spent = by_part({"client": load, **self._cpu.until(read_cpu(self._pids)).by_process})
            except BenchError as error:
                unknown = str(error)
        # Of one whose outcome is not known the payee's half may be missing yet.
        moved = -(-(changes(self._client, self._accounts) - self._changes) // 2)
        return ClusterSide(moved, spent, unknown)


def _processes(settings: RigSettings) -> tuple[dict[str, int], str]:
    """The cluster's process ids on this machine, or why they are not known."""
    try:
        record = cluster_file.read(settings.data)
    except DeployError as error:
        return {}, str(error)
    if record is None or not set(settings.routers) <= set(record.router_addresses):
        return {}, f"{settings.data} is not the folder of these routers' cluster; --data names it"
    return process_ids(record), ""


def _load_seconds() -> float:
    """CPU seconds of this process and its workers."""
    return read_tree("Locust", os.getpid())
