"""CPU time from /proc: of the process that was meant, and only while it is that process."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from bench.cluster.cpu import CpuReading, read_cpu, read_tree
from bench.errors import BenchError


def spin(seconds: float) -> None:
    """Spends CPU time in this process."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


@pytest.mark.servers
def test_work_is_charged_to_the_process_that_did_it() -> None:
    """A process that spins is seen to, one that waits is not, and both are part of the machine's time."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as waiting:
        pids = {"spinning": os.getpid(), "waiting": waiting.pid}
        before = read_cpu(pids)
        own = time.process_time()
        spin(0.3)
        own = time.process_time() - own
        after = read_cpu(pids)
        spent = before.until(after)
        waiting.communicate(b"\n")
    # Ticks are a hundredth of a second; starting Python may take the other one a few of them.
    assert spent.by_process["spinning"] == pytest.approx(own, abs=0.05)
    assert spent.by_process["waiting"] < 0.2
    assert spent.in_all == pytest.approx(sum(spent.by_process.values()))
    assert spent.elsewhere >= 0
    assert after.busy - before.busy >= 0.2


@pytest.mark.servers
def test_children_that_ended_count_for_their_parent() -> None:
    """A Redis rewrites its append-only file in a child, which is Redis' cost."""
    before = read_cpu({"parent": os.getpid()})
    code = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    spent = before.until(read_cpu({"parent": os.getpid()}))
    assert spent.by_process["parent"] >= 0.25


@pytest.mark.servers
def test_children_count_with_the_server_that_started_them() -> None:
    """A PostgreSQL works in children, one a connection: while they live, and once they have ended."""
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    before = read_tree("server", os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert read_tree("server", os.getpid()) - before >= 0.25
        child.communicate("\n")
    assert read_tree("server", os.getpid()) - before >= 0.25


@pytest.mark.servers
def test_a_process_that_has_ended_is_an_error() -> None:
    """Figures of a process that died while it was measured are worth nothing."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        # Waits for the end, and leaves the zombie: the worse case, for it still has a line in /proc.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(BenchError, match="router-0"):
            read_cpu({"router-0": process.pid})
    with pytest.raises(BenchError, match="router-0"):
        read_cpu({"router-0": process.pid})


def test_another_process_with_the_same_id_is_an_error() -> None:
    """A process that was started anew begins at zero: the difference would be negative."""
    reading = read_cpu({"redis:shard-0": os.getpid()})
    heir = replace(reading, started={"redis:shard-0": "1"})
    with pytest.raises(BenchError, match="redis:shard-0"):
        reading.until(heir)


def test_what_others_spent_is_never_negative() -> None:
    """The kernel adds up the machine and its processes at different moments."""
    before = CpuReading({"a": 1.0}, {"a": "0"}, busy=10.0, stolen=0.0)
    spent = before.until(CpuReading({"a": 3.0}, {"a": "0"}, busy=11.9, stolen=0.5))
    assert spent.by_process == {"a": 2.0}
    assert spent.elsewhere == 0.0
    assert spent.stolen == 0.5
