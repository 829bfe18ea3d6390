"""Runs Locust with the rig in processes of its own, and reads what it printed."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.local.ports import free_port

LOCUSTFILE = Path(__file__).parents[2] / "bench" / "locustfile.py"
# A run takes seconds; a busy machine takes its time.
TIMEOUT_SECONDS = 60
# One second of one step of 500 transfers/s, by five users.
SHORT = (
    "--accounts=500",
    "--batch=100",
    "--target-rate=500",
    "--step=500",
    "--step-seconds=1",
    "--settle-seconds=0",
)
_ENTRY = re.compile(r"^gRPC\s+(\S.*?)\s+(\d+)\s+(\d+)\(")
_ERROR = re.compile(r"^(\d+)\s+gRPC (\S.*?)\s*$")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a headless run printed: requests and failures by entry, errors by text."""

    exit_code: int
    requests: dict[str, int]
    failures: dict[str, int]
    errors: dict[str, int]
    output: str


def command(*options: str, locustfile: Path = LOCUSTFILE) -> list[str]:
    """Locust with the rig, or with another file's users."""
    return [sys.executable, "-m", "locust", "-f", str(locustfile), *options]


def run_headless(*options: str, locustfile: Path = LOCUSTFILE) -> Summary:
    """Runs Locust to its end."""
    done = subprocess.run(
        command("--headless", "--only-summary", *options, locustfile=locustfile),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    return summary(done.returncode, done.stdout)


def summary(exit_code: int, output: str) -> Summary:
    """Reads Locust's last tables."""
    entries = [found for line in output.splitlines() if (found := _ENTRY.match(line))]
    errors = [found for line in output.splitlines() if (found := _ERROR.match(line))]
    return Summary(
        exit_code,
        {found[1]: int(found[2]) for found in entries},
        {found[1]: int(found[3]) for found in entries},
        {found[2]: int(found[1]) for found in errors},
        output,
    )


def local_master() -> tuple[str, ...]:
    """Options for a master with `--processes`: its own port may be another's, and is open to all networks."""
    port = free_port()
    return ("--master-bind-host=127.0.0.1", f"--master-bind-port={port}", f"--master-port={port}")
