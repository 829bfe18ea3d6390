"""The lowest layer: slots, topology, the ZooKeeper registry, a shard's call interface, and its agent.

Public face, which the coordinator and the router import: ``calls``, ``directory``, ``errors``,
``limits``, ``outcomes``, ``process``, ``records``, ``registry``, ``shard``, ``slots``, ``topology``,
``transfers``. The rest serves the agent alone.
"""
