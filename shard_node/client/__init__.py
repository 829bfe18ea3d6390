"""How others call a shard: connections, calls by the newest map, and why there was no answer."""

from shard_node.client.asking import AskedShard, NoReply, ask, ask_all
from shard_node.client.connection import (
    CALL_TIMEOUT_SECONDS,
    ShardRedis,
    as_shard_error,
    connect,
    disconnect,
)
from shard_node.client.directory import Cluster, Directory
from shard_node.client.ledger_state import LedgerState
from shard_node.client.shard import Shard, status_of

__all__ = [
    "CALL_TIMEOUT_SECONDS",
    "AskedShard",
    "Cluster",
    "Directory",
    "LedgerState",
    "NoReply",
    "Shard",
    "ShardRedis",
    "as_shard_error",
    "ask",
    "ask_all",
    "connect",
    "disconnect",
    "status_of",
]
