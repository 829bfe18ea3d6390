"""Journals as load: each moves money between accounts of three shards, and all are accounted for."""

from __future__ import annotations

import pytest

from tests.bench.commands import figures_of

pytestmark = pytest.mark.cluster


def test_a_small_run() -> None:
    """As an engineer runs it: every part's CPU time, with shards and coordinator among them."""
    options = ["--accounts", "1000", "--concurrency", "20", "--seconds", "0.5", "--runs", "1"]
    figures = figures_of("bench.journals", *options)
    (run,) = figures["runs"]
    assert run["committed"] >= 2
    assert run["committed"] % 2 == 0
    by_part = figures["cpu_us_per_transfer_by_part"]
    assert min(by_part[part] for part in ("router", "coordinator", "shard")) > 0
