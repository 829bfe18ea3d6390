"""Every function refuses a caller with another map, and then writes nothing."""

from __future__ import annotations

import os

import pytest
from shard_node.contract.calls import (
    ATTEMPT_BYTES,
    Attempt,
    Call,
    Decide,
    Finish,
    Post,
    Prepare,
    ResolveAttempts,
    SettleCommits,
)
from shard_node.contract.journal_calls import (
    DecideJournals,
    FinishLegs,
    JournalCall,
    Journals,
    PostJournals,
    PrepareLegs,
    ResolveJournals,
    Settle,
    leg_refs,
)
from shard_node.contract.journals import Effect, Journal, Leg
from shard_node.contract.transfers import Kind, Terms, Transfers, terms_key

from shard_node.client.shard import Shard
from shard_node.cluster.slots import slot
from shard_node.contract.outcomes import Outcome
from shard_node.errors import StaleEpochError
from tests.real_shards import RealShards

TERMS = Terms(5, "EUR", slot("a"), slot("b"), Kind.TRANSFER, "a", "b", b"")
BUNDLE = Transfers.of([(os.urandom(16), TERMS)]).bundle()
ATTEMPT = Attempt(os.urandom(ATTEMPT_BYTES), BUNDLE)
COMMITTED = bytes((Outcome.COMMITTED,))
ROWS = list(BUNDLE.rows())
LEGS = (Leg("a", slot("a"), Effect.DEBIT, 5, "EUR"), Leg("b", slot("b"), Effect.CREDIT, 5, "EUR"))
JOURNALS = Journals.of([(os.urandom(16), Journal(Kind.JOURNAL, LEGS, b"\0\0"))])
CREDIT = leg_refs(JOURNALS, 0)[1]
CALLS: list[Call | JournalCall] = [
    Post(BUNDLE),
    Prepare([ATTEMPT]),
    Decide([ATTEMPT], ["shard-1"], [b""], [bytes(6)]),
    Finish([ATTEMPT.attempt_id], [COMMITTED]),
    SettleCommits([bytes(6)]),
    ResolveAttempts([ATTEMPT.attempt_id], [row[0] for row in ROWS], [row[1] for row in ROWS]),
    PostJournals(JOURNALS),
    PrepareLegs([CREDIT]),
    DecideJournals(JOURNALS, [0], [0], JOURNALS.keys),
    FinishLegs([CREDIT.key], [Outcome.COMMITTED]),
    Settle(JOURNALS.keys),
    ResolveJournals(JOURNALS.keys, [slot("a")], [terms_key(JOURNALS.keys[0], JOURNALS.bodies[0])]),
]


@pytest.mark.parametrize(
    "fence", ["test/shard-0/0", "test/shard-0/2", "test/shard-1/1", "other/shard-0/1", ""]
)
async def test_another_fence_is_refused(shards: RealShards, fence: str) -> None:
    """An older or newer epoch, another shard, another cluster: for each function alike."""
    async with shards.open(0) as shard:
        await shard.open(["a", "b"], [slot("a"), slot("b")], ["EUR"] * 2, [-100, 0])
        offset = (await shard.redis.info("persistence"))["aof_current_size"]
        stranger = Shard("shard-0", fence, shard.redis)
        for call in CALLS:
            with pytest.raises(StaleEpochError, match="the shard is at test/shard-0/1"):
                await stranger.call(call)
        with pytest.raises(StaleEpochError):
            await stranger.open(["c"], [slot("c")], ["EUR"], [0])
        with pytest.raises(StaleEpochError):
            await stranger.set_state(["a"], [Kind.FREEZE])
        with pytest.raises(StaleEpochError):
            await stranger.accounts(["a"])
        with pytest.raises(StaleEpochError):
            await stranger.outcome(bytes(18))
        with pytest.raises(StaleEpochError):
            await stranger.rotate()
        assert (await shard.redis.info("persistence"))["aof_current_size"] == offset


async def test_each_protocol_call_writes(shards: RealShards) -> None:
    """R8: also one that changes no money writes something, so that waiting for replicas covers it."""
    async with shards.open(0) as shard:
        await shard.open(["a", "b"], [slot("a"), slot("b")], ["EUR"] * 2, [-100, 0])
        for call in CALLS[1:]:
            await shard.call(call)
        for call in CALLS:
            before = (await shard.redis.info("persistence"))["aof_current_size"]
            await shard.call(call)
            assert (await shard.redis.info("persistence"))["aof_current_size"] > before, call
