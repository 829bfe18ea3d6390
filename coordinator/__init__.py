"""Two-phase commit across shards, and recovery of what others left behind.

The decisions are in ``protocol`` and ``journal_protocol``, without I/O.
"""

from coordinator.cluster_service import ClusterService

__all__ = ["ClusterService"]
