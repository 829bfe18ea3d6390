"""`python -m bench.unary`: what a single Transfer costs a router, and how long it takes at half the peak.

A service that moves one payment a call pays for gRPC in Python first of all. So a router's CPU time a call is
set against that of an echo server (`bench.echo`), which does nothing else: both in this run, in turn, called
by the same processes. Then the load goes as fast as it can, and then at half of that, open loop: latencies
count from when each call was due. Everything runs on this machine, the clients included.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import typer

from bench.cluster import (
    Machine,
    Part,
    by_part,
    check_balance,
    check_durability,
    check_moves,
    local_cluster,
    process_ids,
    read_cpu,
    read_topology,
)
from bench.command import Progress, command
from bench.echo import echo_server
from bench.errors import BenchError
from bench.load import Load, RunResult, load_processes
from bench.reporting import MICROS, Figures, percentiles_ms
from bench.settings import LONGEST_RUN_SECONDS, BenchSettings
from bench.transfers import slot_owners
from deploy.local import LocalCluster, cluster_service
from deploy.terminal import Screen, strong

# What the project asks of a router: see the README.
TARGET_RATIO, TARGET_P99_MS = 1.2, 25.0
_ROUTER, _ECHO = "router-0", "echo"
# The peak is looked for at so many times the concurrency, too: a router may coalesce more of them.
_PEAK_FACTOR = 4
# Before anything counts: tables are built, connections made, code paths taken for the first time.
_WARM_UP_CALLS = 500
# So many that none is held back: a call that waits to be sent would be late, not left out.
_MOST_IN_FLIGHT = 4096
_MAX_CLIENTS = 16


@dataclass(frozen=True, slots=True)
class Round:
    """The echo server and the router, one after the other: CPU microseconds a call, calls a second."""

    echo_us: float
    router_us: float
    echo_rate: float
    router_rate: float

    @property
    def ratio(self) -> float:
        """How many times the echo server's CPU time the router takes."""
        return self.router_us / self.echo_us


@dataclass(frozen=True, slots=True)
class Peak:
    """The highest rate of closed loops, calls a second, with how many in flight; the CPU by part there."""

    calls_per_second: float
    concurrency: int
    cpu_us_per_call: Mapping[Part, float]


@dataclass(frozen=True, slots=True)
class HalfPeak:
    """An open loop at half the peak: calls a second asked for and done, milliseconds by percentile.

    ``generator_lag_p99_ms`` is how late the generator itself was, which the latencies include.
    """

    calls_per_second_asked: float
    calls_per_second: float
    latency_ms: Mapping[str, float]
    generator_lag_p99_ms: float


@dataclass(frozen=True, slots=True)
class UnaryFigures:
    """Everything that was measured."""

    rounds: Sequence[Round]
    peak: Peak
    half: HalfPeak
    machine: Machine

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return statistics.median(round_.ratio for round_ in self.rounds)


@dataclass(slots=True)
class Counter:
    """Numbers the runs, so that each draws transfers of its own, and counts what they committed."""

    runs: int = 0
    committed: int = 0

    def echo(self, load: Load, seconds: float | None = None) -> RunResult:
        """A run against the echo server; without ``seconds`` to warm up."""
        self.runs += 1
        # By count, because a process that is not ready yet would miss some seconds.
        count = _WARM_UP_CALLS if seconds is None else None
        result = load.run(self.runs, seconds or LONGEST_RUN_SECONDS, count)
        if not result.transfers:
            raise BenchError(f"seconds: no call was answered within {seconds:g} s")
        return result

    def move(self, load: Load, seconds: float | None = None) -> RunResult:
        """A run against the cluster, whose books must show it; without ``seconds`` to warm up."""
        result = self.echo(load, seconds)
        self.committed += result.committed
        return result


@dataclass(frozen=True, slots=True)
class _Steps:
    """The steps of the measurement, on one cluster. ``owners`` is the shard of each slot."""

    settings: BenchSettings
    cluster: LocalCluster
    owners: Sequence[int]
    progress: Progress
    counter: Counter

    def measure(self, machine: Machine) -> UnaryFigures:
        """All steps in order, and the proof that each transfer moved money once."""
        settings = self.settings
        with self._load(settings) as router_load:
            self.progress(f"opening {settings.accounts:,} accounts")
            before = router_load.open_accounts()
            rounds = self._rounds(router_load)
            peak = self._peak(router_load)
            half = self._half_peak(peak.calls_per_second / 2)
            self.progress("verifying")
            check_moves(router_load.read_accounts() - before, self.counter.committed)
        check_balance(self.cluster.router_addresses)
        return UnaryFigures(rounds, peak, half, machine)

    def _load(self, settings: BenchSettings) -> AbstractContextManager[Load]:
        return load_processes(settings, self.cluster.router_addresses, self.owners)

    def _rounds(self, router_load: Load) -> list[Round]:
        """The echo server and the router in turn: a machine that changes speed changes it for both."""
        settings, counter = self.settings, self.counter
        with echo_server() as echo, load_processes(settings, [echo.address], self.owners) as echo_load:
            pids = {_ROUTER: self.cluster.pid(_ROUTER), _ECHO: echo.pid}
            counter.echo(echo_load)
            counter.move(router_load)
            rounds = []
            for number in range(1, settings.runs + 1):
                self.progress(f"round {number} of {settings.runs}: echo server, router")
                before = read_cpu(pids)
                echoed = counter.echo(echo_load, settings.seconds)
                between = read_cpu(pids)
                routed = counter.move(router_load, settings.seconds)
                after = read_cpu(pids)
                echo_cpu = before.until(between).by_process[_ECHO]
                router_cpu = between.until(after).by_process[_ROUTER]
                if not echo_cpu:
                    raise BenchError(
                        f"seconds: {settings.seconds:g} are too few to see any CPU time of a server"
                    )
                rounds.append(
                    Round(
                        echo_cpu * MICROS / echoed.transfers,
                        router_cpu * MICROS / routed.transfers,
                        echoed.transfers / echoed.seconds,
                        routed.transfers / routed.seconds,
                    )
                )
        return rounds

    def _peak(self, load: Load) -> Peak:
        """The highest rate that closed loops reach: ``load`` as it is, and one with more in flight."""
        settings = self.settings
        more = replace(settings, concurrency=_PEAK_FACTOR * settings.in_flight)
        with self._load(more) as wider:
            self.counter.move(wider)
            peaks = []
            for tried, concurrency in ((load, settings.in_flight), (wider, more.in_flight)):
                self.progress(f"peak: {concurrency} in flight")
                pids = {**tried.pids, **process_ids(self.cluster.record)}
                before = read_cpu(pids)
                result = self.counter.move(tried, settings.seconds)
                spent = before.until(read_cpu(pids))
                cpu_us = {name: cpu * MICROS / result.transfers for name, cpu in spent.by_process.items()}
                peaks.append(Peak(result.transfers / result.seconds, concurrency, by_part(cpu_us)))
        return max(peaks, key=lambda peak: peak.calls_per_second)

    def _half_peak(self, rate: float) -> HalfPeak:
        self.progress(f"half the peak: {rate:,.0f} calls a second, open loop")
        with self._load(replace(self.settings, concurrency=_MOST_IN_FLIGHT, rate=rate)) as load:
            # Until every process is ready: one that is late would have to catch up, in an open loop.
            load.read_accounts()
            self.counter.move(load)
            result = self.counter.move(load, self.settings.seconds)
        return HalfPeak(
            rate,
            result.transfers / result.seconds,
            percentiles_ms(result.latencies),
            result.lags.percentile_ms(99.0),
        )


def _measure(settings: BenchSettings, progress: Progress) -> UnaryFigures:
    """Measure what a single Transfer costs a router, and how long it takes at half the peak.

    Each client is a process with an event loop that sends ready-made bytes and looks at every answer.

    Prints the router's CPU time a call, that of an echo server, and their ratio; then the peak rate.

    Then latencies at half the peak, open loop, counted from when each call was due.

    Checks that each transfer moved money once.
    """
    with local_cluster(settings, progress) as cluster:
        machine = check_durability(cluster.shard_addresses)
        with cluster_service(cluster.router_addresses) as service:
            owners = slot_owners(read_topology(service))
        return _Steps(settings, cluster, owners, progress, Counter()).measure(machine)


def _show(screen: Screen, settings: BenchSettings, figures: UnaryFigures) -> None:
    columns = ("echo server", "router", "ratio", "echo calls/s", "router calls/s")
    rows = [
        [
            f"{one.echo_us:.1f}",
            f"{one.router_us:.1f}",
            f"{one.ratio:.2f}",
            f"{one.echo_rate:,.0f}",
            f"{one.router_rate:,.0f}",
        ]
        for one in figures.rounds
    ]
    screen.table(Figures.numbered("CPU microseconds a call", "round", columns, rows).table())
    peak, half = figures.peak, figures.half
    parts = ", ".join(f"{part} {us:.1f}" for part, us in peak.cpu_us_per_call.items())
    percentiles = ", ".join(f"{name} {ms:.1f} ms" for name, ms in half.latency_ms.items())
    screen.print(
        strong(f"router: {figures.ratio:.2f} times the echo server's CPU a call"),
        f" (at most {TARGET_RATIO}), the median of {len(figures.rounds)} rounds at "
        f"{settings.in_flight} in flight",
    )
    screen.print(
        strong(f"peak: {peak.calls_per_second:,.0f} calls/s"),
        f" with {peak.concurrency} in flight; CPU microseconds a call: {parts}",
    )
    screen.print(
        strong(f"at {half.calls_per_second_asked:,.0f} calls/s: {percentiles}"),
        f" (p99 at most {TARGET_P99_MS:g} ms); open loop, from when each call "
        f"was due; the generator itself was late by {half.generator_lag_p99_ms:.1f} ms at p99",
    )
    screen.print(
        f"{figures.machine}, all on them: {settings.clients} load processes, {settings.shards} shards, ",
        f"1 router, {settings.archivers} archivers, {settings.accounts:,} accounts, seed {settings.seed}",
    )


def _document(settings: BenchSettings, figures: UnaryFigures) -> Mapping[str, object]:
    half = asdict(figures.half)
    latency_ms = {f"{name}_ms": ms for name, ms in half.pop("latency_ms").items()}
    return {
        "router_to_echo_ratio": round(figures.ratio, 3),
        "router_us_per_call": round(statistics.median(one.router_us for one in figures.rounds), 2),
        "echo_us_per_call": round(statistics.median(one.echo_us for one in figures.rounds), 2),
        "rounds": [asdict(one) | {"ratio": one.ratio} for one in figures.rounds],
        "peak": asdict(figures.peak),
        "half_peak": half | latency_ms,
        "settings": settings.document(),
        "machine": asdict(figures.machine),
    }


# One router: the CPU time of several would have to be told apart by their calls.
main = command(
    _measure,
    _show,
    _document,
    BenchSettings(unary=True, clients=2, concurrency=64, seconds=5.0),
    ("shards", "archivers", "accounts", "clients", "concurrency", "runs", "seconds", "seed"),
    clients=Annotated[int, typer.Option(min=1, max=_MAX_CLIENTS, help="Load processes.")],
    concurrency=Annotated[
        int,
        typer.Option(min=_MAX_CLIENTS, max=_MOST_IN_FLIGHT // _PEAK_FACTOR, help="Calls in flight at once."),
    ],
    runs=Annotated[
        int,
        typer.Option("--rounds", min=1, max=50, help="Times that echo server and router take turns."),
    ],
)

if __name__ == "__main__":
    typer.run(main)
