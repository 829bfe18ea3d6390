"""What the model promises beside the orders of events that the search walks through."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from shard_node.contract import (
    NO_ID,
    Abandon,
    AccountState,
    Decide,
    Decided,
    Effect,
    Finish,
    Kind,
    Leg,
    Other,
    Outcome,
    Post,
    Prepare,
    Prepared,
    Settle,
    Transaction,
    bundle_of,
    new_attempt_id,
)
from shard_node.contract.layout import ACCOUNT_RECORD, NO_ACCOUNT
from shard_node.limits import NO_BALANCE
from tests.model import EngineModel, Faults, LedgerFullError, MalformedError

NOW_MS = 1_000_000
HOLD_ID = bytes([7] * 16)
FIRST, SECOND = new_attempt_id(NOW_MS), new_attempt_id(NOW_MS + 1)
COMMITTED, PREPARED = bytes((Outcome.COMMITTED,)), bytes((Outcome.PREPARED,))


def _shard(**more: object) -> EngineModel:
    """A shard with a, which has 10, and b and c, which have nothing; each in a slot of its own."""
    shard = EngineModel(now_ms=NOW_MS, **more)  # type: ignore[arg-type]
    for slot, name in enumerate("abc"):
        shard.open(name, "EUR", slot)
    shard.accounts["a"] = shard.accounts["a"]._replace(available_minor=10)
    return shard


def _journal(*legs: Leg, number: int = 1, **more: object) -> Transaction:
    kind = more.pop("kind", Kind.JOURNAL)
    return Transaction(bytes([number] * 16), kind, 0, legs, **more)  # type: ignore[arg-type]


def _pay(amount: int, payee: str = "b", *, number: int = 1, owner: int = 0) -> Transaction:
    legs = Leg("a", Effect.DEBIT, amount, "EUR"), Leg(payee, Effect.CREDIT, amount, "EUR", owner)
    return _journal(*legs, number=number, kind=Kind.TRANSFER)


def _v7(ms: int, transaction: Transaction) -> Transaction:
    transaction_id = ms.to_bytes(6) + b"\x70" + bytes(9)
    return Transaction(transaction_id, transaction.kind, 0, transaction.legs)


def _numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def test_a_post_answers_balances_in_the_order_of_the_bundle() -> None:
    """A plain bundle has all payers before all payees; any other one leg after leg."""
    plain = _shard().call(Post(bundle_of([_pay(3, "b"), _pay(4, "c", number=2)])))
    assert plain.codes == (COMMITTED,)
    assert plain.balances == (_numbers(7, 3, 3, 4),)
    other = _journal(
        Leg("a", Effect.DEBIT, 2, "EUR"), Leg("b", Effect.CREDIT, 1, "EUR"), Leg("c", Effect.CREDIT, 1, "EUR")
    )
    general = _shard().call(Post(bundle_of([_pay(3, "b", number=2), other])))
    assert general.balances == (_numbers(7, 3, 5, 4, 1),)


def test_a_refusal_names_its_leg_and_the_first_leg_is_checked_last() -> None:
    """The payee's refusal is recorded though the payer has no money either; nothing is carried out."""
    shard = _shard()
    shard.set_state("b", Kind.FREEZE)
    answer = shard.call(Post(bundle_of([_pay(11, "b"), _pay(11, "c", number=2)])))
    assert answer.codes == (bytes((Outcome.ACCOUNT_FROZEN, Outcome.INSUFFICIENT_FUNDS)),)
    assert answer.legs == (b"\1\0",)
    assert answer.balances == (_numbers(*[NO_BALANCE] * 4),)
    assert shard.accounts["a"].available_minor == 10


def test_an_id_is_posted_once() -> None:
    """The same payload gets its outcome again, another one is REUSED, in the same call too."""
    shard = _shard()
    answer = shard.call(Post(bundle_of([_pay(3), _pay(3), _pay(4)]), with_balances=False))
    assert answer.codes == (bytes((Outcome.COMMITTED, Outcome.COMMITTED, Outcome.TRANSACTION_ID_REUSED)),)
    assert shard.accounts["a"].available_minor == 7


def test_a_version_that_is_not_the_accounts_is_refused_before_the_amount() -> None:
    """VERSION_MISMATCH says that the caller looked at an older balance."""
    legs = Leg("a", Effect.DEBIT, 11, "EUR", 0, 1), Leg("b", Effect.CREDIT, 11, "EUR")
    assert _shard().call(Post(bundle_of([_journal(*legs)]))).codes == (bytes((Outcome.VERSION_MISMATCH,)),)


def test_a_post_waits_for_what_was_committed_across_shards() -> None:
    """Until the commit is settled its outcome is unknown to a post."""
    shard, bundle = _shard(), bundle_of([_pay(3, "x", owner=1)])
    shard.call(Decide([Decided(FIRST, ["p"], b"", b"", bundle)]))
    assert shard.call(Post(bundle)).codes == (bytes((Outcome.OUTCOME_UNKNOWN,)),)
    shard.call(Settle([(FIRST, 1)]))
    assert shard.call(Post(bundle)).codes == (COMMITTED,)


def test_a_commit_lists_those_who_own_a_leg_of_it() -> None:
    """A participant whose transactions were all refused has nothing to finish."""
    shard = _shard()
    transactions = [_pay(3, "x", owner=1), _pay(30, "y", number=2, owner=2)]
    legs = [_journal(*one.legs, number=number) for number, one in enumerate(transactions, start=1)]
    answer = shard.call(Decide([Decided(FIRST, ["p", "q"], b"", b"", bundle_of(legs))], with_balances=False))
    assert answer.codes == (bytes((Outcome.COMMITTED, Outcome.INSUFFICIENT_FUNDS)),)
    assert shard.call(Abandon([FIRST])).unfinished == [{1: "p"}]


def test_busy_names_the_attempt_and_who_decides_it() -> None:
    """R9: the second attempt at a transaction is not refused for what the first one reserves."""
    shard = _shard()
    bundle = bundle_of(
        [_journal(Leg("x", Effect.CREDIT, 10, "EUR"), Leg("a", Effect.DEBIT, 10, "EUR", owner=1))]
    )
    assert shard.call(Prepare([Prepared(FIRST, "d", 1, bundle)])).codes == (PREPARED,)
    answer = shard.call(Prepare([Prepared(SECOND, "e", 1, bundle)]))
    assert answer.codes == (bytes((Outcome.BUSY,)),)
    assert answer.others == ([Other(FIRST, "d")],)
    assert shard.reserved_minor("a") == 10
    assert SECOND not in shard.attempts


def test_an_attempt_of_some_transactions_keeps_what_it_owns() -> None:
    """A transaction without a leg here has code 0, and finishes by its code alone."""
    shard = _shard()
    bundle = bundle_of(
        [
            _journal(Leg("x", Effect.DEBIT, 1, "EUR"), Leg("y", Effect.CREDIT, 1, "EUR", owner=2)),
            _journal(Leg("x", Effect.DEBIT, 1, "EUR"), Leg("b", Effect.CREDIT, 1, "EUR", owner=1), number=2),
        ]
    )
    assert shard.call(Prepare([Prepared(FIRST, "d", 1, bundle)])).codes == (bytes((0, Outcome.PREPARED)),)
    answer = shard.call(Finish([FIRST], [COMMITTED]))
    assert answer.codes == [bytes((Outcome.FINISHED,))]
    assert answer.balances == [_numbers(1)]
    assert shard.call(Finish([FIRST], [COMMITTED])).codes == [bytes((Outcome.FINISHED,))]
    assert [entry.account for entry in shard.ledger if entry.delta] == ["b"]


def test_a_committed_leg_that_is_nowhere_is_an_alarm() -> None:
    """R5: it is answered MISSING_LEG; past the horizon it is only counted."""
    shard = _shard()
    assert shard.call(Finish([FIRST], [COMMITTED])).codes == [bytes((Outcome.MISSING_LEG,))]
    assert shard.alarms == 1
    shard.attempt_horizon_ms = NOW_MS + 1
    assert shard.call(Finish([FIRST], [COMMITTED])).codes == [bytes((Outcome.ATTEMPT_EXPIRED,))]
    assert (shard.alarms, shard.expired_finishes) == (1, 1)


def test_what_was_answered_as_expired_stays_so() -> None:
    """The horizon rises to the cutoff of the answer, whatever the clock does later."""
    shard = _shard(window_ms=1000)
    bundle = bundle_of([_v7(NOW_MS - 1001, _pay(1))])
    assert shard.call(Post(bundle)).codes == (bytes((Outcome.TRANSACTION_ID_EXPIRED,)),)
    assert shard.horizon_ms == NOW_MS - 1000
    shard.now_ms = NOW_MS // 2
    assert shard.call(Post(bundle)).codes == (bytes((Outcome.TRANSACTION_ID_EXPIRED,)),)


def test_a_rotation_carries_over_what_is_not_settled() -> None:
    """R10: an outcome outlives rotations while its commit is kept; what is forgotten is past the horizon."""
    shard = _shard()
    kept, settled = _v7(500, _pay(3, "x", owner=1)), _v7(600, _pay(4, "x", owner=1))
    for attempt_id, one in ((FIRST, kept), (SECOND, settled)):
        shard.call(Decide([Decided(attempt_id, ["p"], b"", b"", bundle_of([one]))]))
    shard.call(Settle([(SECOND, 1)]))
    assert [shard.rotate(), shard.rotate()] == [1, 1]
    assert shard.outcome(kept.decision) is not None
    assert shard.outcome(settled.decision) is None
    assert (shard.horizon_ms, shard.attempt_horizon_ms) == (601, NOW_MS + 2)
    assert shard.rotate(minimum_age_ms=1) == -1


def test_a_pinned_hold_outlives_its_time() -> None:
    """A hold that an attempt will capture does not expire, and is captured after its time."""
    shard = _shard()
    hold = _journal(Leg("a", Effect.HOLD, 5, "EUR"), number=7, kind=Kind.HOLD, bound=10)
    shard.call(Post(bundle_of([hold])))
    capture = _journal(
        Leg("x", Effect.CREDIT, 2, "EUR"),
        Leg("a", Effect.CAPTURE, 2, "EUR", owner=1),
        kind=Kind.CAPTURE,
        related_id=HOLD_ID,
    )
    shard.call(Prepare([Prepared(FIRST, "d", 1, bundle_of([capture]))]))
    shard.now_ms += 10
    assert shard.expire() == 0
    shard.call(Finish([FIRST], [COMMITTED]))
    account = shard.accounts["a"]
    assert (account.available_minor, account.held_minor, shard.holds) == (8, 0, {})
    entry = shard.ledger[-1]
    assert (entry.delta, entry.held_delta, entry.balance) == (-2, -5, 8)


def test_an_account_says_what_prepared_debits_reserve() -> None:
    """The record of an account has what is held only because debits are prepared; of none it says so."""
    shard = _shard()
    debit = _journal(Leg("x", Effect.CREDIT, 4, "EUR"), Leg("a", Effect.DEBIT, 4, "EUR", owner=1))
    shard.call(Prepare([Prepared(FIRST, "d", 1, bundle_of([debit]))]))
    record = ACCOUNT_RECORD.unpack(shard.account_record("a"))
    assert record == (6, 4, 0, 0, 0, 0, 4, 0, AccountState.OPEN, b"EUR")
    assert ACCOUNT_RECORD.unpack(shard.account_record("nobody"))[8] == NO_ACCOUNT


def test_an_account_that_is_needed_is_not_closed() -> None:
    """ACCOUNT_NOT_EMPTY while it has money, ACCOUNT_IN_USE while a credit is prepared for it."""
    shard = _shard()
    assert shard.set_state("a", Kind.CLOSE)[0] == Outcome.ACCOUNT_NOT_EMPTY
    credit = _journal(Leg("x", Effect.DEBIT, 4, "EUR"), Leg("b", Effect.CREDIT, 4, "EUR", owner=1))
    shard.call(Prepare([Prepared(FIRST, "d", 1, bundle_of([credit]))]))
    assert shard.set_state("b", Kind.CLOSE)[0] == Outcome.ACCOUNT_IN_USE
    assert shard.set_state("c", Kind.CLOSE)[0] == Outcome.COMMITTED


def test_a_full_ledger_begins_nothing_new_and_ends_what_is_begun() -> None:
    """LEDGER_FULL meets post, prepare, decide, open and set_state; finish, settle and abandon go on."""
    shard = _shard()
    credit = bundle_of(
        [_journal(Leg("x", Effect.DEBIT, 4, "EUR"), Leg("b", Effect.CREDIT, 4, "EUR", owner=1))]
    )
    shard.call(Prepare([Prepared(FIRST, "d", 1, credit)]))
    shard.backlog_limit = shard.backlog
    new: list[Callable[[], object]] = [
        lambda: shard.call(Post(bundle_of([_pay(1)]))),
        lambda: shard.call(Prepare([Prepared(SECOND, "d", 1, credit)])),
        lambda: shard.call(Decide([])),
        lambda: shard.open("d", "EUR", 3),
        lambda: shard.set_state("a", Kind.FREEZE),
    ]
    for begin in new:
        with pytest.raises(LedgerFullError):
            begin()
    assert shard.call(Abandon([SECOND])).codes == [bytes((Outcome.ABANDONED,))]
    assert shard.call(Finish([FIRST], [COMMITTED])).codes == [bytes((Outcome.FINISHED,))]
    assert shard.call(Settle([(SECOND, 1)])).codes == ()


@pytest.mark.parametrize(
    "transaction",
    [
        _journal(Leg("a", Effect.DEBIT, 1, "EUR"), Leg("a", Effect.CREDIT, 1, "EUR", owner=1)),
        _journal(Leg("a", Effect.DEBIT, 1, "EUR"), Leg("b", Effect.CREDIT, 1, "EUR", owner=2)),
        _journal(Leg("a", Effect.DEBIT, 1, "EUR", owner=1), Leg("b", Effect.CREDIT, 1, "EUR", owner=1)),
    ],
    ids=["an account twice", "no such participant", "nothing to decide"],
)
def test_a_bundle_that_makes_no_sense_is_malformed(transaction: Transaction) -> None:
    """It is not decided, and changes nothing."""
    shard = _shard()
    with pytest.raises(MalformedError):
        shard.call(Decide([Decided(FIRST, ["p"], b"", b"", bundle_of([transaction]))]))
    assert FIRST not in shard.current.ended


def test_an_attempt_of_the_future_is_malformed() -> None:
    """It would push the horizon of attempts ahead of the clock."""
    with pytest.raises(MalformedError):
        _shard().call(Abandon([new_attempt_id(NOW_MS + 60_001)]))


def test_a_check_answers_leg_by_leg_and_changes_nothing() -> None:
    """Each leg says by itself whether it could be carried out now."""
    shard = _shard()
    before = shard.freeze()
    void = _journal(Leg("c", Effect.VOID, 0, "EUR"), kind=Kind.VOID, related_id=NO_ID, number=2)
    codes = shard.check(bundle_of([_pay(11), void]))
    assert codes == bytes((Outcome.INSUFFICIENT_FUNDS, 0, Outcome.HOLD_NOT_ACTIVE))
    assert shard.freeze() == before


def test_a_frozen_state_thaws_to_the_same() -> None:
    """The search goes on from a copy as from the shard itself."""
    shard = _shard()
    shard.call(Decide([Decided(FIRST, ["p"], b"", b"", bundle_of([_pay(3, "x", owner=1)]))]))
    other = EngineModel(faults=Faults())
    other.thaw(shard.freeze())
    assert other.freeze() == shard.freeze()
    assert [one.attempt_id for one in other.in_doubt()] == [FIRST]
