"""CoordinatorService: batches from routers that need several shards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from coordinator.requests import FieldError, read_attempts, require_shards
from shard_node.contract import Outcome
from shard_node.limits import MAX_BATCH
from shard_node.serving import statuses
from tallystick.v1 import coordinator_pb2, coordinator_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinator.attempts import Attempt
    from coordinator.driver import Driver
    from shard_node.client import Directory

# Transactions in the hands of one coordinator at once: some 20 large batches, 40 MiB.
MAX_IN_HAND = 20 * MAX_BATCH
# A router may know a topology first; the coordinator hears of it within moments.
TOPOLOGY_WAIT_SECONDS = 2.0
_STALE = bytes((Outcome.STALE_EPOCH,))

log = structlog.get_logger(__name__)


class CoordinatorService(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """Checks what routers send, has it committed, packs the outcomes."""

    def __init__(self, driver: Driver, directory: Directory) -> None:
        self._driver = driver
        self._directory = directory
        self._in_hand = 0
        # Kept, so that a router that hangs up does not stop what may be past its commit point.
        self._tasks: set[asyncio.Task[None]] = set()

    async def CommitAttempts(  # noqa: N802 -- the contract's name
        self, request: coordinator_pb2.CommitAttemptsRequest, context: Any
    ) -> coordinator_pb2.CommitAttemptsResponse:
        """Commits one batch."""
        try:
            attempts = read_attempts(request, self._driver.new_attempt_id)
            count = sum(attempt.count for attempt in attempts)
            if self._in_hand + count > MAX_IN_HAND:
                await statuses.abort(
                    context,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    Outcome.RESOURCE_EXHAUSTED.name,
                    f"{self._in_hand} transactions are under way here already",
                )
            await self._in_task(attempts, count, request)
        except FieldError as error:
            log.error("a request that fits no shards", peer=context.peer(), error=str(error))
            await statuses.abort_invalid(context, error.field, error.why)
        return coordinator_pb2.CommitAttemptsResponse(results=[_result(attempt) for attempt in attempts])

    async def finish_all(self) -> None:
        """Waits for every batch under way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _in_task(
        self, attempts: Sequence[Attempt], count: int, request: coordinator_pb2.CommitAttemptsRequest
    ) -> None:
        """A batch of ``count`` transactions, in a task that its caller's leaving does not end."""
        # Counted before anything is awaited, or a burst would pass the check of it all at once.
        self._in_hand += count
        task = asyncio.ensure_future(self._commit(attempts, request))
        self._tasks.add(task)

        def done(_: asyncio.Task[None]) -> None:
            self._in_hand -= count
            self._tasks.discard(task)

        task.add_done_callback(done)
        await asyncio.shield(task)

    async def _commit(
        self, attempts: Sequence[Attempt], request: coordinator_pb2.CommitAttemptsRequest
    ) -> None:
        """Leaves in the attempts what became of them. Raises FieldError."""
        version = request.topology_version
        if self._directory.current.topology.version < version:
            await self._directory.newer_than(version - 1, TOPOLOGY_WAIT_SECONDS)
        cluster = self._directory.current
        if cluster.topology.version != version:
            # Split by another map than the one that would be used now.
            for attempt in attempts:
                attempt.outcomes = _STALE
            return
        require_shards(attempts, len(cluster.shard_ids))
        await self._driver.commit(attempts, cluster, with_balances=request.with_balances)


def _result(attempt: Attempt) -> coordinator_pb2.AttemptResult:
    """Balances are by owner; of those that gave none there is an empty column."""
    owners = range(1 + len(attempt.participants)) if any(attempt.balances.values()) else ()
    balances = [attempt.balances.get(owner, b"") for owner in owners]
    return coordinator_pb2.AttemptResult(codes=attempt.outcomes, legs=attempt.legs, balances=balances)
