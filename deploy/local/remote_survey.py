"""What one router knows of a cluster that is not on this machine.

The topology names the shards; of routers, coordinators and archivers only those who have registered are
known, not how many there should be. That is said rather than guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import grpc

from deploy.local.cluster_file import Kind
from deploy.local.cluster_survey import Answer, Part, State, Survey, count_in_doubt, redis_part
from deploy.local.connection import CALL_TIMEOUT_SECONDS, said
from tallystick.v1 import cluster_pb2
from tallystick.v1.cluster_pb2_grpc import ClusterServiceStub

_KINDS = {
    cluster_pb2.MEMBER_KIND_SHARD_NODE: Kind.SHARD_NODE,
    cluster_pb2.MEMBER_KIND_COORDINATOR: Kind.COORDINATOR,
    cluster_pb2.MEMBER_KIND_ROUTER: Kind.ROUTER,
    cluster_pb2.MEMBER_KIND_ARCHIVER: Kind.ARCHIVER,
}


def survey_from(service: ClusterServiceStub) -> Survey:
    """Looks at a cluster through one router. Raises grpc.RpcError when it does not even tell the topology."""
    topology = service.GetTopology(cluster_pb2.GetTopologyRequest(), timeout=CALL_TIMEOUT_SECONDS)
    notes = ["how many routers, coordinators and archivers there should be is not known from here"]
    backlogs: dict[str, cluster_pb2.Backlog] = {}
    try:
        listed = service.ListBacklogs(cluster_pb2.ListBacklogsRequest(), timeout=CALL_TIMEOUT_SECONDS)
        backlogs = {backlog.shard_id: backlog for backlog in listed.backlogs}
    except grpc.RpcError as error:
        notes.append(f"what waits to be archived is not known: {said(error)}")
    in_doubt, problem = count_in_doubt(service)
    if problem:
        notes.append(problem)
    try:
        members = service.ListMembers(cluster_pb2.ListMembersRequest(), timeout=CALL_TIMEOUT_SECONDS).members
        parts = list(_registered(topology, members))
    except grpc.RpcError as error:
        notes.append(f"who is registered is not known: {said(error)}")
        parts = [Part(shard.shard_id, Kind.SHARD_NODE, State.UNKNOWN) for shard in topology.shards]
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            parts.insert(
                0, Part("zookeeper", Kind.ZOOKEEPER, State.SILENT, how="it does not answer the router")
            )
    answers = {"the router": Answer("", topology, backlogs)} if backlogs else {}
    parts += [
        redis_part(f"redis:{shard.shard_id}", shard.primary, None, answers) for shard in topology.shards
    ]
    known = {shard: backlog for shard, backlog in backlogs.items() if not backlog.unknown}
    return Survey(topology.cluster_id, tuple(parts), topology, known, in_doubt, tuple(notes))


def _registered(topology: cluster_pb2.Topology, members: Iterable[cluster_pb2.Member]) -> Iterator[Part]:
    """Every shard's node, registered or not, and all others who have registered."""
    found = [(_KINDS[member.kind], member) for member in members if member.kind in _KINDS]
    nodes = {member.name for kind, member in found if kind is Kind.SHARD_NODE}
    for shard in topology.shards:
        if shard.shard_id not in nodes:
            how = "it is not registered in ZooKeeper"
            yield Part(shard.shard_id, Kind.SHARD_NODE, State.MISSING, shard.primary, how=how)
    for kind, member in found:
        state = State.FAILING if member.problem else State.PRESENT
        yield Part(member.name, kind, state, member.address, member.pid, member.problem)
    if len(topology.shards) > 1 and not any(kind is Kind.COORDINATOR for kind, _ in found):
        how = "none is registered, and without one nothing moves across shards"
        yield Part("coordinator", Kind.COORDINATOR, State.MISSING, how=how)
