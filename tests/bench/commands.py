"""Runs a measuring command as an engineer would, to read its figures and see that it leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_TIMEOUT_SECONDS = 100


def figures_of(module: str, *options: str) -> dict[str, Any]:
    """The document that ``python -m module options --json`` prints.

    Fails when the command does, or prints anything else, or leaves a file behind.
    """
    with reachable_folder() as folder:
        done = subprocess.run(
            [sys.executable, "-m", module, *options, "--json"],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        assert done.returncode == 0, done.stderr
        assert list(folder.iterdir()) == []
    (line,) = done.stdout.splitlines()
    document: dict[str, Any] = json.loads(line)
    return document


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """A temporary folder that other users can reach into, which those of pytest do not allow.

    Root hands the folder of a PostgreSQL server to another user.
    """
    folder = Path(tempfile.mkdtemp(prefix="tallystick-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
