"""`python -m bench.memory`: bytes that a shard needs for an account, and for a transfer that it remembers.

Both are differences of what each Redis says its data takes (`MEMORY STATS`, dataset.bytes: all it has
allocated, less its own start, buffers of connections and of the append-only file, and its table of keys),
before and after. A ledger entry that waits for the archiver, or a transfer that is not finished everywhere,
is not what is remembered; so nothing is read before every archiver has caught up and nothing is in flight.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, cast

import typer

from bench.cluster import (
    Machine,
    changes,
    check_balance,
    check_durability,
    check_moves,
    local_cluster,
    open_accounts,
    read_backlog,
    read_topology,
    shard_redis,
)
from bench.command import Progress, command
from bench.errors import BenchError
from bench.reporting import Figures
from bench.settings import MAX_SERVERS, MAX_TRANSFERS, BenchSettings
from bench.transfers import AMOUNTS, CURRENCY, Payments, Workload, make_accounts, slot_owners
from deploy.local import CALL_TIMEOUT_SECONDS, LocalCluster, cluster_service
from deploy.terminal import Screen, strong
from shard_node.cluster import slot
from tallystick import SyncClient, Transfer
from tallystick.v1 import cluster_pb2
from tallystick.v1.cluster_pb2_grpc import ClusterServiceStub

# What the project asks of a shard: see the README.
TARGET_ACCOUNT_BYTES, TARGET_TRANSFER_BYTES = 110, 64
_BATCH = 8000
# Two entries a transfer: a slow archiver stores some thousand a second.
_MOST_QUIET_SECONDS = 600.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class ShardMemory:
    """One shard: how much it has of each, and how many bytes its data grew by for them.

    A transfer across shards is remembered on both, and counts on each.
    """

    shard: str
    accounts: int
    accounts_bytes: int
    transfers: int
    transfers_bytes: int

    @property
    def bytes_per_account(self) -> float:
        """Bytes an account."""
        return self.accounts_bytes / self.accounts

    @property
    def bytes_per_transfer(self) -> float:
        """Bytes a remembered transfer."""
        return self.transfers_bytes / self.transfers


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """Every shard, and where they ran."""

    shards: Sequence[ShardMemory]
    # Of the load: each is remembered on one shard, or on two.
    transfers: int
    machine: Machine

    @property
    def bytes_per_account(self) -> float:
        """Bytes an account, over all shards."""
        return sum(s.accounts_bytes for s in self.shards) / sum(s.accounts for s in self.shards)

    @property
    def bytes_per_remembered(self) -> float:
        """Bytes a transfer that a shard remembers, over all shards."""
        return sum(s.transfers_bytes for s in self.shards) / sum(s.transfers for s in self.shards)

    @property
    def bytes_per_transfer(self) -> float:
        """Bytes of the whole cluster for a transfer of this load, some of them remembered on two shards."""
        return sum(s.transfers_bytes for s in self.shards) / self.transfers


def _measure(settings: BenchSettings, progress: Progress) -> MemoryFigures:
    """Measure the memory that a shard needs for an account, and for a transfer that it remembers.

    Opens accounts and makes transfers, with memory read before, between and after.

    It is read only once the ledger is archived and nothing is in flight.

    Prints bytes for each shard.
    """
    accounts = make_accounts(settings.shape)
    ids, transfers = accounts.ids, settings.transfers or 0
    with local_cluster(settings, progress) as cluster:
        machine = check_durability(cluster.shard_addresses)
        with (
            cluster_service(cluster.router_addresses) as service,
            SyncClient(cluster.router_addresses) as client,
        ):
            topology = read_topology(service)
            names = [shard.shard_id for shard in topology.shards]
            owners = slot_owners(topology)
            homes = [owners[slot(account_id)] for account_id in ids]
            empty = _readings(cluster, service, names)
            progress(f"opening {settings.accounts:,} accounts")
            open_accounts(client, ids)
            opened = _readings(cluster, service, names)
            before = changes(client, ids)
            workload = Workload(settings.shape, accounts, owners)
            workload.start(str(settings.seed))
            remembered: Counter[int] = Counter()
            for first in range(0, transfers, _BATCH):
                payments = workload.draw(min(_BATCH, transfers - first))
                remembered.update(touched(payments, homes))
                _make(client, ids, payments)
                progress(f"{min(first + _BATCH, transfers):,} of {transfers:,} transfers")
            check_moves(changes(client, ids) - before, transfers)
            progress("waiting for the archivers")
            done = _readings(cluster, service, names)
        check_balance(cluster.router_addresses)
    opened_on = Counter(homes)
    shards = [
        shard_memory(name, (empty[i], opened[i], done[i]), opened_on[i], remembered[i])
        for i, name in enumerate(names)
    ]
    return MemoryFigures(shards, transfers, machine)


def shard_memory(shard: str, readings: tuple[int, int, int], accounts: int, transfers: int) -> ShardMemory:
    """The figures of a shard from bytes of data while empty, with its accounts, and with what it remembers.

    Raises BenchError when it has nothing of either: chance left it out, or the numbers are too small.
    """
    if not accounts or not transfers:
        raise BenchError(f"{shard} has {accounts} accounts and {transfers} transfers: ask for more")
    empty, opened, done = readings
    return ShardMemory(shard, accounts, opened - empty, transfers, done - opened)


def touched(payments: Payments, homes: Sequence[int]) -> Counter[int]:
    """How many of the payments each shard takes part in, and so remembers."""
    shards: Counter[int] = Counter()
    for payer, payee, _ in payments.rows():
        shards.update({homes[payer], homes[payee]})
    return shards


def _make(client: SyncClient, ids: Sequence[str], payments: Payments) -> None:
    """Makes the transfers; BenchError when one is not committed."""
    batch = [
        Transfer(ids[payer], ids[payee], AMOUNTS[amount], CURRENCY)
        for payer, payee, amount in payments.rows()
    ]
    for result in client.transfers(batch):
        if result.error is not None:
            raise BenchError(f"a transfer failed: {result.error}")


def _readings(cluster: LocalCluster, service: ClusterServiceStub, names: Sequence[str]) -> list[int]:
    """Bytes of data on each shard, in the order of the names, once nothing waits on any of them."""
    _await(lambda: not read_backlog(service), "archivers have not caught up")
    _await(lambda: _in_flight(service) == 0, "transfers are in flight")
    addresses = cluster.shard_addresses
    return [_data_bytes(addresses[name]) for name in names]


def _await(ready: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + _MOST_QUIET_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise BenchError(f"{complaint} after {_MOST_QUIET_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)


def _in_flight(service: ClusterServiceStub) -> int:
    answer = service.ListInDoubt(cluster_pb2.ListInDoubtRequest(limit=1), timeout=CALL_TIMEOUT_SECONDS)
    return len(answer.transfers)


def _data_bytes(address: str) -> int:
    with shard_redis(address) as connection:
        stats = cast("Mapping[str, int]", connection.memory_stats())
        return int(stats["dataset.bytes"])


def _show(screen: Screen, settings: BenchSettings, figures: MemoryFigures) -> None:
    columns = ("shard", "accounts", "bytes each", "transfers", "bytes each")
    rows = [
        [
            shard.shard,
            f"{shard.accounts:,}",
            f"{shard.bytes_per_account:.1f}",
            f"{shard.transfers:,}",
            f"{shard.bytes_per_transfer:.1f}",
        ]
        for shard in figures.shards
    ]
    screen.table(Figures("Bytes on each shard", columns, rows).table())
    screen.print(
        strong(f"{figures.bytes_per_account:.0f} bytes an account"),
        f" (at most {TARGET_ACCOUNT_BYTES}), ",
        strong(f"{figures.bytes_per_remembered:.0f} bytes a remembered transfer"),
        f" (at most {TARGET_TRANSFER_BYTES}) on each shard that takes part: "
        f"{figures.bytes_per_transfer:.0f} bytes a transfer of this load in the whole cluster. "
        f"{settings.accounts:,} accounts, {figures.transfers:,} transfers, {settings.shards} shards, "
        f"seed {settings.seed}",
    )
    screen.print(
        "Counted: all that Redis has allocated for its data (dataset.bytes of MEMORY STATS), with the spare ",
        "room of tables. An account is its record, its name and its place in its slot; a transfer is what ",
        "keeps it from being made again. Not counted: buffers and the process itself; there were no entries ",
        "waiting for an archiver, no transfers in flight. A table's index has room for one to two times its ",
        "records, so another number of transfers or accounts may change the figures by some 8 bytes.",
    )
    screen.print(f"{figures.machine}; verified: balanced, each transfer moved money once")


def _document(settings: BenchSettings, figures: MemoryFigures) -> Mapping[str, object]:
    return {
        "bytes_per_account": round(figures.bytes_per_account, 2),
        "bytes_per_remembered_transfer": round(figures.bytes_per_remembered, 2),
        "bytes_per_transfer_in_all": round(figures.bytes_per_transfer, 2),
        "shards": [
            asdict(shard)
            | {
                "bytes_per_account": round(shard.bytes_per_account, 2),
                "bytes_per_transfer": round(shard.bytes_per_transfer, 2),
            }
            for shard in figures.shards
        ],
        "settings": settings.document(),
        "machine": asdict(figures.machine),
    }


main = command(
    _measure,
    _show,
    _document,
    BenchSettings(transfers=200_000),
    ("shards", "archivers", "accounts", "transfers", "seed"),
    archivers=Annotated[
        int, typer.Option(min=1, max=MAX_SERVERS, help="Archivers; what they have not stored is waited for.")
    ],
    transfers=Annotated[
        int, typer.Option(min=1, max=MAX_TRANSFERS, help="Transfers to remember, between random accounts.")
    ],
)

if __name__ == "__main__":
    typer.run(main)
