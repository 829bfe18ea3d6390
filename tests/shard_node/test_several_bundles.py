"""Several bundles in one call, and several calls at a moment, are as good as one after the other."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

from shard_node.client.shard import Shard
from shard_node.cluster.slots import slot
from shard_node.contract.bundles import DECISION_BYTES
from shard_node.contract.calls import ATTEMPT_BYTES, Attempt, Decide, Finish, Post, Prepare, Reply
from shard_node.contract.outcomes import PAYEE, Outcome
from shard_node.contract.records import PendingCommit
from shard_node.contract.transfers import Details, Kind, Terms, Transfers, pack_details
from shard_node.limits import MAX_MINOR
from tests.real_shards import RealShards
from tests.shard_node.kept import BIG, kept_in

FULL = Outcome.BALANCE_LIMIT + PAYEE
COMMITTED = bytes((Outcome.COMMITTED,))


def payments(*rows: tuple[bytes, int]) -> Attempt:
    """A new attempt at payments by alice to bob, each an id and an amount in minor units."""
    terms = Terms(0, "EUR", slot("alice"), slot("bob"), Kind.TRANSFER, "alice", "bob", b"")
    bundle = Transfers.of([(i, replace(terms, amount_minor=amount)) for i, amount in rows]).bundle()
    return Attempt(os.urandom(ATTEMPT_BYTES), bundle)


def payment(amount_minor: int) -> Attempt:
    """A new attempt at a new payment."""
    return payments((os.urandom(16), amount_minor))


def commit(*attempts: Attempt) -> Decide:
    """Commits attempts whose payee is on another shard."""
    return Decide(attempts, ["shard-1"] * len(attempts), [b""] * len(attempts))


def firsts(reply: Reply) -> list[int]:
    """The first row's code of each bundle."""
    return [codes[0] for codes in reply.codes]


async def open_accounts(shard: Shard, bob_has: int = 0) -> None:
    """Alice without a limit, and bob."""
    names = ["alice", "bob"]
    await shard.open(names, [slot(name) for name in names], ["EUR"] * 2, [-MAX_MINOR, 0])
    if bob_has:
        terms = Terms(bob_has, "EUR", slot("bob"), slot("bob"), Kind.DEPOSIT, "@world:EUR", "bob", b"\0\0")
        reply = await shard.call(Post(Transfers.of([(os.urandom(16), terms)]).bundle()))
        assert firsts(reply) == [Outcome.COMMITTED]


async def test_big_credits_of_one_call_add_up(shards: RealShards) -> None:
    """The second one would take bob past 2^53 together with the first, which only waits."""
    attempts = [payment(MAX_MINOR // 2 + 1), payment(MAX_MINOR // 2 + 1)]
    async with shards.open(0) as shard:
        await open_accounts(shard)
        assert firsts(await shard.call(Prepare(attempts))) == [Outcome.PREPARED, FULL]
        # An attempt of which nothing is prepared is not kept.
        assert set((await kept_in(shard))["attempts"]) == {attempts[0].attempt_id}


async def test_small_credits_of_one_call_add_up(shards: RealShards) -> None:
    """The same of credits that are not counted one by one, near bob's end."""
    async with shards.open(0) as shard:
        await open_accounts(shard, MAX_MINOR - BIG - 5)
        attempts = [payment(BIG), payment(10), payment(5), payment(1)]
        codes = firsts(await shard.call(Prepare(attempts)))
        assert codes == [Outcome.PREPARED, FULL, Outcome.PREPARED, FULL]
        kept = await kept_in(shard)
        assert (kept["credits"], kept["big"]) == (BIG + 5, 0)


async def test_two_attempts_at_one_transfer_in_a_call(shards: RealShards) -> None:
    """The first one commits it; the other waits for that commit, by its name."""
    first = payment(5)
    other = Attempt(os.urandom(ATTEMPT_BYTES), first.bundle)
    async with shards.open(0) as shard:
        await open_accounts(shard)
        reply = await shard.call(commit(first, other))
        assert firsts(reply) == [Outcome.COMMITTED, Outcome.ELSEWHERE]
        name = reply.commits[0]
        assert (list(reply.commits), list(reply.elsewhere)) == ([name, b""], [[], [name]])
        (found,) = await shard.commits([name])
        assert (found.attempt_id, found.peer) == (first.attempt_id, "shard-1")


async def test_an_attempt_twice_in_one_finish(shards: RealShards) -> None:
    """It is finished once, and no leg is missing: recovery of two commits of one attempt ends it so."""
    attempt = payment(5)
    async with shards.open(0) as shard:
        await open_accounts(shard)
        await shard.call(Prepare([attempt]))
        reply = await shard.call(Finish([attempt.attempt_id] * 2, [COMMITTED] * 2))
        assert firsts(reply) == [Outcome.FINISHED] * 2
        kept = await kept_in(shard)
        assert (kept["accounts"]["bob"].available_minor, kept["alarms"]) == (5, 0)


async def test_each_commit_has_a_name_of_its_own(shards: RealShards) -> None:
    """Also those of one moment, of one call, and after the clock was put back."""
    async with shards.open(0) as shard:
        await open_accounts(shard)
        calls = [commit(payment(1), payment(1)) for _ in range(50)]
        replies = await asyncio.gather(*[shard.call(call) for call in calls])
        names = {name for reply in replies for name in reply.commits}
        assert len(names) == 100
        ahead = max(int.from_bytes(name, "little") for name in names) + 10**9
        await shard.redis.hset("meta", "clock", str(ahead))
        later = await shard.call(commit(payment(1)))
        assert int.from_bytes(later.commits[0], "little") == ahead + 1
        assert len(await shard.commits([*names, *later.commits])) == 101


async def test_a_commits_name_is_its_time(shards: RealShards) -> None:
    """In ticks of 16 microseconds, which is also the time in its outcomes."""
    attempt = payment(1)
    async with shards.open(0) as shard:
        await open_accounts(shard)
        before = await shard.clock_ms()
        (name,) = (await shard.call(commit(attempt))).commits
        found: list[PendingCommit] = await shard.commits([name])
        remembered = await shard.outcome(attempt.bundle.decisions)
        assert remembered is not None
        assert before <= found[0].since_ms == remembered.decided_at_ms <= await shard.clock_ms()


async def test_a_time_shared_with_a_commit_names_none(shards: RealShards) -> None:
    """What was posted in the moment of a commit with the same id in its bundle is settled all the same."""
    posted, new = (os.urandom(16), 5), (os.urandom(16), 7)
    both = payments(posted, new)
    decision = both.bundle.decisions[:DECISION_BYTES]
    async with shards.open(0) as shard:
        await open_accounts(shard)
        await shard.call(Post(payments(posted).bundle))
        (name,) = (await shard.call(commit(both))).commits
        # The moment is made the same, for a test cannot hit it.
        record = await shard.redis.hget("done:current", decision)
        assert isinstance(record, bytes)
        await shard.redis.hset("done:current", decision, record[:1] + name + record[7:])
        again = await shard.call(commit(both))
        assert list(again.codes[0]) == [Outcome.SETTLED, Outcome.COMMITTED]
        assert await shard.rotate() == 1


async def test_a_purchase_is_remembered_with_its_parties(shards: RealShards) -> None:
    """A refund must know who paid whom, however the purchase was decided."""
    details = pack_details(Details(b"order 7"))
    terms = Terms(5, "EUR", slot("alice"), slot("bob"), Kind.PURCHASE, "alice", "bob", details)
    bundles = [Transfers.of([(os.urandom(16), terms)]).bundle() for _ in range(2)]
    async with shards.open(0) as shard:
        await open_accounts(shard)
        await shard.call(Post(bundles[0]))
        await shard.call(commit(Attempt(os.urandom(ATTEMPT_BYTES), bundles[1])))
        for bundle in bundles:
            found = await shard.outcome(bundle.decisions)
            assert found is not None
            assert (found.outcome, found.payer, found.payee) == (Outcome.COMMITTED, "alice", "bob")
            assert (found.amount_minor, found.currency) == (5, "EUR")
