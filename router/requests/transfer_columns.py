"""A batch of transfers as numpy columns, and how it is split into bundles.

Rows are sorted by their pair of shards once; then each column of bytes is made for the whole batch, and every
bundle is a slice of it. So a pair costs some slices, however many pairs there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from router.requests.parts import Part
from router.requests.text_tables import Bytes, Numbers, TextTable, cut_out
from shard_node.contract import BUNDLE_HEAD, LAYOUT_VERSION, BundleFlag, Kind

_KIND = bytes((Kind.TRANSFER,))
_CURRENCY_CHARS = 3
_ONE_CURRENCY = int(BundleFlag.PLAIN | BundleFlag.ONE_CURRENCY)
_SEVERAL_CURRENCIES = int(BundleFlag.PLAIN)
# In front of a reference: the lengths of external id and initiator, which a transfer has not.
_NO_TEXTS = bytes(2)


@dataclass(frozen=True, slots=True, eq=False)
class TransferColumns:
    """A batch, at least one row: a value a row in each column.

    ``id_texts`` are the ids as they came, 36 bytes each, ``ids`` the 16 bytes of each; ``currencies`` have
    three bytes, in all when the batch has one currency, else a row; ``digits`` are the currencies' exponents,
    as many. ``accounts`` and ``slots`` are those of all payers, then of all payees, and in that order is the
    column of balances ``with_balances``. References are places and lengths in ``octets``, each with two bytes
    at least before it.
    """

    id_texts: Bytes
    ids: NDArray[np.void]
    accounts: TextTable
    slots: NDArray[np.uint16]
    amounts_minor: NDArray[np.int64]
    currencies: NDArray[np.void]
    digits: Sequence[int]
    octets: Bytes
    reference_starts: Numbers
    reference_lengths: Numbers
    with_balances: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def leg_count(self) -> int:
        """How many balances are asked for: none, or one of each payer and payee."""
        return 2 * len(self) if self.with_balances else 0

    def split(self, rows: Sequence[int] | Numbers, owner: Sequence[int], principal: str = "") -> list[Part]:
        """The given rows, each in one part. ``owner`` has the shard of each slot."""
        order = np.asarray(rows, np.intp)
        owners = np.asarray(owner)
        shards = int(owners.max()) + 1
        count = len(self)
        pairs = owners[self.slots[order]] * shards + owners[self.slots[order + count]]
        # Numbers of 16 bits, as of up to 256 shards, are sorted by radix.
        by_pair = np.argsort(pairs.astype(np.min_scalar_type(shards * shards)), kind="stable")
        order, pairs = order[by_pair], pairs[by_pair]
        cuts = [0, *(np.flatnonzero(pairs[1:] != pairs[:-1]) + 1).tolist(), len(order)]
        bundles = self._bundles(order, cuts, principal.encode())
        parts = []
        for pair, (first, last), bundle in zip(
            pairs[cuts[:-1]].tolist(), pairwise(cuts), bundles, strict=True
        ):
            payer_shard, payee_shard = divmod(pair, shards)
            participants = () if payer_shard == payee_shard else (payee_shard,)
            of_part = order[first:last]
            legs = self._legs(of_part, crossing=bool(participants)) if self.with_balances else ()
            parts.append(Part(payer_shard, participants, of_part, bundle, legs))
        return parts

    def _legs(self, rows: Numbers, *, crossing: bool) -> tuple[Numbers, ...]:
        """By owner where the balances of these rows belong."""
        payers, payees = rows, rows + len(self)
        return (payers, payees) if crossing else (np.concatenate((payers, payees)),)

    def _bundles(self, order: Numbers, cuts: list[int], principal: bytes) -> list[bytes]:
        """Plain bundles of the rows in this order, each from one of the cuts to the next."""
        count = len(order)
        accounts = self.accounts[np.concatenate((order, order + len(self)))]
        names, name_lengths = accounts.joined(), accounts.lengths.astype(np.uint8).tobytes()
        payers_at = _places(accounts.lengths[:count], cuts)
        payees_at = [payers_at[-1] + place for place in _places(accounts.lengths[count:], cuts)]
        details, detail_lengths = self._details(order)
        details_at = _places(detail_lengths, cuts)
        ids, amounts = self.ids[order].tobytes(), self.amounts_minor[order].tobytes()
        slots = self.slots[order].tobytes()
        lengths_of_details = detail_lengths.astype(np.uint16).tobytes()
        currencies = _currencies(self.currencies, order, cuts)
        bundles = []
        for part, (first, last) in enumerate(pairwise(cuts)):
            rows = last - first
            currency = currencies[part]
            payers = names[payers_at[part] : payers_at[part + 1]]
            payees = names[payees_at[part] : payees_at[part + 1]]
            texts = details[details_at[part] : details_at[part + 1]]
            bundles.append(
                b"".join(
                    (
                        BUNDLE_HEAD.pack(
                            LAYOUT_VERSION,
                            _ONE_CURRENCY if len(currency) == _CURRENCY_CHARS else _SEVERAL_CURRENCIES,
                            rows,
                            2 * rows,
                            len(payers) + len(payees),
                            len(texts),
                            len(principal),
                        ),
                        ids[16 * first : 16 * last],
                        amounts[8 * first : 8 * last],
                        slots[2 * first : 2 * last],
                        lengths_of_details[2 * first : 2 * last],
                        _KIND * rows,
                        name_lengths[first:last],
                        name_lengths[count + first : count + last],
                        currency,
                        payers,
                        payees,
                        texts,
                        principal,
                    )
                )
            )
        return bundles

    def _details(self, order: Numbers) -> tuple[bytes, Numbers]:
        """The details of the rows in this order, one after the other, and the lengths of each."""
        lengths = self.reference_lengths[order]
        if not lengths.any():
            return b"", lengths
        head = len(_NO_TEXTS)
        has_any = lengths != 0
        lengths += head * has_any
        details = cut_out(self.octets, self.reference_starts[order] - head, lengths)
        heads = (np.cumsum(lengths) - lengths)[has_any]
        for place, byte in enumerate(_NO_TEXTS):
            details[heads + place] = byte
        return details.tobytes(), lengths


def _places(lengths: Numbers, cuts: list[int]) -> list[int]:
    """Where the texts of these rows begin in the column of all texts; one behind the last is its end."""
    ends = np.cumsum(lengths)
    return [0, *ends[np.array(cuts[1:]) - 1].tolist()]


def _currencies(currencies: NDArray[np.void], order: Numbers, cuts: list[int]) -> list[bytes]:
    """For the rows from each cut to the next their currency; if they have several, that of each."""
    if len(currencies) == 1:
        return [currencies.tobytes()] * (len(cuts) - 1)
    ordered = currencies[order]
    parts = (ordered[first:last] for first, last in pairwise(cuts))
    return [part.tobytes() if (part != part[0]).any() else part[:1].tobytes() for part in parts]
