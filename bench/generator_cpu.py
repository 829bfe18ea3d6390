"""`python -m bench.generator_cpu`: what a transfer costs the load generator itself, in CPU microseconds.

The service is a stand-in in a process of its own that commits everything, so the figure is of the load
process alone: drawing, building, gRPC, checking. What the rest costs is measured by `tallystick bench`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Annotated, Any

import grpc
import grpc.aio
import numpy as np
import typer
import uvloop

from bench.cluster import read_cpu
from bench.command import AccountsOption, RunsOption, SecondsOption
from bench.load import load_processes
from bench.settings import BenchSettings, Distribution
from bench.transfers import ID_WIDTH
from shard_node.cluster import SLOT_COUNT
from shard_node.limits import MAX_BATCH
from tallystick.v1 import outcome_pb2, wallet_pb2

_SERVE = "--serve"
_MICROS = 1_000_000
_MAX_MESSAGE_BYTES = 16 * 2**20
_ID_AT = 4
_SHARDS = 2


async def _commit_all(request: bytes, _: Any) -> bytes:
    """The answer to a batch that this generator made: its items are all of one length."""
    table = np.frombuffer(request, np.uint8).reshape(-1, 2 + request[1])
    blank = wallet_pb2.BatchTransferResponse()
    blank.results.add(transaction_id="-" * ID_WIDTH, outcome=outcome_pb2.OUTCOME_COMMITTED)
    answer = np.tile(np.frombuffer(blank.SerializeToString(), np.uint8), (len(table), 1))
    ids = slice(_ID_AT, _ID_AT + ID_WIDTH)
    answer[:, ids] = table[:, ids]
    return answer.tobytes()


async def _commit_one(request: bytes, _: Any) -> bytes:
    transfer = wallet_pb2.TransferRequest.FromString(request)
    return wallet_pb2.TransferResponse(
        transaction_id=transfer.transaction_id, outcome=outcome_pb2.OUTCOME_COMMITTED
    ).SerializeToString()


async def _serve() -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES)])
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "BatchTransfer": grpc.unary_unary_rpc_method_handler(_commit_all),
        "Transfer": grpc.unary_unary_rpc_method_handler(_commit_one),
    }
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("tallystick.v1.WalletService", handlers)]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    # Until whoever started it ends, or closes its input.
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


def _measure(settings: BenchSettings, address: str) -> None:
    owners = [number * _SHARDS // SLOT_COUNT for number in range(SLOT_COUNT)]
    with load_processes(settings, [address], owners) as load:
        # Connects, and fills the tables.
        load.run(0, settings.seconds / 10, None)
        for number in range(1, settings.runs + 1):
            before = read_cpu(load.pids)
            result = load.run(number, settings.seconds, None)
            spent = before.until(read_cpu(load.pids)).in_all
            print(
                f"{result.committed / result.seconds:12,.0f} transfers/s "
                f"{spent / result.transfers * _MICROS:8.2f} us of CPU each",
                flush=True,
            )


def main(
    *,
    batch: Annotated[int, typer.Option(min=1, max=MAX_BATCH, help="Transfers in one BatchTransfer.")] = 1000,
    unary: Annotated[bool, typer.Option("--unary", help="Single Transfer calls, no batches.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Calls in flight.")] = 8,
    accounts: AccountsOption = 100_000,
    distribution: Annotated[
        Distribution, typer.Option(help="How accounts are chosen.")
    ] = Distribution.UNIFORM,
    seconds: SecondsOption = 3.0,
    runs: RunsOption = 3,
) -> None:
    """Measure the load generator against a stand-in in another process."""
    settings = BenchSettings(
        batch=batch,
        unary=unary,
        concurrency=concurrency,
        accounts=accounts,
        distribution=distribution,
        seconds=seconds,
        runs=runs,
    )
    command = [sys.executable, "-m", "bench.generator_cpu", _SERVE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        try:
            address = service.stdout.readline().strip() if service.stdout else ""
            _measure(settings, address)
        finally:
            service.terminate()


if __name__ == "__main__":
    if _SERVE in sys.argv:
        uvloop.run(_serve())
    else:
        typer.run(main)
