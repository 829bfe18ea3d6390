"""Outcomes are remembered for a whole window, and not for ever."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from uuid import UUID

import pytest
from shard_node.contract.bundles import Bundle
from shard_node.contract.calls import (
    ATTEMPT_BYTES,
    Attempt,
    Decide,
    Finish,
    Post,
    Prepare,
    ResolveAttempts,
    SettleCommits,
)
from shard_node.contract.transfers import Kind, Terms, Transfers

from shard_node import library
from shard_node.agent.agent import ask_peer, load_library
from shard_node.agent.rotation import Peer, long_unsettled_ms, may_rotate
from shard_node.client.shard import Shard
from shard_node.cluster.slots import slot
from shard_node.contract.outcomes import Outcome
from tests.real_shards import RealShards

HOUR_MS = 3_600_000


def v7(time_ms: int, tail: int = 1) -> bytes:
    """A UUIDv7 of that time."""
    return time_ms.to_bytes(6) + bytes([0x70, 0, 0x80]) + tail.to_bytes(7)


def bundle(transaction_id: bytes, terms: Terms) -> Bundle:
    """One transfer."""
    return Transfers.of([(transaction_id, terms)]).bundle()


def deposit(transaction_id: bytes, amount: int = 5) -> Bundle:
    """A deposit to alice."""
    at = slot("alice")
    return bundle(transaction_id, Terms(amount, "EUR", at, at, Kind.DEPOSIT, "@world:EUR", "alice", b""))


def payment(time_ms: int) -> Attempt:
    """A payment by alice to bob, whose accounts are taken to be on two shards."""
    terms = Terms(5, "EUR", slot("alice"), slot("bob"), Kind.TRANSFER, "alice", "bob", b"")
    return Attempt(os.urandom(ATTEMPT_BYTES), bundle(v7(time_ms), terms))


def commit(*attempts: Attempt) -> Decide:
    """Commits attempts whose payee is on another shard."""
    return Decide(attempts, ["shard-1"] * len(attempts), [b""] * len(attempts))


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
    topology, info = shards.topology, shards.topology.shards[0]
    async with shards.open(0) as shard:
        await shard.open(["alice"], [slot("alice")], ["EUR"], [-100])
        assert await ask_peer(topology, info, 0) is Peer.SETTLED
        await shard.call(commit(payment(1000)))
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
        assert (await shard.call(Post(old))).codes[0][0] == Outcome.TRANSACTION_ID_EXPIRED
        shards.window_ms = 100 * HOUR_MS
        await shards.own({})
    async with shards.open(0) as shard:
        for call in (Post(old), commit(Attempt(bytes(ATTEMPT_BYTES), old))):
            assert (await shard.call(call)).codes[0][0] == Outcome.TRANSACTION_ID_EXPIRED
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
        assert [reply.codes[0][0] for reply in replies] == [
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
        assert (await shard.call(Post(old))).codes[0][0] == Outcome.TRANSACTION_ID_EXPIRED
        assert (await shard.call(Post(young))).codes[0][0] == Outcome.COMMITTED
        shards.window_ms = 1000
        await shards.own({})
    async with shards.open(0) as shard:
        assert (await shard.call(Post(young))).codes[0][0] == Outcome.COMMITTED
        assert (await shard.accounts(["alice"]))[0].available_minor == 5  # type: ignore[union-attr]


async def test_unsettled_commit_is_carried_over(shards: RealShards) -> None:
    """However long the payee's shard is away, the commit stays known, and with it each of its transfers."""
    attempt = payment(1000)
    decision = attempt.bundle.decisions
    async with shards.open(0) as shard:
        await shard.open(["alice", "bob"], [slot("alice"), slot("bob")], ["EUR"] * 2, [-100, 0])
        await shard.call(Prepare([attempt]))
        (name,) = (await shard.call(commit(attempt))).commits
        for _ in range(3):
            assert await shard.rotate() == 1
        again = await shard.call(commit(attempt, payment(1000)))
        assert [codes[0] for codes in again.codes] == [Outcome.COMMITTED, Outcome.ELSEWHERE]
        assert list(again.elsewhere) == [[], [name]]
        await shard.call(Finish([attempt.attempt_id], again.codes[:1]))
        refused = Decide([payment(9000)], ["shard-1"], [bytes((Outcome.ACCOUNT_FROZEN,))], [name])
        assert (await shard.call(refused)).codes[0][0] == Outcome.ACCOUNT_FROZEN
        assert await shard.rotate() == 0
        assert await shard.outcome(decision) is not None
        assert (await shard.call(commit(attempt))).codes[0][0] == Outcome.SETTLED
        await shard.rotate()
        assert await shard.outcome(decision) is None


async def test_only_what_was_committed_is_carried_over(shards: RealShards) -> None:
    """The refusals in a bundle that is unsettled are forgotten like all others."""
    terms = Terms(5, "EUR", slot("alice"), slot("bob"), Kind.TRANSFER, "alice", "bob", b"")
    too_much = replace(terms, amount_minor=500)
    rows = [(v7(1000, 1), terms), (v7(1000, 2), too_much), (v7(1000, 3), terms)]
    attempt = Attempt(os.urandom(ATTEMPT_BYTES), Transfers.of(rows).bundle())
    async with shards.open(0) as shard:
        await shard.open(["alice"], [slot("alice")], ["EUR"], [-100])
        await shard.call(commit(attempt))
        assert await shard.rotate() == 2
        assert await shard.rotate() == 2
        outcomes = [await shard.outcome(decision) for decision, _, _ in attempt.bundle.rows()]
        assert [found.outcome if found else None for found in outcomes] == [
            Outcome.COMMITTED,
            None,
            Outcome.COMMITTED,
        ]


async def test_an_attempt_that_ended_is_known_for_one_rotation_and_not_two(shards: RealShards) -> None:
    """R4: no message lives longer. Until then a late prepare is told so, and a late finish does nothing."""
    attempt = payment(1000)
    async with shards.open(0) as shard:
        await shard.open(["bob"], [slot("bob")], ["EUR"], [0])
        await shard.call(Prepare([attempt]))
        committed = Finish([attempt.attempt_id], [bytes((Outcome.COMMITTED,))])
        await shard.call(committed)
        for _ in range(2):
            assert (await shard.call(Prepare([attempt]))).codes[0][0] == Outcome.ENDED
            assert (await shard.call(committed)).codes[0][0] == Outcome.FINISHED
            await shard.rotate()
        assert (await shard.accounts(["bob"]))[0].available_minor == 5  # type: ignore[union-attr]
        assert (await shard.counters()).alarms == 0
        assert (await shard.call(committed)).codes[0][0] == Outcome.MISSING_LEG
        assert (await shard.call(Prepare([attempt]))).codes[0][0] == Outcome.PREPARED


# ------------------------------------------------------------------ when the older generation is looked up


async def recalls_the_older_generation(shard: Shard) -> None:
    """Each call that decides finds ids of the older generation, of both kinds; else AssertionError."""
    v4 = UUID("11111111-2222-4333-8444-555555555555").bytes
    posted = [deposit(v4), deposit(v7(1000, 1)), deposit(v7(2000, 2))]
    await shard.open(["alice"], [slot("alice")], ["EUR"], [0])
    for one in posted:
        await shard.call(Post(one))
    await shard.rotate()
    # A younger generation, which does not say how young the older one is.
    await shard.call(Post(deposit(v7(3000))))
    for one in posted:
        await shard.call(Post(one))
        attempt = Attempt(os.urandom(ATTEMPT_BYTES), one)
        assert (await shard.call(commit(attempt))).codes[0][0] == Outcome.SETTLED
        (decision, terms, _), *_ = one.rows()
        resolved = await shard.call(ResolveAttempts([attempt.attempt_id], [decision], [terms]))
        assert resolved.codes[0][0] == Outcome.SETTLED
    # One of them among younger ones.
    young = Attempt(os.urandom(ATTEMPT_BYTES), deposit(v7(4000)))
    codes = (await shard.call(commit(young, *[Attempt(os.urandom(16), one) for one in posted]))).codes
    assert [code[0] for code in codes] == [Outcome.COMMITTED, *[Outcome.SETTLED] * len(posted)]
    assert (await shard.accounts(["alice"]))[0].available_minor == 20  # type: ignore[union-attr]


async def recalls_what_was_carried_over(shard: Shard) -> None:
    """What was carried over grows old, once settled, like all else; AssertionError if it is not found."""
    attempt = payment(1000)
    await shard.open(["alice"], [slot("alice")], ["EUR"], [-100])
    (name,) = (await shard.call(commit(attempt))).commits
    await shard.rotate()
    await shard.call(SettleCommits([name]))
    await shard.rotate()
    # Only the older generation has it, into which nothing but it has come.
    again = await shard.call(commit(payment(1000)))
    assert again.codes[0][0] == Outcome.SETTLED
    assert (await shard.accounts(["alice"]))[0].available_minor == -5  # type: ignore[union-attr]


CHECKS = [recalls_the_older_generation, recalls_what_was_carried_over]
SKIPS = "if oldest > tonumber(meta[8] or 0) then"
# (what is broken: text of the library, other text; who notices)
PLANTS = [
    pytest.param(SKIPS, "if oldest >= tonumber(meta[8] or 0) then", 0, id="the youngest one is skipped"),
    pytest.param(SKIPS, "if oldest > 0 then", 0, id="every UUIDv7 is skipped"),
    pytest.param(
        SKIPS, "if oldest == 0 or oldest > tonumber(meta[8] or 0) then", 0, id="every UUIDv4 is skipped"
    ),
    pytest.param("n > 0 and meta[4] or '0'", "'0'", 1, id="what was carried over does not count"),
    pytest.param("write('HSET', 'done:current', flat, n)", "", 1, id="nothing is carried over"),
    pytest.param(
        "'newest_previous', meta[4] or '0'", "'newest_previous', '0'", 0, id="no youngest one is kept"
    ),
]


@pytest.mark.parametrize("check", CHECKS)
async def test_the_older_generation_is_looked_up(
    shards: RealShards, check: Callable[[Shard], Coroutine[None, None, None]]
) -> None:
    """A repetition is told from a new transfer until forgotten, though most batches never look there."""
    async with shards.open(0) as shard:
        await check(shard)


@pytest.mark.parametrize(("text", "other", "check"), PLANTS)
async def test_a_wrong_look_up_is_found(shards: RealShards, text: str, other: str, check: int) -> None:
    """Of a library that looks up too little the checks say so."""
    source = library.source()
    assert source.count(text) == 1
    async with shards.open(0) as shard:
        await shard.redis.function_load(source.replace(text, other), replace=True)
        try:
            with pytest.raises(AssertionError):
                await CHECKS[check](shard)
        finally:
            await load_library(shard.redis)
