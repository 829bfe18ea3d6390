"""Outcomes are remembered for a whole window, and not for ever."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from shard_node.agent.rotation import Peer, long_in_doubt_ms, may_rotate
from shard_node.cluster.slots import slot
from shard_node.contract import (
    AccountTerms,
    Answer,
    Decide,
    Decided,
    Finish,
    Kind,
    Other,
    Outcome,
    Prepare,
    Prepared,
    RememberedOutcome,
    Settle,
    Transaction,
    bundle_of,
    unpack_outcomes,
)
from tests.engine.busy import ALICE, BOB, HOUR_MS, OTHER, WORLD, attempt_id, posted, transfer, uuid7
from tests.engine.conftest import NOW_MS
from tests.engine.shard import EngineShard

UUID4 = UUID("11111111-2222-4333-8444-555555555555").bytes
COMMITTED = bytes((Outcome.COMMITTED,))


def deposit(transaction_id: bytes) -> Transaction:
    """Five minor units for alice."""
    return replace(transfer(transaction_id, WORLD, ALICE, 5, kind=Kind.DEPOSIT), deciding_slot=slot(ALICE))


def payment(transaction_id: bytes, amount: int = 5) -> Transaction:
    """To dora, whose account is on another shard."""
    return transfer(transaction_id, ALICE, "dora", amount, payee_owner=1)


def decided(shard: EngineShard, number: int, *rows: Transaction) -> Answer:
    """What is answered to an attempt at payments, which began ``number`` milliseconds after NOW_MS."""
    attempt = Decided(attempt_id(NOW_MS + number, number), [OTHER], b"", b"", bundle_of(rows))
    return shard.call(Decide([attempt]))


def rotate(shard: EngineShard) -> int:
    """Forgets a generation; how many outcomes were carried over."""
    carried: int = shard.fenced("rotate", 0, 0)
    return carried


def remembered(shard: EngineShard, *rows: Transaction) -> list[RememberedOutcome | None]:
    """What is remembered of each."""
    decisions = b"".join(row.transaction_id + row.deciding_slot.to_bytes(2, "little") for row in rows)
    return unpack_outcomes(shard.fenced("outcomes", decisions))


@pytest.fixture
def opened(shard: EngineShard) -> EngineShard:
    """A shard with alice, who has a credit line of 100, and bob."""
    shard.open(AccountTerms(ALICE, slot(ALICE), "EUR", -100))
    shard.open_plain(BOB)
    return shard


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
    """A whole window has passed, every shard answers, and none has long been in doubt."""
    assert may_rotate(elapsed, 10.0, peers) is expected


def test_in_doubt_for_half_a_window_is_long() -> None:
    """What a rotation forgets is a window old, so the other half is margin."""
    assert long_in_doubt_ms(120) == 60_000


def test_expired_stays_expired_when_the_window_grows(opened: EngineShard) -> None:
    """Somebody may have acted on the answer: no setting takes it back."""
    opened.bind(window_ms=HOUR_MS)
    old = uuid7(NOW_MS - HOUR_MS - 5_000, 1)
    assert posted(opened, deposit(old)) == [Outcome.TRANSACTION_ID_EXPIRED]
    opened.bind(window_ms=100 * HOUR_MS)
    assert posted(opened, deposit(old)) == [Outcome.TRANSACTION_ID_EXPIRED]
    assert decided(opened, 1, payment(old)).codes == [bytes((Outcome.TRANSACTION_ID_EXPIRED,))]
    assert opened.account(ALICE).available_minor == 0


def test_outcome_survives_one_rotation_and_not_two(opened: EngineShard) -> None:
    """A UUIDv4 is exactly-once within the window; after two rotations it is a new transfer."""
    for rotations, available in ((0, 5), (1, 5), (1, 10)):
        for _ in range(rotations):
            rotate(opened)
        assert posted(opened, deposit(UUID4)) == [Outcome.COMMITTED]
        assert opened.account(ALICE).available_minor == available


def test_forgotten_uuid7_is_expired_for_ever(opened: EngineShard) -> None:
    """Exactly once without end: what could have been forgotten is refused, what is younger goes."""
    for age_ms in (2_000, 1_000):
        posted(opened, deposit(uuid7(NOW_MS - age_ms, 1)))
        rotate(opened)
    late = [
        deposit(uuid7(NOW_MS - age_ms, number)) for age_ms, number in ((2_000, 1), (2_000, 2), (1_999, 3))
    ]
    assert posted(opened, *late) == [
        Outcome.TRANSACTION_ID_EXPIRED,
        Outcome.TRANSACTION_ID_EXPIRED,
        Outcome.COMMITTED,
    ]
    assert opened.account(ALICE).available_minor == 15


def test_uuid7_older_than_the_window_is_expired_at_once(opened: EngineShard) -> None:
    """Also when nothing was ever forgotten; one that is remembered gets its outcome."""
    opened.bind(window_ms=HOUR_MS)
    old, young = (deposit(uuid7(NOW_MS - HOUR_MS + more_ms, 1)) for more_ms in (-5_000, 60_000))
    expected = [Outcome.TRANSACTION_ID_EXPIRED, Outcome.COMMITTED]
    assert posted(opened, old, young) == expected
    opened.bind(window_ms=1_000)
    assert posted(opened, old, young) == expected
    assert opened.account(ALICE).available_minor == 5


def test_unsettled_commit_is_carried_over(opened: EngineShard) -> None:
    """However long the participant is away, the commit stays known, and with it its transaction."""
    row = payment(uuid7(NOW_MS, 1))
    assert decided(opened, 1, row).codes == [COMMITTED]
    for _ in range(3):
        assert rotate(opened) == 1
    opened.server.set_clock(NOW_MS + 10)
    assert decided(opened, 1, row).codes == [COMMITTED]
    another = decided(opened, 2, row)
    assert another.codes == [bytes((Outcome.ELSEWHERE,))]
    assert another.others == [[Other(attempt_id(NOW_MS + 1, 1))]]
    opened.call(Settle([(attempt_id(NOW_MS + 1, 1), 1)]))
    assert rotate(opened) == 0
    # Only the older generation has it, into which nothing but it has come.
    assert decided(opened, 3, row).codes == [bytes((Outcome.SETTLED,))]
    rotate(opened)
    assert remembered(opened, row) == [None]
    assert opened.account(ALICE).available_minor == -5


def test_only_what_was_committed_is_carried_over(opened: EngineShard) -> None:
    """The refusals of an attempt that is unsettled are forgotten like all others."""
    rows = [payment(uuid7(NOW_MS, number), amount) for number, amount in ((1, 5), (2, 500), (3, 5))]
    decided(opened, 1, *rows)
    assert rotate(opened) == 2
    assert rotate(opened) == 2
    assert [one and one.outcome for one in remembered(opened, *rows)] == [
        Outcome.COMMITTED,
        None,
        Outcome.COMMITTED,
    ]


def test_an_attempt_that_ended_is_known_until_it_has_expired(opened: EngineShard) -> None:
    """R4, R10: a late prepare of it keeps nothing and a late finish changes nothing, whenever they come."""
    name = attempt_id(NOW_MS, 1)
    incoming = bundle_of([transfer(uuid7(NOW_MS, 1), "dora", BOB, 5, payee_owner=1)])
    prepare, finish = Prepare([Prepared(name, OTHER, 1, incoming)]), Finish([name], [COMMITTED])
    opened.call(prepare)
    opened.call(finish)
    for _ in range(2):
        assert opened.call(prepare).codes == [bytes((Outcome.ENDED,))]
        assert opened.call(finish).codes == [bytes((Outcome.FINISHED,))]
        rotate(opened)
    assert opened.info()["ended_attempts"] == 0
    for late in (prepare, finish):
        assert opened.call(late).codes == [bytes((Outcome.ATTEMPT_EXPIRED,))]
    assert (opened.info()["alarms"], opened.info()["prepared_attempts"]) == (0, 0)
    assert opened.account(BOB).available_minor == 5


def test_the_older_generation_is_looked_up(opened: EngineShard) -> None:
    """A repetition is told from a new transfer until forgotten, though most batches never look there."""
    rows = [deposit(UUID4), deposit(uuid7(NOW_MS - 2_000, 1)), deposit(uuid7(NOW_MS - 1_000, 2))]
    posted(opened, *rows)
    rotate(opened)
    # A younger generation, which does not say how young the older one is.
    posted(opened, deposit(uuid7(NOW_MS, 3)))
    for one in rows:
        assert posted(opened, one) == [Outcome.COMMITTED]
    # Among younger ones, too.
    posted(opened, deposit(uuid7(NOW_MS, 4)), *rows)
    assert opened.account(ALICE).available_minor == 25
