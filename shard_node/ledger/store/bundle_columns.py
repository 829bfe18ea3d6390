"""Bundles of the ledger's frames as columns of rows: the archiver's hot loop.

Bundles are cut into their columns one by one and joined, whatever frames they came in. From there on every
step is one of numpy's over all of them, so that many short frames cost little more than a few long ones; only
texts are made one by one. A plain bundle gets the columns that it leaves out before that.

Rows are in the order in which the shard made them: transaction by transaction, leg by leg. All checks are
made bundle by bundle, so bundles that pass together pass alone, and the other way round.

Raises ValueError, IndexError or struct.error for what is malformed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shard_node.contract import (
    ALL_OWNERS,
    BUNDLE_HEAD,
    FINGERPRINT_BYTES,
    ID_BYTES,
    LAYOUT_VERSION,
    NO_ID,
    BundleFlag,
    Effect,
    FrameKind,
    Kind,
    Outcome,
)
from shard_node.ledger.store.rows import Columns

_Numbers = NDArray[np.int64]
_Texts = NDArray[np.object_]

_NUMBER_BYTES: Final = 8
_CURRENCY_BYTES: Final = 3
# Of ASCII, and not to be expected in a text.
_SEPARATOR: Final = "\x1e"

# As plain numbers: the operators of enums take longer than all else that is done with a short bundle.
_PLAIN, _ONE_CURRENCY, _VERSIONS = (int(flag) for flag in BundleFlag)
_FLAGS: Final = _PLAIN | _ONE_CURRENCY | _VERSIONS
_PLAIN_EFFECTS: Final = bytes((Effect.DEBIT,)), bytes((Effect.CREDIT,))
# How a leg changes its account's balance, by Effect. A hold and a void leave it: they move what is held.
_SIGNS: Final = np.zeros(len(Effect) + 1, np.int64)
_SIGNS[[Effect.CREDIT, Effect.REFUND]] = 1
_SIGNS[[Effect.DEBIT, Effect.CAPTURE]] = -1


class _Columns(NamedTuple):
    """The columns of a bundle that make rows, and what came of it; joined, those of several bundles."""

    ids: bytes
    related_ids: bytes
    amounts: bytes
    details_lengths: bytes
    kinds: bytes
    leg_counts: bytes
    effects: bytes
    owners: bytes
    account_lengths: bytes
    currencies: bytes
    accounts: bytes
    details: bytes
    codes: bytes
    fingerprints: bytes
    # Of the legs that were carried out, in the bundle's order of legs.
    balances: bytes
    versions: bytes
    held_deltas: bytes


class Part(NamedTuple):
    """A bundle in a frame, cut. ``owner`` is whose legs were carried out, ``applied`` how many were."""

    columns: _Columns
    at_ms: int
    transactions: int
    legs: int
    plain: bool
    owner: int
    applied: int
    principal: str


def without_zeros(text: str) -> str:
    """PostgreSQL's text cannot hold a zero byte: Unicode's picture of one (U+2400) stands for it."""
    return text.replace("\0", "\u2400")


def applied_legs(bundle: bytes, changes: bytes) -> int:
    """How many of a bundle's legs were carried out, by the size of their balances and versions (field x)."""
    count, rest = divmod(len(changes) - 1, _NUMBER_BYTES * (2 if bundle[1] & _PLAIN else 3))
    if rest:
        raise ValueError(f"{len(changes)} bytes of balances and versions")
    return count


def each_code(codes: bytes, count: int) -> bytes:
    """A code for each of so many, of which all may have the same."""
    if len(codes) == 1:
        return codes * count
    if len(codes) != count:
        raise ValueError(f"{len(codes)} codes for {count}")
    return codes


def cut(kind: FrameKind, at_ms: int, fields: Sequence[bytes]) -> Part:
    """The part of a frame made at that time that has these fields: b, c, f, x."""
    bundle, codes, fingerprints, changes = fields
    version, flags, n, m, *text_bytes = BUNDLE_HEAD.unpack_from(bundle)
    plain = bool(flags & _PLAIN)
    if version != LAYOUT_VERSION or flags > _FLAGS or not n or (plain and m != 2 * n):
        raise ValueError(f"a bundle of layout {version}, flags {flags}, {n} transactions, {m} legs")
    ends = tuple(accumulate((BUNDLE_HEAD.size, *_widths(flags, n, m), *text_bytes)))
    if ends[-1] != len(bundle) or len(fingerprints) != FINGERPRINT_BYTES * n:
        raise ValueError(f"a bundle of {len(bundle)} bytes, fingerprints of {len(fingerprints)}")
    (
        ids, related_ids, _, amounts, _, _, details_lengths, kinds, leg_counts, effects, owners,
        account_lengths, currencies, accounts, details, principal,
    ) = [bundle[begin:end] for begin, end in pairwise(ends)]  # fmt: skip
    if plain:
        related_ids, amounts, leg_counts = NO_ID * n, amounts * 2, b"\2" * n
        effects, owners = _PLAIN_EFFECTS[0] * n + _PLAIN_EFFECTS[1] * n, b"\0" * n + b"\1" * n
    if flags & _ONE_CURRENCY:
        currencies *= m
    elif plain:
        currencies *= 2
    owner = changes[0]
    if owner == ALL_OWNERS:
        owners = bytes((ALL_OWNERS,)) * m
    if kind != (FrameKind.POST if owner == ALL_OWNERS else FrameKind.FINISH if owner else FrameKind.DECIDE):
        raise ValueError(f"legs of owner {owner} in a {kind.name}")
    applied = applied_legs(bundle, changes)
    versions_at = 1 + _NUMBER_BYTES * applied
    held_at = versions_at + _NUMBER_BYTES * applied
    columns = _Columns(
        ids, related_ids, amounts, details_lengths, kinds, leg_counts, effects, owners, account_lengths,
        currencies, accounts, details, each_code(codes, n), fingerprints, changes[1:versions_at],
        changes[versions_at:held_at], bytes(_NUMBER_BYTES * applied) if plain else changes[held_at:],
    )  # fmt: skip
    return Part(columns, at_ms, n, m, plain, owner, applied, principal.decode())


def _widths(flags: int, n: int, m: int) -> tuple[int, ...]:
    """Bytes of the columns between a bundle's head and its accounts."""
    general = 0 if flags & _PLAIN else 1
    values = m if general else n
    return (
        ID_BYTES * n,
        general * ID_BYTES * n,
        general * _NUMBER_BYTES * n,
        _NUMBER_BYTES * values,
        _NUMBER_BYTES * values if flags & _VERSIONS else 0,
        2 * n,
        2 * n,
        n,
        general * n,
        general * m,
        general * m,
        m,
        _CURRENCY_BYTES * (1 if flags & _ONE_CURRENCY else values),
    )


def columns_of_parts(parts: Sequence[Part], suffix: str) -> Columns:
    """The columns of :class:`Entry`, but for its ids, of what was carried out in some parts, at least one.

    ``suffix`` is what the names of system accounts end in.
    """
    joined = _Columns(*map(b"".join, zip(*(part.columns for part in parts), strict=True)))
    _require_whole(parts, joined)
    legs = _Legs.of(parts, joined)
    rows, moved = legs.transactions, legs.moved
    names = _names(joined, suffix)
    others = names[legs.others]
    others[legs.alone] = ""
    signs = _SIGNS[_column(joined.effects, "u1")]
    principals = np.array([without_zeros(part.principal) for part in parts], object)
    initiators = np.repeat(principals, [part.transactions for part in parts])
    texts = details_texts(joined.details, _column(joined.details_lengths, "<u2"), initiators)
    return (
        names[legs.legs].tolist(),
        _column(joined.versions)[moved].tolist(),
        np.array([part.at_ms for part in parts], object)[legs.parts].tolist(),
        _column(joined.kinds, "u1")[rows].tolist(),
        np.frombuffer(joined.ids, f"V{ID_BYTES}")[rows].tolist(),
        np.frombuffer(joined.fingerprints, f"V{FINGERPRINT_BYTES}")[rows].tolist(),
        legs.numbers.tolist(),
        _column(joined.leg_counts, "u1")[rows].tolist(),
        others.tolist(),
        _currencies(joined.currencies, legs.legs),
        (signs * _column(joined.amounts))[legs.legs].tolist(),
        _column(joined.held_deltas)[moved].tolist(),
        _column(joined.balances)[moved].tolist(),
        _related_ids(joined.related_ids, rows),
        *(text[rows].tolist() for text in texts),
        [""] * len(rows),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Legs:
    """The legs that were carried out, in the order of their rows: where each column has what is theirs."""

    parts: _Numbers
    transactions: _Numbers
    legs: _Numbers
    # Which of its transaction's legs each is; which leg is of the counterparty, but for those that are alone.
    numbers: _Numbers
    others: _Numbers
    alone: NDArray[np.bool_]
    # Among those that were carried out, in the bundles' order of legs.
    moved: _Numbers

    @classmethod
    def of(cls, parts: Sequence[Part], joined: _Columns) -> _Legs:
        """Raises ValueError where a part has balances of another number of legs."""
        counts = _column(joined.leg_counts, "u1").astype(np.int64)
        transactions = np.array([part.transactions for part in parts])
        part_of = np.repeat(np.arange(len(parts)), transactions)
        # Of all legs in the order of rows: place after place.
        rows = np.repeat(np.arange(len(counts)), counts)
        first = _begins(counts)[rows]
        places = np.arange(len(rows))
        legs = _legs_at(parts, part_of[rows], rows - _begins(transactions)[part_of[rows]], places - first)

        owners = np.array([part.owner for part in parts])[part_of[rows]]
        carried_out = _column(joined.codes, "u1")[rows] == Outcome.COMMITTED
        chosen = np.flatnonzero(carried_out & (_column(joined.owners, "u1")[legs] == owners))
        rows, first = rows[chosen], first[chosen]
        _require_equal(
            np.bincount(part_of[rows], minlength=len(parts)), [part.applied for part in parts], "balances"
        )
        moved = np.zeros(len(legs), np.int64)
        moved[legs[chosen]] = 1
        pairs = counts[rows] == 2
        others = np.where(pairs, 2 * first + 1 - chosen, first)
        return cls(
            part_of[rows],
            rows,
            legs[chosen],
            chosen - first,
            legs[others],
            (chosen == first) & ~pairs,
            np.cumsum(moved)[legs[chosen]] - 1,
        )


def _legs_at(parts: Sequence[Part], part_of: _Numbers, transactions: _Numbers, numbers: _Numbers) -> _Numbers:
    """Where the bundles have these legs, of which each transaction is counted within its part.

    A plain bundle has all payers, then all payees.
    """
    begins = _begins(np.array([part.legs for part in parts]))[part_of]
    plain = np.array([part.plain for part in parts])[part_of]
    width = np.array([part.transactions for part in parts])[part_of]
    return np.where(plain, begins + transactions + numbers * width, np.arange(len(part_of)))


def _require_whole(parts: Sequence[Part], joined: _Columns) -> None:
    """Raises ValueError where a part's lengths and its columns differ, or something in it is unknown."""
    transactions, legs = [part.transactions for part in parts], [part.legs for part in parts]
    counts, lengths = _column(joined.leg_counts, "u1"), _column(joined.account_lengths, "u1")
    _require_within(counts, 1, 255, "leg count")
    _require_equal(_sums(counts, transactions), legs, "legs")
    _require_within(lengths, 1, 255, "length of an account")
    _require_equal(_sums(lengths, legs), [len(part.columns.accounts) for part in parts], "accounts")
    _require_equal(
        _sums(_column(joined.details_lengths, "<u2"), transactions),
        [len(part.columns.details) for part in parts],
        "details",
    )
    _require_within(_column(joined.kinds, "u1"), Kind.TRANSFER, Kind.VOID, "kind")
    _require_within(_column(joined.effects, "u1"), Effect.CREDIT, Effect.VOID, "effect")
    _require_within(_column(joined.currencies, "u1"), ord("A"), ord("Z"), "letter of a currency")


def _require_within(column: NDArray[Any], least: int, most: int, what: str) -> None:
    if column.min() < least or column.max() > most:
        raise ValueError(f"an unknown {what}")


def _require_equal(found: NDArray[Any], wanted: Sequence[int], what: str) -> None:
    if found.tolist() != list(wanted):
        raise ValueError(f"{what} of another number or length than is said")


def _column(joined: bytes, kind: str = "<i8") -> NDArray[Any]:
    return np.frombuffer(joined, kind)


def _begins(lengths: _Numbers) -> _Numbers:
    """Where each begins when they follow each other."""
    return np.cumsum(lengths) - lengths


def _sums(column: NDArray[Any], lengths: Sequence[int]) -> NDArray[Any]:
    """The sum of so many of a column, and of so many that follow, and so on; none of them of none."""
    return np.add.reduceat(column, _begins(np.array(lengths)), dtype=np.int64)


# ---------------------------------------------------------------------- texts


def _names(joined: _Columns, suffix: str) -> _Texts:
    """The accounts of all legs, as the archive names them."""
    block, lengths = _column(joined.accounts, "u1"), _column(joined.account_lengths, "u1").astype(np.int64)
    names = _split(block, lengths)
    system = block[_begins(lengths)] == ord("@")
    if system.any():
        names[system] += suffix
    return names


def _currencies(joined: bytes, legs: _Numbers) -> list[str]:
    one, text = joined[:_CURRENCY_BYTES], joined.decode()
    if one * (len(joined) // _CURRENCY_BYTES) == joined:
        return [one.decode()] * len(legs)
    return [text[at : at + _CURRENCY_BYTES] for at in (_CURRENCY_BYTES * legs).tolist()]


def _related_ids(joined: bytes, rows: _Numbers) -> list[bytes | None]:
    if joined.count(0) == len(joined):
        return [None] * len(rows)
    ids = np.frombuffer(joined, f"V{ID_BYTES}")[rows].tolist()
    return [None if one == NO_ID else one for one in ids]


def details_texts(
    joined: bytes, lengths: NDArray[np.uint16], initiators: _Texts
) -> tuple[_Texts, _Texts, _Texts]:
    """References, external ids and initiators of transactions, from their details; those may be empty.

    ``initiators`` are those of transactions whose details name none.
    """
    sizes = lengths.astype(np.int64)
    given = np.flatnonzero(sizes)
    heads = _begins(sizes)[given]
    block = _column(joined, "u1")
    texts = np.zeros((len(sizes), 3), np.int64)
    texts[given, 0], texts[given, 1] = block[heads], block[heads + 1]
    texts[given, 2] = sizes[given] - texts[given, 0] - texts[given, 1] - 2
    if (texts < 0).any():
        raise ValueError("details of another length than is said")
    kept = np.ones(len(block), np.bool_)
    kept[heads] = kept[heads + 1] = False
    if not texts[:, :2].any():
        none = np.full(len(sizes), "", object)
        return _split(block[kept], texts[:, 2]), none, initiators
    external, named, reference = _split(block[kept], texts.ravel()).reshape(-1, 3).T
    return reference, external, np.where(texts[:, 1] > 0, named, initiators)


def _split(block: NDArray[np.uint8], lengths: _Numbers) -> _Texts:
    """The texts of these lengths that a block consists of, without zero bytes.

    A separator is put behind each, so that all are decoded and split at once.
    """
    ends = np.cumsum(lengths)
    marked = np.full(len(block) + len(ends), ord(_SEPARATOR), np.uint8)
    is_text = np.ones(len(marked), np.bool_)
    is_text[ends + np.arange(len(ends))] = False
    marked[is_text] = block
    texts = without_zeros(marked.tobytes().decode()).split(_SEPARATOR)[:-1]
    if len(texts) != len(ends):
        # One of them has a separator in it.
        raw = block.tobytes()
        texts = [
            without_zeros(raw[end - length : end].decode())
            for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
        ]
    return np.array(texts, object)
