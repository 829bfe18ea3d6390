"""Accounts are drawn as often as they should be, and on the shards where they should be."""

import numpy as np
import pytest

from bench.transfers.choices import Group, _alias_table, zipf_weights


def rng() -> np.random.Generator:
    """Randomness that is the same in every run."""
    return np.random.Generator(np.random.SFC64(1))


@pytest.mark.parametrize("theta", [0.0, 0.5, 0.99, 3.0])
@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_the_table_gives_each_account_exactly_its_share(count: int, theta: float) -> None:
    """What a place keeps, and what others leave to it, adds up to its weight: no drawing needed to know."""
    weights = zipf_weights(count, theta)
    keep, aliases = _alias_table(weights)
    chances = keep / count
    np.add.at(chances, aliases, (1 - keep) / count)
    assert np.allclose(chances, weights / weights.sum(), rtol=1e-9)


def test_zipfian_choices_fall_with_the_rank_as_they_should() -> None:
    """Of 1000 accounts at theta 0.99 the first gets 12.9 %, the hundredth a 95th of that."""
    homes = np.zeros(1000, dtype=np.intp)
    weights = zipf_weights(1000, 0.99)
    drawn = np.bincount(Group(homes, 1, weights).any(rng(), 1_000_000), minlength=1000)
    expected = 1_000_000 * weights / weights.sum()
    assert expected[0] == pytest.approx(129_000, rel=0.01)
    assert expected[0] / expected[99] == pytest.approx(100**0.99)
    # Six standard deviations of each count.
    assert np.all(np.abs(drawn - expected) < 6 * np.sqrt(expected))


def test_without_weights_all_are_alike() -> None:
    """Each of 100 accounts gets about a hundredth."""
    drawn = np.bincount(Group(np.zeros(100, dtype=np.intp), 1).any(rng(), 100_000), minlength=100)
    assert np.all(np.abs(drawn - 1000) < 6 * np.sqrt(1000))


@pytest.mark.parametrize("theta", [None, 0.99])
def test_on_a_shard_and_off_it_are_what_they_say(theta: float | None) -> None:
    """For every shard asked; and within a shard popularity counts as it does over all."""
    homes = np.arange(600, dtype=np.intp) % 3
    weights = None if theta is None else zipf_weights(600, theta)
    group = Group(homes, 3, weights, first=1000)
    asked = np.tile(np.arange(3, dtype=np.intp), 20_000)
    on, off = group.on(rng(), asked), group.off(rng(), asked)
    assert np.all(homes[on - 1000] == asked)
    assert np.all(homes[off - 1000] != asked)
    popularity = np.ones(600) if weights is None else weights
    for shard in range(3):
        chosen = np.bincount(on[asked == shard] - 1000, minlength=600)
        share = np.where(homes == shard, popularity, 0)
        expected = 20_000 * share / share.sum()
        assert np.all(np.abs(chosen - expected) <= 6 * np.sqrt(expected))
        chosen = np.bincount(off[asked == shard] - 1000, minlength=600)
        share = np.where(homes == shard, 0, popularity)
        expected = 20_000 * share / share.sum()
        assert np.all(np.abs(chosen - expected) <= 6 * np.sqrt(expected))


def test_shards_without_accounts_are_never_drawn() -> None:
    """Also the last one: rounding must not carry a draw past the end of a row."""
    homes = np.array([0, 0, 1, 1], dtype=np.intp)
    group = Group(homes, 4)
    assert [group.on_shard(shard) for shard in range(4)] == [2, 2, 0, 0]
    off = group.off(rng(), np.zeros(10_000, dtype=np.intp))
    assert set(off.tolist()) == {2, 3}
