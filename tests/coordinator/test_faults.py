"""Each fault that the commit protocol must survive, one by one, against real Redis: plain transfers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from shard_node.client import NoReply
from shard_node.contract import Finish, Kind, Outcome, Prepare, Prepared, Transaction
from shard_node.errors import StaleEpochError
from shard_node.limits import MAX_MINOR
from tests.coordinator.bank import PAYER_HAS, Bank, name_on
from tests.coordinator.payloads import WORLD, timed_id, transfer
from tests.real_shards import RealShards

MOVED = (PAYER_HAS - 30, 30)
NOT_MOVED = (PAYER_HAS, 0)
CLEAN = (0, 0)
IN_DOUBT = "cannot be dropped"


@pytest.fixture
async def bank(shards: RealShards) -> AsyncIterator[Bank]:
    """A payer with 100 on one shard, a payee on another."""
    made = await Bank.open(shards)
    yield made
    assert await made.alarms() == 0
    await made.close()


@pytest.mark.parametrize(
    "steps", [0, 1, 2, 3], ids=["before prepare", "after prepare", "after decide", "after finish"]
)
async def test_coordinator_dies_after_any_step(bank: Bank, steps: int) -> None:
    """Another ends what it left: only what was decided has moved; the client's retry moves it once."""
    row = bank.transfer()
    await bank.start(bank.attempt(row), steps)
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == (MOVED if steps > 1 else NOT_MOVED)
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN


async def test_coordinator_dies_with_a_refusal_undelivered(bank: Bank) -> None:
    """The payer lacks funds, the coordinator dies before it drops the leg: the refusal stands."""
    row = bank.transfer(PAYER_HAS + 1)
    await bank.start(bank.attempt(row), 2)
    assert await bank.in_doubt() == (1, 0)
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.run(row) is Outcome.INSUFFICIENT_FUNDS
    assert await bank.balances() == NOT_MOVED


@pytest.mark.parametrize("command", ["prepare", "decide", "finish"])
async def test_answer_lost(bank: Bank, command: str) -> None:
    """The caller hears that the outcome is unknown; a retry of the same id moves once."""
    row = bank.transfer()
    bank.losing(command)
    assert await bank.run(row) is Outcome.OUTCOME_UNKNOWN
    bank.losing()
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == MOVED
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN


async def test_answer_lost_of_a_settlement(bank: Bank) -> None:
    """It was only to be forgotten: the caller has its answer, and recovery settles again."""
    bank.losing("settle")
    assert await bank.run(bank.transfer()) is Outcome.COMMITTED
    bank.losing()
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == MOVED


async def test_answer_lost_after_decide_ends_with_the_retry(bank: Bank) -> None:
    """A retry meets a commit that is not its own: it ends that one itself, and answers COMMITTED at once."""
    row = bank.transfer()
    bank.losing("decide")
    assert await bank.run(row) is Outcome.OUTCOME_UNKNOWN
    bank.losing()
    assert await bank.in_doubt() == (1, 1)
    assert await bank.run(row) is Outcome.COMMITTED
    # No resolver has looked; both attempts have ended.
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == MOVED


async def test_retry_of_what_others_committed_is_unknown_while_it_cannot_be_ended(bank: Bank) -> None:
    """The other commit's finish gets no answer: its money may not be there yet."""
    row = bank.transfer()
    await bank.start(bank.attempt(row), 2)
    bank.losing("finish")
    assert await bank.run(row) is Outcome.OUTCOME_UNKNOWN
    bank.losing()
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == MOVED


async def test_retry_among_others_waits_for_its_own_commit_only(bank: Bank) -> None:
    """One row of a bundle is in another's commit: each moves once, and the refused one keeps its refusal."""
    row = bank.transfer(10)
    await bank.start(bank.attempt(row), 2)
    found = await bank.commit(bank.transfer(20), row, bank.transfer(PAYER_HAS))
    assert found == [(Outcome.COMMITTED, 0), (Outcome.COMMITTED, 0), (Outcome.INSUFFICIENT_FUNDS, 0)]
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == MOVED


async def test_decide_arrives_after_the_resolver_abandoned(bank: Bank) -> None:
    """The late decide is answered ABANDONED and moves nothing, however late; a new attempt may commit."""
    row = bank.transfer()
    attempt = bank.attempt(row)
    await bank.prepare(attempt)
    await bank.resolve()
    assert await bank.decide(attempt) == [Outcome.ABANDONED]
    assert await bank.balances() == NOT_MOVED
    assert await bank.in_doubt() == CLEAN
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.decide(attempt) == [Outcome.ABANDONED]
    assert await bank.balances() == MOVED


async def test_decide_arrives_twice(bank: Bank) -> None:
    """The second one moves nothing, and answers each row as the first one did."""
    attempt = bank.attempt(bank.transfer(), bank.transfer(PAYER_HAS))
    await bank.prepare(attempt)
    first = await bank.decide(attempt)
    assert first == [Outcome.COMMITTED, Outcome.INSUFFICIENT_FUNDS]
    assert await bank.decide(attempt) == first
    await bank.resolve()
    assert await bank.decide(attempt) == [Outcome.SETTLED, Outcome.INSUFFICIENT_FUNDS]
    assert await bank.balances() == MOVED


async def test_delayed_duplicate_prepare_after_finish(bank: Bank) -> None:
    """R4: its attempt has ended, so that it does nothing, and the resolver cannot credit twice."""
    attempt = bank.attempt(bank.transfer())
    await bank.start(attempt, 3)
    assert await bank.prepare(attempt) == [Outcome.ENDED]
    assert await bank.in_doubt() == (0, 1)
    await bank.resolve()
    assert await bank.prepare(attempt) == [Outcome.ENDED]
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == MOVED


async def test_delayed_duplicate_prepare_after_it_was_abandoned(bank: Bank) -> None:
    """R4: an attempt that was dropped stays so."""
    attempt = bank.attempt(bank.transfer())
    await bank.prepare(attempt)
    await bank.resolve()
    assert await bank.prepare(attempt) == [Outcome.ENDED]
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == NOT_MOVED


async def test_ended_attempts_are_known_until_they_are_too_old(bank: Bank) -> None:
    """R4, R10: a shard that has forgotten them refuses all of their age."""
    attempt = bank.attempt(bank.transfer())
    await bank.start(attempt, 3)
    await bank.resolve()
    for expected in (Outcome.ENDED, Outcome.ENDED, Outcome.ATTEMPT_EXPIRED):
        assert await bank.prepare(attempt) == [expected]
        await bank.rotate(1)
    assert await bank.finish(attempt) == [Outcome.ATTEMPT_EXPIRED]
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == MOVED


async def test_decide_of_an_attempt_that_is_too_old(bank: Bank) -> None:
    """R10: a deciding shard that may have forgotten that the attempt was abandoned decides it no more."""
    attempt = bank.attempt(bank.transfer())
    await bank.prepare(attempt)
    await bank.resolve()
    for _ in range(2):
        await bank.rotate(0)
    assert await bank.decide(attempt) == [Outcome.ATTEMPT_EXPIRED]
    assert await bank.balances() == NOT_MOVED


async def test_delayed_prepare_of_an_attempt_that_was_refused(bank: Bank) -> None:
    """Of an attempt that kept nothing nothing is remembered: it becomes a stale leg, which recovery drops."""
    attempt = bank.attempt(bank.transfer())
    shard = bank.cluster.shards[1]
    await shard.set_state([(bank.payee, Kind.FREEZE)])
    await bank.start(attempt, 3)
    await shard.set_state([(bank.payee, Kind.UNFREEZE)])
    assert await bank.prepare(attempt) == [Outcome.PREPARED]
    assert await bank.in_doubt() == (1, 0)
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == NOT_MOVED


async def test_finish_arrives_twice(bank: Bank) -> None:
    """The second one does nothing, also in the same call."""
    attempt = bank.attempt(bank.transfer())
    await bank.prepare(attempt)
    await bank.decide(attempt)
    name, code = attempt.attempt_id, bytes((Outcome.COMMITTED,))
    twice = await bank.ask(1, Finish([name, name], [code, code]))
    assert not isinstance(twice, NoReply)
    assert list(twice.codes) == [bytes((Outcome.FINISHED,))] * 2
    assert await bank.finish(attempt) == [Outcome.FINISHED]
    assert await bank.balances() == MOVED


@pytest.mark.parametrize("change", [{"amount": 31}, {"details": b"other"}])
async def test_same_id_with_another_payload(bank: Bank, change: dict[str, object]) -> None:
    """It is refused; the original stands untouched, and no leg is left."""
    row = bank.transfer()
    assert await bank.run(row) is Outcome.COMMITTED
    other = bank.transfer(transaction_id=row.transaction_id, **change)  # type: ignore[arg-type]
    assert await bank.run(other) is Outcome.TRANSACTION_ID_REUSED
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN


@pytest.fixture
def thrice(bank: Bank) -> list[Transaction]:
    """A transfer twice, and another payload under its id."""
    row = bank.transfer()
    return [row, row, bank.transfer(31, transaction_id=row.transaction_id)]


THRICE = [(Outcome.COMMITTED, 0), (Outcome.COMMITTED, 0), (Outcome.TRANSACTION_ID_REUSED, 0)]


async def test_same_id_twice_in_one_batch(bank: Bank, thrice: list[Transaction]) -> None:
    """One moves, the other gets the same outcome; another payload in the batch is refused."""
    assert await bank.commit(*thrice) == THRICE
    assert await bank.balances() == MOVED
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN


@pytest.mark.parametrize("first", [0, 1], ids=["by its commit", "by its legs"])
async def test_same_id_twice_in_a_batch_that_others_end(
    bank: Bank, thrice: list[Transaction], first: int
) -> None:
    """Whoever ends the attempt, and from whichever shard, applies the transfer once."""
    await bank.start(bank.attempt(*thrice), 2)
    await bank.resolve(first, 1 - first)
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN
    assert await bank.commit(*thrice) == THRICE
    assert await bank.balances() == MOVED


async def test_same_id_twice_in_a_batch_that_is_decided_twice(bank: Bank, thrice: list[Transaction]) -> None:
    """As when a connection breaks under the call, which is then repeated: the same answer."""
    attempt = bank.attempt(*thrice)
    await bank.prepare(attempt)
    first = await bank.decide(attempt)
    assert first == [Outcome.COMMITTED, Outcome.ELSEWHERE, Outcome.TRANSACTION_ID_REUSED]
    assert await bank.decide(attempt) == first
    await bank.resolve(1, 0)
    assert await bank.balances() == MOVED


async def test_same_id_twice_in_one_call_on_one_shard(bank: Bank, thrice: list[Transaction]) -> None:
    """The same without two phases."""
    await bank.move(bank.payee, 0)
    assert await bank.post(thrice) == [code for code, _ in THRICE]
    assert await bank.balances() == MOVED


MEETS_NOTHING = [("payer", 0), ("payer", 1), ("payee", 0), ("payee", 3)]
IS_IN_THE_WAY = [("payer", 2), ("payer", 3), ("payee", 1), ("payee", 2)]


@pytest.mark.parametrize(("which", "steps"), MEETS_NOTHING)
async def test_slot_moves_to_another_shard_meanwhile(bank: Bank, which: str, steps: int) -> None:
    """Outcomes move along, attempts and commits stay: a retry on the new map moves once."""
    row = bank.transfer()
    await bank.start(bank.attempt(row), steps)
    await bank.move(getattr(bank, which), 2)
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == MOVED
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == MOVED


@pytest.mark.parametrize(("which", "steps"), IS_IN_THE_WAY)
async def test_slot_with_something_in_doubt_stays(bank: Bank, which: str, steps: int) -> None:
    """Neither a slot with a prepared leg may go nor one that decided what is not settled, before it ends."""
    row = bank.transfer()
    await bank.start(bank.attempt(row), steps)
    with pytest.raises(ResponseError, match=IN_DOUBT):
        await bank.move(getattr(bank, which), 2)
    await bank.resolve()
    await bank.move(getattr(bank, which), 2)
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN


async def test_a_late_decide_goes_where_its_attempt_was_prepared(bank: Bank) -> None:
    """The payer moved since, and its new shard has committed a new attempt: the old shard decides nothing."""
    row = bank.transfer()
    attempt = bank.attempt(row)
    await bank.prepare(attempt)
    await bank.move(bank.payer, 2)
    assert await bank.run(row) is Outcome.COMMITTED
    # Its account is not there any more.
    assert await bank.decide(attempt) == [Outcome.ACCOUNT_NOT_FOUND]
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == MOVED


async def test_slot_moves_with_outcomes_of_both_generations(bank: Bank) -> None:
    """On its new shard each is young, however old it was; forgotten after two rotations, and expired then."""
    old, young = (bank.transfer(1, transaction_id=timed_id(ms)) for ms in (2000, 3000))
    assert await bank.run(old) is Outcome.COMMITTED
    await bank.rotate(0)
    assert await bank.run(young) is Outcome.COMMITTED
    await bank.move(bank.payer, 2)
    assert await bank.run(old) is Outcome.COMMITTED
    for expected in (Outcome.COMMITTED, Outcome.TRANSACTION_ID_EXPIRED):
        await bank.rotate(2)
        assert await bank.run(young) is expected
        assert await bank.run(old) is expected
    assert await bank.balances() == (PAYER_HAS - 2, 2)


@pytest.mark.parametrize("steps", [0, 2, 3], ids=["nothing", "decided", "finished"])
async def test_message_of_an_old_epoch_is_refused(bank: Bank, steps: int) -> None:
    """Whoever still has the map from before a move is refused, and nothing is written."""
    attempt = bank.attempt(bank.transfer())
    await bank.start(attempt, steps)
    old = bank.cluster
    # Another slot of the payee's shard.
    await bank.move(name_on(bank.shards, 1, "neighbour"), 2)
    doubt, balances = await bank.in_doubt(), await bank.balances()
    prepare = Prepare([Prepared(attempt.attempt_id, "shard-0", 1, attempt.bundle)])
    for call in (prepare, Finish([attempt.attempt_id], [bytes((Outcome.COMMITTED,))])):
        bank.cluster, new = old, bank.cluster
        assert await bank.ask(1, call) is NoReply.STALE
        bank.cluster = new
    assert (await bank.in_doubt(), await bank.balances()) == (doubt, balances)


async def test_what_is_in_doubt_is_not_read_by_an_old_map(bank: Bank) -> None:
    """What another epoch's shard does not have is not thereby finished."""
    old = bank.cluster.shards[0]
    await bank.start(bank.attempt(bank.transfer()), 2)
    (commit,) = await old.in_doubt()
    await bank.move(name_on(bank.shards, 0, "neighbour"), 2)
    assert await bank.cluster.shards[0].in_doubt() == [commit]
    with pytest.raises(StaleEpochError):
        await old.in_doubt()


async def test_first_try_on_one_shard_retry_on_two(bank: Bank) -> None:
    """R3: the commit of one call counts as settled, so the ghost leg of the retry is dropped."""
    row = bank.transfer()
    await bank.move(bank.payee, 0)
    assert await bank.post([row]) == [Outcome.COMMITTED]
    await bank.move(bank.payee, 1)
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN


async def test_first_try_on_one_shard_retry_leaves_a_ghost(bank: Bank) -> None:
    """R3: also the resolver drops the ghost leg."""
    row = bank.transfer()
    await bank.move(bank.payee, 0)
    await bank.post([row])
    await bank.move(bank.payee, 1)
    assert await bank.prepare(bank.attempt(row)) == [Outcome.PREPARED]
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == MOVED


@pytest.mark.parametrize("steps", [1, 3], ids=["prepared", "finished"])
async def test_first_try_on_two_shards_retry_on_one(bank: Bank, steps: int) -> None:
    """The payer moves to the payee before it paid, or the payee to the payer when it has been paid."""
    row = bank.transfer()
    await bank.start(bank.attempt(row), steps)
    index = 1 if steps == 1 else 0
    await bank.move(bank.payer if steps == 1 else bank.payee, index)
    if steps == 3:
        # Not settled yet: to one call it is as if it were on its way.
        assert await bank.post([row], index) == [Outcome.OUTCOME_UNKNOWN]
        await bank.resolve()
    assert await bank.post([row], index) == [Outcome.COMMITTED]
    await bank.resolve()
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN


async def test_one_coordinator_times_out_in_prepare_another_commits(bank: Bank) -> None:
    """R2: the one that timed out drops nothing, so that the second attempt commits and finishes."""
    row = bank.transfer()
    second = bank.attempt(row)
    await bank.prepare(second)
    bank.losing("prepare")
    assert await bank.run(row) is Outcome.OUTCOME_UNKNOWN
    bank.losing()
    assert await bank.in_doubt() == (2, 0)
    assert await bank.decide(second) == [Outcome.COMMITTED]
    assert await bank.finish(second) == [Outcome.FINISHED]
    assert await bank.balances() == MOVED
    await bank.resolve()
    assert await bank.in_doubt() == CLEAN
    assert await bank.balances() == MOVED


async def test_two_coordinators_at_once(bank: Bank) -> None:
    """Both have prepared; the one that comes second to decide drops its own leg, and only that."""
    row = bank.transfer()
    first, second = bank.attempt(row), bank.attempt(row)
    for attempt in (first, second):
        assert await bank.prepare(attempt) == [Outcome.PREPARED]
    assert await bank.decide(first) == [Outcome.COMMITTED]
    assert await bank.decide(second) == [Outcome.ELSEWHERE]
    assert await bank.finish(second, Outcome.ELSEWHERE) == [Outcome.DROPPED]
    assert await bank.balances() == (MOVED[0], 0)
    assert await bank.finish(first) == [Outcome.FINISHED]
    await bank.resolve()
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN


async def test_many_coordinators_at_once(bank: Bank) -> None:
    """Whatever each of them is answered, a transfer moves once, and the last word is one for all."""
    rows = [bank.transfer(1) for _ in range(5)]
    found = await asyncio.gather(*(bank.commit(*rows) for _ in range(6)))
    told = {outcome for outcomes in found for outcome, _ in outcomes}
    assert told <= {Outcome.COMMITTED, Outcome.OUTCOME_UNKNOWN}
    await bank.resolve()
    assert await bank.commit(*rows) == [(Outcome.COMMITTED, 0)] * 5
    assert await bank.balances() == (PAYER_HAS - 5, 5)
    assert await bank.in_doubt() == CLEAN


async def test_payers_shard_forgets_first(bank: Bank) -> None:
    """A retry under an id that tells its age is refused: nobody knows any more whether it moved."""
    row = bank.transfer(transaction_id=timed_id(1000))
    assert await bank.run(row) is Outcome.COMMITTED
    for _ in range(2):
        await bank.rotate(0)
    assert await bank.run(row) is Outcome.TRANSACTION_ID_EXPIRED
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN


async def test_forgotten_id_that_tells_no_age_is_a_new_one(bank: Bank) -> None:
    """It moves once more, as a whole: money is neither made nor lost."""
    row = bank.transfer()
    assert await bank.run(row) is Outcome.COMMITTED
    for _ in range(2):
        await bank.rotate(0)
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == (PAYER_HAS - 60, 60)
    assert await bank.in_doubt() == CLEAN


async def test_unsettled_commit_is_never_forgotten(bank: Bank) -> None:
    """However often its shard forgets, until it is finished."""
    row = bank.transfer(transaction_id=timed_id(1000))
    await bank.start(bank.attempt(row), 2)
    for _ in range(3):
        await bank.rotate(0)
    assert await bank.run(row) is Outcome.COMMITTED
    assert await bank.balances() == MOVED
    assert await bank.in_doubt() == CLEAN


async def test_huge_credit_on_its_way_does_not_refuse_others(bank: Bank) -> None:
    """What one account has coming counts for that account alone."""
    await bank.prepare(bank.attempt(bank.transfer(MAX_MINOR)))
    assert await bank.commit(bank.transfer(30)) == [(Outcome.BALANCE_LIMIT, 1)]
    neighbour = replace(bank, payee=name_on(bank.shards, 1, "neighbour"))
    await bank.open_account(neighbour.payee, 0)
    assert await neighbour.run(neighbour.transfer(30)) is Outcome.COMMITTED
    await bank.resolve()
    assert await bank.run(bank.transfer(30)) is Outcome.COMMITTED
    assert await bank.in_doubt() == CLEAN


async def test_credits_to_an_account_below_zero_have_a_limit_too(bank: Bank) -> None:
    """The sum of what is coming stays within 2^53 - 1, whatever the balance leaves room for."""
    debtor = name_on(bank.shards, 1, "debtor")
    await bank.open_account(debtor, 0, minimum_minor=-100)
    assert await bank.post([transfer(debtor, WORLD, 1, Kind.WITHDRAWAL)], 1) == [Outcome.COMMITTED]
    to_debtor = replace(bank, payee=debtor)
    assert await bank.prepare(bank.attempt(to_debtor.transfer(MAX_MINOR))) == [Outcome.PREPARED]
    assert await bank.prepare(bank.attempt(to_debtor.transfer(1))) == [Outcome.BALANCE_LIMIT]
    await bank.resolve()


async def test_finish_of_a_leg_that_is_nowhere_raises_the_alarm(shards: RealShards) -> None:
    """R5: it is refused, counted and logged as critical, never acknowledged, and never settled."""
    bank = await Bank.open(shards)
    row = bank.transfer()
    attempt = bank.attempt(row)
    await bank.decide(attempt)
    assert await bank.finish(attempt) == [Outcome.MISSING_LEG]
    with capture_logs() as logs:
        await bank.resolve()
    assert await bank.in_doubt() == (0, 1)
    # One for the message here, one for each look of the resolver.
    assert await bank.alarms() == 4
    critical = [event["attempt"] for event in logs if event["log_level"] == "critical"]
    assert critical == [attempt.attempt_id.hex()] * 3
    with capture_logs() as logs:
        assert await bank.run(row) is Outcome.OUTCOME_UNKNOWN
    assert "critical" in {event["log_level"] for event in logs}
    await bank.close()
