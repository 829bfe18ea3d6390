"""A batch of transfers of one currency as numpy columns, and how it is split into bundles.

Rows are sorted by their pair of shards once; then each column of bytes is made for the whole batch, and every
bundle is a slice of it. So a pair costs ten slices, however many pairs there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_digest

from router.requests.byte_tables import as_bytes, joined
from shard_node.contract import BODY_HEAD, Bundle, Kind, Part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.requests.byte_tables import Bytes, Numbers, Texts

# Little-endian and without gaps, as :mod:`shard_node.contract.bundles` and BODY_HEAD have them.
_HEAD = np.dtype(
    [
        ("body_length", "<u2"),
        ("amount", "<i8"),
        ("currency", "S3"),
        ("payer_slot", "<u2"),
        ("payee_slot", "<u2"),
        ("kind", "u1"),
        ("payer_length", "u1"),
        ("payee_length", "u1"),
    ]
)
_DECISION = np.dtype([("id", "V16"), ("payer_slot", "<u2")])
_TERMS = np.dtype([("length", "u1"), ("fingerprint", "V8"), ("amount", "<i8"), ("currency", "S3")])
_LENGTH_BYTES = 2
_KIND = int(Kind.TRANSFER)


@dataclass(frozen=True, slots=True, eq=False)
class PackedTransfers:
    """A batch, at least one row: a value a row in each column.

    ``id_texts`` are the ids as they came, 36 bytes each, ``ids`` the 16 bytes of each. ``oldest_ms`` and
    ``newest_ms`` are those of the whole batch, as of a bundle.
    """

    currency: bytes
    id_texts: Bytes
    ids: NDArray[np.void]
    oldest_ms: int
    newest_ms: int
    payers: Texts
    payees: Texts
    payer_slots: NDArray[np.uint16]
    payee_slots: NDArray[np.uint16]
    amounts_minor: NDArray[np.int64]
    references: Texts

    def __len__(self) -> int:
        return len(self.ids)

    def split(self, rows: Sequence[int], owner: Sequence[int]) -> list[Part]:
        """The given rows by pair of shards; ``owner`` has the shard of each slot."""
        order = np.arange(len(self)) if rows == range(len(self)) else np.asarray(rows, np.intp)
        owners = np.asarray(owner)
        shards = int(owners.max()) + 1
        pairs = owners[self.payer_slots[order]] * shards + owners[self.payee_slots[order]]
        # Numbers of 16 bits, as of up to 256 shards, are sorted by radix.
        by_pair = np.argsort(pairs.astype(np.min_scalar_type(shards * shards)), kind="stable")
        order, pairs = order[by_pair], pairs[by_pair]
        cuts = [0, *(np.flatnonzero(pairs[1:] != pairs[:-1]) + 1).tolist(), len(order)]
        bundles = self._bundles(order, cuts)
        listed = order.tolist()
        return [
            Part(pair // shards, pair % shards, listed[first:last], bundle)
            for pair, (first, last), bundle in zip(
                pairs[cuts[:-1]].tolist(), pairwise(cuts), bundles, strict=True
            )
        ]

    def _bundles(self, order: Numbers, cuts: list[int]) -> list[Bundle]:
        """Bundles of the rows in this order, each from one of the cuts to the next."""
        payers, payees, references = self.payers[order], self.payees[order], self.references[order]
        amounts, payer_slots = self.amounts_minor[order], self.payer_slots[order]
        count = len(order)

        heads = np.empty(count, _HEAD)
        heads["body_length"] = BODY_HEAD.size + payers.lengths + payees.lengths + references.lengths
        heads["amount"] = amounts
        heads["currency"] = self.currency
        heads["payer_slot"] = payer_slots
        heads["payee_slot"] = self.payee_slots[order]
        heads["kind"] = _KIND
        heads["payer_length"] = payers.lengths
        heads["payee_length"] = payees.lengths
        bodies, body_ends = joined(as_bytes(heads), payers, payees, references)
        ends = body_ends.tolist()

        terms = np.empty(count, _TERMS)
        terms["length"] = _TERMS.itemsize - 1
        begins = [_LENGTH_BYTES, *[end + _LENGTH_BYTES for end in ends]]
        digest = xxh3_64_digest
        fingerprints = [digest(bodies[begin:end]) for begin, end in zip(begins, ends, strict=False)]
        terms["fingerprint"] = np.frombuffer(b"".join(fingerprints), "V8")
        terms["amount"] = amounts
        terms["currency"] = self.currency

        decisions = np.empty(count, _DECISION)
        decisions["id"] = self.ids[order]
        decisions["payer_slot"] = payer_slots

        columns = [
            _cut(decisions.tobytes(), [cut * _DECISION.itemsize for cut in cuts]),
            _cut(terms.tobytes(), [cut * _TERMS.itemsize for cut in cuts]),
            _cut_rows(*joined(_lengths(payers), payers), cuts),
            _cut_rows(*joined(_lengths(payees), payees), cuts),
            _cut(amounts.tobytes(), [cut * amounts.itemsize for cut in cuts]),
            [self.currency] * (len(cuts) - 1),
            _cut_rows(bodies, body_ends, cuts),
        ]
        return [
            Bundle(last - first, self.oldest_ms, self.newest_ms, *values)
            for (first, last), *values in zip(pairwise(cuts), *columns, strict=True)
        ]


def _lengths(texts: Texts) -> Bytes:
    """A byte a row with the text's length."""
    return texts.lengths.astype(np.uint8)[:, None]


def _cut(column: bytes, places: list[int]) -> list[bytes]:
    return [column[first:last] for first, last in pairwise(places)]


def _cut_rows(column: bytes, ends: Numbers, cuts: list[int]) -> list[bytes]:
    """A column whose rows end at these places, in pieces of whole rows."""
    return _cut(column, [0, *ends[np.array(cuts[1:]) - 1].tolist()])
