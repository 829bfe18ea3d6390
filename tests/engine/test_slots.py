"""Counting, moving and dropping what a slot holds."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from shard_node.cluster.slots import slot
from shard_node.contract import (
    AccountTerms,
    Decide,
    Decided,
    Finish,
    Kind,
    Outcome,
    Prepare,
    Prepared,
    Settle,
    bundle_of,
)
from shard_node.contract.layout import CHUNK_HEAD
from tests.engine.busy import HOUR_MS, WORLD, attempt_id, capture, hold, posted, refund, transfer, uuid7
from tests.engine.conftest import NOW_MS, StartServer
from tests.engine.shard import EngineShard

TAG = "{moved}"
SLOT = slot(TAG)
CUSTOMER, SHOP = f"{TAG}:customer", f"{TAG}:shop-with-a-name-that-is-too-long-to-lie-in-its-record"
HOLD = uuid7(NOW_MS, 5)


def settled_slot(shard: EngineShard) -> None:
    """A slot with some of everything that moves, of both generations, and nothing in doubt."""
    shard.open(
        AccountTerms(CUSTOMER, SLOT, "EUR", -100, 10**9, 10**6),
        AccountTerms(SHOP, SLOT, "EUR"),
        AccountTerms(f"{TAG}:dollars", SLOT, "USD"),
    )
    posted(
        shard,
        transfer(uuid7(NOW_MS, 1), WORLD, SHOP, 5_000),
        transfer(uuid7(NOW_MS, 2), WORLD, CUSTOMER, 9_000),
    )
    purchase = uuid7(NOW_MS, 3)
    assert posted(shard, transfer(purchase, CUSTOMER, SHOP, 700, kind=Kind.PURCHASE)) == [Outcome.COMMITTED]
    across = attempt_id(NOW_MS, 1)
    leaving = bundle_of([transfer(uuid7(NOW_MS, 6), CUSTOMER, "dora", 20, kind=Kind.PURCHASE, payee_owner=1)])
    shard.call(Decide([Decided(across, ["test/shard-1"], b"", b"", leaving)]))
    # Carried over while it was not settled: the outcome is in both generations.
    shard.fenced("rotate", 0, 0)
    shard.call(Settle([(across, 1)]))
    assert posted(
        shard,
        refund(uuid7(NOW_MS, 4), purchase, SHOP, CUSTOMER, 50, 700),
        hold(HOLD, CUSTOMER, 300),
        transfer(uuid7(NOW_MS, 7), CUSTOMER, SHOP, 10**6),
    ) == [Outcome.COMMITTED, Outcome.COMMITTED, Outcome.INSUFFICIENT_FUNDS]
    shard.set_state((f"{TAG}:dollars", Kind.FREEZE))


def fresh_shard(start_server: StartServer) -> EngineShard:
    """Another shard, empty, at the same time."""
    server = start_server(manual_clock=True)
    server.set_clock(NOW_MS)
    other = EngineShard(server, "test/shard-1")
    other.bind()
    return other


@pytest.mark.parametrize("size", [1, 100, 4096, 2**20])
def test_moved_slot_is_the_same_on_its_new_shard(
    shard: EngineShard, start_server: StartServer, size: int
) -> None:
    """Chunks of any size carry a slot over: digest and counts agree, and nothing else is there."""
    settled_slot(shard)
    other = fresh_shard(start_server)
    for chunk in shard.chunks(SLOT, size):
        other.fenced("slot.import", SLOT, chunk)
    assert other.digest(SLOT) == shard.digest(SLOT)
    assert other.fenced("slot.count", SLOT) == shard.fenced("slot.count", SLOT)
    assert other.info()["accounts"] == 3
    other.server.restart(killed=True)
    assert other.digest(SLOT) == shard.digest(SLOT)
    other.server.redis.execute_command("DEBUG", "RELOAD")
    assert other.digest(SLOT) == shard.digest(SLOT)


def test_chunks_may_be_taken_in_again(shard: EngineShard, start_server: StartServer) -> None:
    """A chunk that came before changes nothing; a later one of the same account replaces it."""
    settled_slot(shard)
    other = fresh_shard(start_server)
    chunks = list(shard.chunks(SLOT, 200))
    posted(shard, transfer(uuid7(NOW_MS, 8), WORLD, SHOP, 1))
    for chunk in [*chunks, *chunks, *shard.chunks(SLOT)]:
        other.fenced("slot.import", SLOT, chunk)
    assert other.digest(SLOT) == shard.digest(SLOT)


def test_moved_slot_goes_on_where_it_was(shard: EngineShard, start_server: StartServer) -> None:
    """On the new shard outcomes are remembered, holds can be captured and refunds count."""
    settled_slot(shard)
    other = fresh_shard(start_server)
    for chunk in shard.chunks(SLOT):
        other.fenced("slot.import", SLOT, chunk)
    again = transfer(uuid7(NOW_MS, 3), CUSTOMER, SHOP, 700, kind=Kind.PURCHASE)
    across = transfer(uuid7(NOW_MS, 6), CUSTOMER, "dora", 20, kind=Kind.PURCHASE)
    assert posted(other, again) == [Outcome.COMMITTED]
    assert posted(other, across) == [Outcome.COMMITTED]
    assert posted(other, refund(uuid7(NOW_MS, 9), again.transaction_id, SHOP, CUSTOMER, 651, 700)) == [
        Outcome.REFUND_EXCEEDS_PURCHASE
    ]
    assert posted(other, capture(uuid7(NOW_MS, 10), HOLD, CUSTOMER, SHOP, 300)) == [Outcome.COMMITTED]


def test_outcomes_are_young_where_they_come_to(shard: EngineShard, start_server: StartServer) -> None:
    """A shard that forgets right after keeps what the source recorded just before it forgot itself."""
    settled_slot(shard)
    shard.fenced("rotate", 0, 0)
    other = fresh_shard(start_server)
    for chunk in shard.chunks(SLOT):
        other.fenced("slot.import", SLOT, chunk)
    other.fenced("rotate", 0, 0)
    assert other.digest(SLOT) == shard.digest(SLOT)


def test_counts_are_those_of_the_slot(shard: EngineShard) -> None:
    """slot.count has the numbers of accounts, outcomes, holds and refunds, and the sum of each currency."""
    settled_slot(shard)
    accounts, outcomes, holds, refunds, sums = shard.fenced("slot.count", SLOT)
    assert (accounts, outcomes, holds, refunds) == (3, 5, 1, 1)
    totals = dict(zip(sums[::2], map(int, sums[1::2]), strict=True))
    assert totals == {b"EUR": 14_000 - 20, b"USD": 0}
    assert shard.fenced("slot.count", SLOT + 1) == [0, 0, 0, 0, []]


def test_dropped_slot_leaves_nothing_behind(shard: EngineShard) -> None:
    """Dropping removes all that the slot holds, a part a call, and nothing of other slots."""
    posted(shard, transfer(uuid7(NOW_MS, 20), WORLD, "@world:CHF", 5))
    before = shard.fenced("slot.count", slot("elsewhere")), shard.info()["outcomes_younger"]
    shard.open_plain("elsewhere")
    elsewhere = shard.digest(slot("elsewhere"))
    settled_slot(shard)
    dropped = 0
    while removed := shard.fenced("slot.drop", SLOT, 3):
        assert removed <= 3
        dropped += removed
    assert dropped > 9
    assert shard.fenced("slot.count", SLOT) == [0, 0, 0, 0, []]
    assert shard.digest(SLOT) == 0
    assert shard.digest(slot("elsewhere")) == elsewhere
    assert before[0] == [0, 0, 0, 0, []]
    shard.server.set_clock(NOW_MS + HOUR_MS)
    assert shard.fenced("expire", 10) == 0
    assert shard.names([SLOT]) == []


def test_slot_with_something_in_doubt_is_not_dropped(shard: EngineShard) -> None:
    """Neither a kept attempt's accounts nor an unsettled commit's outcomes go away under it."""
    settled_slot(shard)
    kept, committed = attempt_id(NOW_MS, 2), attempt_id(NOW_MS, 3)
    incoming = bundle_of([transfer(uuid7(NOW_MS, 21), "dora", SHOP, 5, payee_owner=1)])
    shard.call(Prepare([Prepared(kept, "test/shard-1", 1, incoming)]))
    with pytest.raises(ResponseError, match="an attempt is prepared in it"):
        shard.fenced("slot.drop", SLOT, 100)
    shard.call(Finish([kept], [bytes((Outcome.COMMITTED,))]))
    leaving = bundle_of([transfer(uuid7(NOW_MS, 22), CUSTOMER, "dora", 5, payee_owner=1)])
    shard.call(Decide([Decided(committed, ["test/shard-1"], b"", b"", leaving)]))
    with pytest.raises(ResponseError, match="a commit of it is not settled"):
        shard.fenced("slot.drop", SLOT, 100)
    shard.call(Settle([(committed, 1)]))
    assert shard.fenced("slot.drop", SLOT, 100)


def test_chunks_that_do_not_fit_are_refused_and_change_nothing(shard: EngineShard) -> None:
    """A chunk of another slot or version, a cut one, a hold without its account: refused as a whole."""
    settled_slot(shard)
    chunks = list(shard.chunks(SLOT, 100))
    first, last = chunks[0], chunks[-1]
    shard.fenced("slot.drop", SLOT, 100)
    before = shard.digest()
    version, number, records = CHUNK_HEAD.unpack_from(first)
    wrong = [
        CHUNK_HEAD.pack(version + 1, number, records) + first[CHUNK_HEAD.size :],
        CHUNK_HEAD.pack(version, number + 1, records) + first[CHUNK_HEAD.size :],
        CHUNK_HEAD.pack(version, number, records + 1) + first[CHUNK_HEAD.size :],
        CHUNK_HEAD.pack(version, number, records - 1) + first[CHUNK_HEAD.size :],
        CHUNK_HEAD.pack(version, number, 2**32 - 1) + first[CHUNK_HEAD.size :],
        *(first[:cut] for cut in range(0, len(first), 7)),
        last,
    ]
    for chunk in wrong:
        with pytest.raises(ResponseError, match="malformed chunk"):
            shard.fenced("slot.import", SLOT, chunk)
    assert shard.digest() == before


def test_account_with_other_terms_is_not_overwritten(shard: EngineShard, start_server: StartServer) -> None:
    """An account that the target has with another currency or limit is a mistake, not a copy."""
    settled_slot(shard)
    other = fresh_shard(start_server)
    other.open(AccountTerms(SHOP, SLOT, "EUR", maximum_balance_minor=5))
    with pytest.raises(ResponseError, match="with other terms"):
        other.fenced("slot.import", SLOT, next(shard.chunks(SLOT)))


def test_export_goes_on_when_its_cursor_is_gone(shard: EngineShard, start_server: StartServer) -> None:
    """When the record that a cursor names was removed, its part is read again: the copy is complete."""
    settled_slot(shard)
    holds = [hold(uuid7(NOW_MS, 30 + i), SHOP, 10, HOUR_MS if i else 1_000) for i in range(5)]
    assert set(posted(shard, *reversed(holds))) == {Outcome.COMMITTED}
    other = fresh_shard(start_server)
    cursor = b""
    expired = False
    while True:
        cursor, chunk = shard.fenced("slot.export", SLOT, cursor, 1)
        other.fenced("slot.import", SLOT, chunk)
        if not cursor:
            break
        if not expired and shard.fenced("slot.count", SLOT)[2] == other.fenced("slot.count", SLOT)[2] + 5:
            # The first hold that was read, and that the cursor names, ends.
            shard.server.set_clock(NOW_MS + 2_000)
            expired = bool(shard.fenced("expire", 10))
    assert expired
    assert other.fenced("slot.count", SLOT)[2] >= shard.fenced("slot.count", SLOT)[2]


def test_malformed_arguments_of_slots_are_refused(shard: EngineShard) -> None:
    """Slots, cursors and sizes out of range are errors."""
    for arguments in (
        ("slot.count", 16384),
        ("slot.count", -1),
        ("slot.export", 0, b"short", 100),
        ("slot.export", 0, b"\xff" * 72, 100),
        ("slot.export", 0, b"", 0),
        ("slot.export", 0, b"", 2**40),
        ("slot.drop", 0, 0),
        ("slot.drop", "x", 1),
        ("slot.import", 16384, b""),
    ):
        with pytest.raises(ResponseError, match="malformed"):
            shard.fenced(str(arguments[0]), *arguments[1:])
