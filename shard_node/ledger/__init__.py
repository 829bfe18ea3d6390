"""The ledger: every entry that a shard ever made, stored once and for all.

Each shard notes what it does in a stream of its own; the archiver (:mod:`shard_node.archiver`) stores it
(``store``). From there it answers questions (``questions``), and is proved to hold (``proof``). Nothing on
the transfer path reads it.
"""
