"""The ledger's archive in SQL: every entry that a shard ever made, stored once and for all.

Each shard notes what it does in a stream of its own; the archiver (:mod:`shard_node.archiver`) decodes the
stream into rows (``entries``), chains them into batches that betray a later change (``chain``), and stores
them (``archive``) in SQLite or PostgreSQL (``schema``). Nothing on the transfer path reads it.

It is read to answer questions (``history``, with the tokens of ``positions``), to be followed
(``following``), to rebuild every balance (``replay``: ``chain_reader`` checks, ``fold`` adds up), and to
compare it with the live shards (``audit``, ``quick_check``), which tell ``findings``. Up to which moment an
answer is complete, ``completeness`` tells.

Public face: ``schema``, ``entries``, ``chain``, ``archive``, ``history``, ``completeness``, ``positions``,
``following``, ``replay``, ``fold``, ``audit``, ``quick_check``, ``findings``.
"""
