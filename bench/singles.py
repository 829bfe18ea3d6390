"""`python -m bench.singles`: single `await client.transfer(...)` calls of one process, many at once.

Services call the client one transfer at a time, from as many tasks as they have requests; the client makes
batches of them. This measures what such a process gets: the client library in a process of its own against
a cluster on the same machine, every result awaited, by as many tasks as asked for.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated

import typer
import uvloop

from bench.cluster import (
    CpuSpent,
    Machine,
    Part,
    by_part,
    changes,
    check_balance,
    check_durability,
    check_moves,
    cluster_spec,
    local_cluster,
    open_accounts,
    process_ids,
    read_cpu,
)
from bench.command import (
    AccountsOption,
    ArchiversOption,
    JsonOption,
    Progress,
    RunsOption,
    SecondsOption,
    SeedOption,
    ShardsOption,
    carry_out,
)
from bench.errors import BenchError
from bench.load import Worker
from bench.reporting import MICROS
from bench.settings import Shape
from bench.transfers import AMOUNTS, CURRENCY, Workload, make_accounts
from deploy.terminal import Screen, Table, strong
from shard_node.cluster import SLOT_COUNT
from tallystick import Client, SyncClient, TallystickError

# What the project asks of the client: see the README.
TARGET_RATE = 25_000
_MAX_CALLERS = 100_000
# Drawn at once: more would keep the event loop from its answers for milliseconds.
_DRAWN = 4096
# On top of a run's seconds: its last answers, on a machine that is busy with something else.
_ANSWER_SECONDS = 90.0
_WARM_UP_SECONDS = 1.0
_CLIENT = "client"


@dataclass(frozen=True, slots=True)
class SinglesSettings:
    """What to measure: ``callers`` tasks in one process, each with one transfer at a time."""

    shards: int
    archivers: int
    accounts: int
    callers: int
    seconds: float
    runs: int
    seed: int


@dataclass(frozen=True, slots=True)
class Run:
    """Order: send transfers for so long. Answer: :class:`Sent`."""

    number: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Sent:
    """What a run did. ``seconds`` is from its beginning to the last result."""

    committed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SinglesRun:
    """One run, and the CPU time it took by process."""

    sent: Sent
    cpu: CpuSpent

    @property
    def rate(self) -> float:
        """Transfers a second."""
        return self.sent.committed / self.sent.seconds

    @property
    def cpu_us(self) -> dict[Part, float]:
        """CPU microseconds a transfer by part."""
        return {
            part: seconds * MICROS / self.sent.committed
            for part, seconds in by_part(self.cpu.by_process).items()
        }


@dataclass(frozen=True, slots=True)
class SinglesFigures:
    """All runs, and where they ran."""

    settings: SinglesSettings
    runs: Sequence[SinglesRun]
    machine: Machine

    @property
    def rate(self) -> float:
        """Transfers a second, the median of the runs."""
        return statistics.median(run.rate for run in self.runs)

    @property
    def cpu_us(self) -> dict[Part, float]:
        """CPU microseconds a transfer by part, medians of the runs."""
        return {
            part: statistics.median(run.cpu_us[part] for run in self.runs) for part in self.runs[0].cpu_us
        }


class SinglesHandler:
    """The process that is measured: a client and its callers, on an event loop of their own."""

    def __init__(self, routers: Sequence[str], settings: SinglesSettings) -> None:
        self._settings = settings
        shape = Shape(settings.accounts)
        accounts = make_accounts(shape)
        self._ids = accounts.ids
        # Which shard an account is on decides nothing here.
        self._workload = Workload(shape, accounts, [0] * SLOT_COUNT)
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._client = Client(routers)

    def carry_out(self, order: Run) -> Sent:
        """One run. Raises BenchError for any transfer that is not committed."""
        self._workload.start(f"{self._settings.seed}/{order.number}")
        return self._runner.run(self._run(order.seconds))

    def close(self) -> None:
        """Closes the client and the loop."""
        self._runner.run(self._client.close())
        self._runner.close()

    async def _run(self, seconds: float) -> Sent:
        begun = time.monotonic()
        payments = self._payments(begun + seconds)
        committed = 0

        async def call() -> None:
            nonlocal committed
            # The callers share the payments.
            for payer, payee, amount in payments:
                await self._client.transfer(payer, payee, amount, CURRENCY)
                committed += 1

        try:
            async with asyncio.TaskGroup() as callers:
                for _ in range(self._settings.callers):
                    callers.create_task(call())
        except* TallystickError as errors:
            # The others follow from the first, or say the same.
            raise BenchError(f"a transfer failed: {errors.exceptions[0]}") from errors
        return Sent(committed, time.monotonic() - begun)

    def _payments(self, until: float) -> Iterator[tuple[str, str, str]]:
        """Payer, payee and amount of each transfer, until the time is over."""
        ids = self._ids
        while True:
            drawn = self._workload.draw(_DRAWN)
            columns = (drawn.payers.tolist(), drawn.payees.tolist(), drawn.amounts.tolist())
            for payer, payee, amount in zip(*columns, strict=True):
                if time.monotonic() >= until:
                    return
                yield ids[payer], ids[payee], AMOUNTS[amount]


def measure_singles(settings: SinglesSettings, progress: Progress) -> SinglesFigures:
    """Starts the cluster, runs the callers, verifies, stops everything.

    Raises BenchError when the figures are not worth printing, DeployError when the cluster does not start.
    """
    with local_cluster(cluster_spec(settings.shards, settings.archivers), progress) as cluster:
        machine = check_durability(cluster.shard_addresses)
        ids = make_accounts(Shape(settings.accounts)).ids
        make = partial(SinglesHandler, cluster.router_addresses, settings)
        with SyncClient(cluster.router_addresses) as books, Worker(_CLIENT, make) as worker:
            progress(f"opening {settings.accounts:,} accounts")
            open_accounts(books, ids)
            before = changes(books, ids)
            pids = {_CLIENT: worker.pid, **process_ids(cluster.record)}
            # Connections, tables, code paths taken for the first time.
            committed = _run(Run(0, _WARM_UP_SECONDS), worker, pids).sent.committed
            runs = []
            for number in range(1, settings.runs + 1):
                progress(f"run {number} of {settings.runs}")
                runs.append(_run(Run(number, settings.seconds), worker, pids))
            progress("verifying")
            committed += sum(run.sent.committed for run in runs)
            check_moves(changes(books, ids) - before, committed)
        check_balance(cluster.router_addresses)
        return SinglesFigures(settings, runs, machine)


def _run(order: Run, worker: Worker, pids: Mapping[str, int]) -> SinglesRun:
    before = read_cpu(pids)
    sent = worker.ask(order, Sent, order.seconds + _ANSWER_SECONDS)
    if not sent.committed:
        raise BenchError("seconds: nothing was committed, the run was too short")
    return SinglesRun(sent, before.until(read_cpu(pids)))


def main(
    *,
    shards: ShardsOption = 2,
    archivers: ArchiversOption = 1,
    accounts: AccountsOption = 100_000,
    callers: Annotated[
        int, typer.Option(min=1, max=_MAX_CALLERS, help="Tasks, each with one transfer at a time.")
    ] = 2000,
    seconds: SecondsOption = 10.0,
    runs: RunsOption = 5,
    seed: SeedOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Measure single transfers through the Python client: many tasks of one process, one transfer each.

    Prints transfers a second and CPU time by part; checks that each transfer moved money once.
    """
    settings = SinglesSettings(shards, archivers, accounts, callers, seconds, runs, seed)
    carry_out(lambda progress: measure_singles(settings, progress), _show, _document, as_json=as_json)


def _show(screen: Screen, figures: SinglesFigures) -> None:
    columns = ("run", "transfers/s", "CPU", "CPUs", "others")
    title = "CPU in microseconds a transfer; CPUs in use by this, by others"
    table = Table(*columns, right=columns, title=title)
    for number, run in enumerate(figures.runs, start=1):
        table.add_row(
            str(number),
            f"{run.rate:,.0f}",
            f"{sum(run.cpu_us.values()):.1f}",
            f"{run.cpu.in_all / run.sent.seconds:.2f}",
            f"{run.cpu.elsewhere / run.sent.seconds:.2f}",
        )
    screen.table(table)
    parts = ", ".join(f"{part} {us:.1f}" for part, us in figures.cpu_us.items())
    settings = figures.settings
    screen.print(
        strong(f"{figures.rate:,.0f} transfers/s"),
        f" (at least {TARGET_RATE:,}), each a single call; the median of {len(figures.runs)}: "
        f"{settings.callers} at once, one process, {settings.shards} shards, {settings.archivers} archivers, "
        f"{settings.accounts:,} accounts, seed {settings.seed}",
    )
    screen.print(f"CPU microseconds a transfer: {parts}")
    screen.print(
        f"{figures.machine}, the client among them; verified: balanced, each transfer moved money once"
    )


def _document(figures: SinglesFigures) -> Mapping[str, object]:
    cpu_us = figures.cpu_us
    return {
        "transfers_per_second": round(figures.rate),
        "cpu_us_per_transfer": {part.value: round(us, 2) for part, us in cpu_us.items()},
        "cpu_us_per_transfer_in_all": round(sum(cpu_us.values()), 2),
        "runs": [
            {
                **asdict(run.sent),
                "transfers_per_second": round(run.rate),
                "cpus_used_by_others": round(run.cpu.elsewhere / run.sent.seconds, 3),
            }
            for run in figures.runs
        ],
        "settings": asdict(figures.settings),
        "machine": asdict(figures.machine),
    }


if __name__ == "__main__":
    typer.run(main)
