"""A shard that holds some of everything: what persistence and replication must bring back."""

from __future__ import annotations

import struct
from dataclasses import replace

from shard_node.cluster.slots import slot
from shard_node.contract import (
    Abandon,
    AccountTerms,
    Decide,
    Decided,
    Effect,
    Finish,
    Kind,
    Leg,
    Outcome,
    Post,
    Prepare,
    Prepared,
    Settle,
    Transaction,
    bundle_of,
)
from tests.engine.shard import EngineShard

OTHER = "test/shard-1"
ALICE, BOB, CARLA = "alice", "bob", "carla"
POCKETS = [f"{{{ALICE}}}:pocket-{number}" for number in range(5)]
# Longer than what fits into an account's own record.
LONG = "a-merchant-with-a-long-name:" + "x" * 36
WORLD = "@world:EUR"
HOUR_MS = 3_600_000


def uuid7(ms: int, number: int) -> bytes:
    """A UUIDv7 of that time, told apart by a number."""
    return ms.to_bytes(6) + struct.pack(">HH", 0x7000, 0x8000) + number.to_bytes(6)


def attempt_id(ms: int, number: int) -> bytes:
    """An attempt's id of that time, told apart by a number."""
    return ms.to_bytes(6) + number.to_bytes(10)


def transfer(
    identity: bytes, payer: str, payee: str, amount: int, *, kind: Kind = Kind.TRANSFER, payee_owner: int = 0
) -> Transaction:
    """A debit and a credit."""
    legs = (
        Leg(payer, Effect.DEBIT, amount, "EUR"),
        Leg(payee, Effect.CREDIT, amount, "EUR", owner=payee_owner),
    )
    return Transaction(identity, kind, slot(payer), legs, b"rent")


def hold(identity: bytes, account: str, amount: int, life_ms: int = HOUR_MS) -> Transaction:
    """Reserves money on an account."""
    leg = Leg(account, Effect.HOLD, amount, "EUR")
    return Transaction(identity, Kind.HOLD, slot(account), (leg,), b"hotel", bound=life_ms)


def capture(
    identity: bytes, held: bytes, payer: str, payee: str, amount: int, *, owner: int = 0
) -> Transaction:
    """Takes from a hold, on shard ``owner``, and gives to an account of the deciding shard."""
    legs = (
        Leg(payer, Effect.CAPTURE, amount, "EUR", owner=owner),
        Leg(payee, Effect.CREDIT, amount, "EUR"),
    )
    return Transaction(identity, Kind.CAPTURE, slot(payer), legs, b"", held)


def refund(
    identity: bytes, purchase: bytes, merchant: str, customer: str, amount: int, bound: int
) -> Transaction:
    """Gives back from a purchase of ``bound`` minor units."""
    legs = (Leg(merchant, Effect.DEBIT, amount, "EUR"), Leg(customer, Effect.REFUND, amount, "EUR"))
    return Transaction(identity, Kind.REFUND, slot(merchant), legs, b"", purchase, bound)


def posted(shard: EngineShard, *transactions: Transaction) -> list[Outcome]:
    """What became of transactions on one shard."""
    codes = shard.call(Post(bundle_of(transactions))).codes[0]
    return [Outcome(code) for code in (codes if len(codes) > 1 else codes * len(transactions))]


def fill(shard: EngineShard, now_ms: int) -> None:
    """Fills a shard: accounts, outcomes of both generations, purchases, refunds, holds, what is in doubt.

    The server's clock is at ``now_ms`` and manual, and at the end an hour later.
    """
    shard.open_plain(ALICE, BOB, *POCKETS)
    shard.open(
        AccountTerms(CARLA, slot(CARLA), "EUR", -5_000, 10_000_000, 2_000_000),
        AccountTerms(LONG, slot(LONG), "EUR"),
    )
    for number, account in enumerate((ALICE, BOB, CARLA, LONG)):
        deposit = transfer(uuid7(now_ms, number), WORLD, account, 1_000_000, kind=Kind.DEPOSIT)
        assert posted(shard, replace(deposit, deciding_slot=slot(account))) == [Outcome.COMMITTED]
    purchase = uuid7(now_ms, 10)
    assert posted(
        shard,
        transfer(purchase, ALICE, LONG, 5_000, kind=Kind.PURCHASE),
        transfer(uuid7(now_ms, 11), ALICE, BOB, 10**12),
    ) == [Outcome.COMMITTED, Outcome.INSUFFICIENT_FUNDS]
    _end_attempts(shard, now_ms)
    assert shard.fenced("rotate", 0, 0) >= 0
    assert posted(shard, refund(uuid7(now_ms, 20), purchase, LONG, ALICE, 1_000, 5_000)) == [
        Outcome.COMMITTED
    ]
    holds = [hold(uuid7(now_ms, 30 + i), ALICE, 700 + i, HOUR_MS // (i + 1)) for i in range(4)]
    assert set(posted(shard, *holds)) == {Outcome.COMMITTED}
    shard.set_state((CARLA, Kind.FREEZE))
    _leave_in_doubt(shard, now_ms, holds[0].transaction_id)
    shard.server.set_clock(now_ms + HOUR_MS // 4)
    assert shard.fenced("expire", 100) == 1
    shard.server.set_clock(now_ms + HOUR_MS)


def _end_attempts(shard: EngineShard, now_ms: int) -> None:
    """One attempt that was finished here, one that was decided and settled, one that was abandoned."""
    finished, decided, abandoned = (attempt_id(now_ms, number) for number in (1, 2, 3))
    incoming = bundle_of([transfer(uuid7(now_ms, 40), "dora", BOB, 300, payee_owner=1)])
    outgoing = bundle_of([transfer(uuid7(now_ms, 41), BOB, "dora", 200, kind=Kind.PURCHASE, payee_owner=1)])
    committed = bytes((Outcome.COMMITTED,))
    shard.call(Prepare([Prepared(finished, OTHER, 1, incoming)]))
    assert shard.call(Finish([finished], [committed])).codes == [bytes((Outcome.FINISHED,))]
    assert shard.call(Decide([Decided(decided, [OTHER], b"", b"", outgoing)])).codes == [committed]
    shard.call(Settle([(decided, 1)]))
    assert shard.call(Abandon([abandoned])).codes == [bytes((Outcome.ABANDONED,))]


def _leave_in_doubt(shard: EngineShard, now_ms: int, held: bytes) -> None:
    """A commit that half of its participants have finished, and attempts that are prepared."""
    both = Transaction(
        uuid7(now_ms, 50),
        Kind.JOURNAL,
        slot(BOB),
        (
            Leg(BOB, Effect.DEBIT, 500, "EUR"),
            Leg("dora", Effect.CREDIT, 200, "EUR", owner=1),
            Leg("emil", Effect.CREDIT, 300, "EUR", owner=2),
        ),
        b"split",
    )
    committing = attempt_id(now_ms, 4)
    purchase = transfer(uuid7(now_ms, 51), BOB, "dora", 20, kind=Kind.PURCHASE, payee_owner=1)
    decided = Decided(committing, [OTHER, "test/shard-2"], b"", b"", bundle_of([both, purchase]))
    assert shard.call(Decide([decided])).codes == [bytes((Outcome.COMMITTED,))]
    shard.call(Settle([(committing, 1)]))
    journal = Transaction(
        uuid7(now_ms, 52),
        Kind.JOURNAL,
        slot("dora"),
        (
            Leg("dora", Effect.DEBIT, 100, "EUR"),
            Leg(ALICE, Effect.DEBIT, 60, "EUR", owner=2),
            Leg(BOB, Effect.CREDIT, 160, "EUR", owner=2),
        ),
    )
    taking = capture(uuid7(now_ms, 53), held, ALICE, "dora", 250, owner=2)
    taking = replace(taking, deciding_slot=slot("dora"))
    refused = transfer(uuid7(now_ms, 54), "dora", "nobody", 1, payee_owner=2)
    prepared = shard.call(
        Prepare([Prepared(attempt_id(now_ms, 5), OTHER, 2, bundle_of([journal, taking, refused]))])
    )
    codes = (Outcome.PREPARED, Outcome.PREPARED, Outcome.ACCOUNT_NOT_FOUND)
    assert prepared.codes == [bytes(codes)]
    incoming = bundle_of([transfer(uuid7(now_ms, 55), "dora", LONG, 77, payee_owner=1)])
    shard.call(Prepare([Prepared(attempt_id(now_ms, 6), "test/a-shard-with-a-longer-name", 1, incoming)]))
