"""Stops a local cluster: callers before those they call, gently first, by force when that takes too long.

A Redis whose shard node was killed has nobody who stops it, and may have been started after the record was
written. So every Redis that runs in a shard's folder is looked for as well.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from deploy.local import processes
from deploy.local.cluster_file import ClusterRecord, Kind, living
from deploy.local.processes import ProcessIdentity
from shard_node.redis_files import PID_FILE

# A router drains its calls; a Redis writes and syncs what is left.
STOP_GRACE_SECONDS = 15.0
# The archiver after those who make entries: what they still made is stored before it ends.
_ORDER = (Kind.ROUTER, Kind.COORDINATOR, Kind.ARCHIVER, Kind.SHARD_NODE, Kind.REDIS, Kind.ZOOKEEPER)


def stop_processes(data: Path, record: ClusterRecord, *, keep: Collection[str] = ()) -> list[str]:
    """Stops the record's processes, and every Redis of the folder, but for the names in ``keep``.

    Returns the names of those that it stopped, once all are gone. Whoever works in another folder is left
    alone. Safe to call again, and while some are gone already.
    """
    alive = [process for process in living(data, record) if process.name not in keep]
    stopped = []
    for kind in _ORDER:
        group = {process.identity: process.name for process in alive if process.kind is kind}
        if kind is Kind.REDIS:
            found = redis_servers(data).items()
            group |= {identity: name for identity, name in found if name not in keep}
        processes.stop(group, grace_seconds=STOP_GRACE_SECONDS)
        stopped += sorted(group.values())
    return stopped


def redis_servers(data: Path) -> dict[ProcessIdentity, str]:
    """The Redis servers that run in the shards' folders, with their names ("redis:shard-0")."""
    found = {}
    for pid_file in sorted(data.glob(f"shard-*/{PID_FILE}")):
        try:
            pid, _port = (int(word) for word in pid_file.read_text().split())
            identity = processes.identify(pid)
        except (ValueError, OSError):
            # Half written, or just removed by a shard node that stops its Redis itself.
            continue
        if identity is not None and _is_redis_in(identity.pid, pid_file.parent):
            found[identity] = f"redis:{pid_file.parent.name}"
    return found


def _is_redis_in(pid: int, folder: Path) -> bool:
    """Whether the process is a Redis that works in that folder: the pid file may be of another boot."""
    try:
        named = Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return False
    return named.startswith(("redis", "valkey")) and processes.works_in(pid, folder)
