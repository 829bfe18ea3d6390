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
    with _reachable_folder() as folder:
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
def _reachable_folder() -> Iterator[Path]:
    # Root hands a PostgreSQL's folder to another user, who must be able to reach it: pytest's own he cannot.
    folder = Path(tempfile.mkdtemp(prefix="tallystick-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
