"""Logs that stay small without anybody's help, for a cluster that runs for months beside other things.

Whoever writes such a log has it open in append mode and never opens it anew: Redis, Java, our own processes.
So a log that has grown is copied and cut to nothing, where it is (what logrotate calls copytruncate). A line
that is written between the two is lost; that is the price.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import structlog

# With the copy, twice that: some hundred thousand lines to look back on.
MAX_LOG_BYTES = 32 * 1024 * 1024

log = structlog.get_logger(__name__)


def keep_small(files: Iterable[Path], max_bytes: int = MAX_LOG_BYTES) -> None:
    """Cuts each log that has more bytes than that; what it had is in NAME.1 until the next time."""
    for file in files:
        try:
            if file.stat().st_size > max_bytes:
                shutil.copyfile(file, file.with_name(f"{file.name}.1"))
                os.truncate(file, 0)
        except FileNotFoundError:
            # Nobody has written it yet.
            continue
        except OSError as error:
            log.warning("a log cannot be cut", file=str(file), error=str(error))
