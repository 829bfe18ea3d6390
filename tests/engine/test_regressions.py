"""What was once wrong with the engine: each of these ended a shard, lost something, or left it unreadable."""

from __future__ import annotations

from dataclasses import replace

import pytest
from redis.exceptions import ResponseError

from shard_node.cluster.slots import slot
from shard_node.contract import (
    LAYOUT_VERSION,
    Abandon,
    Command,
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
from shard_node.contract.layout import CHUNK_HEAD, MOVED_ACCOUNT, MOVED_OUTCOME, RecordKind
from shard_node.contract.outcomes import PARTICIPANT_REFUSALS
from shard_node.limits import MAX_MINOR
from tests.engine.busy import ALICE, BOB, OTHER, WORLD, attempt_id, hold, posted, transfer, uuid7
from tests.engine.conftest import NOW_MS
from tests.engine.shard import EngineShard
from tests.engine.test_hostile_input import dumped, restore

COMMITTED = bytes((Outcome.COMMITTED,))


@pytest.fixture
def funded(shard: EngineShard) -> EngineShard:
    """Two accounts, one with money."""
    shard.open_plain(ALICE, BOB)
    deposit = transfer(uuid7(NOW_MS, 1), WORLD, ALICE, 1_000, kind=Kind.DEPOSIT)
    assert posted(shard, replace(deposit, deciding_slot=slot(ALICE))) == [Outcome.COMMITTED]
    return shard


def journal(number: int, *legs: Leg, kind: Kind = Kind.JOURNAL) -> Transaction:
    """Any legs."""
    return Transaction(uuid7(NOW_MS, number), kind, slot(legs[0].account), legs)


def test_transaction_that_nobody_must_finish_is_no_attempts(funded: EngineShard) -> None:
    """Its commit would be in doubt for ever; so each transaction across shards has a participant's leg."""
    within = bundle_of([hold(uuid7(NOW_MS, 2), ALICE, 1)])
    with pytest.raises(ResponseError, match="a transaction without a participant"):
        funded.call(Decide([Decided(attempt_id(NOW_MS, 1), [OTHER], b"", b"", within)]))


def test_attempt_is_decided_with_one_bundle(funded: EngineShard) -> None:
    """The codes of one bundle are not answered for another: neither of a kept commit, nor in one call."""
    first, second = (
        Decided(attempt_id(NOW_MS, 1), [OTHER], b"", b"", bundle_of([row]))
        for row in (transfer(uuid7(NOW_MS, n), ALICE, "dora", n, payee_owner=1) for n in (2, 3))
    )
    for command in (Decide([first, second]), Decide([second, first])):
        _refused(funded, command, "another bundle")
    assert funded.call(Decide([first, first])).codes == [COMMITTED] * 2
    # Nothing is settled either, which would drop the commit.
    _refused(funded, Decide([second], [(first.attempt_id, 1)]), "another bundle")
    assert funded.call(Decide([first])).codes == [COMMITTED]


def test_verdict_is_what_a_participant_may_say(funded: EngineShard) -> None:
    """Of any other code the shard would remember an outcome that no transaction has."""
    allowed = {0, Outcome.SKIPPED, *PARTICIPANT_REFUSALS}
    for code in range(256):
        row = transfer(uuid7(NOW_MS, 100 + code), ALICE, "dora", 1, payee_owner=1)
        asked = Decided(attempt_id(NOW_MS, code), [OTHER], bytes((code,)), b"", bundle_of([row]))
        if code in allowed:
            assert funded.call(Decide([asked])).codes == [bytes((code or Outcome.COMMITTED,))]
        else:
            _refused(funded, Decide([asked]), "one is no refusal of a participant")


def test_finish_is_not_acknowledged_where_the_attempt_was_only_decided(funded: EngineShard) -> None:
    """R5: that it was decided or abandoned here says nothing of legs here, which are missing."""
    decided, abandoned = attempt_id(NOW_MS, 1), attempt_id(NOW_MS, 2)
    sent = bundle_of([transfer(uuid7(NOW_MS, 2), ALICE, "dora", 5, payee_owner=1)])
    funded.call(Decide([Decided(decided, [OTHER], b"", b"", sent)]))
    funded.call(Abandon([abandoned]))
    dropped = bytes((Outcome.ABANDONED,))
    assert funded.call(Finish([decided, abandoned], [dropped] * 2)).codes == [bytes((Outcome.DROPPED,))] * 2
    missing = funded.call(Finish([decided, abandoned], [COMMITTED] * 2))
    assert missing.codes == [bytes((Outcome.MISSING_LEG,))] * 2
    assert funded.info()["alarms"] == 2


def _refused(shard: EngineShard, command: Command, why: str) -> None:
    """The command is malformed, and has changed nothing."""
    before = shard.digest()
    with pytest.raises(ResponseError, match=f"malformed .*{why}"):
        shard.call(command)
    assert shard.digest() == before


def test_purchase_has_a_payee(funded: EngineShard) -> None:
    """Else a snapshot that has it could not be read."""
    purchase = journal(2, Leg(ALICE, Effect.DEBIT, 1, "EUR"), kind=Kind.PURCHASE)
    with pytest.raises(ResponseError, match="a purchase without a payee"):
        posted(funded, purchase)


@pytest.mark.parametrize("stream_id", [b"-1-5", b"+1-5", b" 1-5", b"1-5\0", b"1--5", b"9999999999999999-0"])
def test_archived_trims_nothing_that_no_frame_has(funded: EngineShard, stream_id: bytes) -> None:
    """Neither a stream id that is none, nor one that is later than all frames."""
    before = funded.digest(), funded.frames()
    with pytest.raises(ResponseError, match="malformed"):
        funded.fenced("archived", stream_id, 1, b"head", 0)
    assert (funded.digest(), funded.frames()) == before


def account_record(name: str, number: int, *, available: int = 0, held: int = 0, version: int = 1) -> bytes:
    """An open account as a chunk has it."""
    packed = MOVED_ACCOUNT.pack(available, held, 0, version, 0, 0, 0, number, 0, b"EUR", len(name))
    return bytes((RecordKind.ACCOUNT,)) + packed + name.encode()


def imported(shard: EngineShard, number: int, record: bytes) -> None:
    """Takes in a chunk of one record."""
    shard.fenced("slot.import", number, CHUNK_HEAD.pack(LAYOUT_VERSION, number, 1) + record)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(account_record("x", 7, version=2**63 - 1), id="a version that overflows"),
        pytest.param(account_record("x", 7, available=MAX_MINOR, held=MAX_MINOR), id="a sum out of range"),
        pytest.param(account_record("@world:USD", 7), id="a system account in a slot"),
    ],
)
def test_import_of_an_account_that_cannot_be_is_refused(shard: EngineShard, record: bytes) -> None:
    """What no command could have made is malformed."""
    with pytest.raises(ResponseError, match="malformed chunk"):
        imported(shard, 7, record)
    assert not shard.fenced("slot.count", 7)[0]


def test_import_into_a_slot_with_a_prepared_leg_is_refused(funded: EngineShard) -> None:
    """What is reserved would be gone, and its finish could not be carried out."""
    attempt = attempt_id(NOW_MS, 1)
    taken = journal(2, Leg("dora", Effect.CREDIT, 5, "EUR"), Leg(ALICE, Effect.DEBIT, 5, "EUR", owner=1))
    funded.call(Prepare([Prepared(attempt, OTHER, 1, bundle_of([taken]))]))
    with pytest.raises(ResponseError, match="prepared"):
        imported(funded, slot(ALICE), account_record(ALICE, slot(ALICE), available=5))
    assert funded.call(Finish([attempt], [COMMITTED])).codes == [bytes((Outcome.FINISHED,))]
    assert funded.account(ALICE).available_minor == 995


def test_import_over_an_unsettled_outcome_is_refused(funded: EngineShard) -> None:
    """A rotation carries it over as it was committed."""
    sent = transfer(uuid7(NOW_MS, 2), ALICE, "dora", 5, payee_owner=1)
    funded.call(Decide([Decided(attempt_id(NOW_MS, 1), [OTHER], b"", b"", bundle_of([sent]))]))
    code = Outcome.COMMITTED + 64
    packed = MOVED_OUTCOME.pack(sent.transaction_id, 5, 5, bytes(6), slot(ALICE), 0, code, 0, 0)
    with pytest.raises(ResponseError, match="not settled"):
        imported(funded, slot(ALICE), bytes((RecordKind.OUTCOME,)) + packed)
    assert funded.fenced("rotate", 0, 0) == 1


def test_system_account_can_be_frozen_before_its_first_use(funded: EngineShard) -> None:
    """It begins with that."""
    assert funded.set_state(("@world:USD", Kind.FREEZE), dry=True) == [Outcome.VALID]
    assert funded.accounts("@world:USD") == [None]
    assert funded.set_state(("@world:USD", Kind.FREEZE)) == [Outcome.COMMITTED]
    legs = Leg(ALICE, Effect.CREDIT, 1, "USD"), Leg("@world:USD", Effect.DEBIT, 1, "USD")
    assert posted(funded, journal(2, *legs)) == [Outcome.ACCOUNT_FROZEN]


def test_entry_of_others_behind_which_no_frame_has_place_is_no_end(funded: EngineShard) -> None:
    """Whatever would be logged is refused before it changes anything, until somebody takes the entry out."""
    greatest, last = f"{2**64 - 1}-{2**64 - 1}", funded.info()["last_frame"]
    funded.raw("XADD", "ledger", greatest, "a", "b")
    before = funded.digest()
    sent = transfer(uuid7(NOW_MS, 2), ALICE, BOB, 5)
    for ask in (lambda: posted(funded, sent), lambda: funded.fenced("expire", 1), funded.bind):
        with pytest.raises(ResponseError, match="not the shard's"):
            ask()
    assert (funded.digest(), funded.account(ALICE).available_minor) == (before, 1_000)
    funded.raw("XDEL", "ledger", greatest)
    funded.raw("XSETID", "ledger", last)
    assert posted(funded, sent) == [Outcome.COMMITTED]


def test_snapshot_without_its_numbers_is_refused(funded: EngineShard) -> None:
    """Its fence would be the empty one, and its horizons none."""
    payload = dumped(funded)
    begin, end = payload.index(b"\5\4meta"), payload.index(b"\5\10accounts")
    assert restore(funded, payload)
    assert not restore(funded, payload[:begin] + payload[end:])
