"""What a frozen account has reserved may be set free, and is not spent."""

from __future__ import annotations

import os

from shard_node.contract.calls import Post
from shard_node.contract.journal_calls import Journals, PostJournals
from shard_node.contract.journals import Effect, Journal, Leg
from shard_node.contract.transfers import Kind, Terms, Transfers

from shard_node.cluster.slots import slot
from shard_node.contract.outcomes import Outcome
from tests.coordinator.bank import name_on
from tests.real_shards import RealShards

EMPTY = b"\0\0"


async def test_a_frozen_accounts_hold_is_voided_not_captured(shards: RealShards) -> None:
    """Capture is refused with ACCOUNT_FROZEN and moves nothing; void gives the money back."""
    holder, payee = name_on(shards, 0, "holder"), name_on(shards, 0, "payee")
    async with shards.open(0) as shard:
        await shard.open([holder, payee], [slot(holder), slot(payee)], ["EUR"] * 2, [0, 0])
        place = slot(holder)
        deposit = Terms(50, "EUR", place, place, Kind.DEPOSIT, "@world:EUR", holder, EMPTY)
        await shard.call(Post(Transfers.of([(os.urandom(16), deposit)]).bundle()))

        async def post(transaction_id: bytes, journal: Journal) -> int:
            return (await shard.call(PostJournals(Journals.of([(transaction_id, journal)])))).codes[0]

        hold_id = os.urandom(16)
        hold = Journal(Kind.HOLD, (Leg(holder, place, Effect.HOLD, 40, "EUR"),), EMPTY, bound=60_000)
        assert await post(hold_id, hold) == Outcome.COMMITTED
        await shard.set_state([holder], [Kind.FREEZE])
        legs = (
            Leg(holder, place, Effect.CAPTURE, 30, "EUR"),
            Leg(payee, slot(payee), Effect.CREDIT, 30, "EUR"),
        )
        capture = Journal(Kind.CAPTURE, legs, EMPTY, hold_id)
        assert await post(os.urandom(16), capture) == Outcome.ACCOUNT_FROZEN
        (kept,) = await shard.accounts([holder])
        assert kept is not None
        assert (kept.available_minor, kept.held_minor) == (10, 40)
        void = Journal(Kind.VOID, (Leg(holder, place, Effect.VOID, 0, "EUR"),), EMPTY, hold_id)
        assert await post(os.urandom(16), void) == Outcome.COMMITTED
        (freed,) = await shard.accounts([holder])
        assert freed is not None
        assert (freed.available_minor, freed.held_minor) == (50, 0)
