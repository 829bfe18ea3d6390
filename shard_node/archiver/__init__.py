"""The archiver: moves what shards did from their streams into the ledger's archive, exactly once.

It keeps nothing of its own. The archive's last batch is the position; the shard keeps what it was not yet
told is stored. So it may be killed anywhere, and any number of archivers may run at once.
"""

from shard_node.archiver.shard_archiver import BATCH_ENTRIES, ShardArchiver

__all__ = [
    "BATCH_ENTRIES",
    "ShardArchiver",
]
