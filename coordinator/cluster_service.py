"""ClusterService: what operators ask of a cluster. Served by coordinators and routers alike."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

import grpc

from coordinator.in_doubt import waiting
from coordinator.verification import Verification, verify_by_page
from shard_node.contract import Outcome, PreparedAttempt
from shard_node.errors import ShardNodeError
from shard_node.money import to_text
from shard_node.serving import statuses
from tallystick.v1 import cluster_pb2, cluster_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from coordinator.in_doubt import Waiting
    from shard_node.client import Directory, Shard
    from shard_node.cluster import Exponents, Registry
    from shard_node.contract import Doubt

MAX_IN_DOUBT = 10_000
DEFAULT_IN_DOUBT = 1000


class ClusterService(cluster_pb2_grpc.ClusterServiceServicer):
    """Reads only; a shard or registry that is away makes a call UNAVAILABLE."""

    def __init__(self, registry: Registry, directory: Directory) -> None:
        self._registry = registry
        self._directory = directory

    async def GetTopology(  # noqa: N802
        self,
        request: cluster_pb2.GetTopologyRequest,  # noqa: ARG002 -- gRPC passes both, here and below
        context: Any,  # noqa: ARG002
    ) -> cluster_pb2.Topology:
        """The newest topology this process has seen."""
        topology = self._directory.current.topology
        return cluster_pb2.Topology(
            cluster_id=topology.cluster_id,
            version=topology.version,
            shards=[
                cluster_pb2.Shard(
                    shard_id=s.shard_id,
                    epoch=s.epoch,
                    primary=s.primary,
                    slots=[cluster_pb2.SlotRange(first=r.first, last=r.last) for r in s.slots],
                    slot_count=s.slot_count,
                )
                for s in topology.shards
            ],
        )

    async def ListMembers(  # noqa: N802
        self,
        request: cluster_pb2.ListMembersRequest,  # noqa: ARG002
        context: Any,
    ) -> cluster_pb2.ListMembersResponse:
        """Everyone who is registered."""
        try:
            members = await self._registry.members()
        except ShardNodeError as error:
            await _unavailable(context, error)
        return cluster_pb2.ListMembersResponse(
            members=[
                cluster_pb2.Member(
                    name=m.name,
                    kind=f"MEMBER_KIND_{m.kind.name}",
                    address=m.address,
                    pid=m.pid,
                    problem=m.problem,
                )
                for m in members
            ]
        )

    async def ListBacklogs(  # noqa: N802
        self,
        request: cluster_pb2.ListBacklogsRequest,  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> cluster_pb2.ListBacklogsResponse:
        """What waits for the archiver; a shard that is away does not hide the others."""
        shards = self._directory.current.shards
        return cluster_pb2.ListBacklogsResponse(backlogs=await asyncio.gather(*map(_backlog, shards)))

    async def ListInDoubt(  # noqa: N802
        self, request: cluster_pb2.ListInDoubtRequest, context: Any
    ) -> cluster_pb2.ListInDoubtResponse:
        """What is prepared and what is unsettled, the oldest first."""
        limit = request.limit if request.HasField("limit") else DEFAULT_IN_DOUBT
        if not 1 <= limit <= MAX_IN_DOUBT:
            why = f"must be 1 to {MAX_IN_DOUBT}, or left out for {DEFAULT_IN_DOUBT}, is {limit}"
            await statuses.abort_invalid(context, "limit", why)
        if request.minimum_age_ms < 0:
            why = f"must not be negative, is {request.minimum_age_ms}"
            await statuses.abort_invalid(context, "minimum_age_ms", why)
        found: list[cluster_pb2.InDoubtTransfer] = []
        try:
            for shard in self._directory.current.shards:
                now_ms = await shard.clock_ms()
                rows = await _oldest(shard, request.minimum_age_ms, limit + 1)
                await self._registry.require_exponents({one.currency for _, one in rows})
                exponents = self._registry.exponents
                found += [_in_doubt(doubt, one, shard.shard_id, now_ms, exponents) for doubt, one in rows]
        except ShardNodeError as error:
            await _unavailable(context, error)
        found.sort(key=lambda entry: -entry.age_ms)
        return cluster_pb2.ListInDoubtResponse(transfers=found[:limit], truncated=len(found) > limit)

    async def Verify(  # noqa: N802
        self,
        request: cluster_pb2.VerifyRequest,  # noqa: ARG002
        context: Any,
    ) -> AsyncIterator[cluster_pb2.VerifyResponse]:
        """Adds up every account; see ``verification.py``."""
        found = Verification()
        try:
            async for read, total in verify_by_page(self._directory.current.shards, found):
                yield cluster_pb2.VerifyResponse(accounts_read=read, accounts_total=total)
            await self._registry.require_exponents(found.currencies)
        except ShardNodeError as error:
            await _unavailable(context, error)
        result = _result(found, self._registry.exponents)
        yield cluster_pb2.VerifyResponse(
            accounts_read=found.accounts, accounts_total=found.accounts, result=result
        )


async def _backlog(shard: Shard) -> cluster_pb2.Backlog:
    try:
        state = await shard.ledger_state()
    except ShardNodeError:
        return cluster_pb2.Backlog(shard_id=shard.shard_id, unknown=True)
    return cluster_pb2.Backlog(
        shard_id=shard.shard_id,
        entries_waiting=state.backlog,
        entries_limit=state.backlog_limit,
        archived_batch=state.number,
    )


async def _oldest(shard: Shard, minimum_age_ms: int, count: int) -> list[tuple[Doubt, Waiting]]:
    """The first ``count`` of what has been in doubt on the shard for that long."""
    found: list[tuple[Doubt, Waiting]] = []
    async for doubt in shard.all_in_doubt(minimum_age_ms):
        found += [(doubt, one) for one in waiting(doubt)]
        if len(found) >= count:
            break
    return found[:count]


def _in_doubt(
    doubt: Doubt, one: Waiting, shard_id: str, now_ms: int, exponents: Exponents
) -> cluster_pb2.InDoubtTransfer:
    is_prepared = isinstance(doubt, PreparedAttempt)
    return cluster_pb2.InDoubtTransfer(
        transaction_id=str(UUID(bytes=one.transaction_id)),
        state=cluster_pb2.IN_DOUBT_STATE_PREPARED if is_prepared else cluster_pb2.IN_DOUBT_STATE_UNSETTLED,
        shard_id=shard_id,
        from_account=one.payer,
        to_account=one.payee,
        amount=to_text(one.amount_minor, exponents[one.currency]),
        currency=one.currency,
        age_ms=max(0, now_ms - doubt.since_ms),
    )


def _result(found: Verification, exponents: Exponents) -> cluster_pb2.VerifyResult:
    verdict = cluster_pb2.VERDICT_BALANCED
    if found.busy:
        verdict = cluster_pb2.VERDICT_BUSY
    if found.alarms or (not found.busy and any(s.total_minor for s in found.currencies.values())):
        verdict = cluster_pb2.VERDICT_BROKEN
    currencies = []
    for code, total in sorted(found.currencies.items()):
        digits = exponents[code]
        currencies.append(
            cluster_pb2.CurrencySum(
                currency=code,
                customers=to_text(total.customers_minor, digits),
                system=to_text(total.system_minor, digits),
                in_flight=to_text(total.in_flight_minor, digits),
                total=to_text(total.total_minor, digits),
                accounts=total.accounts,
            )
        )
    return cluster_pb2.VerifyResult(
        verdict=verdict,
        currencies=currencies,
        accounts=found.accounts,
        prepared=found.prepared,
        unsettled=found.unsettled,
        alarms=found.alarms,
    )


async def _unavailable(context: Any, error: ShardNodeError) -> NoReturn:
    await statuses.abort(context, grpc.StatusCode.UNAVAILABLE, Outcome.OUTCOME_UNKNOWN.name, str(error))
