"""Archives one shard: reads its stream, stores a batch, tells the shard; again and again.

The order is what makes it exact: the shard is told of a batch only when it is stored, and the next one is
stored only when the shard has been told. Whatever fails in between, the position is read anew from the
archive, for whether a commit that got no answer was carried out only the archive knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from shard_node.archiver.resume import Resumed, require_in_stream, resume, stream_id_before
from shard_node.client import LedgerState
from shard_node.errors import BatchTakenError, ExponentUnknownError, LedgerError
from shard_node.ledger.store import (
    Archive,
    Entry,
    Header,
    Position,
    Row,
    Sealed,
    StreamFrame,
    decode,
    difference_from_stream,
    row_count,
    seal,
    stream_place,
)

# Entries in one batch at the most, unless told otherwise; so many only when so many wait. A large ledger's
# batch touches nearly one page an entry and index, so the larger it is the fewer an entry; each entry takes
# a kilobyte of memory meanwhile.
BATCH_ENTRIES = 100_000
# Frames asked for at once: bounds what one reply may be, 8192 transfers to each.
_MAX_PAGE = 128
# Tries to see archive and shard at one moment while another archiver goes on.
_MAX_RESUMES = 5

_CURRENCY = Entry._fields.index("currency")

_T = TypeVar("_T")


class LedgerSource(Protocol):
    """What is asked of a shard. Its own client is one."""

    async def archived(self, stream_id: str, number: int, head: bytes, entries: int) -> None:
        """Tells it that its ledger is stored up to and with ``stream_id``."""

    async def ledger_state(self) -> LedgerState:
        """What it was told of, and what waits."""

    async def ledger_after(self, stream_id: str, count: int) -> Sequence[StreamFrame]:
        """Up to ``count`` frames of its stream after that id."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did: entries stored, and whether the batch was full, so that more is there."""

    entries: int
    full: bool


class ShardArchiver:
    """One shard's archiver. ``executor`` runs what blocks; ``clock_ms`` is the time since 1970.

    ``exponents`` are those stored with the cluster, which may become more. They are copied into the ledger
    before anything else is, and no entry is stored in a currency that has none.
    """

    def __init__(
        self,
        shard_id: str,
        archive: Archive,
        executor: Executor,
        clock_ms: Callable[[], int],
        exponents: Mapping[str, int],
        batch_entries: int = BATCH_ENTRIES,
    ) -> None:
        self._shard_id = shard_id
        self._archive = archive
        self._executor = executor
        self._clock_ms = clock_ms
        self._batch_entries = batch_entries
        self._exponents = exponents
        self._kept_exponents: Mapping[str, int] = {}
        self._page = 1
        # None: unknown, to be read from the archive.
        self._position: Position | None = None

    def __repr__(self) -> str:
        return f"ShardArchiver({self._shard_id}, {self._position})"

    def forget(self) -> None:
        """Another archiver may go on from here."""
        self._position = None

    async def step(self, source: LedgerSource) -> Step:
        """Stores the next batch, if there is one, and tells the shard.

        Raises LedgerError when the archive and the shard do not belong together, by their exponents too, or
        the stream cannot be stored; RetryableError when something did not answer or is not known yet, or
        another archiver was faster.
        """
        await self._keep_exponents()
        # Until the end of the step: whoever interrupts it leaves no position that may be wrong.
        position, self._position = self._position, None
        if position is None:
            position = await self._resume(source)
        stream, full = await self._read(source, position.stream_id)
        if stream and not _was_told(await source.ledger_state(), position):
            # Another archiver goes on, or the shard went back in time: what it made since belongs to another
            # history than the archive's, which is found out here.
            position = await self._resume(source)
            stream, full = await self._read(source, position.stream_id)
        if not stream:
            self._position = position
            return Step(0, full=False)
        sealed = await self._blocking(lambda: self._store(position, stream))
        await _tell(source, sealed)
        self._position = position.after(sealed)
        return Step(sealed.header.entry_count, full)

    async def _keep_exponents(self) -> None:
        if self._kept_exponents != self._exponents:
            exponents = dict(self._exponents)
            await self._blocking(lambda: self._archive.keep_exponents(exponents))
            self._kept_exponents = exponents

    # ------------------------------------------------------------------ where to go on

    async def _resume(self, source: LedgerSource) -> Position:
        for _ in range(_MAX_RESUMES):
            # In this order: the archive is then never behind the shard by another's doing.
            state = await source.ledger_state()
            resumed = await self._blocking(lambda state=state: self._resumed(state))  # type: ignore[misc]
            if not resumed.untold:
                return resumed.position
            before = stream_id_before(resumed.position.stream_id)
            first = await source.ledger_after(before, 1)
            difference = await difference_from_stream(
                source.ledger_after,
                self._rows,
                (state.stream_id, resumed.next_sequence),
                resumed.untold,
            )
            if (await source.ledger_state()).number != state.number:
                continue
            require_in_stream(resumed, first)
            if difference is not None:
                raise LedgerError(
                    f"{self._shard_id}: {difference}: the archive was changed before the shard was told of "
                    "that batch; nothing of this shard is archived"
                )
            for sealed in resumed.untold:
                await _tell(source, sealed)
            return resumed.position
        raise BatchTakenError(f"{self._shard_id}: another archiver goes on with it")

    async def _rows(self, sealed: Sealed) -> Sequence[Row]:
        return await self._blocking(lambda: self._archive.rows(sealed.header))

    def _resumed(self, state: LedgerState) -> Resumed:
        position = self._archive.position(self._shard_id)
        first = max(state.number, 1)
        since = self._archive.batches(position.shard, first - 1, max(position.number - first + 1, 0))
        return resume(position, state, since)

    # ------------------------------------------------------------------ one batch

    async def _read(self, source: LedgerSource, after: str) -> tuple[list[StreamFrame], bool]:
        """The next frames, as many as a batch takes, but one at least; whether more are there."""
        stream: list[StreamFrame] = []
        rows = 0
        while True:
            page = await source.ledger_after(after, self._page)
            asked, counts = self._page, [row_count(frame) for _, frame in page]
            if page:
                # As many as twice a batch would be, going by these: what does not fit is read again.
                share = 2 * self._batch_entries * len(page) // max(sum(counts), 1)
                self._page = min(max(share, 1), _MAX_PAGE)
            for frame, count in zip(page, counts, strict=True):
                if stream and rows + count > self._batch_entries:
                    return stream, True
                stream.append(frame)
                rows += count
            if len(page) < asked:
                return stream, False
            after = page[-1][0]

    def _store(self, position: Position, stream: Sequence[StreamFrame]) -> Sealed:
        rows = decode(position.shard, stream, position.next_sequence)
        unknown = set(rows.columns[_CURRENCY]) - self._kept_exponents.keys()
        if unknown:
            raise ExponentUnknownError(
                f"{position.shard.shard_id}: how many decimals {', '.join(sorted(unknown))} has is not known "
                "here: entries in it are archived when the cluster has stored that and this archiver knows it"
            )
        header = Header(
            position.shard,
            position.number + 1,
            position.next_sequence,
            len(rows),
            stream[-1][0],
            _time_ms(stream[0]),
            _time_ms(stream[-1]),
            self._clock_ms(),
        )
        sealed = seal(position.hash, header, rows)
        self._archive.store(sealed, rows)
        return sealed

    async def _blocking(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _was_told(state: LedgerState, position: Position) -> bool:
    """Whether the last batch that the shard was told of is this position's."""
    return state.number == position.number and (not state.number or state.head == position.hash)


async def _tell(source: LedgerSource, sealed: Sealed) -> None:
    header = sealed.header
    await source.archived(header.stream_id, header.number, sealed.hash, header.entry_count)


def _time_ms(frame: StreamFrame) -> int:
    return stream_place(frame[0])[0]
