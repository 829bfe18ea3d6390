"""Outcomes are remembered for a whole window, and not for ever."""

from __future__ import annotations

import time
from dataclasses import replace
from uuid import UUID

import pytest

from shard_node.agent import ask_peer
from shard_node.calls import Decide, Finish, Post, Prepare, Reply
from shard_node.outcomes import Outcome
from shard_node.rotation import Peer, long_unsettled_ms, may_rotate
from shard_node.slots import slot
from shard_node.transfers import Kind, Terms, Transfers, decision_key
from tests.real_shards import RealShards

HOUR_MS = 3_600_000


def v7(time_ms: int, tail: int = 1) -> bytes:
    """A UUIDv7 of that time."""
    return time_ms.to_bytes(6) + bytes([0x70, 0, 0x80]) + tail.to_bytes(7)


def deposit(transaction_id: bytes, amount: int = 5) -> Transfers:
    """A deposit to alice."""
    at = slot("alice")
    return Transfers.of(
        [(transaction_id, Terms(amount, "EUR", at, at, Kind.DEPOSIT, "@world:EUR", "alice", b""))]
    )


@pytest.mark.parametrize(
    ("elapsed", "peers", "expected"),
    [
        (10.0, [Peer.SETTLED, Peer.SETTLED], True),
        (9.9, [Peer.SETTLED, Peer.SETTLED], False),
        (99.0, [Peer.SETTLED, Peer.LAGGING], False),
        (99.0, [Peer.SILENT, Peer.SETTLED], False),
    ],
)
def test_nobody_forgets_what_another_may_still_ask_for(
    *, elapsed: float, peers: list[Peer], expected: bool
) -> None:
    """A whole window has passed, every shard answers, and none has an old unsettled transfer."""
    assert may_rotate(elapsed, 10.0, peers) is expected


def test_unsettled_for_half_a_window_is_long() -> None:
    """What a rotation forgets is a window old, so the other half is margin."""
    assert long_unsettled_ms(120) == 60_000


async def test_shards_tell_whether_they_have_old_unsettled_transfers(shards: RealShards) -> None:
    """Also when nobody answers at the address, or another shard does."""
    transfer = Transfers.of(
        [(v7(1000), Terms(5, "EUR", slot("alice"), slot("bob"), Kind.TRANSFER, "alice", "bob", b""))]
    )
    topology, info = shards.topology, shards.topology.shards[0]
    async with shards.open(0) as shard:
        await shard.open(["alice"], [slot("alice")], ["EUR"], [-100])
        assert await ask_peer(topology, info, 0) is Peer.SETTLED
        await shard.call(Decide(transfer, [0]))
        assert await ask_peer(topology, info, 0) is Peer.LAGGING
        assert await ask_peer(topology, info, 60_000) is Peer.SETTLED
    for address in ("127.0.0.1:1", topology.shards[1].primary, ""):
        assert await ask_peer(topology, replace(info, primary=address), 0) is Peer.SILENT


async def test_expired_stays_expired_when_the_window_grows(shards: RealShards) -> None:
    """Somebody may have acted on the answer: no setting and no clock takes it back."""
    shards.window_ms = HOUR_MS
    await shards.wipe()
    old = deposit(v7(time.time_ns() // 1_000_000 - HOUR_MS - 5000))
    async with shards.open(0) as shard:
        await shard.open(["alice"], [slot("alice")], ["EUR"], [0])
        assert (await shard.call(Post(old))).codes[0] == Outcome.TRANSACTION_ID_EXPIRED
        shards.window_ms = 100 * HOUR_MS
        await shards.own({})
    async with shards.open(0) as shard:
        for call in (Post(old), Decide(old, [0])):
            assert (await shard.call(call)).codes[0] == Outcome.TRANSACTION_ID_EXPIRED
        assert (await shard.accounts(["alice"]))[0].available_minor == 0  # type: ignore[union-attr]


async def test_outcome_survives_one_rotation_and_not_two(shards: RealShards) -> None:
    """A UUIDv4 is exactly-once within the window; after two rotations it is a new transfer."""
    transfer = deposit(UUID("11111111-2222-4333-8444-555555555555").bytes)
    async with shards.open(0) as shard:
        await shard.open(["alice"], [slot("alice")], ["EUR"], [0])
        await shard.call(Post(transfer))
        await shard.rotate()
        await shard.call(Post(transfer))
        assert (await shard.accounts(["alice"]))[0].available_minor == 5  # type: ignore[union-attr]
        await shard.rotate()
        await shard.call(Post(transfer))
        assert (await shard.accounts(["alice"]))[0].available_minor == 10  # type: ignore[union-attr]


async def test_no_two_rotations_in_a_row(shards: RealShards) -> None:
    """A rotation whose answer was lost is asked for again, and must not forget what is seconds old."""
    transfer = deposit(UUID("11111111-2222-4333-8444-555555555555").bytes)
    async with shards.open(0) as shard:
        await shard.open(["alice"], [slot("alice")], ["EUR"], [0])
        await shard.call(Post(transfer))
        assert await shard.rotate(HOUR_MS) == 0
        assert await shard.rotate(HOUR_MS) is None
        assert await shard.rotate(HOUR_MS) is None
        await shard.call(Post(transfer))
        assert (await shard.accounts(["alice"]))[0].available_minor == 5  # type: ignore[union-attr]


async def test_nothing_is_forgotten_before_it_is_archived(shards: RealShards) -> None:
    """A refund of an old purchase reads it from the archive: it must be there when the shard forgets it."""
    async with shards.open(0) as shard:
        await shard.rotate()
        await shard.open(["alice"], [slot("alice")], ["EUR"], [0])
        await shard.call(Post(deposit(v7(1000))))
        assert await shard.rotate(once_archived=True) is None
        (opened, _), (posted, _) = await shard.ledger_after("0", 10)
        # The archive is past the last rotation, so it has all from before.
        await shard.archived(opened, 1, b"1" * 32, 1)
        assert await shard.rotate(once_archived=True) == 0
        assert await shard.rotate(once_archived=True) is None
        await shard.archived(posted, 2, b"2" * 32, 2)
        assert await shard.rotate(once_archived=True) == 0


async def test_forgotten_uuid7_is_expired_for_ever(shards: RealShards) -> None:
    """Exactly once without end: what could have been forgotten is refused, what is younger goes."""
    async with shards.open(0) as shard:
        await shard.open(["alice"], [slot("alice")], ["EUR"], [0])
        await shard.call(Post(deposit(v7(1000))))
        await shard.rotate()
        await shard.call(Post(deposit(v7(2000))))
        await shard.rotate()
        replies = [
            await shard.call(Post(deposit(v7(t, tail)))) for t, tail in ((1000, 1), (1000, 2), (1001, 3))
        ]
        assert [reply.codes[0] for reply in replies] == [
            Outcome.TRANSACTION_ID_EXPIRED,
            Outcome.TRANSACTION_ID_EXPIRED,
            Outcome.COMMITTED,
        ]
        assert (await shard.accounts(["alice"]))[0].available_minor == 15  # type: ignore[union-attr]


async def test_uuid7_older_than_the_window_is_expired_at_once(shards: RealShards) -> None:
    """Also when nothing was ever forgotten; one that is remembered gets its outcome."""
    shards.window_ms = HOUR_MS
    await shards.wipe()
    now_ms = time.time_ns() // 1_000_000
    async with shards.open(0) as shard:
        await shard.open(["alice"], [slot("alice")], ["EUR"], [0])
        old, young = deposit(v7(now_ms - HOUR_MS - 5000)), deposit(v7(now_ms - HOUR_MS + 60_000))
        assert (await shard.call(Post(old))).codes[0] == Outcome.TRANSACTION_ID_EXPIRED
        assert (await shard.call(Post(young))).codes[0] == Outcome.COMMITTED
        shards.window_ms = 1000
        await shards.own({})
    async with shards.open(0) as shard:
        assert (await shard.call(Post(young))).codes[0] == Outcome.COMMITTED
        assert (await shard.accounts(["alice"]))[0].available_minor == 5  # type: ignore[union-attr]


async def test_unsettled_commit_is_carried_over(shards: RealShards) -> None:
    """However long the payee's shard is away, the commit stays known."""
    transfer = Transfers.of(
        [(v7(1000), Terms(5, "EUR", slot("alice"), slot("bob"), Kind.TRANSFER, "alice", "bob", b""))]
    )
    async with shards.open(0) as shard:
        await shard.open(["alice", "bob"], [slot("alice"), slot("bob")], ["EUR"] * 2, [-100, 0])
        await shard.call(Prepare(transfer))
        await shard.call(Decide(transfer, [0]))
        for _ in range(3):
            assert await shard.rotate() == 1
        again: Reply = await shard.call(Decide(transfer, [0]))
        assert list(again.codes) == [Outcome.COMMITTED]
        await shard.call(Finish(transfer.keys, [Outcome.COMMITTED]))
        settled = await shard.call(Decide(deposit(v7(9000)), [Outcome.ACCOUNT_FROZEN], transfer.keys))
        assert list(settled.codes) == [Outcome.ACCOUNT_FROZEN]
        assert await shard.rotate() == 0
        assert await shard.outcome(decision_key(transfer.keys[0], transfer.bodies[0])) is not None
