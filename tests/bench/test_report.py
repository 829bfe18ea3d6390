"""The report says what was measured: medians, parts, what was refused and archived, on paper and as JSON."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.cluster.cpu import CpuSpent
from bench.cluster.local import Machine
from bench.errors import BenchError
from bench.load.latency import Latencies
from bench.load.measurement import Archiving, MeasuredRun, Measurement
from bench.load.processes import RunResult
from bench.reporting import report, report_files
from bench.reporting.figures import document
from bench.settings import BenchSettings, HotAccount
from deploy.terminal.rendering import Screen


def run_of(rate: int, latency_ms: float, lag_ms: float | None = None) -> MeasuredRun:
    """A run of 10 seconds in which a transfer costs 20 microseconds of CPU in all, 9 of them on shards."""
    transfers = 10 * rate
    latencies, lags = Latencies(), Latencies()
    for _ in range(100):
        latencies.record(latency_ms / 1000)
        if lag_ms is not None:
            lags.record(lag_ms / 1000)
    micros = {"client-0": 1.0, "client-1": 1.5, "router-0": 8.5, "redis:shard-0": 4.0, "redis:shard-1": 5.0}
    cpu = CpuSpent({name: each * transfers / 1e6 for name, each in micros.items()}, elsewhere=1.0, stolen=0.5)
    result = RunResult(transfers - 30, 30, 10.0, latencies, lags, [rate] * 10)
    return MeasuredRun(result, cpu, Archiving(15 * rate, 5 * rate, 77_000))


RUNS = (run_of(30_000, 90.0), run_of(10_000, 40.0), run_of(50_000, 60.0))
MEASUREMENT = Measurement(RUNS, Machine(2, "7.0.15", "ext4"), 1234, 2, durable=True, external=False)
SETTINGS = BenchSettings(clients=2, rejections=0.1, hot=HotAccount.PAYEE)


def test_figures_are_medians_over_the_runs() -> None:
    """One run that something disturbed moves none of them."""
    figures = document(SETTINGS, MEASUREMENT)
    assert figures["transfers_per_second"] == 30_000 - 3
    assert figures["latency_ms"]["p99"] == pytest.approx(60, rel=1e-3)
    assert figures["archived_entries_per_second"] == 45_000
    assert [run["transfers_per_second"] for run in figures["runs"]] == [29_997, 9997, 49_997]


def test_cpu_time_is_told_by_process_by_part_and_in_all() -> None:
    """All Redis servers are one part, all load processes another; parts add up."""
    figures = document(SETTINGS, MEASUREMENT)
    assert figures["cpu_us_per_transfer"]["redis:shard-1"] == pytest.approx(5.0)
    assert figures["cpu_us_per_transfer_by_part"] == {"client": 2.5, "router": 8.5, "shard": 9.0}
    assert figures["cpu_us_per_transfer_in_all"] == pytest.approx(20.0)


def test_what_archivers_left_for_later_is_charged() -> None:
    """They stored three of each four entries for 3 microseconds a transfer: all four would have cost 4."""
    micros = {"client": 1.0, "redis:shard-0": 9.0, "archiver-0": 3.0}
    cpu = CpuSpent({name: each / 10 for name, each in micros.items()}, elsewhere=0.0, stolen=0.0)
    result = RunResult(100_000, 0, 10.0, Latencies(), Latencies(), [])
    run = MeasuredRun(result, cpu, Archiving(150_000, 50_000, 50_000))
    figures = document(SETTINGS, replace(MEASUREMENT, runs=(run,)))
    assert figures["cpu_us_per_transfer_in_all"] == pytest.approx(13.0)
    assert figures["archiver_cpu_us_per_entry"] == pytest.approx(2.0)
    assert figures["cpu_us_per_transfer_once_archived"] == pytest.approx(14.0)
    assert "a transfer has cost 14.0 in all" in report.markdown(SETTINGS, replace(MEASUREMENT, runs=(run,)))
    assert document(SETTINGS, MEASUREMENT)["cpu_us_per_transfer_once_archived"] is None


def test_of_an_external_cluster_no_sum_is_told() -> None:
    """It would seem as if the clients were all there is."""
    external = replace(MEASUREMENT, external=True, durable=False)
    figures = document(SETTINGS, external)
    assert figures["cpu_us_per_transfer_in_all"] is None
    assert figures["cluster"] == {"external": True, "shards": 2, "every_write_synced": None}
    text = report.markdown(SETTINGS, external)
    assert "in all" not in text.partition("CPU microseconds a transfer, by part")[2]
    assert "appendfsync always" not in text


def test_the_document_is_json_and_says_what_was_asked_for() -> None:
    """Also how archivers ran, and what they left."""
    figures = json.loads(json.dumps(document(SETTINGS, MEASUREMENT)))
    assert figures["settings"]["hot"] == "payee"
    assert figures["settings"]["rejections"] == 0.1
    assert figures["settings"]["archiver_niceness"] == 10
    assert figures["settings"]["concurrency"] == 8
    assert figures["runs"][0]["insufficient_funds"] == 30
    assert figures["runs"][0]["backlog_growth"] == 150_000
    assert figures["runs"][0]["backlog_entries"] == 77_000
    assert figures["runs"][0]["committed_in_each_second"] == [30_000] * 10
    assert figures["runs"][0]["lag_ms"] is None


def test_the_tables_show_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is cut off."""
    report.show(Screen(), SETTINGS, MEASUREMENT)
    text = capsys.readouterr().out
    for figure in ("29,997", "redis:shard-1", "8.50", "20.00", "450,000", "77,000", "90 refused", "payee"):
        assert figure in text


def test_lateness_is_told_of_an_open_loop_alone() -> None:
    """In a closed one nothing is due before it is sent."""
    late = replace(MEASUREMENT, runs=(run_of(100, 5.0, 2.0),))
    assert "sent late" in report.markdown(replace(SETTINGS, rate=100.0), late)
    assert "sent late" not in report.markdown(SETTINGS, MEASUREMENT)
    assert document(SETTINGS, late)["runs"][0]["lag_ms"]["p50"] == pytest.approx(2.0, rel=1e-3)


@pytest.mark.large
def test_a_report_is_a_folder_with_json_markdown_and_pictures(tmp_path: Path) -> None:
    """Every picture that the Markdown shows is there, and is one."""
    folder = tmp_path / "new" / "report"
    report_files.prepare(folder)
    paths = report_files.write(folder, SETTINGS, MEASUREMENT)
    assert sorted(path.name for path in paths) == sorted(path.name for path in folder.iterdir())
    text = (folder / "report.md").read_text()
    pictures = [path for path in paths if path.suffix == ".png"]
    assert len(pictures) == 3
    for picture in pictures:
        assert f"({picture.name})" in text
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert "| in all | 20.00 |" in text
    assert json.loads((folder / "report.json").read_text()) == json.loads(
        json.dumps(document(SETTINGS, MEASUREMENT))
    )


def test_a_folder_that_cannot_be_is_refused_before_anything_runs(tmp_path: Path) -> None:
    """Not after an hour of measuring."""
    (tmp_path / "file").touch()
    for name in (report_files.JSON, "scaling.json"):
        with pytest.raises(BenchError, match="report"):
            report_files.prepare(tmp_path / "file" / "report", name)
