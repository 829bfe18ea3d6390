"""What a frozen account has reserved may be set free, and is not spent."""

from __future__ import annotations

from dataclasses import replace

from shard_node.cluster.slots import slot
from shard_node.contract import Effect, Kind, Leg, Outcome, Transaction
from tests.engine.busy import ALICE, BOB, WORLD, capture, hold, posted, transfer, uuid7
from tests.engine.conftest import NOW_MS
from tests.engine.shard import EngineShard


def test_a_frozen_accounts_hold_is_voided_not_captured(shard: EngineShard) -> None:
    """Capture is refused with ACCOUNT_FROZEN and moves nothing; void gives the money back."""
    shard.open_plain(ALICE, BOB)
    deposit = replace(
        transfer(uuid7(NOW_MS, 1), WORLD, ALICE, 50, kind=Kind.DEPOSIT), deciding_slot=slot(ALICE)
    )
    held = hold(uuid7(NOW_MS, 2), ALICE, 40)
    assert posted(shard, deposit, held) == [Outcome.COMMITTED] * 2
    shard.set_state((ALICE, Kind.FREEZE))
    taking = capture(uuid7(NOW_MS, 3), held.transaction_id, ALICE, BOB, 30)
    assert posted(shard, taking) == [Outcome.ACCOUNT_FROZEN]
    alice = shard.account(ALICE)
    assert (alice.available_minor, alice.held_minor) == (10, 40)
    freeing = (Leg(ALICE, Effect.VOID, 0, "EUR"),)
    void = Transaction(uuid7(NOW_MS, 4), Kind.VOID, slot(ALICE), freeing, b"", held.transaction_id)
    assert posted(shard, void) == [Outcome.COMMITTED]
    alice = shard.account(ALICE)
    assert (alice.available_minor, alice.held_minor) == (50, 0)
