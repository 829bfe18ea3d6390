"""`python -m bench.locust_rig.capacity`: the Locust workers, and the cluster, that a rate takes.

One worker sends as fast as it can to a stand-in that answers at once. What counts is the worker's own CPU
time a transfer, which hardly depends on who else uses the machine; from it comes the rate of a worker that
has a core to itself. A worker that is always busy measures its own delays: plan with less than a whole core.
The cluster's side comes from what a transfer costs each part of a local cluster of two shards, measured here
or given, by the arithmetic of `bench.scaling`.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from bench.cluster import Part
from bench.command import Progress, command
from bench.errors import BenchError
from bench.locust_rig.settings import Mode
from bench.reporting import Figures as TextTable
from bench.reporting import measure_cluster
from bench.scaling import Assumptions, Plan, Point, make_plan
from bench.settings import BatchOption, BenchSettings
from bench.stand_in import stand_in
from deploy.terminal import Screen

_PARTS = (Part.SHARD, Part.ROUTER, Part.COORDINATOR, Part.ARCHIVER)
# The share of a core that a process is planned to use, so that it sends and reads when it should.
PLANNED_SHARE = 0.7
# For both processes to start, on a busy machine.
_START_SECONDS = 60.0
_SHARDS = 2
# Archivers, which give way to transfers, store something in this time.
_LEAST_CLUSTER_SECONDS = 3.0
# More workers than a test can sensibly have: another way of sending does it with a handful.
_MANY_WORKERS = 16


@dataclass(frozen=True, slots=True)
class CapacitySettings:
    """What to measure, and what to plan for."""

    rate: Annotated[float, typer.Option(min=1, max=1e9, help="Transfers/s to plan for.")] = 1_000_000
    batch: BatchOption = 1000
    seconds: Annotated[float, typer.Option(min=0.5, max=600, help="How long each is measured.")] = 5.0
    batch_users: Annotated[int, typer.Option(min=1, max=1000, help="Batches in flight at once.")] = 4
    unary_users: Annotated[int, typer.Option(min=1, max=10_000, help="Single calls in flight at once.")] = 64
    cluster_us: Annotated[
        str,
        typer.Option(
            metavar="PART=US,...",
            help=f"CPU microseconds a transfer of {', '.join(_PARTS)}, in place of a measurement here.",
        ),
    ] = ""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one worker did in one mode."""

    mode: str
    batch: int
    transfers_per_second: float
    cores_used: float
    cpu_us_per_transfer: float

    @property
    def per_core(self) -> float:
        """Transfers a second of a worker that uses one core fully."""
        return 1e6 / self.cpu_us_per_transfer

    def workers(self, rate: float) -> int:
        """Workers for so many transfers a second, each using its planned share of a core."""
        return math.ceil(rate / (self.per_core * PLANNED_SHARE))


@dataclass(frozen=True, slots=True)
class Figures:
    """What a rate takes: ``modes`` of the load, and the ``plan`` of the cluster when batches are sent.

    ``measured`` says where the cluster's costs are from.
    """

    rate: float
    modes: Sequence[Capacity]
    plan: Plan
    measured: str


def measure(mode: Mode, batch: int, users: int, seconds: float) -> Capacity:
    """Runs one worker. Raises BenchError when it fails, or any of its transfers did."""
    with stand_in() as router:
        command = [sys.executable, "-m", "bench.locust_rig.one_worker", "--routers", router.address]
        command += ["--mode", mode, "--batch", str(batch), "--users", str(users), "--seconds", str(seconds)]
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=True, timeout=seconds + _START_SECONDS
            )
        except subprocess.SubprocessError as error:
            raise BenchError(f"the worker failed: {error}") from error
    seen = json.loads(done.stdout)
    if seen["failures"] or not seen["transfers"]:
        raise BenchError(f"{seen['failures']} of {seen['transfers']} transfers failed")
    return Capacity(
        mode,
        1 if mode is Mode.UNARY else batch,
        seen["transfers"] / seen["seconds"],
        seen["cpu_seconds"] / seen["seconds"],
        seen["cpu_seconds"] / seen["transfers"] * 1e6,
    )


def measure_costs(batch: int, seconds: float, progress: Progress) -> Point:
    """What a transfer costs each part of a cluster of this machine, in one run."""
    settings = BenchSettings(
        shards=_SHARDS,
        batch=batch,
        seconds=max(seconds, _LEAST_CLUSTER_SECONDS),
        runs=1,
        accounts=20_000,
        # One that gives way stores too little in a short run to tell what it costs.
        archiver_niceness=0,
    )
    found = measure_cluster(settings, progress)
    return Point(_SHARDS, found.rate, found.cpu_us)


def given_costs(text: str) -> Point:
    """Costs such as "shard=17,router=1.9"; BenchError names what is no part, or no cost, or missing."""
    costs: dict[Part, float] = {}
    for item in text.split(","):
        name, _, us = item.partition("=")
        try:
            costs[Part(name.strip())] = float(us)
        except ValueError:
            raise BenchError(
                f"--cluster-us: {item!r} is not PART=MICROSECONDS of {', '.join(_PARTS)}"
            ) from None
    for part, cost in costs.items():
        if part not in _PARTS or not 0 < cost < math.inf:
            raise BenchError(f"--cluster-us: {part}={cost:g} is not above 0, of {', '.join(_PARTS)}")
    if missing := [part for part in _PARTS if part not in costs]:
        raise BenchError(f"--cluster-us: {', '.join(missing)} missing")
    return Point(_SHARDS, 1.0, costs)


def _measure(settings: CapacitySettings, progress: Progress) -> Figures:
    """Measure what a Locust worker drives and what a transfer costs a cluster; plan both for a rate."""
    costs = given_costs(settings.cluster_us) if settings.cluster_us else None
    modes = []
    for mode, users in ((Mode.BATCH, settings.batch_users), (Mode.UNARY, settings.unary_users)):
        progress(f"{mode}: {users} users for {settings.seconds:g} s")
        modes.append(measure(mode, settings.batch, users, settings.seconds))
    measured = "as given"
    if costs is None:
        costs = measure_costs(settings.batch, settings.seconds, progress)
        measured = f"measured here at {costs.rate:,.0f} transfers/s on {os.cpu_count()} CPUs"
    plan = make_plan([costs], Assumptions(settings.rate, PLANNED_SHARE, PLANNED_SHARE))
    return Figures(settings.rate, modes, plan, measured)


def _document(_: CapacitySettings, figures: Figures) -> dict[str, object]:
    plan = figures.plan
    return {
        "target_transfers_per_second": figures.rate,
        "planned_share_of_a_core": PLANNED_SHARE,
        "modes": [
            asdict(capacity)
            | {
                "transfers_per_second_per_core": capacity.per_core,
                "workers_for_target": capacity.workers(figures.rate),
            }
            for capacity in figures.modes
        ],
        "cluster": {
            "costs": figures.measured,
            "cores": plan.cores,
            "parts": {
                row.part.value: {
                    "cpu_us_per_transfer": row.cpu_us,
                    "cores_busy": row.cores_busy,
                    "processes": row.processes,
                }
                for row in plan.rows
            },
        },
    }


def _show(screen: Screen, _: CapacitySettings, figures: Figures) -> None:
    rate = f"{figures.rate:,.0f} transfers/s"
    columns = ("users", "batch", "CPU µs/transfer", "transfers/s a core", "workers", "measured/s")
    modes = [
        [
            capacity.mode,
            f"{capacity.batch:,}",
            f"{capacity.cpu_us_per_transfer:.2f}",
            f"{capacity.per_core:,.0f}",
            f"{capacity.workers(figures.rate):,}",
            f"{capacity.transfers_per_second:,.0f} on {capacity.cores_used:.2f} cores",
        ]
        for capacity in figures.modes
    ]
    parts = [
        [row.part, f"{row.cpu_us:.2f}", f"{row.cores_busy:.2f}", f"{row.processes:,}"]
        for row in figures.plan.rows
    ]
    screen.print(f"Locust's workers for {rate}:")
    screen.table(TextTable("", columns, modes).table())
    for capacity in figures.modes:
        if capacity.mode is Mode.UNARY and capacity.workers(figures.rate) > _MANY_WORKERS:
            screen.print(
                f"Single calls are the wrong tool for {rate}: {capacity.workers(figures.rate):,} workers, "
                "and a router spends a hundred times on each what it does on a transfer in a batch. Send "
                "batches, or use the Python client, which makes batches of single transfers."
            )
    screen.print(
        f"The cluster for {rate} in batches of {figures.modes[0].batch:,}, its costs {figures.measured}:"
    )
    part_columns = ("part", "CPU µs/transfer", "cores busy", "processes")
    screen.table(TextTable("", part_columns, parts).table())
    screen.print(
        f"In all {figures.plan.cores:,} cores, Locust's aside. Assumed: each process uses "
        f"{PLANNED_SHARE:.0%} of a core, for beyond that latencies are partly its own; neither disk nor "
        f"network is slower than here; a transfer costs as much on {figures.plan.shards:,} shards as on "
        f"{_SHARDS}. It costs more: 'python -m bench.scaling' measures how much."
    )


main = command(_measure, _show, _document, CapacitySettings())

if __name__ == "__main__":
    typer.run(main)
