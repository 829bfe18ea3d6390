"""The measurement of the archiver runs, on a short stream, and prints its figures."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.servers


def test_a_small_run() -> None:
    """All that a shard made is archived; every figure is there."""
    command = [
        sys.executable,
        "-m",
        "bench.archive",
        "--entries",
        "4000",
        "--accounts",
        "50",
        "--limit",
        "1000",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "archived 4,000 entries in 2 batches" in done.stdout
    for figure in ("entries per second of CPU", "Redis spent", "bytes each, with indexes"):
        assert figure in done.stdout
