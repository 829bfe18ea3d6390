"""Two-phase commit across shards, and recovery of what others left behind.

Public face, which the router imports: ``cluster_service``, ``driver.ask``, ``money``,
``protocol.NoReply`` and ``serving``. The decisions are in ``protocol``, without I/O.
"""
