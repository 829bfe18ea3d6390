"""Makes a copy of a data folder a cluster of its own, or says that it is the original, moved.

A copy has everything of its original: its ports, its process ids, the cluster's id in ZooKeeper and in every
Redis. All of that is changed here, before anything of the copy can be started. The first step notes in
cluster.json that an adoption is under way, the last one that the folder is a place of its own: whatever ends
it in between, nothing works on the folder but the same adoption, begun again.

Nothing of the original is asked but its ledger's database, if one is named for the copy: it must be another.

Commands import this module only where they use it: what talks to a Redis takes long to load.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from deploy.errors import DataError, NoClusterError, StartError
from deploy.local import cluster_file, ports
from deploy.local.cluster_file import ClusterRecord
from deploy.local.home import Home
from deploy.local.ledger_url import checked, default_url, masked, rebased, sqlite_file
from deploy.local.starter import Starter
from deploy.local.stopper import stop_processes
from deploy.quiet_logs import quiet_logs
from shard_node.agent import RedisProcess
from shard_node.client import Shard, connect, disconnect, status_of
from shard_node.cluster import Registry, ShardInfo, Topology
from shard_node.errors import LedgerError, RegistryError, ShardNodeError, WrongShardError
from shard_node.redis_files import CONFIGURATION, PID_FILE

_CLUSTER_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# Raises LedgerError unless the ledger has, of a shard, the batch of that number, with that hash.
_Check = Callable[[str, int, bytes], None]


def adopt(data: Path, starter: Starter, cluster_id: str | None, ledger: str | None) -> list[str]:
    """Gives the copy in ``data``, which is locked, an identity of its own; what its owner should know.

    ``cluster_id`` is made up when None. ``ledger`` is the URL of a database that holds a copy of the
    original's ledger; it is needed when that is not a file within the folder. Raises DataError when there is
    nothing to adopt, what was given does not fit, or the copy shares files with another folder, StartError
    when a part of the copy does not start or is another's.
    """
    record, origin = _copied(data)
    new = record.adopting or secrets.token_hex(4) if cluster_id is None else cluster_id
    if not _CLUSTER_ID.fullmatch(new):
        raise DataError(f"--cluster-id {new!r}: it has 1 to 63 lower-case letters, digits and dashes")
    if record.adopting not in {"", new}:
        raise DataError(f"--cluster-id {new}: the adoption that was begun gives the id {record.adopting}")
    if new == record.cluster_id:
        raise DataError(f"--cluster-id {new}: it is the id of the original, and the copy needs another one")
    if not record.adopting:
        _require_whole_copy(data)
    url = _ledger_of_copy(data, record, origin, ledger)
    notes = []
    if record.adopting:
        # Of the adoption that was cut off: what the copied record named is no longer in it.
        stop_processes(data, record)
    else:
        if record.processes:
            notes.append(
                "it was copied while the original ran: if transfers ran, too, its shards may be of different "
                "moments, which 'tallystick verify' and 'tallystick audit' tell once it is up"
            )
        for leftover in (CONFIGURATION, PID_FILE):
            for file in data.glob(f"shard-*/{leftover}"):
                file.unlink()
        record = replace(record, adopting=new, home=_elsewhere(data, record, origin), ports={}, ready=False)
    check = _ledger_check(url or default_url(data), notes, may_differ=ledger is None)
    shards = [f"shard-{number}" for number in range(record.shards)]
    with ports.chosen([name for name in ("zookeeper", *shards) if name not in record.ports]) as found:
        record = replace(record, ports={**record.ports, **found}, processes=())
        cluster_file.write(data, record)
        try:
            starter.start_zookeeper(record)
            with quiet_logs():
                asyncio.run(_rename(data, record, new, check))
        except ShardNodeError as error:
            raise StartError(f"{data} is not adopted: {error}") from error
        finally:
            stop_processes(data, cluster_file.read_anywhere(data) or record)
    home = Home.of(data)
    cluster_file.write(data, replace(record, home=home, cluster_id=new, adopting="", ledger=url))
    return notes


def adopt_moved(data: Path) -> None:
    """Makes ``data``, which is locked, the place of the cluster that was moved or restored there.

    Raises DataError when the original is still in its place, or a process of it runs: there are never two
    clusters of one identity at once.
    """
    record, origin = _copied(data)
    if record.adopting:
        raise DataError(f"the adoption of {data} as cluster {record.adopting} was begun: finish it first")
    running = [process.name for process in record.processes if process.is_alive()]
    if running:
        raise DataError(f"{', '.join(running)} of the original still runs: stop the original first")
    there = None if origin.resolve() == data.resolve() else cluster_file.read_anywhere(origin)
    if there is not None and there.cluster_id == record.cluster_id:
        raise DataError(
            f"the original is still in {origin}, so {data} is a copy: 'tallystick adopt --data {data}' makes "
            f"it a cluster of its own"
        )
    ledger = rebased(record.ledger, origin, data)
    record = replace(record, home=Home.of(data), ledger=ledger, ready=False, processes=())
    cluster_file.write(data, record)


def _copied(data: Path) -> tuple[ClusterRecord, Path]:
    """What was copied, and from where. Raises DataError for a cluster in its own place."""
    record = cluster_file.read_anywhere(data)
    if record is None:
        raise NoClusterError(f"there is no cluster in {data}: it has no {cluster_file.FILE_NAME}")
    origin = cluster_file.origin_of_copy(data, record)
    if origin is None:
        raise DataError(f"there is nothing to adopt: {data} is the place of its cluster, not a copy")
    return record, origin


def _require_whole_copy(data: Path) -> None:
    """Raises DataError when a file is also another folder's, by a link: both would be changed."""
    for folder, folders, files in os.walk(data):
        for file in (Path(folder, name) for name in (*folders, *files)):
            if file.is_symlink() or (file.is_file() and file.stat().st_nlink > 1):
                raise DataError(
                    f"{file} is shared with another folder: copy the original whole (cp -aL, without links), "
                    f"then adopt"
                )


def _elsewhere(data: Path, record: ClusterRecord, origin: Path) -> Home:
    """The original's place, for a record that names none, or was edited to name the copy's."""
    if record.home is None or record.home.is_at(data):
        return Home(str(origin), 0, 0)
    return record.home


def _ledger_of_copy(data: Path, record: ClusterRecord, origin: Path, given: str | None) -> str:
    """The URL of the copy's ledger, empty for the default.

    Raises DataError when it would be the original's.
    """
    if given is None:
        own = rebased(record.ledger, origin, data)
        if record.ledger and own == record.ledger:
            raise DataError(
                f"the ledger {masked(own)} belongs to the original, and two clusters cannot write it: copy "
                f"that database, and name the copy with --ledger URL"
            )
        return own
    from deploy.local.ledger_probe import same_database  # noqa: PLC0415 - see there

    url = checked(given)
    if same_database(url, record.ledger or default_url(origin)):
        raise DataError(f"--ledger {masked(url)}: it is the original's ledger; name a copy of that database")
    return url


def _ledger_check(url: str, notes: list[str], *, may_differ: bool) -> _Check:
    """How a shard's last batch is looked for in the ledger.

    A ledger that was copied with the folder while the cluster ran may have another end than the shards: it
    ``may_differ``, and then that is noted.
    """
    file = sqlite_file(url)
    if may_differ and file is not None and not file.exists():
        # Nothing was ever archived.
        return lambda *_: None
    from deploy.local.ledger_probe import require_batch  # noqa: PLC0415 - see there

    def check(shard_id: str, number: int, head: bytes) -> None:
        try:
            require_batch(url, shard_id, number, head)
        except LedgerError as error:
            if not may_differ:
                raise
            notes.append(f"{error}: history of {shard_id} will not be archived")

    return check


async def _rename(data: Path, record: ClusterRecord, new: str, check: _Check) -> None:
    """Gives every Redis, then the topology, the new id, the copy's addresses and higher epochs."""
    registry = Registry(record.zookeeper)
    await registry.start()
    try:
        found = registry.topology
        if found.cluster_id not in {new, record.cluster_id or found.cluster_id}:
            raise RegistryError(
                f"its topology is of cluster {found.cluster_id}, its {cluster_file.FILE_NAME} of "
                f"{record.cluster_id}: is the copy complete?"
            )
        shards = []
        for shard in found.shards:
            redis = RedisProcess(data / shard.shard_id, ports.HOST, record.ports[shard.shard_id], 0)
            await redis.start()
            try:
                shards.append(await _rename_shard(redis.address, found.cluster_id, shard, new, check))
            finally:
                await redis.stop()

        def renamed(topology: Topology) -> Topology:
            return Topology(new, topology.version + 1, tuple(shards))

        await registry.change_topology(renamed)
    finally:
        await registry.stop()


async def _rename_shard(address: str, old: str, shard: ShardInfo, new: str, check: _Check) -> ShardInfo:
    """Gives a Redis the new id; what the topology shall say of it.

    Raises WrongShardError when it holds another's data.
    """
    client = connect(address)
    try:
        status = await status_of(client, shard.shard_id)
        if status is None and not shard.primary:
            # It never served.
            return shard
        before, after = (f"{cluster}/{shard.shard_id}" for cluster in (old, new))
        if status is None or status.shard not in {before, after}:
            raise WrongShardError(
                f"the Redis of {shard.shard_id} holds {status.shard if status else 'nothing'}, not {before}: "
                f"is the copy complete?"
            )
        if status.archived_number:
            check(shard.shard_id, status.archived_number, status.archived_head)
        raised = max(shard.epoch, status.epoch) + 1
        await Shard(shard.shard_id, status.fence, client).rename(new, raised)
    finally:
        await disconnect(client)
    return replace(shard, primary=address, epoch=raised)
