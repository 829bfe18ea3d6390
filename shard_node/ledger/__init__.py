"""The ledger's archive in SQL: every entry that a shard ever made, stored once and for all.

Each shard notes what it does in a stream of its own; the archiver (:mod:`shard_node.archiver`) decodes the
stream into rows (``entries``), chains them into batches that betray a later change (``chain``), and stores
them (``archive``) in SQLite or PostgreSQL (``schema``). Nothing on the transfer path reads it.

Public face: ``schema``, ``entries``, ``chain``, ``archive``.
"""
