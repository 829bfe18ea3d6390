"""What is remembered of a slot that moves is remembered for the whole window."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shard_node.contract import Outcome, Post, bundle_of
from tests.coordinator.attempt_explorer import SLOTS, TRANSACTIONS
from tests.model import EngineModel, Faults

WINDOW_MS = 120_000
START_MS = 1_000_000
COMMITTED = bytes((Outcome.COMMITTED,))


def _posted(name: str) -> Post:
    """A transaction whose accounts are all on one shard."""
    one = TRANSACTIONS[name]
    legs = tuple(replace(leg, owner=0) for leg in one.legs)
    return Post(bundle_of([replace(one, legs=legs)]), with_balances=False)


def _posted_again_after_a_move(name: str, faults: Faults) -> tuple[bytes, int]:
    """What a repetition is answered a second after the transaction, and what the payer has paid by then.

    The source forgets just before the slots move, the target just after. Each keeps its window.
    """
    source, target = (EngineModel(now_ms=START_MS, rotated_ms=START_MS, faults=faults) for _ in range(2))
    for account in ("first", "second"):
        source.open(account, "EUR", SLOTS[account])
        source.accounts[account] = source.accounts[account]._replace(available_minor=5)
    post = _posted(name)
    source.now_ms += WINDOW_MS - 1
    (codes,) = source.call(post).codes
    assert codes == COMMITTED
    source.now_ms += 1
    assert source.rotate(WINDOW_MS) >= 0
    for account in ("first", "second"):
        source.move_slot(SLOTS[account], target)
    target.now_ms = START_MS + WINDOW_MS + 1
    assert target.rotate(WINDOW_MS) >= 0
    target.now_ms += 1000
    (codes,) = target.call(post).codes
    return codes, 5 - target.accounts["first"].available_minor


@pytest.mark.parametrize("name", ["pay", "pay v4"])
def test_a_repetition_after_a_move_finds_the_outcome(name: str) -> None:
    """A shard that forgets right after a slot came to it still knows what was committed a second before."""
    assert _posted_again_after_a_move(name, Faults()) == (COMMITTED, 1)


def test_outcomes_that_move_as_old_are_forgotten_early() -> None:
    """Moved into the target's older generation, a transaction is carried out twice within the window."""
    assert _posted_again_after_a_move("pay v4", Faults(moved_as_old=True)) == (COMMITTED, 2)
