"""What sequences of commands must not do to a shard: each of these lost money, or made copies differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shard_node.cluster.slots import slot
from shard_node.contract import (
    Abandon,
    Decide,
    Decided,
    Effect,
    Finish,
    Kind,
    Leg,
    Outcome,
    Prepare,
    Prepared,
    Transaction,
    bundle_of,
)
from tests.engine.busy import ALICE, BOB, OTHER, WORLD, attempt_id, hold, posted, refund, transfer, uuid7
from tests.engine.conftest import NOW_MS, StartServer
from tests.engine.shard import EngineShard

ATTEMPT = attempt_id(NOW_MS, 1)
ABANDONED, COMMITTED, DROPPED = (
    bytes((code,)) for code in (Outcome.ABANDONED, Outcome.COMMITTED, Outcome.DROPPED)
)


@pytest.fixture
def funded(shard: EngineShard) -> EngineShard:
    """Two accounts, one with money."""
    shard.open_plain(ALICE, BOB)
    deposit = transfer(uuid7(NOW_MS, 1), WORLD, ALICE, 1_000, kind=Kind.DEPOSIT)
    assert posted(shard, replace(deposit, deciding_slot=slot(ALICE))) == [Outcome.COMMITTED]
    return shard


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_abandoned_attempt_is_not_decided_where_it_was_prepared_too(
    funded: EngineShard, order: tuple[int, int]
) -> None:
    """R7: a late decide commits nothing after the attempt's legs were dropped: nobody would apply them."""
    bundle = bundle_of([transfer(uuid7(NOW_MS, 2), ALICE, BOB, 5, payee_owner=1)])
    funded.call(Prepare([Prepared(ATTEMPT, OTHER, 1, bundle)]))
    commands = Abandon([ATTEMPT]), Finish([ATTEMPT], [ABANDONED])
    answers = [ABANDONED], [DROPPED]
    for number in order:
        assert funded.call(commands[number]).codes == answers[number]
    assert funded.call(Decide([Decided(ATTEMPT, [OTHER], b"", b"", bundle)])).codes == [ABANDONED]
    assert funded.account(ALICE).available_minor == 1_000


def replica_of(shard: EngineShard, start_server: StartServer) -> EngineShard:
    """A replica that has begun with a snapshot, and will follow the log."""
    server = start_server(manual_clock=True)
    server.follow(shard.server)
    server.rewritten()
    replica = EngineShard(server)
    assert replica.digest() == shard.digest()
    return replica


def held(scope: int, amount: int) -> Transaction:
    """A hold of a participant's account; two scopes may have one id."""
    legs = (Leg(ALICE, Effect.HOLD, amount, "EUR", owner=1),)
    return Transaction(uuid7(NOW_MS, 2), Kind.HOLD, scope, legs, bound=60_000)


@pytest.mark.parametrize("amounts", [(10, 20), (20, 10)])
def test_of_two_holds_that_end_together_each_copy_takes_the_same(
    funded: EngineShard, start_server: StartServer, amounts: tuple[int, int]
) -> None:
    """A snapshot has them in another order than the table: which is meant does not depend on that."""
    holds = bundle_of([held(scope, amount) for scope, amount in enumerate(amounts)])
    funded.call(Prepare([Prepared(ATTEMPT, OTHER, 1, holds)]))
    funded.call(Finish([ATTEMPT], [COMMITTED]))
    replica = replica_of(funded, start_server)
    leg = Leg(ALICE, Effect.VOID, 0, "EUR")
    void = Transaction(uuid7(NOW_MS, 3), Kind.VOID, slot(ALICE), (leg,), related_id=uuid7(NOW_MS, 2))
    assert posted(funded, void) == [Outcome.COMMITTED]
    replica.server.caught_up(funded.server)
    assert replica.described(ALICE) == funded.described(ALICE)


def test_part_of_a_slot_that_is_dropped_is_the_same_on_a_replica(
    funded: EngineShard, start_server: StartServer
) -> None:
    """Also where the replica began with a snapshot: outcomes, holds and refunds lie in the same order."""
    purchases = [transfer(uuid7(NOW_MS, 10 + i), ALICE, BOB, 5, kind=Kind.PURCHASE) for i in range(3)]
    holds = [hold(uuid7(NOW_MS, 20 + i), ALICE, 1) for i in range(3)]
    assert set(posted(funded, *purchases, *holds)) == {Outcome.COMMITTED}
    refunds = [
        refund(uuid7(NOW_MS, 30 + i), row.transaction_id, BOB, ALICE, 1 + i, 5)
        for i, row in enumerate(purchases)
    ]
    assert set(posted(funded, *refunds)) == {Outcome.COMMITTED}
    replica = replica_of(funded, start_server)
    leg = Leg(ALICE, Effect.VOID, 0, "EUR")
    middle = holds[1].transaction_id
    void = Transaction(uuid7(NOW_MS, 40), Kind.VOID, slot(ALICE), (leg,), related_id=middle)
    assert posted(funded, void) == [Outcome.COMMITTED]
    while funded.fenced("slot.drop", slot(ALICE), 1):
        replica.server.caught_up(funded.server)
        assert replica.digest() == funded.digest()
    assert replica.digest(slot(ALICE)) == 0


def test_rotation_waits_for_frames_of_its_own_millisecond(funded: EngineShard) -> None:
    """Of two frames of one millisecond the archive may have the first only."""
    assert posted(funded, transfer(uuid7(NOW_MS, 2), ALICE, BOB, 1)) == [Outcome.COMMITTED]
    [_, (archived, _), _] = funded.frames()
    funded.fenced("archived", archived, 1, b"head", 4)
    funded.fenced("rotate", 0, 0)
    assert funded.fenced("rotate", 0, 1) == -1
    assert funded.info()["outcomes_older"] == 2


def test_each_row_of_a_transaction_that_comes_often_is_busy(funded: EngineShard) -> None:
    """The search for what is in the way takes equal rows as one, and answers all of them."""
    kept = transfer(uuid7(NOW_MS, 2), "dora", BOB, 1, payee_owner=1)
    funded.call(Prepare([Prepared(ATTEMPT, OTHER, 1, bundle_of([kept] * 3))]))
    asked = replace(transfer(kept.transaction_id, ALICE, BOB, 5_000), deciding_slot=kept.deciding_slot)
    free = replace(asked, transaction_id=uuid7(NOW_MS, 3))
    codes = [Outcome.BUSY, Outcome.INSUFFICIENT_FUNDS, Outcome.BUSY, Outcome.BUSY]
    assert posted(funded, asked, free, asked, asked) == codes


def test_attempt_is_kept_for_one_owner_and_one_bundle(funded: EngineShard) -> None:
    """The codes of other legs are no answer: what was asked for would be committed, and never applied."""
    legs = (
        Leg("dora", Effect.DEBIT, 3, "EUR"),
        Leg(ALICE, Effect.CREDIT, 1, "EUR", owner=1),
        Leg(BOB, Effect.CREDIT, 2, "EUR", owner=2),
    )
    row = Transaction(uuid7(NOW_MS, 2), Kind.JOURNAL, slot("dora"), legs)
    first, other = bundle_of([row]), bundle_of([replace(row, transaction_id=uuid7(NOW_MS, 3))])
    asked = [
        Prepared(ATTEMPT, OTHER, owner, bundle)
        for owner, bundle in ((1, first), (2, first), (1, other), (1, first))
    ]
    codes = (Outcome.PREPARED, Outcome.ENDED, Outcome.ENDED, Outcome.PREPARED)
    assert funded.call(Prepare(asked)).codes == [bytes((code,)) for code in codes]


def test_id_of_the_year_1970_expires(funded: EngineShard) -> None:
    """Else it could be carried out again once it was forgotten: a time of 0 is a time."""
    old = transfer(uuid7(0, 2), ALICE, BOB, 5)
    assert posted(funded, old) == [Outcome.COMMITTED]
    for _ in range(2):
        funded.fenced("rotate", 0, 0)
    assert posted(funded, old) == [Outcome.TRANSACTION_ID_EXPIRED]
    assert funded.account(BOB).available_minor == 5
