"""A stand-in for a router's ClusterService that answers what a test wants, over real gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc

from tallystick.v1 import cluster_pb2, cluster_pb2_grpc


@dataclass(slots=True)
class FakeClusterService(cluster_pb2_grpc.ClusterServiceServicer):
    """``verdicts`` are given one a call, the last one again and again; ``failure`` fails every call."""

    verdicts: list[cluster_pb2.Verdict] = field(default_factory=list)
    failure: grpc.StatusCode | None = None
    in_doubt_failure: grpc.StatusCode | None = None
    in_doubt: cluster_pb2.ListInDoubtResponse = field(default_factory=cluster_pb2.ListInDoubtResponse)
    backlogs: list[cluster_pb2.Backlog] = field(
        default_factory=lambda: [cluster_pb2.Backlog(shard_id="shard-0")]
    )
    members_failure: grpc.StatusCode | None = None
    members: list[cluster_pb2.Member] = field(
        default_factory=lambda: [
            cluster_pb2.Member(name="router-0", kind=cluster_pb2.MEMBER_KIND_ROUTER, address="h:2", pid=3),
            cluster_pb2.Member(name="shard-0", kind=cluster_pb2.MEMBER_KIND_SHARD_NODE, address="h:1", pid=4),
        ]
    )
    verifications: int = 0

    def Verify(  # noqa: N802 - gRPC's name
        self, request: cluster_pb2.VerifyRequest, context: grpc.ServicerContext
    ) -> Iterator[cluster_pb2.VerifyResponse]:
        """Progress, then the next verdict."""
        self._fail(context, self.failure)
        verdict = self.verdicts[min(self.verifications, len(self.verdicts) - 1)]
        self.verifications += 1
        yield cluster_pb2.VerifyResponse(accounts_read=1, accounts_total=2)
        total = cluster_pb2.CurrencySum(
            currency="EUR", customers="5.00", system="-4.00", in_flight="0.00", total="1.00", accounts=2
        )
        yield cluster_pb2.VerifyResponse(
            accounts_read=2,
            accounts_total=2,
            result=cluster_pb2.VerifyResult(verdict=verdict, currencies=[total], accounts=2, alarms=3),
        )

    def GetTopology(  # noqa: N802 - gRPC's name
        self, request: cluster_pb2.GetTopologyRequest, context: grpc.ServicerContext
    ) -> cluster_pb2.Topology:
        """One shard."""
        self._fail(context, self.failure)
        slots = [cluster_pb2.SlotRange(first=0, last=16383)]
        shard = cluster_pb2.Shard(shard_id="shard-0", epoch=2, primary="h:1", slots=slots, slot_count=16384)
        return cluster_pb2.Topology(cluster_id="c", version=4, shards=[shard])

    def ListMembers(  # noqa: N802 - gRPC's name
        self, request: cluster_pb2.ListMembersRequest, context: grpc.ServicerContext
    ) -> cluster_pb2.ListMembersResponse:
        """As the test wants."""
        self._fail(context, self.members_failure)
        return cluster_pb2.ListMembersResponse(members=self.members)

    def ListBacklogs(  # noqa: N802 - gRPC's name
        self, request: cluster_pb2.ListBacklogsRequest, context: grpc.ServicerContext
    ) -> cluster_pb2.ListBacklogsResponse:
        """As the test wants."""
        self._fail(context, self.failure)
        return cluster_pb2.ListBacklogsResponse(backlogs=self.backlogs)

    def ListInDoubt(  # noqa: N802 - gRPC's name
        self, request: cluster_pb2.ListInDoubtRequest, context: grpc.ServicerContext
    ) -> cluster_pb2.ListInDoubtResponse:
        """As the test wants."""
        self._fail(context, self.in_doubt_failure or self.failure)
        return self.in_doubt

    @staticmethod
    def _fail(context: grpc.ServicerContext, code: grpc.StatusCode | None) -> None:
        if code is not None:
            context.abort(code, "for a reason")


@contextmanager
def serving(service: FakeClusterService) -> Iterator[str]:
    """Serves it; its host:port."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    cluster_pb2_grpc.add_ClusterServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()
