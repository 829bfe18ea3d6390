"""Which accounts: drawn by popularity, out of all of a group, or out of those on a shard, or off it.

Every draw costs the same, however many accounts there are and however uneven their popularity: by Walker's
alias method (M. D. Vose, 1991) a place in a table is drawn evenly, then kept or traded for its alias.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.intp]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def zipf_weights(count: int, theta: float) -> FloatArray:
    """Popularity by Zipf's law: that of the account at position k is 1 / (k + 1) ** theta."""
    return 1.0 / np.arange(1, count + 1, dtype=np.float64) ** theta


class Group:
    """Accounts to draw from, by their positions.

    Args:
        homes: the shard of each account, as a number from zero.
        weights: the popularity of each; None when all are alike.
        first: the position of the first account; the others follow it.
        shards: how many shards there are.
    """

    def __init__(
        self, homes: IntArray, shards: int, weights: FloatArray | None = None, first: int = 0
    ) -> None:
        popularity = np.ones(len(homes)) if weights is None else weights
        # Table 0 has all accounts, table s + 1 those of shard s.
        tables = [np.arange(len(homes)), *(np.flatnonzero(homes == shard) for shard in range(shards))]
        self._members: IntArray = np.concatenate(tables) + first
        self._sizes: IntArray = np.array([len(table) for table in tables], dtype=np.intp)
        self._starts: IntArray = np.cumsum(self._sizes) - self._sizes
        self._keep: FloatArray | None = None
        self._aliases: IntArray | None = None
        if weights is not None:
            made = [_alias_table(popularity[table]) for table in tables]
            self._keep = np.concatenate([keep for keep, _ in made])
            self._aliases = np.concatenate(
                [alias + start for (_, alias), start in zip(made, self._starts, strict=True)]
            )
        on_shard = np.array([popularity[table].sum() for table in tables[1:]])
        self._elsewhere = _cumulative_elsewhere(on_shard)

    def __len__(self) -> int:
        return int(self._sizes[0])

    def on_shard(self, shard: int) -> int:
        """How many accounts of the group are on a shard."""
        return int(self._sizes[shard + 1])

    def any(self, rng: np.random.Generator, count: int) -> IntArray:
        """So many positions, out of the whole group."""
        return self._draw(rng, np.zeros(count, dtype=np.intp))

    def on(self, rng: np.random.Generator, shards: IntArray) -> IntArray:
        """A position on each of the shards. Every one of them must have an account."""
        return self._draw(rng, shards + 1)

    def off(self, rng: np.random.Generator, shards: IntArray) -> IntArray:
        """For each of the shards a position that is not on it. There must be one."""
        # How many steps of its row a draw has passed is the shard it fell on; a row has none for its own.
        passed = self._elsewhere[shards] <= rng.random((len(shards), 1))
        return self._draw(rng, passed.sum(axis=1) + 1)

    def _draw(self, rng: np.random.Generator, tables: IntArray) -> IntArray:
        places = self._starts[tables] + (rng.random(len(tables)) * self._sizes[tables]).astype(np.intp)
        if self._keep is not None and self._aliases is not None:
            kept = rng.random(len(tables)) < self._keep[places]
            places = np.where(kept, places, self._aliases[places])
        return self._members[places]


def _cumulative_elsewhere(weights: FloatArray) -> FloatArray:
    """For each shard, a row: the cumulative share of every shard in what is on the others."""
    others = np.tile(weights, (len(weights), 1))
    np.fill_diagonal(others, 0.0)
    cumulative = np.cumsum(others, axis=1)
    # Divided by itself the last sum is exactly one, and so are those equal to it: no draw gets past them.
    total = cumulative[:, -1:]
    shares: FloatArray = np.divide(cumulative, total, out=np.ones_like(cumulative), where=total > 0)
    return shares


def _alias_table(weights: FloatArray) -> tuple[FloatArray, IntArray]:
    """For each place the chance that it is kept, and the place that takes its turn otherwise."""
    count = len(weights)
    aliases = list(range(count))
    if not count:
        return np.ones(0), np.array(aliases, dtype=np.intp)
    # Lists: a loop over a numpy array costs ten times as much.
    scaled = (weights * (count / weights.sum())).tolist()
    small = [place for place in range(count) if scaled[place] < 1.0]
    large = [place for place in range(count) if scaled[place] >= 1.0]
    while small and large:
        poor, rich = small.pop(), large[-1]
        aliases[poor] = rich
        scaled[rich] -= 1.0 - scaled[poor]
        if scaled[rich] < 1.0:
            small.append(large.pop())
    # What is left is one but for rounding.
    for place in (*small, *large):
        scaled[place] = 1.0
    return np.array(scaled), np.array(aliases, dtype=np.intp)
