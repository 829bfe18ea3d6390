"""The ledger's archive in SQL: its tables, a shard's stream as rows, the chain over its batches."""

from shard_node.ledger.store.archive import Archive, Position, sealed
from shard_node.ledger.store.asking import Ask
from shard_node.ledger.store.chain import GENESIS, Header, Sealed, chain_hash, is_intact, seal
from shard_node.ledger.store.exponents import read_exponents
from shard_node.ledger.store.frames import StreamFrame, decode, row_count
from shard_node.ledger.store.rows import ArchivedShard, Entry, Row, stream_place
from shard_node.ledger.store.schema import (
    LEDGER_VARIABLE,
    POSTGRESQL,
    SEQUENCE_BITS,
    SEQUENCE_MASK,
    SQLITE,
    WRITING,
    as_ledger_error,
    batches,
    entries,
    entries_between,
    entry_id,
    metadata,
    no_url,
    open_ledger,
    shards,
    shown,
)
from shard_node.ledger.store.unacknowledged import difference_from_stream

__all__ = [
    "GENESIS",
    "LEDGER_VARIABLE",
    "POSTGRESQL",
    "SEQUENCE_BITS",
    "SEQUENCE_MASK",
    "SQLITE",
    "WRITING",
    "Archive",
    "ArchivedShard",
    "Ask",
    "Entry",
    "Header",
    "Position",
    "Row",
    "Sealed",
    "StreamFrame",
    "as_ledger_error",
    "batches",
    "chain_hash",
    "decode",
    "difference_from_stream",
    "entries",
    "entries_between",
    "entry_id",
    "is_intact",
    "metadata",
    "no_url",
    "open_ledger",
    "read_exponents",
    "row_count",
    "seal",
    "sealed",
    "shards",
    "shown",
    "stream_place",
]
