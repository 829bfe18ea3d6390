"""Whether the end of the archive is what the shard says it is, while an archiver may be adding to it.

The shard keeps the hash of the last batch that it was told of, which vouches for all before it. Batches past
that one, of an archiver between storing and telling, are compared with what the shard's stream still holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from shard_node.ledger.proof.findings import Findings, Rule
from shard_node.ledger.proof.live import check_head
from shard_node.ledger.questions import is_well_formed
from shard_node.ledger.store import (
    ArchivedShard,
    Header,
    Sealed,
    batches,
    difference_from_stream,
    entries_between,
    sealed,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shard_node.client import LedgerState, Shard
    from shard_node.ledger.questions import Head, History
    from shard_node.ledger.store import Ask, Row

# An archiver that works tells the shard of a batch as soon as it is stored: then its hash vouches for it.
TRIES: Final = 5
# An archiver stores none before the last one was told; more than one are there only when somebody meddled.
_MAX_UNTOLD: Final = 16


@dataclass(frozen=True, slots=True)
class _End:
    """A shard's archive from the batch that the shard was told of."""

    head: Head | None = None
    told_hash: bytes | None = None
    # The sequence after that batch; None when it is not there.
    next_sequence: int | None = None
    untold: tuple[Sealed, ...] = ()


async def check_end(findings: Findings, history: History, shard: Shard, ask: Ask) -> LedgerState:
    """Adds a finding unless the archive's end is the shard's; the shard's state, as it was looked at."""
    for _ in range(TRIES):
        # The shard first: the archiver stores a batch before it tells the shard.
        state = await shard.ledger_state()
        end = await ask(partial(_end, history, shard.shard_id, state.number))
        before = findings.total
        check_head(findings, shard.shard_id, state, end.head, end.told_hash)
        if findings.total > before or end.next_sequence is None or not end.untold:
            return state

        async def rows(sealed: Sealed) -> Sequence[Row]:
            return await ask(partial(_rows, history, sealed.header))

        told = (state.stream_id, end.next_sequence)
        difference = await difference_from_stream(shard.ledger_after, rows, told, end.untold)
        if (await shard.ledger_state()).number == state.number:
            if difference is not None:
                findings.add(
                    Rule.HEAD,
                    f"{difference}; of batches after {state.number} the shard was not told yet",
                    shard_id=shard.shard_id,
                )
            return state
    # Told again and again, of batches that were each compared with the hash told: an archiver at work.
    return state


def _end(history: History, shard_id: str, told: int) -> _End:
    """Blocks."""
    found = history.head_of(shard_id)
    if found is None:
        return _End()
    number, head = found
    statement = (
        select(batches)
        .where(batches.c.shard_number == number, batches.c.number >= max(told, 1))
        .order_by(batches.c.number)
        .limit(_MAX_UNTOLD + 1)
    )
    with history.reading() as connection:
        rows = connection.execute(statement).all()
    told_hash = next((row.hash for row in rows if row.number == told and type(row.hash) is bytes), None)
    shard = ArchivedShard(number, shard_id)
    # Damaged ones are for whoever reads the chain.
    stored = [sealed(shard, row) for row in rows if is_well_formed(row)]
    next_sequence = 1 if told == 0 else None
    if stored and stored[0].header.number == told:
        next_sequence = stored[0].header.next_sequence
    untold = tuple(batch for batch in stored if batch.header.number > told)
    return _End(head, told_hash, next_sequence, untold)


def _rows(history: History, header: Header) -> list[Row]:
    """A batch's entries. Blocks."""
    statement = entries_between(header.shard.number, header.first_sequence, header.next_sequence - 1)
    with history.reading() as connection:
        return [tuple(row) for row in connection.execute(statement)]
