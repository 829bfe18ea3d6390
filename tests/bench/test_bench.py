"""`tallystick bench` as an engineer runs it: tiny runs on a real cluster, and runs that must fail."""

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cluster import local
from bench.errors import BenchError
from deploy.cli.main import app
from deploy.local.launcher import LocalCluster
from tallystick.v1 import cluster_pb2

pytestmark = pytest.mark.cluster


def bench(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs the command with its temporary folder in ``tmp_path``.

    Archivers give way to nobody: on a busy machine a run would wait long for what opening accounts left.
    """
    command = [sys.executable, "-m", "deploy.cli", "bench", "--archiver-niceness", "0", *options]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)


def processes_in(folder: Path) -> list[str]:
    """Command lines of processes that were started for a cluster in ``folder``."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            working_folder = (process / "cwd").resolve()
        except OSError:
            continue
        if str(folder) in line or working_folder.is_relative_to(folder):
            lines.append(line)
    return lines


def test_a_tiny_run_counts_every_transfer_and_leaves_nothing(tmp_path: Path) -> None:
    """Figures for every process and part, a whole number of transfers, no process or file left."""
    temporary, report = tmp_path / "temporary", tmp_path / "report"
    temporary.mkdir()
    options = ("--accounts", "2000", "--batch", "200", "--concurrency", "4", "--transfers", "3100")
    more = ("--clients", "2", "--runs", "2", "--rejections", "0.1", "--report", str(report), "--json")
    done = bench(temporary, *options, *more)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    figures = json.loads(line)
    assert [run["transfers"] for run in figures["runs"]] == [3100, 3100]
    for run in figures["runs"]:
        assert run["committed"] + run["insufficient_funds"] == 3100
        # Six standard deviations.
        assert run["insufficient_funds"] == pytest.approx(310, abs=100)
        assert run["archived_entries"] >= 0
    assert figures["transfers_per_second"] > 0
    assert set(figures["cpu_us_per_transfer"]) == {
        "client-0",
        "client-1",
        "zookeeper",
        "shard-node:shard-0",
        "shard-node:shard-1",
        "redis:shard-0",
        "redis:shard-1",
        "archiver-0",
        "coordinator-0",
        "router-0",
    }
    # A batch of 200 costs Python a millisecond and more: a router with nothing to show was not measured.
    assert figures["cpu_us_per_transfer_by_part"]["router"] > 0
    assert figures["cpu_us_per_transfer_by_part"]["client"] > 0
    assert figures["settings"]["seed"] == 1
    # A tenth more accounts, without funds.
    assert figures["verified"] == {"balanced": True, "accounts": 2200}
    assert figures["cluster"]["every_write_synced"]
    assert "CPU microseconds a transfer" in done.stderr
    assert json.loads((report / "report.json").read_text()) == figures
    assert list(temporary.iterdir()) == []
    assert processes_in(temporary) == []


def test_without_archivers_every_entry_waits(tmp_path: Path) -> None:
    """Which also proves that the backlog is counted in entries, two a transfer."""
    options = (
        "--archivers",
        "0",
        "--accounts",
        "500",
        "--batch",
        "100",
        "--transfers",
        "1000",
        "--runs",
        "1",
    )
    done = bench(tmp_path, *options, "--same-shard", "0.5", "--distribution", "zipfian", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    (run,) = figures["runs"]
    assert run["committed"] == 1000
    assert run["archived_entries"] == 0
    assert run["backlog_growth"] == 2000
    assert "archiver" not in figures["cpu_us_per_transfer_by_part"]


def test_a_cluster_that_runs_already_is_aimed_at(cluster: LocalCluster, tmp_path: Path) -> None:
    """By single transfers in an open loop, some without funds; only the client's CPU time is told."""
    routers = ",".join(cluster.router_addresses)
    options = ("--routers-at", routers, "--accounts", "300", "--hot-account", "payee", "--rejections", "0.3")
    done = bench(tmp_path, *options, "--unary", "--rate", "100", "--seconds", "1", "--runs", "1", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    (run,) = figures["runs"]
    assert run["transfers"] == run["calls"] > 40
    assert 0 < run["insufficient_funds"] < run["committed"]
    assert run["lag_ms"]["p50"] > 0
    assert set(figures["cpu_us_per_transfer"]) == {"client"}
    assert figures["cpu_us_per_transfer_in_all"] is None
    assert figures["cluster"] == {"external": True, "shards": 3, "every_write_synced": True}
    assert cluster.exited() == []


def test_a_run_that_cannot_be_ends_with_a_sentence(tmp_path: Path) -> None:
    """On one shard nothing crosses: exit code 1, no figures, nothing left."""
    done = bench(tmp_path, "--shards", "1", "--accounts", "100", "--cross-share", "cross")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "100 on 1 shards are too few to have 0% of the transfers within a shard" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--same-shard", "1.5"), "--same-shard"),
        (("--same-shard", "0.5", "--cross-share", "same"), "same_shard"),
        (("--transfers", "2", "--clients", "3"), "transfers: 2 is not within 3 to"),
        (("--batch", "8193"), "8192"),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(
    tmp_path: Path, options: tuple[str, ...], sentence: str
) -> None:
    """Exit code 2 and the limits, before anything starts."""
    done = bench(tmp_path, *options)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_its_packages_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """And every other command works without them."""
    monkeypatch.setitem(sys.modules, "hdrh.histogram", None)
    for module in [name for name in sys.modules if name.startswith("bench.")]:
        monkeypatch.delitem(sys.modules, module)
    shown = CliRunner().invoke(app, ["bench", "--runs", "1"])
    assert shown.exit_code == 1
    assert "pip install 'tallystick[bench]'" in shown.output
    assert CliRunner().invoke(app, ["--help"]).exit_code == 0


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_run_leaves_nothing(tmp_path: Path, ending: signal.Signals) -> None:
    """Ctrl-C, or a CI job that is cancelled: the cluster and the client end, the folder goes."""
    command = [sys.executable, "-m", "bench", "--accounts", "1000", "--batch", "50", "--seconds", "90"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as running:
        assert running.stderr is not None
        steps = iter(running.stderr.readline, "")
        assert "run 1 of 5\n" in steps
        running.send_signal(ending)
        # A second one, while it stops the cluster, changes nothing.
        running.send_signal(ending)
        rest = running.stderr.read()
    assert running.returncode == 130
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


def test_a_process_that_dies_fails_the_measurement(tmp_path: Path) -> None:
    """Without its coordinator a cluster answers that outcomes are not known: no figures."""
    command = [sys.executable, "-m", "bench", "--accounts", "1000", "--batch", "50", "--seconds", "90"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        assert running.stderr is not None
        steps = iter(running.stderr.readline, "")
        assert "run 1 of 5\n" in steps
        (folder,) = tmp_path.iterdir()
        LocalCluster(folder).kill("coordinator-0")
        output, errors = running.communicate()
    assert running.returncode == 1
    assert output == ""
    assert "error: " in errors
    assert "Traceback" not in errors
    assert processes_in(tmp_path) == []


def test_money_made_or_lost_fails_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a sum that is not zero nor one that could not be read passes."""
    answers = [
        cluster_pb2.VERDICT_BROKEN,
        cluster_pb2.VERDICT_BUSY,
        cluster_pb2.VERDICT_UNSPECIFIED,
        cluster_pb2.VERDICT_BALANCED,
    ]
    results = iter(cluster_pb2.VerifyResult(verdict=verdict) for verdict in answers)
    monkeypatch.setattr(local, "cluster_service", nullcontext)
    monkeypatch.setattr(local, "verify_balance", lambda _: next(results))
    for _ in answers[:-1]:
        with pytest.raises(BenchError, match="not balanced"):
            local.check_balance([])
    local.check_balance([])
