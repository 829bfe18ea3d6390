"""The plan for a rate: arithmetic that an engineer can follow by hand, and that does not live on noise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cluster.cpu import CpuSpent
from bench.cluster.local import Part
from bench.errors import BenchError
from bench.load.latency import Latencies
from bench.load.measurement import Archiving, MeasuredRun
from bench.load.processes import RunResult
from bench.reporting import report_files
from bench.reporting.figures import TRANSFER_PATH, Point, archived_share, archiving_us
from bench.scaling import report
from bench.scaling.plan import Assumptions, Line, fit, growth, make_plan
from bench.scaling.settings import ScalingSettings
from tests.bench.commands import figures_of

RATE = 100_000.0
LEVEL = [
    Point(1, RATE, {Part.SHARD: 4.0, Part.ROUTER: 1.0, Part.CLIENT: 1.0}),
    Point(2, RATE, {Part.SHARD: 8.0, Part.ROUTER: 2.0, Part.COORDINATOR: 1.5, Part.CLIENT: 1.0}),
    Point(4, RATE, {Part.SHARD: 8.0, Part.ROUTER: 2.0, Part.COORDINATOR: 1.5, Part.CLIENT: 1.0}),
]


def rising(per_shard_us: float) -> list[Point]:
    """Shards that cost 8 us a transfer and so much more for every shard."""
    return [Point(n, RATE, {Part.SHARD: 8.0 + per_shard_us * n, Part.ROUTER: 2.0}) for n in (2, 4, 8, 16)]


def test_a_level_cost() -> None:
    """A million times 8 us are 8 cores; at most 80 % busy, ten Redis. What does not cross does not count."""
    plan = make_plan(LEVEL, Assumptions())
    assert plan.shards == 10
    assert plan.processes(Part.ROUTER) == 3  # 2 / 0.8 = 2.5
    assert plan.processes(Part.COORDINATOR) == 2  # 1.5 / 0.8 = 1.875
    assert plan.processes(Part.ARCHIVER) == 0
    assert plan.cores == 15
    assert plan.client_cores == pytest.approx(1.0)


def test_assumptions_count() -> None:
    """Half the rate takes half the shards; a whole core each takes fewer; one router is the least."""
    assert make_plan(LEVEL, Assumptions(500_000)).shards == 5
    assert make_plan(LEVEL, Assumptions(shard_busy=1.0)).shards == 8
    assert make_plan(LEVEL, Assumptions(process_busy=0.5)).processes(Part.ROUTER) == 4
    small = make_plan(LEVEL, Assumptions(1000))
    assert (small.shards, small.processes(Part.ROUTER)) == (2, 1)


def test_a_rising_cost_takes_shards_for_its_own_growth() -> None:
    """8 us + 0.2 us a shard: n = (8 + 0.2 n) / 0.8 gives 13.3, so 14 shards; 13 would not carry it."""
    plan = make_plan(rising(0.2), Assumptions())
    assert plan.shards == 14
    (row, _) = plan.rows
    assert row.cpu_us == pytest.approx(8.0 + 0.2 * 14)
    assert row.cores_busy / row.busy <= 14
    assert (8.0 + 0.2 * 13) / 0.8 > 13


def test_a_cost_that_outgrows_every_shard_is_an_error() -> None:
    """When each shard more costs as much as it carries, no number is enough."""
    with pytest.raises(BenchError, match="no number of shards"):
        make_plan(rising(0.8), Assumptions())


def test_a_line_is_fitted() -> None:
    """Through exact points it is exact; a falling cost is taken as level; a single point has no slope."""
    line = fit(rising(0.25), Part.SHARD)
    assert (line.fixed_us, line.per_shard_us) == pytest.approx((8.0, 0.25))
    falling = [Point(2, RATE, {Part.SHARD: 9.0}), Point(4, RATE, {Part.SHARD: 7.0})]
    assert fit(falling, Part.SHARD) == Line(8.0, 0.0)
    assert fit(LEVEL[:2], Part.SHARD) == Line(8.0, 0.0)
    with pytest.raises(BenchError, match="2 or more"):
        fit(LEVEL[:1], Part.SHARD)


def test_growth_is_told_from_two_shards_on() -> None:
    """One shard, where nothing crosses, has no part in it."""
    points = [*LEVEL[:2], Point(16, RATE, {Part.SHARD: 25.0, Part.ARCHIVER: 12.5})]
    assert growth(points) == {2: 1.0, 16: 3.0}
    assert growth(points, TRANSFER_PATH) == {2: 1.0, 16: 2.0}
    assert growth(points[:1]) == {}


def test_what_runs_beside_goes_by_shards_and_time() -> None:
    """0.1 + 0.1 us a transfer at 100,000/s are 0.02 cores for 2 shards, so 0.1 for ten: one core for all."""
    beside = {Part.SHARD_NODE: 0.1, Part.ZOOKEEPER: 0.1}
    plan = make_plan([Point(2, RATE, {Part.SHARD: 8.0, **beside})], Assumptions())
    assert plan.shards == 10
    assert plan.cores_beside == pytest.approx(0.1)
    assert plan.cores == 11


def test_archiving_that_is_still_to_be_done_is_charged() -> None:
    """Half of 1000 transfers were stored in 10 ms: 20 us each, not 10. Nothing stored is an error."""

    def run(archived_entries: int) -> MeasuredRun:
        result = RunResult(1000, 0, 1.0, Latencies(), Latencies(), [1000])
        cpu = CpuSpent({"archiver-0": 0.01, "redis:shard-0": 0.05}, 0.0, 0.0)
        return MeasuredRun(result, cpu, Archiving(archived_entries, 2000 - archived_entries, 0))

    assert archived_share(run(1000)) == 0.5
    assert archiving_us([run(1000)]) == pytest.approx(20.0)
    assert archiving_us([run(1000), run(2000)]) == pytest.approx(20_000 / 1500)
    with pytest.raises(BenchError, match="stored nothing"):
        archiving_us([run(0)])


def test_a_report_is_written(tmp_path: Path) -> None:
    """Markdown with the arithmetic and the assumptions, JSON that says the same, a plot."""
    points = [LEVEL[0], *rising(0.2)]
    figures = report.ScalingFigures(points, make_plan(points, Assumptions()), 8000, 2)
    report_files.prepare(tmp_path / "new", report.JSON)
    report.write(tmp_path / "new", figures)
    text = (tmp_path / "new" / "scaling.md").read_text()
    assert "1,000,000/s x 10.80 us = 10.80" in text
    assert "10.80 / 0.8 -> 14" in text
    assert "What this assumes" in text
    assert "beyond" not in text
    document = json.loads((tmp_path / "new" / "scaling.json").read_text())
    assert document["plan"]["shards"] == 14
    assert [point["growth_on_the_path"] for point in document["points"]][:2] == [None, 1.0]
    assert (tmp_path / "new" / "scaling.png").stat().st_size > 1000


def test_numbers_of_shards() -> None:
    """Each once, rising; what is none, or too many, or only one, is refused by name."""
    assert ScalingSettings(shard_counts="8,2,2,1").counts == [1, 2, 8]
    for text, complaint in (("two", "no list"), ("0,2", "0 is not within"), ("65", "65"), ("1", "crosses")):
        with pytest.raises(BenchError, match=complaint):
            ScalingSettings(shard_counts=text)


@pytest.mark.cluster
def test_a_small_run(tmp_path: Path) -> None:
    """As an engineer runs it: a cluster is measured, and a plan made, in a report and on one line."""
    folder = tmp_path / "report"
    options = ["--shards", "2", "--accounts", "500", "--batch", "500", "--archivers", "0", "--runs", "1"]
    document = figures_of("bench.scaling", *options, "--seconds", "0.5", "--report", str(folder))
    (point,) = document["points"]
    assert (point["shards"], point["crossing"], point["growth_in_all"]) == (2, True, 1.0)
    assert document["plan"]["shards"] >= 2
    assert sorted(path.name for path in folder.iterdir()) == ["scaling.json", "scaling.md", "scaling.png"]
