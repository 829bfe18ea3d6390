"""Whether bytes can be a bundle: by its head and the lengths that follow from it, not by its transactions.

The engine looks at every value all the same; but whoever passes bundles on can say here, at once, whose fault
it is.
"""

from __future__ import annotations

from typing import NamedTuple

from shard_node.contract.layout import BUNDLE_HEAD, LAYOUT_VERSION, BundleFlag
from shard_node.limits import MAX_BATCH, MAX_LEGS

# Plain numbers: a batch has hundreds of bundles, and enums take their time.
_PLAIN, _ONE_CURRENCY, _VERSIONS = map(int, BundleFlag)
_KNOWN_FLAGS = _PLAIN | _ONE_CURRENCY | _VERSIONS
# Ids, slots, lengths of details, kinds; then related ids, bounds, leg counts.
_EACH_PLAIN = 16 + 2 + 2 + 1
_EACH = _EACH_PLAIN + 16 + 8 + 1


class BundleHead(NamedTuple):
    """What is known of a bundle whose length fits its head.

    ``owners_at`` is where the column of owners begins, 0 for a plain bundle, which has none.
    """

    transactions: int
    legs: int
    owners_at: int

    @classmethod
    def read(cls, bundle: bytes) -> BundleHead:
        """Raises ValueError, which says what does not fit."""
        if len(bundle) < BUNDLE_HEAD.size:
            raise ValueError(f"{len(bundle)} bytes, which are no bundle")
        version, flags, count, legs, account_bytes, detail_bytes, principal_bytes = BUNDLE_HEAD.unpack_from(
            bundle
        )
        if version != LAYOUT_VERSION:
            raise ValueError(f"layout {version}, not {LAYOUT_VERSION}")
        if flags & ~_KNOWN_FLAGS:
            raise ValueError(f"flags {flags}, not all of which are known")
        if not 1 <= count <= MAX_BATCH:
            raise ValueError(f"{count} transactions, not 1 to {MAX_BATCH}")
        plain = flags & _PLAIN
        if legs != 2 * count if plain else not count <= legs <= MAX_LEGS * count:
            raise ValueError(f"{legs} legs, which {count} transactions cannot have")
        amounts = count if plain else legs
        size = BUNDLE_HEAD.size + (16 if flags & _VERSIONS else 8) * amounts
        size += _EACH_PLAIN * count if plain else _EACH * count + legs
        owners_at = 0 if plain else size
        # Owners, lengths of accounts, currencies, texts.
        size += legs if plain else 2 * legs
        size += 3 if flags & _ONE_CURRENCY else 3 * amounts
        size += account_bytes + detail_bytes + principal_bytes
        if len(bundle) != size:
            raise ValueError(f"{len(bundle)} bytes, not {size} as its head says")
        return cls(count, legs, owners_at)

    def owners(self, bundle: bytes) -> set[int]:
        """The numbers of all participants in the bundle of this head, and 0 for the deciding shard."""
        at = self.owners_at
        return set(bundle[at : at + self.legs]) if at else {0, 1}
