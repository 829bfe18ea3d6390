"""`python -m bench` as an engineer runs it: a tiny run on a real cluster, and runs that must fail."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import measure
from bench.errors import BenchError
from deploy.launcher import LocalCluster
from tallystick.v1 import cluster_pb2

pytestmark = pytest.mark.cluster


def bench(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs the command with its temporary folder in ``tmp_path``."""
    command = [sys.executable, "-m", "bench", *options]
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
    """Figures for every process; a whole number of transfers; no process and no file stays behind."""
    options = ("--accounts", "2000", "--batch", "200", "--concurrency", "3", "--transfers", "3100")
    done = bench(tmp_path, *options, "--runs", "2", "--json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    figures = json.loads(line)
    assert [run["transfers"] for run in figures["runs"]] == [3100, 3100]
    assert [run["committed"] for run in figures["runs"]] == [3100, 3100]
    assert figures["transfers_per_second"] > 0
    assert set(figures["cpu_us_per_transfer"]) == {
        "client",
        "zookeeper",
        "shard-node:shard-0",
        "shard-node:shard-1",
        "redis:shard-0",
        "redis:shard-1",
        "coordinator-0",
        "router-0",
    }
    # A batch of 200 costs Python a millisecond and more: a router with nothing to show was not measured.
    assert figures["cpu_us_per_transfer"]["router-0"] > 0
    assert figures["cpu_us_per_transfer"]["client"] > 0
    assert figures["settings"]["seed"] == 1
    assert figures["verified"] == {"balanced": True, "accounts": 2000}
    assert "CPU microseconds a transfer" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


def test_a_run_that_cannot_be_ends_with_a_sentence(tmp_path: Path) -> None:
    """On one shard nothing crosses: exit code 1, no figures, nothing left."""
    done = bench(tmp_path, "--shards", "1", "--accounts", "100", "--cross-share", "cross")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "too few for --cross-share cross" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


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


def test_money_made_or_lost_fails_the_measurement() -> None:
    """Neither a sum that is not zero nor one that could not be read passes."""
    for verdict in (cluster_pb2.VERDICT_BROKEN, cluster_pb2.VERDICT_BUSY, cluster_pb2.VERDICT_UNSPECIFIED):
        with pytest.raises(BenchError, match="not balanced"):
            measure._verified(cluster_pb2.VerifyResult(verdict=verdict))
    balanced = cluster_pb2.VerifyResult(verdict=cluster_pb2.VERDICT_BALANCED)
    assert measure._verified(balanced) is balanced


def test_a_transfer_that_was_counted_and_did_not_move_fails_the_measurement() -> None:
    """Each transfer changes two accounts once; more or fewer changes are an error."""
    measure._check_moves(2000, 1000)
    for changes in (1999, 2001):
        with pytest.raises(BenchError, match="1000 transfers"):
            measure._check_moves(changes, 1000)
