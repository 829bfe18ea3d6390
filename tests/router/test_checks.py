"""What validate_only looks at, in which order, and that doubt stays doubt."""

from __future__ import annotations

import time
from dataclasses import replace
from uuid import UUID

import pytest

from router.execution.checks import Checker, Question, Verdict, of_journal, of_transfer
from router.requests.journals import JournalReader
from shard_node.cluster.slots import slot
from shard_node.contract.journal_calls import LegCheck
from shard_node.contract.journals import Effect
from shard_node.contract.outcomes import Outcome
from shard_node.contract.records import RememberedOutcome
from shard_node.contract.transfers import decision_key, terms_key
from shard_node.errors import ShardFullError, ShardUnavailableError, StaleEpochError
from tallystick.v1 import wallet_pb2
from tests.router.samples import ID, Asked, reader, uuid7
from tests.router.stand_ins import Clock, MapsStandIn, ShardStandIn, cluster_cut_at

LOW, HIGH = sorted(["alice", "bob"], key=slot)
MINUTE = 60.0
VALID = Verdict(Outcome.VALID)


def shards() -> tuple[ShardStandIn, ShardStandIn, Checker]:
    """Two shards, LOW on the left one and HIGH on the right one, and who asks them."""
    left, right = ShardStandIn("left"), ShardStandIn("right")
    maps = MapsStandIn(Clock(), cluster_cut_at(1, slot(HIGH), left, right))
    return left, right, Checker(maps)


def transfer(payer: str = LOW, payee: str = HIGH, transaction_id: str = ID) -> Question:
    """The question about a transfer of 12.50."""
    return of_transfer(reader().transfer(Asked(transaction_id, payer, payee)))


async def verdicts(checker: Checker, *questions: Question) -> list[Verdict]:
    """The verdicts on all of them."""
    return await checker.check(questions, time.monotonic() + MINUTE)


def test_of_transfer() -> None:
    """A transfer is asked about under the key and with the terms that it would be remembered by."""
    row = reader().transfer(Asked())
    question = of_transfer(row)
    assert question.decision == decision_key(row[0], row[5])
    assert question.terms == terms_key(row[0], row[5])
    assert question.legs == (
        LegCheck("alice", Effect.DEBIT, 1250, "EUR"),
        LegCheck("bob", Effect.CREDIT, 1250, "EUR"),
    )
    assert question.slots == (slot("alice"), slot("bob"))


def test_of_journal() -> None:
    """A leg with a condition is asked about with the hold it depends on, under its own slot."""
    hold_id = uuid7(0)
    request = wallet_pb2.CaptureRequest(
        transaction_id=ID,
        hold_transaction_id=hold_id,
        account_id=LOW,
        to_account=HIGH,
        amount="3",
        currency="EUR",
    )
    question = of_journal(JournalReader(reader()).capture(request))
    related = UUID(hold_id).bytes + slot(LOW).to_bytes(2, "little")
    assert question.legs == (
        LegCheck(LOW, Effect.CAPTURE, 300, "EUR", related),
        LegCheck(HIGH, Effect.CREDIT, 300, "EUR"),
    )


async def test_each_leg_on_its_shard() -> None:
    """Every leg of every question goes to the shard of its account, all of a shard's in one call."""
    left, right, checker = shards()
    assert await verdicts(checker, transfer(), transfer(HIGH, LOW), transfer(LOW, HIGH)) == [VALID] * 3
    assert [leg.effect for leg in left.checked] == [Effect.DEBIT, Effect.CREDIT, Effect.DEBIT]
    assert [leg.effect for leg in right.checked] == [Effect.CREDIT, Effect.DEBIT, Effect.CREDIT]
    assert await verdicts(checker) == []


async def test_the_refusal_that_the_real_call_would_tell() -> None:
    """The deciding leg is looked at last; each verdict belongs to its own question."""
    left, right, checker = shards()
    left.refusing[LOW] = Outcome.INSUFFICIENT_FUNDS
    assert await verdicts(checker, transfer()) == [Verdict(Outcome.INSUFFICIENT_FUNDS, 0)]
    right.refusing[HIGH] = Outcome.ACCOUNT_FROZEN
    friend = "{" + HIGH + "}"
    assert await verdicts(checker, transfer(), transfer(friend, LOW), transfer(friend, friend + "2")) == [
        Verdict(Outcome.ACCOUNT_FROZEN, 1),
        Verdict(Outcome.INSUFFICIENT_FUNDS, 1),
        VALID,
    ]


async def test_an_id_that_was_used() -> None:
    """The outcome that an id has is told, with the side it concerned; other contents are refused."""
    left, right, checker = shards()
    question = transfer()
    left.remembered = RememberedOutcome(Outcome.ACCOUNT_CLOSED, 5, 1250, "EUR", question.terms, leg=1)
    assert await verdicts(checker, question) == [Verdict(Outcome.ACCOUNT_CLOSED, 1)]
    left.remembered = replace(left.remembered, outcome=Outcome.COMMITTED, leg=0)
    assert await verdicts(checker, question) == [Verdict(Outcome.COMMITTED)]
    left.remembered = replace(left.remembered, terms=bytes(19))
    assert await verdicts(checker, question) == [Verdict(Outcome.TRANSACTION_ID_REUSED)]
    assert left.decisions == [question.decision] * 3
    assert left.checked == right.checked == []


@pytest.mark.parametrize(
    ("transaction_id", "expected"),
    [
        (uuid7(999), Verdict(Outcome.TRANSACTION_ID_EXPIRED)),
        (uuid7(1000), VALID),
        # No time in it.
        (ID, VALID),
    ],
)
async def test_ids_of_old(transaction_id: str, expected: Verdict) -> None:
    """A UUIDv7 from before the shard's horizon that it does not remember has expired."""
    left, _, checker = shards()
    left.forgotten_ms = 1000
    assert await verdicts(checker, transfer(transaction_id=transaction_id)) == [expected]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ShardUnavailableError("no answer"), Outcome.OUTCOME_UNKNOWN),
        (ShardFullError("full"), Outcome.RESOURCE_EXHAUSTED),
    ],
)
async def test_a_shard_that_does_not_answer(error: Exception, outcome: Outcome) -> None:
    """Without an answer nothing is valid, whichever of the two looks failed; others are not touched by it."""
    left, right, checker = shards()
    left.answers.append(error)
    friend = "{" + HIGH + "}"
    assert await verdicts(checker, transfer(), transfer(HIGH, friend)) == [Verdict(outcome), VALID]
    right.answers.append(error)
    assert await verdicts(checker, transfer()) == [Verdict(outcome)]


async def test_a_stale_map_is_no_answer() -> None:
    """A shard of another epoch is asked again."""
    left, _, checker = shards()
    left.answers.append(StaleEpochError("moved on"))
    assert await verdicts(checker, transfer()) == [VALID]
