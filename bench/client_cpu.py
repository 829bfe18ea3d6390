"""`python -m bench.client_cpu`: what a transfer costs in the client itself, in CPU microseconds.

The service is a stand-in in a process of its own that commits everything, so the figure
is of the client alone: its Python, protobuf and gRPC, all threads. A cluster's figures
are `python -m bench`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated

import grpc.aio
import typer
import uvloop

from tallystick import Client, Transfer
from tallystick.v1 import outcome_pb2, wallet_pb2, wallet_pb2_grpc

_SERVE = "--serve"
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_PAYMENT = Transfer("acct:000123", "acct:000456", "12.50", "EUR")


class _CommitsEverything(wallet_pb2_grpc.WalletServiceServicer):
    async def BatchTransfer(  # noqa: N802 -- the contract's name
        self,
        request: wallet_pb2.BatchTransferRequest,
        _: grpc.aio.ServicerContext[wallet_pb2.BatchTransferRequest, wallet_pb2.BatchTransferResponse],
    ) -> wallet_pb2.BatchTransferResponse:
        committed = outcome_pb2.OUTCOME_COMMITTED
        return wallet_pb2.BatchTransferResponse(
            results=[
                wallet_pb2.TransferResponse(transaction_id=item.transaction_id, outcome=committed)
                for item in request.transfers
            ]
        )


async def _serve() -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES)])
    wallet_pb2_grpc.add_WalletServiceServicer_to_server(_CommitsEverything(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


@dataclass(frozen=True, slots=True)
class _Figure:
    what: str
    transfers: int
    seconds: float
    cpu_seconds: float

    def __str__(self) -> str:
        rate, cost_us = self.transfers / self.seconds, self.cpu_seconds / self.transfers * 1e6
        return f"{self.what:32} {rate:10,.0f} transfers/s {cost_us:8.1f} us of CPU each"


async def _timed(what: str, transfers: int, work: Awaitable[object]) -> _Figure:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    await work
    return _Figure(what, transfers, time.perf_counter() - wall_s, time.process_time() - cpu_s)


async def _measure(address: str, callers: int, transfers: int, runs: int) -> None:
    each = transfers // callers

    async def call() -> None:
        for _ in range(each):
            await client.transfer(_PAYMENT.from_account, _PAYMENT.to_account, _PAYMENT.amount, "EUR")

    async with Client(address) as client:
        await client.transfers([_PAYMENT])
        for _ in range(runs):
            calls = asyncio.gather(*(call() for _ in range(callers)))
            print(await _timed(f"single, {callers} callers at once", each * callers, calls))
        for _ in range(runs):
            print(await _timed("batch", transfers, client.transfers([_PAYMENT] * transfers)))


def main(
    *,
    callers: Annotated[
        int, typer.Option(min=1, max=100_000, help="Single transfers waiting at once.")
    ] = 2000,
    transfers: Annotated[int, typer.Option(min=1, max=10_000_000, help="Transfers in a run.")] = 200_000,
    runs: Annotated[int, typer.Option(min=1, max=100, help="Runs of each kind.")] = 3,
) -> None:
    """Measure the client against a stand-in in another process."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.client_cpu", _SERVE], stdout=subprocess.PIPE, text=True
    ) as service:
        try:
            address = service.stdout.readline().strip() if service.stdout else ""
            uvloop.run(_measure(address, callers, max(callers, transfers), runs))
        finally:
            service.terminate()


if __name__ == "__main__":
    if _SERVE in sys.argv:
        uvloop.run(_serve())
    else:
        typer.run(main)
