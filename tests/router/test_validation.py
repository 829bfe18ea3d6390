"""What transactions would get is asked of the shards of their accounts, and nothing is moved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import pytest

from router.execution.validation import Validator, Verdict
from router.requests import TransactionRequest
from shard_node.client.directory import Cluster
from shard_node.contract import Outcome, RememberedOutcome
from shard_node.errors import ShardFullError, ShardUnavailableError, StaleEpochError
from tallystick.v1 import wallet_pb2
from tests.router.samples import ID, NOW_MS, transactions, uuid7
from tests.router.stand_ins import Clock, MapsStandIn, ShardStandIn
from tests.router.transaction_cluster import topology

VALID = Verdict(Outcome.VALID)
READER = transactions()


def validator(*clusters: Sequence[ShardStandIn]) -> Validator:
    """A validator of maps with these shards, one after the other."""
    made = [
        Cluster(topology(version, len(shards)), cast("Any", tuple(shards)))
        for version, shards in enumerate(clusters, start=1)
    ]
    return Validator(MapsStandIn(Clock(), *made))


def journal(*legs: tuple[str, str], transaction_id: str = ID) -> TransactionRequest:
    """A journal of euros."""
    request = wallet_pb2.PostJournalRequest(transaction_id=transaction_id)
    for account, amount in legs:
        request.legs.add(account_id=account, amount=amount, currency="EUR")
    return READER.journal(request)


def remembered(outcome: Outcome, leg: int, fingerprint: bytes) -> RememberedOutcome:
    """An outcome of one euro."""
    return RememberedOutcome(outcome, leg, 5, 100, "EUR", fingerprint)


async def verdicts(asked: Validator, *requests: TransactionRequest) -> list[Verdict]:
    """A verdict for each."""
    return await asked.check(requests, time.monotonic() + 10.0)


# Accounts of the lower half of the slots, and of the upper one.
LOW, LOW_TOO, HIGH, HIGH_TOO = "account-2", "account-3", "account-0", "account-1"


async def test_each_leg_on_its_shard() -> None:
    """A shard is asked about its own legs, all of a kind in one call."""
    left, right = ShardStandIn("left"), ShardStandIn("right")
    asked = [
        journal((LOW, "-1"), (HIGH, "1")),
        journal((LOW, "-1"), (LOW_TOO, "1")),
        journal((HIGH, "-1"), (LOW, "0.50"), (HIGH_TOO, "0.50")),
    ]
    assert await verdicts(validator((left, right)), *asked) == [VALID] * 3
    # Plain bundles do not say whose the second leg is, so what is all a shard's is asked about apart.
    assert left.checked == [(255, [LOW, LOW_TOO]), (0, [LOW, LOW])]
    assert right.checked == [(0, [HIGH, HIGH, HIGH_TOO])]
    assert await verdicts(validator((left, right))) == []


async def test_the_refusal_that_the_real_call_would_tell() -> None:
    """The deciding leg is looked at last; each verdict belongs to its own transaction."""
    left, right = ShardStandIn("left"), ShardStandIn("right")
    left.refusing[LOW] = Outcome.INSUFFICIENT_FUNDS
    one, other = journal((LOW, "-1"), (HIGH, "1")), journal((LOW_TOO, "-1"), (HIGH_TOO, "1"))
    asked = validator((left, right))
    assert await verdicts(asked, other, one) == [VALID, Verdict(Outcome.INSUFFICIENT_FUNDS, 0)]
    right.refusing[HIGH] = Outcome.ACCOUNT_FROZEN
    assert await verdicts(asked, other, one) == [VALID, Verdict(Outcome.ACCOUNT_FROZEN, 1)]


async def test_a_version_is_the_deciding_shards_business() -> None:
    """A participant is not asked to compare a version of an account that it does not have."""
    request = wallet_pb2.TransferRequest(
        transaction_id=ID, from_account=LOW, to_account=HIGH, amount="1", currency="EUR", expected_version=3
    )
    left, right = ShardStandIn("left"), ShardStandIn("right")
    # A hold makes both bundles explicit about owners.
    hold = wallet_pb2.CaptureRequest(
        transaction_id=ID, hold_transaction_id=ID, account_id=HIGH, to_account=LOW, amount="1", currency="EUR"
    )
    assert await verdicts(validator((left, right)), READER.transfer(request), READER.capture(hold)) == [
        VALID,
        VALID,
    ]
    assert (left.checked, right.checked) == ([(0, [LOW, LOW])], [(0, [HIGH, HIGH])])


async def test_an_id_that_was_used() -> None:
    """The outcome that an id has comes with its leg; other contents are refused. No leg is asked about."""
    left, right = ShardStandIn("left"), ShardStandIn("right")
    one = journal((LOW, "-1"), (HIGH, "1"))
    asked = validator((left, right))
    for outcome, leg in ((Outcome.COMMITTED, 0), (Outcome.ACCOUNT_CLOSED, 1)):
        left.remembered = remembered(outcome, leg, one.transaction.fingerprint)
        assert await verdicts(asked, one) == [Verdict(outcome, leg)]
    left.remembered = remembered(Outcome.COMMITTED, 0, bytes(8))
    assert await verdicts(asked, one) == [Verdict(Outcome.TRANSACTION_ID_REUSED)]
    assert left.checked == right.checked == []
    assert left.decisions == [one.transaction.decision] * 3


@pytest.mark.parametrize(
    ("transaction_id", "expected"),
    [
        (uuid7(NOW_MS - 1), Verdict(Outcome.TRANSACTION_ID_EXPIRED)),
        (uuid7(NOW_MS), VALID),
        # No time in it.
        (ID, VALID),
    ],
)
async def test_ids_of_old(transaction_id: str, expected: Verdict) -> None:
    """A UUIDv7 from before the shard's horizon that it does not remember has expired."""
    left, right = ShardStandIn("left"), ShardStandIn("right")
    left.forgotten_ms = NOW_MS
    one = journal((LOW, "-1"), (HIGH, "1"), transaction_id=transaction_id)
    assert await verdicts(validator((left, right)), one) == [expected]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ShardUnavailableError("no answer"), Outcome.OUTCOME_UNKNOWN),
        (ShardFullError("full"), Outcome.RESOURCE_EXHAUSTED),
    ],
)
async def test_a_shard_that_does_not_answer(error: Exception, outcome: Outcome) -> None:
    """Without an answer nothing is valid, whichever of the two looks failed; others are not touched by it."""
    one, other = journal((LOW, "-1"), (HIGH, "1")), journal((HIGH, "-1"), (HIGH_TOO, "1"))
    left, right = ShardStandIn("left", error), ShardStandIn("right")
    assert await verdicts(validator((left, right)), one, other) == [Verdict(outcome), VALID]
    # What is remembered is asked of the left one alone, legs of both.
    left, right = ShardStandIn("left"), ShardStandIn("right", error)
    asked = validator((left, right))
    assert (await verdicts(asked, one))[0].outcome is outcome


async def test_what_is_reserved_meanwhile_is_not_known() -> None:
    """A hold that another transaction is about to end may stay, or not."""
    left, right = ShardStandIn("left"), ShardStandIn("right")
    left.refusing[LOW] = Outcome.BUSY
    one = journal((LOW, "-1"), (HIGH, "1"))
    assert await verdicts(validator((left, right)), one) == [Verdict(Outcome.OUTCOME_UNKNOWN)]


async def test_stale_maps_are_no_answer() -> None:
    """Shards of another epoch are asked again by the next map; codes stay with their legs."""
    moved = StaleEpochError("moved on")
    # What is remembered the left one still answers.
    stale = [ShardStandIn("left", None, moved), ShardStandIn("right", moved)]
    one = journal((LOW, "-1"), (HIGH, "0.25"), (HIGH_TOO, "0.25"), (LOW_TOO, "0.50"))
    assert [leg.account for leg in one.transaction.legs] == [LOW, HIGH, HIGH_TOO, LOW_TOO]
    all_of_it = ShardStandIn("all")
    all_of_it.refusing[LOW_TOO] = Outcome.ACCOUNT_CLOSED
    assert await verdicts(validator(stale, (all_of_it,)), one) == [Verdict(Outcome.ACCOUNT_CLOSED, 3)]
