"""Two-phase commit across shards, and recovery of what others left behind.

The decisions are in ``attempts`` and ``attempt_steps``, without I/O.
"""

from coordinator.cluster_service import ClusterService

__all__ = ["ClusterService"]
