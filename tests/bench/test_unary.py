"""Single calls to a router beside an echo server: each is charged with its own time for its own calls."""

from __future__ import annotations

import pytest

from bench.echo import echo_server
from bench.errors import BenchError
from bench.load.processes import load_processes
from bench.settings import BenchSettings
from bench.unary import Counter, Round
from shard_node.cluster.slots import SLOT_COUNT
from tests.bench.commands import figures_of

ONE_PLACE = [0] * SLOT_COUNT


def test_the_ratio_is_of_cpu_time_a_call() -> None:
    """A router that answers fewer calls has spent its time on fewer: rates do not enter."""
    assert Round(100.0, 150.0, echo_rate=5000.0, router_rate=2000.0).ratio == pytest.approx(1.5)


@pytest.mark.servers
def test_the_echo_server_is_called_as_a_router_is() -> None:
    """Every answer is taken for a committed transfer, but none counts towards the cluster's books."""
    settings = BenchSettings(accounts=100, clients=1, concurrency=4, unary=True)
    counter = Counter()
    with echo_server() as echo, load_processes(settings, [echo.address], ONE_PLACE) as load:
        result = counter.echo(load)
        assert result.committed == result.latencies.count == 500
        assert counter.committed == 0
        assert counter.move(load, 0.2).committed == counter.committed > 0
    assert counter.runs == 2


@pytest.mark.servers
def test_an_echo_server_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence, not a wait without end."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(BenchError, match=r"bench\.echo ended by itself, status 1"), echo_server():
        pass


@pytest.mark.cluster
def test_a_small_run() -> None:
    """As an engineer runs it: the ratio, the peak, percentiles at half of it; nothing left behind."""
    options = ["--accounts", "500", "--clients", "1", "--concurrency", "16", "--rounds", "1"]
    figures = figures_of("bench.unary", *options, "--seconds", "0.5")
    assert len(figures["rounds"]) == 1
    assert figures["router_to_echo_ratio"] > 0
    assert figures["peak"]["calls_per_second"] > 0
    half = figures["half_peak"]
    assert half["calls_per_second_asked"] == pytest.approx(figures["peak"]["calls_per_second"] / 2, abs=1)
    assert 0 < half["p50_ms"] <= half["p99_ms"] <= half["max_ms"]
