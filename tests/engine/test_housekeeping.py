"""Forgetting, ending holds, trimming the ledger, marking the log, looking into what is in doubt."""

from __future__ import annotations

import struct

import pytest
from redis.exceptions import ResponseError

from shard_node.contract import (
    ENTRY_HEAD,
    FRAME_HEAD,
    Decide,
    Decided,
    FrameKind,
    Kind,
    Outcome,
    Prepare,
    Prepared,
    Settle,
    bundle_of,
)
from shard_node.contract.layout import OUTCOME_RECORD
from tests.engine.busy import ALICE, BOB, HOUR_MS, WORLD, attempt_id, capture, hold, posted, transfer, uuid7
from tests.engine.conftest import NOW_MS
from tests.engine.shard import EngineShard

OTHER = "test/shard-1"


def funded(shard: EngineShard) -> None:
    """Alice with 1000 minor units, Bob with none."""
    shard.open_plain(ALICE, BOB)
    assert posted(shard, transfer(uuid7(NOW_MS, 1), WORLD, ALICE, 1_000)) == [Outcome.COMMITTED]


def test_rotation_that_was_decided_on_before_another_does_nothing(shard: EngineShard) -> None:
    """Two that decide on the same forget one generation, not two; nor does a repetition."""
    funded(shard)
    rotated = shard.info()["rotated_ms"]
    assert shard.fenced("rotate", 0, 0, rotated) == 0
    before = shard.digest()
    assert shard.fenced("rotate", 0, 0, rotated) == -1
    for malformed in (-1, "x", ""):
        with pytest.raises(ResponseError, match="malformed rotated"):
            shard.fenced("rotate", 0, 0, malformed)
    assert shard.digest() == before
    shard.server.restart(killed=True)
    assert shard.digest() == before
    assert shard.fenced("rotate", 0, 0, shard.info()["rotated_ms"]) == 0


def test_rotation_keeps_a_window_and_forgets_what_is_older(shard: EngineShard) -> None:
    """After one rotation an id is remembered, after two it is expired, and no retry is carried out."""
    funded(shard)
    payment = transfer(uuid7(NOW_MS, 2), ALICE, BOB, 10)
    assert posted(shard, payment) == [Outcome.COMMITTED]
    assert shard.fenced("rotate", 0, 0) == 0
    assert posted(shard, payment) == [Outcome.COMMITTED]
    assert shard.fenced("rotate", 0, 0) == 0
    assert posted(shard, payment) == [Outcome.TRANSACTION_ID_EXPIRED]
    assert shard.account(BOB).available_minor == 10
    assert shard.info()["horizon_ms"] == NOW_MS + 1


def test_two_rotations_in_a_row_are_one(shard: EngineShard) -> None:
    """A rotation within the given age of the last one does nothing, and says -1."""
    assert shard.fenced("rotate", HOUR_MS, 0) == 0
    before = shard.digest()
    assert shard.fenced("rotate", HOUR_MS, 0) == -1
    assert shard.digest() == before
    shard.server.set_clock(NOW_MS + HOUR_MS)
    assert shard.fenced("rotate", HOUR_MS, 0) == 0


def test_rotation_waits_for_the_archive_where_that_is_asked_for(shard: EngineShard) -> None:
    """With `once-archived` nothing is forgotten before the archive has what was decided before."""
    funded(shard)
    shard.fenced("rotate", 0, 0)
    shard.server.set_clock(NOW_MS + 1)
    assert posted(shard, transfer(uuid7(NOW_MS, 3), ALICE, BOB, 1)) == [Outcome.COMMITTED]
    assert shard.fenced("rotate", 0, 1) == -1
    first, *_, last = (frame for frame, _ in shard.frames())
    shard.fenced("archived", first, 1, b"hash", 1)
    assert shard.info()["backlog_entries"] > 0
    shard.fenced("archived", last, 2, b"hash", 1)
    assert shard.fenced("rotate", 0, 1) == 0


def test_expired_holds_give_back_what_they_reserved_longest_overdue_first(shard: EngineShard) -> None:
    """`expire` ends holds whose time is over, by their time; a pinned one waits for its attempt."""
    funded(shard)
    lives = {1: 3_000, 2: 1_000, 3: 2_000, 4: HOUR_MS}
    holds = [hold(uuid7(NOW_MS, 10 + i), ALICE, i, life) for i, life in lives.items()]
    assert set(posted(shard, *holds)) == {Outcome.COMMITTED}
    pinning = bundle_of([capture(uuid7(NOW_MS, 20), holds[0].transaction_id, ALICE, "dora", 1, owner=1)])
    prepared = shard.call(Prepare([Prepared(attempt_id(NOW_MS, 1), OTHER, 1, pinning)]))
    assert prepared.codes == [bytes((Outcome.PREPARED,))]
    shard.server.set_clock(NOW_MS + 999)
    assert shard.fenced("expire", 10) == 0
    shard.server.set_clock(NOW_MS + 1_000)
    assert shard.fenced("expire", 10) == 1
    fields = shard.frames()[-1][1]
    assert FRAME_HEAD.unpack(fields[b"h"]) == (1, FrameKind.EXPIRE, 1)
    head = ENTRY_HEAD.unpack_from(fields[b"r0"])
    assert head[0] == holds[1].transaction_id
    assert head[1] == holds[1].fingerprint
    assert head[2:5] == (0, -2, 1_000)
    assert head[7] == Kind.EXPIRY
    assert fields[b"r0"][ENTRY_HEAD.size :] == ALICE.encode() + b"hotel"
    shard.server.set_clock(NOW_MS + 5_000)
    assert shard.fenced("expire", 10) == 1
    assert shard.fenced("expire", 10) == 0
    alice = shard.account(ALICE)
    assert (alice.available_minor, alice.held_minor) == (1_000 - 1 - 4, 1 + 4)


def test_archived_trims_the_ledger_once(shard: EngineShard) -> None:
    """What the archive has goes, the head of its chain stays; an earlier or repeated batch does nothing."""
    funded(shard)
    posted(shard, transfer(uuid7(NOW_MS, 2), ALICE, BOB, 10))
    frames = [frame for frame, _ in shard.frames()]
    backlog = shard.info()["backlog_entries"]
    for _ in range(2):
        shard.fenced("archived", frames[1], 7, b"head", 3)
        assert [frame for frame, _ in shard.frames()] == frames[2:]
        assert shard.info()["backlog_entries"] == backlog - 3
    shard.fenced("archived", frames[2], 6, b"older", 1)
    info = shard.info()
    assert (info["archived_number"], info["archived_head"], info["archived_frame"]) == (7, b"head", frames[1])
    assert [frame for frame, _ in shard.frames()] == frames[2:]
    assert info["alarms"] == 0
    shard.fenced("archived", frames[2], 8, b"head", 100)
    assert (shard.info()["backlog_entries"], shard.info()["alarms"]) == (0, 1)


def test_frames_go_on_behind_a_trimmed_ledger(shard: EngineShard) -> None:
    """A frame's id is later than that of any before, also when all of these were trimmed."""
    funded(shard)
    last = shard.frames()[-1][0]
    shard.fenced("archived", last, 1, b"", 1)
    shard.server.redis.delete("ledger")
    posted(shard, transfer(uuid7(NOW_MS, 2), ALICE, BOB, 10))
    [(after, _)] = shard.frames()
    assert [int(part) for part in after.split(b"-")] > [int(part) for part in last.split(b"-")]


def test_mark_names_the_last_frame_and_changes_nothing(shard: EngineShard) -> None:
    """A mark is logged, so that it can be confirmed, yet leaves all but the time as it is."""
    funded(shard)
    calls = shard.info()["calls"]
    offset = shard.server.redis.info("persistence")["aof_current_size"]
    now_ms, frame = shard.fenced("mark")
    assert (now_ms, frame) == (NOW_MS, shard.frames()[-1][0])
    assert shard.info()["calls"] == calls
    assert shard.server.redis.info("persistence")["aof_current_size"] > offset


def test_outcomes_are_read_with_purchases(shard: EngineShard) -> None:
    """Each decision has its code, leg, time, amount, currency, fingerprint; a purchase says who paid whom."""
    funded(shard)
    purchase = transfer(uuid7(NOW_MS, 2), ALICE, BOB, 10, kind=Kind.PURCHASE)
    refused = transfer(uuid7(NOW_MS, 3), BOB, "nobody", 11)
    unknown = transfer(uuid7(NOW_MS, 4), ALICE, BOB, 12)
    posted(shard, purchase, refused)
    decisions = b"".join(row.decision for row in (purchase, refused, unknown))
    answer = shard.fenced("outcomes", decisions)
    code, leg, decided, amount, currency, fingerprint = OUTCOME_RECORD.unpack_from(answer)
    assert (code, leg, amount, currency) == (Outcome.COMMITTED, 0, 10, b"EUR")
    # Ticks are 16 microseconds, and each commit has one of its own.
    assert 0 <= int.from_bytes(decided, "little") - NOW_MS <= 1
    assert fingerprint == purchase.fingerprint
    at = OUTCOME_RECORD.size
    assert answer[at:].startswith(b"\x05alice\x03bob")
    at += 10
    assert OUTCOME_RECORD.unpack_from(answer, at)[:2] == (Outcome.ACCOUNT_NOT_FOUND, 1)
    at += OUTCOME_RECORD.size
    assert answer[at:] == bytes(2 + OUTCOME_RECORD.size + 2)
    for malformed in (b"", decisions[:-1]):
        with pytest.raises(ResponseError, match="malformed decisions"):
            shard.fenced("outcomes", malformed)


def test_what_is_in_doubt_is_listed_in_order(shard: EngineShard) -> None:
    """Attempts and commits come by their serial numbers, a page a call, with all that recovery needs."""
    funded(shard)
    committed, kept = attempt_id(NOW_MS, 1), attempt_id(NOW_MS, 2)
    leaving = bundle_of([transfer(uuid7(NOW_MS, 5), ALICE, "dora", 5, payee_owner=1)])
    shard.call(Decide([Decided(committed, [OTHER], b"", b"", leaving)]))
    incoming = bundle_of([transfer(uuid7(NOW_MS, 6), "dora", BOB, 5, payee_owner=1)])
    shard.call(Prepare([Prepared(kept, OTHER, 1, incoming)]))
    first, second = shard.fenced("in_doubt", 0, 10)
    assert first == [
        first[0],
        b"commit",
        committed,
        NOW_MS,
        [[OTHER.encode(), 0]],
        bytes((Outcome.COMMITTED,)),
        leaving,
    ]
    assert second == [
        second[0],
        b"attempt",
        kept,
        NOW_MS,
        OTHER.encode(),
        1,
        bytes((Outcome.PREPARED,)),
        incoming,
    ]
    assert first[0] < second[0]
    assert shard.fenced("in_doubt", 0, 1) == [first]
    assert shard.fenced("in_doubt", first[0], 1) == [second]
    assert shard.fenced("in_doubt", second[0], 1) == []
    shard.call(Settle([(committed, 1)]))
    assert shard.fenced("in_doubt", 0, 10) == [second]


@pytest.mark.parametrize(
    "arguments",
    [
        ("rotate", -1, 0),
        ("rotate", 0, 2),
        ("expire", 0),
        ("expire", 8193),
        ("archived", "1", 1, "", 1),
        ("archived", "1-1-1", 1, "", 1),
        ("archived", "-1-1", 1, "", 1),
        ("archived", " 1-1", 1, "", 1),
        ("archived", "1-+1", 1, "", 1),
        ("archived", f"{NOW_MS}-1", 1, "", 1),
        ("archived", f"{2**64}-1", 1, "", 1),
        ("archived", f"1-{2**64 - 1}", 1, "", 1),
        ("archived", "1-1", 0, "", 1),
        ("archived", "1-1", 1, "x" * 65, 1),
        ("archived", "1-1", 1, "", -1),
        ("in_doubt", -1, 1),
        ("in_doubt", 0, 0),
        ("in_doubt", 0, 1025),
    ],
)
def test_malformed_arguments_are_refused(shard: EngineShard, arguments: tuple[str | int, ...]) -> None:
    """Numbers out of range and ids that are none are errors, and change nothing."""
    before = shard.digest()
    with pytest.raises(ResponseError, match="malformed"):
        shard.fenced(str(arguments[0]), *arguments[1:])
    assert shard.digest() == before


def test_memory_usage_grows_with_what_is_held(shard: EngineShard) -> None:
    """MEMORY USAGE counts tables and what records own beside them."""
    before = shard.server.redis.memory_usage("tallystick")
    assert before is not None
    shard.open_plain(*(f"{'long' * 10}-{number}" for number in range(8_000)))
    after = shard.server.redis.memory_usage("tallystick")
    assert after is not None
    assert after - before > 8_000 * (64 + struct.calcsize("<qqq"))


def test_frames_are_dated_by_the_shards_time(shard: EngineShard) -> None:
    """A frame's id begins with the time of its call."""
    shard.server.set_clock(NOW_MS + 123)
    shard.open_plain(ALICE)
    assert shard.frames()[-1][0] == f"{NOW_MS + 123}-0".encode()
