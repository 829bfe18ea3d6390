"""Memory on a shard: for what is there, on each shard that remembers it, and never while something waits."""

from __future__ import annotations

import numpy as np
import pytest

from bench import memory
from bench.errors import BenchError
from bench.memory import shard_memory, touched
from bench.transfers.workload import Payments
from tests.bench.commands import figures_of

EMPTY, OPENED, DONE = 1_000_000, 1_150_000, 1_400_000


def test_bytes_are_differences_over_what_is_there() -> None:
    """What was there before counts for nothing."""
    figures = shard_memory("shard-0", (EMPTY, OPENED, DONE), 1000, 2500)
    assert figures.bytes_per_account == 150.0
    assert figures.bytes_per_transfer == 100.0


@pytest.mark.parametrize(("accounts", "transfers"), [(0, 5), (5, 0)])
def test_a_shard_with_nothing_on_it_has_no_figures(accounts: int, transfers: int) -> None:
    """Few accounts may all fall on another shard."""
    with pytest.raises(BenchError, match="ask for more"):
        shard_memory("shard-0", (EMPTY, OPENED, DONE), accounts, transfers)


def test_a_transfer_counts_on_each_shard_that_remembers_it() -> None:
    """Across shards it is remembered twice, within one once."""
    payers, payees = np.array([0, 0, 1]), np.array([1, 2, 2])
    payments = Payments(payers, payees, np.array([5, 5, 5]), np.zeros(3, dtype=np.bool_))
    # Accounts 0 and 2 are on shard 0, account 1 on shard 1.
    assert touched(payments, [0, 1, 0]) == {0: 3, 1: 2}


def test_nothing_is_read_while_entries_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """An archiver that never catches up ends the measurement: its entries are not what is remembered."""
    monkeypatch.setattr(memory, "_MOST_QUIET_SECONDS", 0.0)
    with pytest.raises(BenchError, match="archivers have not caught up"):
        memory._await(lambda: False, "archivers have not caught up")


@pytest.mark.cluster
def test_a_small_run() -> None:
    """As an engineer runs it: figures for every shard, of a plausible size, on one line."""
    figures = figures_of("bench.memory", "--accounts", "2000", "--transfers", "4000")
    assert [shard["shard"] for shard in figures["shards"]] == ["shard-0", "shard-1"]
    assert sum(shard["accounts"] for shard in figures["shards"]) == 2000
    assert 4000 < sum(shard["transfers"] for shard in figures["shards"]) <= 8000
    # No entry that waits: those would be some hundred bytes more.
    assert 20 < figures["bytes_per_remembered_transfer"] < 300
    assert 50 < figures["bytes_per_account"] < 1000
