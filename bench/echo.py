"""`python -m bench.echo`: the least that a unary Transfer can cost a Python service.

A grpc.aio server on uvloop, as a router is, that answers every Transfer with COMMITTED under its id and does
nothing else. What a router spends beyond this is its own.
"""

from __future__ import annotations

import grpc.aio
import uvloop

from bench.stand_in import ServiceProcess, serve
from shard_node.serving import Methods
from tallystick.v1 import outcome_pb2, wallet_pb2, wallet_pb2_grpc


def echo_server() -> ServiceProcess:
    """An echo server in a process of its own."""
    return ServiceProcess("bench.echo")


class _Commits(wallet_pb2_grpc.WalletServiceServicer):
    async def Transfer(  # noqa: N802 -- the contract's name
        self,
        request: wallet_pb2.TransferRequest,
        _: grpc.aio.ServicerContext[wallet_pb2.TransferRequest, wallet_pb2.TransferResponse],
    ) -> wallet_pb2.TransferResponse:
        return wallet_pb2.TransferResponse(
            transaction_id=request.transaction_id, outcome=outcome_pb2.OUTCOME_COMMITTED
        )


if __name__ == "__main__":
    # The methods are found as a router finds them, which is the way that costs least.
    methods = Methods()
    wallet_pb2_grpc.add_WalletServiceServicer_to_server(_Commits(), methods)
    uvloop.run(serve([methods]))
