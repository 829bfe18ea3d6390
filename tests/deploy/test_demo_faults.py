"""The faults that the demo plants are those that it says: seen by a replay, or only by a shard's memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.demo.faults import FAULTS, Fault, changing, copy_ledger
from shard_node.ledger.proof.findings import Findings, Rule
from shard_node.ledger.proof.replay import Replay
from shard_node.ledger.questions.history import Head, History
from shard_node.ledger.store.schema import open_ledger
from tests.ledger.books import fresh_ledger, sample

# What only a shard can tell: it keeps the newest batch's number and hash, and the live accounts.
_BEYOND_REPLAY = {Rule.HEAD, Rule.LIVE}


def _replayed(ledger: Path) -> tuple[set[Rule], dict[int, Head], str]:
    """The rules that a replay finds broken, the heads, and what it found."""
    engine = open_ledger(f"sqlite:///{ledger}")
    try:
        history = History(engine)
        run = Replay(history, Findings())
        for _ in run.run():
            pass
        run.reader.unsealed()
        run.fold.finish()
        told = "\n".join(map(str, run.findings.kept))
        return {finding.rule for finding in run.findings.kept}, history.heads(), told
    finally:
        engine.dispose()


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A sound ledger with a purchase by alice."""
    file = tmp_path / "ledger.db"
    engine = fresh_ledger(f"sqlite:///{file}")
    sample().store(engine, batch=4)
    engine.dispose()
    return file


def test_a_copy_is_as_sound_as_the_ledger(ledger: Path, tmp_path: Path) -> None:
    """Nothing is found in it, and nothing is missing."""
    copy_ledger(ledger, tmp_path / "copy.db")
    assert _replayed(tmp_path / "copy.db") == _replayed(ledger)
    assert _replayed(ledger)[0] == set()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.told)
def test_each_fault_breaks_the_rules_it_names(fault: Fault, ledger: Path) -> None:
    """In the ledger itself, or in its newest batches, which the shards remember otherwise."""
    _, heads, _ = _replayed(ledger)
    with changing(ledger) as connection:
        fault.plant(connection, "alice")
    broken, heads_after, told = _replayed(ledger)
    expected = set(fault.rules) - _BEYOND_REPLAY
    assert expected <= broken, told
    if not expected:
        # Flawless in itself.
        assert broken == set(), told
        assert heads_after != heads
