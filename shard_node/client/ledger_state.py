"""How far a shard's ledger is archived."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LedgerState:
    """How far a shard's ledger is archived, as the shard knows.

    ``number`` and ``head`` are those of the last batch it was told of, 0 and empty before the first;
    ``stream_id`` is the last one in it. ``backlog`` counts ledger entries that wait, which at
    ``backlog_limit`` stops new transfers; ``length`` counts the calls that made them. ``now_ms`` is the
    shard's clock, read first, and ``length`` before the rest: when that is 0, all that was made up to
    ``now_ms`` is in the batches up to ``number``. ``oldest_ms`` is when the first entry that waits was made,
    where somebody has looked.
    """

    number: int
    head: bytes
    stream_id: str
    backlog: int
    backlog_limit: int
    length: int
    now_ms: int = field(compare=False)
    oldest_ms: int | None = field(default=None, compare=False)
