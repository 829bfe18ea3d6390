"""How every gRPC server of the cluster reads requests, ends calls, is announced and drained."""

from shard_node.serving import statuses
from shard_node.serving.decoding import NOT_UTF8, as_varint, rows_decoded
from shard_node.serving.server import CHANNEL_OPTIONS, Methods, Server

__all__ = [
    "CHANNEL_OPTIONS",
    "NOT_UTF8",
    "Methods",
    "Server",
    "as_varint",
    "rows_decoded",
    "statuses",
]
