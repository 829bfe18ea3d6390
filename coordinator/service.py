"""CoordinatorService: cross-shard batches from routers."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import structlog

from coordinator.protocol import Part
from shard_node.contract import ATTEMPT_BYTES, Attempt, Bundle, Journals, Outcome, require_sizes
from shard_node.limits import MAX_BATCH
from tallystick.v1 import coordinator_pb2, coordinator_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from coordinator.driver import Driver
    from coordinator.journal_protocol import JournalCommit
    from shard_node.client import Cluster, Directory

T = TypeVar("T")

# Transfers in the hands of one coordinator at once: some 20 large batches, 40 MiB.
MAX_IN_HAND = 20 * MAX_BATCH
# A router may know a topology first; the coordinator hears of it within moments.
TOPOLOGY_WAIT_SECONDS = 2.0
_STALE = bytes((Outcome.STALE_EPOCH,))

log = structlog.get_logger(__name__)


class CoordinatorService(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """Unpacks columns, has them committed, packs the outcomes."""

    def __init__(self, driver: Driver, directory: Directory) -> None:
        self._driver = driver
        self._directory = directory
        self._in_hand = 0
        # Kept, so that a router that hangs up does not stop what may be past its commit point.
        self._tasks: set[asyncio.Task[Any]] = set()

    async def Commit(  # noqa: N802 -- the contract's name
        self,
        request: coordinator_pb2.CommitRequest,
        context: grpc.aio.ServicerContext[coordinator_pb2.CommitRequest, coordinator_pb2.CommitResponse],
    ) -> coordinator_pb2.CommitResponse:
        """Commits one batch."""
        try:
            parts = [_part(index, part) for index, part in enumerate(request.parts)]
        except ValueError as error:
            log.error("a router sent columns that are none", peer=context.peer(), error=str(error))
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        count = sum(part.bundle.count for part in parts)
        work = self._commit(parts, request.topology_version, with_balances=request.with_balances)
        await self._in_task(work, count, context)
        results = [
            coordinator_pb2.CommitResult(
                outcomes=part.outcomes,
                payer_balances=part.payer_balances,
                payee_balances=part.payee_balances,
            )
            for part in parts
        ]
        return coordinator_pb2.CommitResponse(results=results)

    async def CommitJournals(  # noqa: N802
        self, request: coordinator_pb2.CommitJournalsRequest, context: Any
    ) -> coordinator_pb2.CommitJournalsResponse:
        """Commits one batch of journals."""
        batch = await self._in_task(self._commit_journals(request), len(request.bodies), context)
        return coordinator_pb2.CommitJournalsResponse(
            outcomes=bytes(batch.outcomes), legs=batch.legs, balances_minor=batch.balances
        )

    async def finish_all(self) -> None:
        """Waits for every batch under way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _in_task(self, work: Coroutine[Any, Any, T], count: int, context: Any) -> T:
        """Work of ``count`` items, in a task that its caller's leaving does not end."""
        if self._in_hand + count > MAX_IN_HAND:
            work.close()
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._in_hand} transfers are under way here already"
            )
        # Counted before anything is awaited, or a burst would pass the check above all at once.
        self._in_hand += count
        task = asyncio.ensure_future(work)
        self._tasks.add(task)

        def done(_: asyncio.Task[T]) -> None:
            self._in_hand -= count
            self._tasks.discard(task)

        task.add_done_callback(done)
        return await asyncio.shield(task)

    async def _cluster(self, topology_version: int) -> Cluster:
        """The newest map, by which the router split the batch or a later one."""
        if self._directory.current.topology.version < topology_version:
            await self._directory.newer_than(topology_version - 1, TOPOLOGY_WAIT_SECONDS)
        return self._directory.current

    async def _commit_journals(self, request: coordinator_pb2.CommitJournalsRequest) -> JournalCommit:
        cluster = await self._cluster(request.topology_version)
        batch = Journals.unpack(request.transaction_ids, request.bodies)
        return await self._driver.commit_journals(batch, cluster)

    async def _commit(self, parts: Sequence[Part], topology_version: int, *, with_balances: bool) -> None:
        """Leaves in the parts what became of them."""
        cluster = await self._cluster(topology_version)
        if cluster.topology.version != topology_version:
            # Split by another map than the one that would be used now.
            for part in parts:
                part.outcomes = _STALE
            return
        await self._driver.commit(parts, cluster, with_balances=with_balances)


def _part(index: int, part: coordinator_pb2.CommitPart) -> Part:
    """One part, under a fresh attempt id. Raises ValueError when its columns do not fit its count."""
    bundle = Bundle(
        part.count,
        part.oldest_ms,
        part.newest_ms,
        part.decisions,
        part.terms,
        part.payers,
        part.payees,
        part.amounts,
        part.currencies,
        part.bodies,
    )
    try:
        require_sizes(bundle)
    except ValueError as error:
        raise ValueError(f"parts[{index}].{error}") from None
    return Part(part.payer_shard, part.payee_shard, Attempt(os.urandom(ATTEMPT_BYTES), bundle))
