"""What the README has a new user type works as it stands there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]


def _run(script: str) -> list[str]:
    """The lines that bash prints, in the clone, in a shell like a new user's: without our .venv."""
    environment = {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_the_command_is_on_the_path_after_what_the_readme_says() -> None:
    """It says to set up, and then just what the last line of `make setup` says."""
    use_it = (ROOT / "README.md").read_text().partition("\n## Use it\n")[2]
    setup, activate = use_it.split("```\n")[1].splitlines()
    assert setup == "make setup"
    # Not carried out: it may install packages under the tests that run.
    assert activate in _run("make --dry-run setup")[-1]
    assert activate not in "\n".join(_run("make --dry-run lint"))
    assert _run(f"{activate}; command -v tallystick") == [str(ROOT / ".venv" / "bin" / "tallystick")]
