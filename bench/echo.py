"""`python -m bench.echo`: the least that a unary Transfer can cost a Python service.

A grpc.aio server on uvloop, as a router is, that answers every Transfer with COMMITTED under its id and does
nothing else. What a router spends beyond this is its own. Prints its address, and serves until SIGTERM.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc.aio
import uvloop

from bench.errors import BenchError
from shard_node.serving import Methods
from tallystick.v1 import outcome_pb2, wallet_pb2, wallet_pb2_grpc

_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Echo:
    """A running echo server."""

    address: str
    pid: int


@contextmanager
def echo_server() -> Iterator[Echo]:
    """An echo server in a process of its own, for as long as the block lasts."""
    # -P: a file named like one of ours, in the folder where this is typed, is not ours.
    command = [sys.executable, "-P", "-m", "bench.echo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            address = process.stdout.readline().strip() if process.stdout else ""
            if not address:
                raise BenchError(f"the echo server ended by itself, status {process.wait(_STOP_SECONDS)}")
            yield Echo(address, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


class _Commits(wallet_pb2_grpc.WalletServiceServicer):
    async def Transfer(  # noqa: N802 -- the contract's name
        self,
        request: wallet_pb2.TransferRequest,
        _: grpc.aio.ServicerContext[wallet_pb2.TransferRequest, wallet_pb2.TransferResponse],
    ) -> wallet_pb2.TransferResponse:
        return wallet_pb2.TransferResponse(
            transaction_id=request.transaction_id, outcome=outcome_pb2.OUTCOME_COMMITTED
        )


async def _serve() -> None:
    # The methods are found as a router finds them, which is the way that costs least.
    methods = Methods()
    wallet_pb2_grpc.add_WalletServiceServicer_to_server(_Commits(), methods)
    # A second process on the same port must fail, not share it.
    server = grpc.aio.server(handlers=(methods,), options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve())
