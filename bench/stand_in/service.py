"""A service in a process of its own: it prints its address, and serves until its standard input ends.

So it never outlives who started it, and may say at its end, in a line of JSON, what it saw.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from bench.errors import BenchError

_STOP_SECONDS = 10.0
_MESSAGE_BYTES = 16 * 2**20
_OPTIONS = (
    # A second process on the same port must fail, not share it.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
)


async def serve(handlers: Sequence[grpc.GenericRpcHandler]) -> None:
    """Serves on a free port of 127.0.0.1, which it prints, until standard input ends."""
    server = grpc.aio.server(handlers=handlers, options=_OPTIONS)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


class ServiceProcess:
    """As a context manager: the service runs within. ``address`` is host:port, ``pid`` its process.

    Args:
        module: what to run; it calls `serve`.
        options: of its command line.
    """

    def __init__(self, module: str, *options: str) -> None:
        self._module = module
        self._options = options
        self.address = ""
        self.pid = 0
        # The document that it printed, once it has ended.
        self.seen: dict[str, Any] = {}

    def __enter__(self) -> Self:
        # -P: a file named like one of ours, in the folder where this is typed, is not ours.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", self._module, *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid
        if self._process.stdout is not None:
            self.address = self._process.stdout.readline().strip()
        if not self.address:
            raise BenchError(f"{self._module} ended by itself, status {self._process.wait(_STOP_SECONDS)}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            told, _ = self._process.communicate(timeout=_STOP_SECONDS)
            if error is None and self._process.returncode:
                raise BenchError(f"{self._module} failed, status {self._process.returncode}")
            self.seen = json.loads(told or "{}")
        finally:
            self._process.kill()
            self._process.wait()


def stand_in(*faults: str) -> ServiceProcess:
    """A router that does nothing; ``faults`` are options such as "--poor-every=10"."""
    return ServiceProcess("bench.stand_in", *faults)
