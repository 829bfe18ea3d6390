"""From the cost of a transfer to the processes and cores for a rate: plain arithmetic, shown step by step.

A batch makes one call to every shard, and a call has a cost of its own whatever it carries: so the cost of a
transfer is a constant plus something for every shard, a straight line through what was measured. More shards
make each transfer dearer, which takes more shards: the plan is where that comes to rest. Shard nodes and
ZooKeeper do not work for transfers; they take some of a core for each shard, however much goes on there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.cluster import Part
from bench.errors import BenchError
from bench.reporting import MICROS, Point

# Each of these is one process with one thread that works: it fills one core and no more.
_PROCESSES = (Part.SHARD, Part.ROUTER, Part.COORDINATOR, Part.ARCHIVER)
# What runs beside and needs no core of its own; what it spends goes by time and shard, not by transfer.
_BESIDE = (Part.SHARD_NODE, Part.ZOOKEEPER)
# More shards than slots there are none; a plan that gets there has no end.
_MOST_SHARDS = 16384


@dataclass(frozen=True, slots=True)
class Line:
    """The cost of a transfer in one part on n shards: ``fixed_us`` + n x ``per_shard_us``, never falling."""

    fixed_us: float
    per_shard_us: float

    def at(self, shards: int) -> float:
        """CPU microseconds a transfer on so many shards."""
        return self.fixed_us + self.per_shard_us * shards


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What the plan takes for granted. ``*_busy`` is the share of its core that a process may use at most."""

    transfers_per_second: float = 1_000_000.0
    shard_busy: float = 0.8
    process_busy: float = 0.8


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One part of the plan: its cost on the planned shards, the cores it keeps busy, how many processes."""

    part: Part
    line: Line
    cpu_us: float
    cores_busy: float
    busy: float
    processes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Who has to work how much. ``client_cores`` and the cores beside are counted busy, not by process."""

    assumptions: Assumptions
    rows: Sequence[PlanRow]
    cores_beside: float
    client_cores: float

    @property
    def shards(self) -> int:
        """Redis servers."""
        return self.processes(Part.SHARD)

    @property
    def cores(self) -> int:
        """Cores of the cluster, clients aside: one a process, and what runs beside."""
        return sum(row.processes for row in self.rows) + math.ceil(self.cores_beside)

    def processes(self, part: Part) -> int:
        """How many processes of a part; 0 when it was not measured."""
        return next((row.processes for row in self.rows if row.part is part), 0)


def growth(
    points: Sequence[Point], parts: Sequence[Part] = tuple(Part), base_shards: int = 2
) -> dict[int, float]:
    """The cost of these parts on each number of shards as a multiple of that on ``base_shards``.

    Empty when those were not measured. A single shard, where nothing crosses, has no part in it.
    """
    base = next((point.sum_us(parts) for point in points if point.shards == base_shards), 0.0)
    if not base:
        return {}
    return {point.shards: point.sum_us(parts) / base for point in points if point.shards > 1}


def fit(points: Sequence[Point], part: Part) -> Line:
    """The straight line of least squares through the cost of a part; level where it would fall.

    Cost that falls with more shards is noise, and a plan must not live on it.
    """
    crossing = [(point.shards, point.cpu_us.get(part, 0.0)) for point in points if point.shards > 1]
    if not crossing:
        raise BenchError("shards: a plan needs a measurement on 2 or more")
    mean_n = sum(n for n, _ in crossing) / len(crossing)
    mean_us = sum(us for _, us in crossing) / len(crossing)
    spread = sum((n - mean_n) ** 2 for n, _ in crossing)
    slope = sum((n - mean_n) * (us - mean_us) for n, us in crossing) / spread if spread else 0.0
    slope = max(0.0, slope)
    return Line(mean_us - slope * mean_n, slope)


def make_plan(points: Sequence[Point], assumptions: Assumptions) -> Plan:
    """The processes and cores for the rate that is assumed.

    Raises BenchError when no number of shards is enough, for each one more costs more than it carries.
    """
    shards = _shards(fit(points, Part.SHARD), assumptions)
    rows = []
    for part in _PROCESSES:
        if not any(part in point.cpu_us for point in points):
            continue
        line = fit(points, part)
        cores = _cores(line.at(shards), assumptions)
        busy = assumptions.shard_busy if part is Part.SHARD else assumptions.process_busy
        processes = shards if part is Part.SHARD else max(1, _ceil(cores / busy))
        rows.append(PlanRow(part, line, line.at(shards), cores, busy, processes))
    client_cores = _cores(fit(points, Part.CLIENT).at(shards), assumptions)
    return Plan(assumptions, rows, _beside(points) * shards, client_cores)


def _beside(points: Sequence[Point]) -> float:
    """Cores for each shard that go to what runs beside: the most of all measurements."""
    return max(
        sum(point.cpu_us.get(part, 0.0) for part in _BESIDE) * point.rate / MICROS / point.shards
        for point in points
    )


def _shards(line: Line, assumptions: Assumptions) -> int:
    """The fewest shards, two at least, that carry what a transfer costs on so many of them."""
    shards = 2
    while shards <= _MOST_SHARDS:
        needed = _ceil(_cores(line.at(shards), assumptions) / assumptions.shard_busy)
        if needed <= shards:
            return shards
        # The cost never falls with more shards, so no fewer than these can be enough.
        shards = needed
    raise BenchError(
        f"no number of shards carries {assumptions.transfers_per_second:,.0f} transfers/s: "
        f"each one more costs {line.per_shard_us:.3f} us a transfer; make the batches larger"
    )


def _cores(cpu_us: float, assumptions: Assumptions) -> float:
    return assumptions.transfers_per_second * cpu_us / MICROS


def _ceil(value: float) -> int:
    # What is a whole number but for rounding is not one more.
    return math.ceil(round(value, 9))
