"""Single calls through the client: every result counts, and one that is not committed fails the run."""

from __future__ import annotations

import time

import pytest

from bench.echo import echo_server
from bench.errors import BenchError
from bench.load.client import LoadHandler, LoadSettings, Run
from bench.settings import Shape
from bench.singles import SinglesClient
from shard_node.cluster.slots import SLOT_COUNT
from tests.bench.commands import figures_of

pytestmark = pytest.mark.servers


def test_a_transfer_that_fails_ends_the_run() -> None:
    """A service that knows no batches stands for one that does not do what it is asked: no figures."""
    with echo_server() as echo:
        settings = LoadSettings(
            [echo.address], [0] * SLOT_COUNT, Shape(100), 1, unary=True, concurrency=3, seed=1
        )
        handler = LoadHandler(settings, SinglesClient)
        try:
            with pytest.raises(BenchError, match="a transfer failed"):
                handler.carry_out(Run(1, time.monotonic(), 30.0))
        finally:
            handler.close()


@pytest.mark.cluster
def test_a_small_run() -> None:
    """As an engineer runs it: a rate, and the CPU time of every part, on one line."""
    options = ["--accounts", "1000", "--callers", "50", "--seconds", "0.5", "--runs", "2"]
    figures = figures_of("bench.singles", *options)
    assert figures["transfers_per_second"] > 0
    assert len(figures["runs"]) == 2
    assert all(run["committed"] >= 50 for run in figures["runs"])
    assert {"client", "router", "coordinator", "shard", "archiver"} <= set(
        figures["cpu_us_per_transfer_by_part"]
    )
    assert figures["cpu_us_per_transfer_by_part"]["router"] > 0
