"""Starts the stand-in as a process of its own, and reads what it saw when it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

from bench.errors import BenchError

_STOP_SECONDS = 10.0


class StandInProcess:
    """As a context manager: it runs within. ``address`` is host:port, ``seen`` its counts once it has ended.

    Args:
        faults: options of `bench.locust_rig.stand_in`, such as "--poor-every=10".
    """

    def __init__(self, *faults: str) -> None:
        self._faults = faults
        self.address = ""
        self.seen: dict[str, Any] = {}

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "bench.locust_rig.stand_in", *self._faults]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        if self._process.stdout is not None:
            self.address = self._process.stdout.readline().strip()
        if not self.address:
            self._process.kill()
            raise BenchError("the stand-in did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # The end of its standard input is its sign to go.
            told, _ = self._process.communicate(timeout=_STOP_SECONDS)
            if error is None:
                self.seen = json.loads(told)
        finally:
            self._process.kill()
            self._process.wait()
