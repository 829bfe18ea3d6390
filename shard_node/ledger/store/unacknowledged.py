"""Whether stored batches that the shard was not told of are what the shard's stream says.

The shard vouches for the batch that it was told of last, by its hash. Between a batch's commit and that
telling nobody vouches for it, and an archiver may be dead for long in between. But the shard still has what
the batch was made from: whoever goes on compares the two first, and so does an audit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from shard_node.ledger.store.chain import Sealed, is_intact
from shard_node.ledger.store.frames import StreamFrame, decode
from shard_node.ledger.store.rows import Row, stream_place

# Frames asked for at once, each of up to 8192 transfers.
_PAGE: Final = 16


async def difference_from_stream(
    read_stream: Callable[[str, int], Awaitable[Sequence[StreamFrame]]],
    read_rows: Callable[[Sealed], Awaitable[Sequence[Row]]],
    told: tuple[str, int],
    untold: Sequence[Sealed],
) -> str | None:
    """What is wrong with the stored batches that a shard was not told of, in words; None when nothing is.

    ``read_stream`` is the shard's ``ledger_after``, ``read_rows`` reads a batch's stored entries in order.
    ``told`` is the stream id that the shard was told of (``LedgerState.stream_id``) and the sequence that
    follows the batch ``LedgerState.number`` (1 when that is 0); ``untold`` are the batches past that number.

    Call it so: read the shard's ``ledger_state()``, then the batches, then this, then ``ledger_state()``
    again. Only if its ``number`` is still the same does the answer count: otherwise the shard was told
    meanwhile, and has forgotten what is compared with. Raises LedgerError when the stream is unreadable.
    """
    after, sequence = told
    for sealed in untold:
        header = sealed.header
        if header.first_sequence != sequence:
            return f"batch {header.number} begins with entry {header.first_sequence}, not {sequence}"
        try:
            stream = await _stream_up_to(read_stream, after, header.stream_id)
        except ValueError:
            return f"batch {header.number} ends at no stream id"
        difference = _difference(stream, sealed, await read_rows(sealed))
        if difference is not None:
            return f"batch {header.number} is not what the shard made: {difference}"
        after, sequence = header.stream_id, header.next_sequence
    return None


async def _stream_up_to(
    read_stream: Callable[[str, int], Awaitable[Sequence[StreamFrame]]], after: str, last: str
) -> list[StreamFrame]:
    """The stream's frames past ``after`` up to ``last``, itself included."""
    end = stream_place(last)
    stream: list[StreamFrame] = []
    while True:
        page = await read_stream(after, _PAGE)
        within = [frame for frame in page if stream_place(frame[0]) <= end]
        stream += within
        if len(within) < len(page) or len(page) < _PAGE:
            return stream
        after = page[-1][0]


def _difference(stream: Sequence[StreamFrame], sealed: Sealed, rows: Sequence[Row]) -> str | None:
    """Between a stored batch and the one that these frames make."""
    header = sealed.header
    if not stream or stream[-1][0] != header.stream_id:
        return f"the shard's stream has no frame {header.stream_id}"
    made = decode(header.shard, stream, header.first_sequence)
    times = [stream_place(stream_id)[0] for stream_id, _ in (stream[0], stream[-1])]
    if header != replace(header, entry_count=len(made), first_at_ms=times[0], last_at_ms=times[1]):
        return "its size or its times are others"
    for stored, expected in zip(rows, made, strict=False):
        if tuple(stored) != expected:
            return f"entry {header.first_sequence + made.index(expected)} is another one"
    if len(rows) != len(made):
        return f"{len(made) - len(rows)} of its entries are missing"
    if not is_intact(sealed, made):
        return "its hash is another one"
    return None
