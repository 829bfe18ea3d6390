"""What every process of the cluster does alike."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.servers

_PROGRAM = """
import logging
import structlog
from shard_node.process import configure_logs
configure_logs(process="router")
hostile = "[/x] \\x1b[31m\\u202e\\nnext"
structlog.get_logger("ours").info("refused", account=hostile)
try:
    raise ValueError(hostile)
except ValueError:
    logging.getLogger("asyncio").exception("a task failed: %s", hostile)
logging.getLogger("kazoo").warning("left out")
"""


def test_a_log_is_ascii_json_a_line_whoever_writes_it() -> None:
    """Also what libraries log: nothing in an account's id can act on the terminal that shows the log."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, check=True)
    assert done.stderr.isascii()
    ours, library = (json.loads(line) for line in done.stderr.splitlines())
    hostile = "[/x] \x1b[31m\u202e\nnext"
    assert (ours["process"], ours["event"], ours["account"]) == ("router", "refused", hostile)
    assert (library["process"], library["event"]) == ("router", f"a task failed: {hostile}")
    assert library["level"] == "error"
    assert library["exception"].endswith(hostile)
    assert b"\x1b" not in done.stderr
