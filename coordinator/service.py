"""CoordinatorService: cross-shard batches from routers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc

from shard_node.limits import MAX_BATCH
from shard_node.transfers import Transfers
from tallystick.v1 import coordinator_pb2, coordinator_pb2_grpc

if TYPE_CHECKING:
    from coordinator import protocol
    from coordinator.driver import Driver
    from shard_node.directory import Directory

# Transfers in the hands of one coordinator at once: some 20 large batches, 40 MiB.
MAX_IN_HAND = 20 * MAX_BATCH
# A router may know a topology first; the coordinator hears of it within moments.
TOPOLOGY_WAIT_SECONDS = 2.0


class CoordinatorService(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """Unpacks columns, has them committed, packs the outcomes."""

    def __init__(self, driver: Driver, directory: Directory) -> None:
        self._driver = driver
        self._directory = directory
        self._in_hand = 0
        # Kept, so that a router that hangs up does not stop what may be past its commit point.
        self._tasks: set[asyncio.Task[protocol.Commit]] = set()

    async def Commit(  # noqa: N802 -- the contract's name
        self,
        request: coordinator_pb2.CommitRequest,
        context: grpc.aio.ServicerContext[coordinator_pb2.CommitRequest, coordinator_pb2.CommitResponse],
    ) -> coordinator_pb2.CommitResponse:
        """Commits one batch."""
        count = len(request.keys)
        if self._in_hand + count > MAX_IN_HAND:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._in_hand} transfers are under way here already"
            )
        # Counted before anything is awaited, or a burst would pass the check above all at once.
        self._in_hand += count
        task = asyncio.ensure_future(self._carry_out(request))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(done, count))
        batch = await asyncio.shield(task)
        return coordinator_pb2.CommitResponse(
            outcomes=bytes(batch.outcomes),
            payer_balances_minor=batch.payer_balances,
            payee_balances_minor=batch.payee_balances,
        )

    async def finish_all(self) -> None:
        """Waits for every batch under way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _carry_out(self, request: coordinator_pb2.CommitRequest) -> protocol.Commit:
        wanted = request.topology_version
        if self._directory.current.topology.version < wanted:
            await self._directory.newer_than(wanted - 1, TOPOLOGY_WAIT_SECONDS)
        transfers = Transfers(
            list(request.keys),
            list(request.payers),
            list(request.payees),
            list(request.amounts_minor),
            list(request.currencies),
            list(request.bodies),
            list(request.payer_slots),
            list(request.payee_slots),
        )
        return await self._driver.commit(transfers, self._directory.current)

    def _done(self, task: asyncio.Task[protocol.Commit], count: int) -> None:
        self._in_hand -= count
        self._tasks.discard(task)
