"""The lowest layer: slots, topology, the ZooKeeper registry, a shard's call interface, and its agent.

Public face, which the coordinator and the router import: ``calls``, ``directory``, ``errors``,
``journal_calls``, ``journals``, ``ledger``, ``limits``, ``outcomes``, ``packing``, ``process``, ``records``,
``registry``, ``rotation``, ``shard``, ``slots``, ``topology``, ``transfers``. The rest serves the agent and
the archiver.
"""
