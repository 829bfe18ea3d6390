"""The map of the cluster, kept in ZooKeeper: slots, topology, members, currencies."""

from shard_node.cluster.currencies import Currencies, Exponents, package_exponent
from shard_node.cluster.registry import (
    ARCHIVER_LOCKS,
    MEMBERS,
    RESOLVER_LOCKS,
    Member,
    MemberKind,
    Registry,
    bootstrap,
)
from shard_node.cluster.slots import SLOT_COUNT, hash_tag, slot
from shard_node.cluster.topology import ShardInfo, Topology

__all__ = [
    "ARCHIVER_LOCKS",
    "MEMBERS",
    "RESOLVER_LOCKS",
    "SLOT_COUNT",
    "Currencies",
    "Exponents",
    "Member",
    "MemberKind",
    "Registry",
    "ShardInfo",
    "Topology",
    "bootstrap",
    "hash_tag",
    "package_exponent",
    "slot",
]
