"""ClusterService: what operators ask of a cluster. Served by coordinators and routers alike."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

import grpc

from coordinator.audit import Audit, audit_pages
from shard_node.cluster import MemberKind
from shard_node.contract import Outcome
from shard_node.errors import ShardNodeError
from shard_node.money import to_text
from shard_node.serving import statuses
from tallystick.v1 import cluster_pb2, cluster_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shard_node.client import Directory, Shard
    from shard_node.cluster import Exponents, Registry
    from shard_node.contract import PendingTransfer

MAX_IN_DOUBT = 10_000
DEFAULT_IN_DOUBT = 1000

_KINDS = {
    MemberKind.SHARD_NODE: cluster_pb2.MEMBER_KIND_SHARD_NODE,
    MemberKind.COORDINATOR: cluster_pb2.MEMBER_KIND_COORDINATOR,
    MemberKind.ROUTER: cluster_pb2.MEMBER_KIND_ROUTER,
    MemberKind.ARCHIVER: cluster_pb2.MEMBER_KIND_ARCHIVER,
}


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
                    name=m.name, kind=_KINDS[m.kind], address=m.address, pid=m.pid, problem=m.problem
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
        """Prepared and unsettled entries, the oldest first."""
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
                prepared = await shard.pending("prepared", request.minimum_age_ms, limit + 1)
                unsettled = await shard.pending("unsettled", request.minimum_age_ms, limit + 1)
                for state, entries in (
                    (cluster_pb2.IN_DOUBT_STATE_PREPARED, prepared),
                    (cluster_pb2.IN_DOUBT_STATE_UNSETTLED, unsettled),
                ):
                    await self._registry.require_exponents({entry.currency for entry in entries})
                    exponents = self._registry.exponents
                    found += [_in_doubt(entry, state, shard.shard_id, now_ms, exponents) for entry in entries]
        except ShardNodeError as error:
            await _unavailable(context, error)
        found.sort(key=lambda entry: -entry.age_ms)
        return cluster_pb2.ListInDoubtResponse(transfers=found[:limit], truncated=len(found) > limit)

    async def Verify(  # noqa: N802
        self,
        request: cluster_pb2.VerifyRequest,  # noqa: ARG002
        context: Any,
    ) -> AsyncIterator[cluster_pb2.VerifyResponse]:
        """Adds up every account; see ``audit.py``."""
        audit = Audit()
        try:
            async for read, total in audit_pages(self._directory.current.shards, audit):
                yield cluster_pb2.VerifyResponse(accounts_read=read, accounts_total=total)
            await self._registry.require_exponents(audit.currencies)
        except ShardNodeError as error:
            await _unavailable(context, error)
        result = _result(audit, self._registry.exponents)
        yield cluster_pb2.VerifyResponse(
            accounts_read=audit.accounts, accounts_total=audit.accounts, result=result
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


def _in_doubt(
    entry: PendingTransfer,
    state: cluster_pb2.InDoubtState,
    shard_id: str,
    now_ms: int,
    exponents: Exponents,
) -> cluster_pb2.InDoubtTransfer:
    payer, payee = entry.accounts
    return cluster_pb2.InDoubtTransfer(
        transaction_id=str(UUID(bytes=entry.key[:16])),
        state=state,
        shard_id=shard_id,
        from_account=payer,
        to_account=payee,
        amount=to_text(abs(entry.amount_minor), exponents[entry.currency]),
        currency=entry.currency,
        age_ms=max(0, now_ms - entry.since_ms),
    )


def _result(audit: Audit, exponents: Exponents) -> cluster_pb2.VerifyResult:
    verdict = cluster_pb2.VERDICT_BALANCED
    if audit.busy:
        verdict = cluster_pb2.VERDICT_BUSY
    if audit.alarms or (not audit.busy and any(s.total_minor for s in audit.currencies.values())):
        verdict = cluster_pb2.VERDICT_BROKEN
    currencies = []
    for code, total in sorted(audit.currencies.items()):
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
        accounts=audit.accounts,
        prepared=audit.prepared,
        unsettled=audit.unsettled,
        alarms=audit.alarms,
    )


async def _unavailable(context: Any, error: ShardNodeError) -> NoReturn:
    await statuses.abort(context, grpc.StatusCode.UNAVAILABLE, Outcome.OUTCOME_UNKNOWN.name, str(error))
