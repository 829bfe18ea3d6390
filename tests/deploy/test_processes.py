"""Processes are recognised by more than their number, and end when asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.local.processes import ProcessIdentity, identify, is_alive, kill, spawn, stop, tail

pytestmark = pytest.mark.servers

_POLITE = "import time; print('up', flush=True); time.sleep(600)"
_STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(600)"
)


class _Sleepers:
    """Processes for one test, ended with it."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, program: str) -> ProcessIdentity:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        identity = identify(process.pid)
        assert identity is not None
        return identity

    def returncode(self, identity: ProcessIdentity) -> int:
        [process] = [process for process in self._processes if process.pid == identity.pid]
        return process.wait(timeout=10)

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


@pytest.fixture
def sleepers() -> Iterator[_Sleepers]:
    """Starts processes that sleep."""
    made = _Sleepers()
    yield made
    made.end()


def test_a_process_that_heeds_sigterm_is_not_killed(sleepers: _Sleepers) -> None:
    """Stopping asks first, and asking is enough for a process that listens."""
    polite = sleepers.start(_POLITE)
    assert stop([polite], grace_seconds=10) == []
    assert sleepers.returncode(polite) == -signal.SIGTERM


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(sleepers: _Sleepers) -> None:
    """Nothing is left running: what does not end by itself is ended, and named."""
    stubborn, polite = sleepers.start(_STUBBORN), sleepers.start(_POLITE)
    assert stop([stubborn, polite], grace_seconds=0.3) == [stubborn]
    assert sleepers.returncode(stubborn) == -signal.SIGKILL
    assert not is_alive(stubborn)


def test_a_stranger_with_the_same_number_is_left_alone(sleepers: _Sleepers) -> None:
    """A process id that now belongs to another process is neither alive nor signalled."""
    stranger = sleepers.start(_POLITE)
    gone = replace(stranger, started="another boot:1")
    assert not is_alive(gone)
    assert stop([gone], grace_seconds=5) == []
    kill(gone)
    assert is_alive(stranger)


def test_a_process_that_ended_but_was_not_reaped_is_gone() -> None:
    """A zombie holds its number and answers signals, yet runs nothing."""
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert identify(child.pid) is None
    child.wait()


def test_stopping_what_is_gone_returns_at_once(sleepers: _Sleepers) -> None:
    """Stop may be repeated."""
    polite = sleepers.start(_POLITE)
    kill(polite)
    sleepers.returncode(polite)
    assert stop([polite], grace_seconds=60) == []


def test_output_is_appended_to_the_log_and_its_end_can_be_read(tmp_path: Path) -> None:
    """A log keeps earlier runs; the tail shows only what came after a given place."""
    log = tmp_path / "logs" / "x.log"
    for text in ("first", "second"):
        size = log.stat().st_size if log.exists() else 0
        spawn([sys.executable, "-c", f"print('{text}')"], log).wait()
    assert log.read_text() == "first\nsecond\n"
    assert tail(log) == "first\nsecond"
    assert tail(log, since=size) == "second"
    assert tail(log, since=10**6) == "first\nsecond"
    assert tail(log, lines=1) == "second"
    assert tail(tmp_path / "none.log") == ""


def test_a_spawned_process_has_a_session_of_its_own(tmp_path: Path) -> None:
    """Ctrl-C in the terminal reaches the launcher, not the servers."""
    child = spawn([sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid())"], tmp_path / "log")
    child.wait()
    assert tail(tmp_path / "log") == "True"
