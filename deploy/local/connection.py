"""Finds the routers to talk to, and says in an engineer's words what went wrong on the way to them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.errors import DeployError, NoClusterError
from deploy.local import cluster_file
from deploy.local.cluster_file import Kind
from tallystick import InvalidArgument, SyncClient, SyncLedgerClient
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


def named_routers(router: str | None, data: Path | None) -> list[str]:
    """The routers that were named, in ``router`` or in the variable: HOST:PORT, several with commas between.

    A data folder that was named counts more than the variable; one that is empty counts as not set. The list
    is empty when none was named. Raises DeployError when ``router`` names none, or an address is none.
    """
    given = router
    if given is None:
        given = (os.environ.get(ROUTER_VARIABLE) or None) if data is None else None
        if given is None:
            return []
    named = [address.strip() for address in given.split(",") if address.strip()]
    if not named:
        raise NoClusterError(f"no router is named: --router is {given!r}, not HOST:PORT")
    try:
        return router_addresses(named)
    except InvalidArgument as error:
        raise DeployError(error.message) from error


def find_routers(router: str | None, data: Path | None) -> list[str]:
    """The routers' addresses: as named, else of the cluster in ``data``; NoClusterError when none runs."""
    return named_routers(router, data) or _running(data or DEFAULT_DATA, (Kind.ROUTER,))


def find_operators(router: str | None, data: Path | None) -> list[str]:
    """As `find_routers`, and coordinators behind them: whoever answers the operators' calls."""
    return named_routers(router, data) or _running(data or DEFAULT_DATA, (Kind.ROUTER, Kind.COORDINATOR))


def _running(folder: Path, kinds: tuple[Kind, ...]) -> list[str]:
    record = cluster_file.read(folder)
    alive = [] if record is None else cluster_file.living(folder, record)
    addresses = [process.address for kind in kinds for process in alive if process.kind is kind]
    if addresses := [address for address in addresses if address]:
        return addresses
    if not alive:
        raise no_cluster(folder)
    raise NoClusterError(
        f"no {' and no '.join(kinds)} of the cluster in {folder} runs, only "
        f"{', '.join(process.name for process in alive)}: 'tallystick up --detach --data {folder}' starts "
        f"what is missing"
    )


def no_cluster(folder: Path) -> NoClusterError:
    """What is said of a folder in which nothing runs."""
    return NoClusterError(
        f"no cluster runs in {folder}: start one with 'tallystick up --data {folder}', or name a router "
        f"with --router HOST:PORT or {ROUTER_VARIABLE}"
    )


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
    for address in addresses:
        with channel_to(address) as channel:
            if not _answers(channel):
                continue
            yield ClusterServiceStub(channel)
            return
    raise NoClusterError(
        f"no router answers at {', '.join(addresses)} within {CONNECT_SECONDS:g} s: is the address right? On "
        f"the cluster's own machine 'tallystick status --data DIR' tells what runs and what is missing"
    )


def _answers(channel: grpc.Channel) -> bool:
    # Not grpc.channel_ready_future: its thread may look at the channel after it was closed, and say so with a
    # traceback.
    check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]
    try:
        check(health_pb2.HealthCheckRequest(), timeout=CONNECT_SECONDS, wait_for_ready=True)
    except grpc.RpcError as error:
        # Any other code is an answer, too.
        return error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    return True


def channel_to(address: str) -> grpc.Channel:
    """A channel to a router or coordinator, for the contract's largest messages."""
    return grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)])


def said(error: grpc.RpcError) -> str:
    """What a failed call came to, without advice."""
    return f"{error.code().name}: {error.details()}"


def explain(error: grpc.RpcError) -> str:
    """One sentence about a failed call, with what to do about it."""
    advice = _ADVICE.get(error.code())
    return f"the router said {said(error)}" if advice is None else f"{advice} ({said(error)})"
