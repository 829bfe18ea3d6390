"""From the frames in a shard's stream to the rows of the archive.

The shard engine appends one frame a command to its stream `ledger`, and says all of it there: the bundle,
what of it was carried out, what the accounts had after (:mod:`shard_node.contract.layout`). Here frames
become rows, in the order in which the shard made them. What is not understood is an error, never skipped: it
must not be trimmed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final

import numpy as np

from shard_node.contract import (
    ENTRY_HEAD,
    FRAME_HEAD,
    LAYOUT_VERSION,
    LIST_HEAD,
    FrameKind,
    Kind,
    Outcome,
)
from shard_node.errors import LedgerError
from shard_node.ledger.store.bundle_columns import (
    Part,
    applied_legs,
    columns_of_parts,
    cut,
    details_texts,
    each_code,
    without_zeros,
)
from shard_node.ledger.store.rows import ArchivedShard, Columns, Entry, Row, Rows, stream_place
from shard_node.ledger.store.schema import entry_id

# The fields of a stream entry, by name.
Frame = Mapping[bytes, bytes] | Sequence[tuple[bytes, bytes]]
# With its id, "milliseconds-number".
StreamFrame = tuple[str, Frame]

_MALFORMED: Final = (ValueError, KeyError, IndexError, TypeError, struct.error)
_BUNDLE_FIELDS: Final = b"bcfx"
_FIELDS: Final = {
    FrameKind.POST: _BUNDLE_FIELDS,
    FrameKind.DECIDE: _BUNDLE_FIELDS,
    FrameKind.FINISH: _BUNDLE_FIELDS,
    FrameKind.OPEN: b"oc",
    FrameKind.STATE: b"r",
    FrameKind.EXPIRE: b"r",
}
# What a frame's rows may be; an OPEN row's attributes, in the order of the list that opened it.
_KINDS: Final = {
    FrameKind.STATE: frozenset((Kind.FREEZE, Kind.UNFREEZE, Kind.CLOSE)),
    FrameKind.EXPIRE: frozenset((Kind.EXPIRY,)),
}
_LIMITS: Final = ("minimum_balance", "maximum_balance", "maximum_transfer")
_OPEN: Final = int(Kind.OPEN)


def row_count(frame: Frame) -> int:
    """How many rows a frame makes. Raises LedgerError when it is unreadable."""
    try:
        kind, parts = _read(frame)
        if kind is FrameKind.OPEN:
            return sum(each_code(c, _count(o)).count(Outcome.COMMITTED) for o, c in parts)
        if _FIELDS[kind] is _BUNDLE_FIELDS:
            return sum(applied_legs(bundle, changes) for bundle, _, _, changes in parts)
        return sum(len(_cut_entries(rows)) for (rows,) in parts)
    except _MALFORMED as error:
        raise LedgerError(f"a frame is unreadable: {type(error).__name__} {error}") from error


def decode(shard: ArchivedShard, stream: Iterable[StreamFrame], first_sequence: int) -> Rows:
    """The rows of some frames, the first with the given sequence.

    Raises LedgerError when one of them is malformed, or of a layout that is not known.
    """
    frames, first_id = list(stream), entry_id(shard.number, first_sequence)
    try:
        columns = _columns(shard, frames)
    except _MALFORMED as error:
        raise _malformed(shard, frames) from error
    return Rows([list(range(first_id, first_id + len(columns[0]))), *columns])


def _malformed(shard: ArchivedShard, frames: Sequence[StreamFrame]) -> LedgerError:
    """The error about the first of some frames that is malformed: they were decoded together."""
    for stream_id, frame in frames:
        try:
            _columns(shard, [(stream_id, frame)])
        except _MALFORMED as error:
            return LedgerError(
                f"{shard.shard_id}: the ledger's frame {stream_id} is malformed or of an unknown layout: "
                f"{type(error).__name__} {error}"
            )
    return LedgerError(f"{shard.shard_id}: the ledger's frames from {frames[0][0]} on do not fit together")


def _columns(shard: ArchivedShard, frames: Sequence[StreamFrame]) -> list[list[Any]]:
    """The columns of :class:`Entry` but for its ids."""
    columns: list[list[Any]] = [[] for _ in Entry._fields[1:]]
    for run in _runs(frames, f":{shard.shard_id}"):
        for column, more in zip(columns, run, strict=True):
            column.extend(more)
    return columns


def _runs(frames: Sequence[StreamFrame], suffix: str) -> Iterator[Columns]:
    """Columns in the frames' order: of bundles as many as follow each other at once."""
    bundles: list[Part] = []
    for stream_id, frame in frames:
        at_ms, _ = stream_place(stream_id)
        kind, parts = _read(frame)
        if _FIELDS[kind] is _BUNDLE_FIELDS:
            bundles += [cut(kind, at_ms, fields) for fields in parts]
            continue
        if bundles:
            yield columns_of_parts(bundles, suffix)
            bundles = []
        yield from (_rows(kind, fields, at_ms, suffix) for fields in parts)
    if bundles:
        yield columns_of_parts(bundles, suffix)


def _read(frame: Frame) -> tuple[FrameKind, list[list[bytes]]]:
    """A frame's kind, and the fields of each of its parts in the order of ``_FIELDS``."""
    fields = dict(frame)
    version, number, parts = FRAME_HEAD.unpack(fields[b"h"])
    if version != LAYOUT_VERSION:
        raise ValueError(f"layout {version}, not {LAYOUT_VERSION}")
    kind = FrameKind(number)
    letters = _FIELDS[kind]
    if len(frame) != 1 + parts * len(letters):
        raise ValueError(f"{len(frame)} fields for {parts} parts")
    return kind, [[fields[b"%c%d" % (letter, part)] for letter in letters] for part in range(parts)]


def _named(name: bytes, suffix: str) -> str:
    return without_zeros(name.decode()) + (suffix if name[0] == ord("@") else "")


# ---------------------------------------------------------------------- frames without a bundle


def _rows(kind: FrameKind, fields: Sequence[bytes], at_ms: int, suffix: str) -> Columns:
    if kind is FrameKind.OPEN:
        accounts, codes = fields
        rows = _opened(accounts, codes, at_ms, suffix)
    else:
        rows = _listed(kind, fields[0], at_ms, suffix)
    return list(zip(*rows, strict=True)) or [()] * len(Entry._fields[1:])


def _count(accounts: bytes) -> int:
    """How many accounts a list has."""
    count: int = LIST_HEAD.unpack_from(accounts)[0]
    return count


def _opened(accounts: bytes, codes: bytes, at_ms: int, suffix: str) -> list[Row]:
    n = _count(accounts)
    # Limits, slots, which no row has, currencies and lengths of the names.
    columns = struct.Struct(f"<{3 * n}q{2 * n}x{3 * n}s{n}s")
    *limits, currencies, lengths = columns.unpack_from(accounts, LIST_HEAD.size)
    ends = tuple(accumulate(lengths, initial=LIST_HEAD.size + columns.size))
    if ends[-1] != len(accounts):
        raise ValueError(f"a list of {len(accounts)} bytes, {ends[-1]} by its lengths")
    rows: list[Row] = []
    for i, code in enumerate(each_code(codes, n)):
        if code == Outcome.COMMITTED:
            name, currency = accounts[ends[i] : ends[i + 1]], currencies[3 * i : 3 * i + 3].decode()
            attributes = json.dumps(dict(zip(_LIMITS, limits[i::n], strict=True)))
            rows.append(
                (_named(name, suffix), 0, at_ms, _OPEN, None, None, 0, 0, "", currency, 0, 0, 0, None, "", "",
                 "", attributes)
            )  # fmt: skip
    return rows


def _listed(kind: FrameKind, packed: bytes, at_ms: int, suffix: str) -> list[Row]:
    """The rows of a STATE or EXPIRE: they are in the frame as they are."""
    entries = _cut_entries(packed)
    details = [entry[-1] for entry in entries]
    texts = details_texts(
        b"".join(details), np.array([len(one) for one in details], "<u2"), np.full(len(details), "", object)
    )
    rows: list[Row] = []
    for entry, *said in zip(entries, *texts, strict=True):
        names, (delta, held, balance, version, currency, of, leg, leg_count) = entry[:2], entry[2:10]
        account, other, _ = entry[10:]
        if of not in _KINDS[kind]:
            raise ValueError(f"kind {of} in a {kind.name}")
        # What a STATE has of a transaction says nothing: there is none.
        transaction = (*names, leg, leg_count) if kind is FrameKind.EXPIRE else (None, None, 0, 0)
        rows.append(
            (_named(account, suffix), version, at_ms, of, *transaction,
             _named(other, suffix) if other else "", currency.decode(), delta, held, balance, None, *said, "")
        )  # fmt: skip
    return rows


def _cut_entries(packed: bytes) -> list[tuple[Any, ...]]:
    """What ENTRY_HEAD says of each but for lengths, then account, counterparty and details."""
    entries: list[tuple[Any, ...]] = []
    at = 0
    while at < len(packed):
        *values, account, other, details = ENTRY_HEAD.unpack_from(packed, at)
        ends = tuple(accumulate((at + ENTRY_HEAD.size, account, other, details)))
        at = ends[-1]
        if at > len(packed):
            raise ValueError(f"{len(packed)} bytes of rows, {at} by their lengths")
        entries.append((*values, *(packed[begin:end] for begin, end in pairwise(ends))))
    if not entries:
        raise ValueError("no rows")
    return entries
