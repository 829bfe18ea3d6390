"""The coordinators of the cluster, as a router sees them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import structlog

from shard_node.client import NoReply
from shard_node.cluster import MemberKind
from shard_node.contract import Outcome
from shard_node.serving import CHANNEL_OPTIONS
from tallystick.v1 import coordinator_pb2, coordinator_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.requests import Part
    from shard_node.cluster import Member, Registry

# Coordinators asked for one batch, one after the other: any can finish what another began.
MAX_TRIES = 3

_EXHAUSTED = bytes([Outcome.RESOURCE_EXHAUSTED])
_UNKNOWN = bytes([Outcome.OUTCOME_UNKNOWN])

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Coordinator:
    name: str
    channel: grpc.aio.Channel
    stub: coordinator_pb2_grpc.CoordinatorServiceStub


class Coordinators:
    """Sends each batch to one coordinator, in turn; a coordinator that fails, to the next."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._by_address: dict[str, _Coordinator] = {}
        self._turn = 0

    async def start(self) -> None:
        """Follows who is registered, and returns with the first list, so that the first batch finds them.

        Raises RegistryError when that list takes too long. An empty one will do.
        """
        await self._registry.watch_members(MemberKind.COORDINATOR, self._on_members)

    async def close(self) -> None:
        """Closes the channels."""
        for coordinator in self._by_address.values():
            await coordinator.channel.close()

    async def commit_attempts(
        self, parts: Sequence[Part], topology_version: int, deadline_seconds: float, *, with_balances: bool
    ) -> coordinator_pb2.CommitAttemptsResponse | NoReply:
        """Has parts of a batch committed; LOST when no coordinator answered by the deadline.

        Their shards are those of the topology of that version.
        """
        request = coordinator_pb2.CommitAttemptsRequest(
            topology_version=topology_version,
            attempts=[
                coordinator_pb2.AttemptRequest(
                    decider=part.decider, participants=part.participants, bundle=part.bundle
                )
                for part in parts
            ],
            with_balances=with_balances,
        )
        failed: set[str] = set()
        reason = NoReply.FULL
        for _ in range(MAX_TRIES):
            coordinator = self._next(failed)
            remaining = deadline_seconds - time.monotonic()
            if coordinator is None or remaining <= 0:
                break
            try:
                response: coordinator_pb2.CommitAttemptsResponse = await coordinator.stub.CommitAttempts(
                    request, timeout=remaining
                )
            except grpc.aio.AioRpcError as error:
                log.warning(
                    "coordinator failed",
                    coordinator=coordinator.name,
                    status=error.code().name,
                    error=error.details(),
                )
                failed.add(coordinator.name)
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    reason = NoReply.LOST
            else:
                if reason is NoReply.LOST:
                    # "Nothing was begun" is true of this coordinator only, not of the one that was lost.
                    _hide_exhausted(response)
                return response
        if not self._by_address:
            log.error("no coordinator is registered")
        return reason if failed else NoReply.LOST

    def _next(self, failed: set[str]) -> _Coordinator | None:
        fit = [c for c in self._by_address.values() if c.name not in failed]
        if not fit:
            return None
        self._turn += 1
        return fit[self._turn % len(fit)]

    def _on_members(self, members: list[Member]) -> None:
        present = {m.address: m.name for m in members}
        for address, name in present.items():
            if address not in self._by_address:
                channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
                stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
                self._by_address[address] = _Coordinator(name, channel, stub)
        for address in self._by_address.keys() - present.keys():
            # Not closed: calls under way end by themselves, and then nothing refers to the channel.
            self._by_address.pop(address)
        log.info("coordinators", names=sorted(present.values()))


def _hide_exhausted(response: coordinator_pb2.CommitAttemptsResponse) -> None:
    for result in response.results:
        result.codes = result.codes.replace(_EXHAUSTED, _UNKNOWN)
