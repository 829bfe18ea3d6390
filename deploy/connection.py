"""Finds the routers to talk to, and says in an engineer's words what went wrong on the way to them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from deploy import cluster_file
from deploy.errors import NoClusterError
from tallystick import SyncClient, SyncLedgerClient
from tallystick.addresses import router_addresses
from tallystick.v1.cluster_pb2_grpc import ClusterServiceStub

ROUTER_VARIABLE = "TALLYSTICK_ROUTER"
DEFAULT_DATA = Path("tallystick-data")
# The contract's largest message (16 MiB), on both sides.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
CALL_TIMEOUT_SECONDS = 10.0
# A router on this machine or the next answers in milliseconds; one that is down never does.
CONNECT_SECONDS = 3.0

_ADVICE = {
    grpc.StatusCode.UNAVAILABLE: "a part of the cluster does not answer; see 'tallystick status'",
    grpc.StatusCode.DEADLINE_EXCEEDED: "no answer in time; see 'tallystick status'",
    grpc.StatusCode.UNIMPLEMENTED: "the server does not know this call: no router, or one of another version",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "the cluster has more load than it takes; try again in a moment",
    grpc.StatusCode.CANCELLED: "the router stopped while it worked on this; try again",
}


def find_routers(router: str | None, data: Path | None) -> list[str]:
    """The routers' addresses: as given, else of the cluster in ``data``, else as the environment says.

    ``router`` is HOST:PORT, or several with commas between. Raises NoClusterError when the data folder has
    no running cluster, InvalidArgument when an address is none.
    """
    given = router or (os.environ.get(ROUTER_VARIABLE) if data is None else None)
    if given:
        return router_addresses(address.strip() for address in given.split(",") if address.strip())
    folder = data or DEFAULT_DATA
    record = cluster_file.read(folder)
    alive = [] if record is None else [r for r in record.of_kind(cluster_file.Kind.ROUTER) if r.is_alive()]
    addresses = [router.address for router in alive if router.address]
    if not addresses:
        raise NoClusterError(
            f"no cluster runs in {folder}: start one with 'tallystick up --data {folder}', or name a router "
            f"with --router HOST:PORT or {ROUTER_VARIABLE}"
        )
    return addresses


@contextmanager
def wallet(router: str | None, data: Path | None) -> Iterator[SyncClient]:
    """A client of the routers that `find_routers` finds; NoClusterError when none of them can be reached."""
    addresses = find_routers(router, data)
    # The client itself would try for longer, and could not say that nothing was sent at all.
    with cluster_service(addresses), SyncClient(addresses) as client:
        yield client


@contextmanager
def ledger_client(router: str | None, data: Path | None) -> Iterator[SyncLedgerClient]:
    """As `wallet`, for history and the quick check."""
    addresses = find_routers(router, data)
    with cluster_service(addresses), SyncLedgerClient(addresses) as client:
        yield client


@contextmanager
def cluster_service(addresses: list[str]) -> Iterator[ClusterServiceStub]:
    """The operators' calls, on the first router that can be reached; NoClusterError when none can be."""
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
    for address in addresses:
        with grpc.insecure_channel(address, options=options) as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
            except grpc.FutureTimeoutError:
                continue
            yield ClusterServiceStub(channel)
            return
    raise NoClusterError(
        f"no router answers at {', '.join(addresses)}: is the cluster up? 'tallystick up' starts one"
    )


def explain(error: grpc.RpcError) -> str:
    """One sentence about a failed call, with what to do about it."""
    code, details = error.code(), error.details()
    advice = _ADVICE.get(code)
    return (
        f"the router said {code.name}: {details}" if advice is None else f"{advice} ({code.name}: {details})"
    )
