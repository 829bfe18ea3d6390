"""A sample of the fuzzer's inputs; ``make fuzz`` takes its time."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.engine.fuzz.building import build

INPUTS = 500


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", [1, 2])
def test_no_input_ends_the_engine(tmp_path: Path, seed: int) -> None:
    """Calls, their log on a replica, snapshots, moves, lack of memory: all that target.c asserts holds."""
    command = [str(build()), "-n", str(INPUTS), str(seed)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.startswith(f"{INPUTS} inputs")
