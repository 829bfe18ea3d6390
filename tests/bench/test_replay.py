"""The measurement of replay and history runs, on a small ledger, and prints its figures."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.servers


def test_a_small_run() -> None:
    """Every figure is there; the made-up ledger is whole."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.replay", "--entries", "3000", "--accounts", "40"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("stored")
    assert "3,0" in lines[0]
    assert "41 accounts, 0 findings, 0 open" in done.stdout
    assert sum("ms median" in line for line in lines) == 6
