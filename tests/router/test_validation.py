"""What transactions would get is asked of the shards of their accounts, and nothing is moved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import pytest

from router.execution.validation import Validator, Verdict
from router.requests.transaction_reader import TransactionReader
from router.requests.transactions import TransactionRequest
from shard_node.client.directory import Cluster
from shard_node.contract.layout import NO_VERSION
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transactions import Bundle
from shard_node.errors import ShardFullError, ShardUnavailableError, StaleEpochError
from tallystick.v1 import wallet_pb2
from tests.router.samples import ID, NOW_MS, reader, uuid7
from tests.router.stand_ins import Clock, MapsStandIn
from tests.router.transaction_cluster import Recalled, topology

VALID = Verdict(Outcome.VALID)
READER = TransactionReader(reader())


class AskedShard:
    """A shard that refuses accounts as told, and fails as often as told."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.refusing: dict[str, int] = {}
        self.remembered: Recalled | None = None
        self.forgotten_ms = 0
        self.checked: list[tuple[int, list[str]]] = []

    async def horizon_ms(self) -> int:
        """What it has forgotten."""
        if self.failures and not isinstance(self.failures[0], StaleEpochError):
            raise self.failures.pop(0)
        return self.forgotten_ms

    async def outcomes(self, decisions: Sequence[bytes]) -> Sequence[Recalled | None]:
        """What it remembers of all."""
        return [self.remembered] * len(decisions)

    async def check(self, bundle: bytes, owner: int) -> bytes:
        """Refuses as told."""
        if self.failures:
            raise self.failures.pop(0)
        legs = [leg for one in Bundle.unpack(bundle).transactions for leg in one.legs]
        # As the engine refuses it.
        assert not any(leg.owner and leg.expected_version != NO_VERSION for leg in legs)
        names = [leg.account for leg in legs if owner in {leg.owner, 255}]
        self.checked.append((owner, names))
        return bytes(self.refusing.get(name, 0) for name in names)


def validator(*clusters: Sequence[AskedShard]) -> Validator:
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


async def verdicts(asked: Validator, *requests: TransactionRequest) -> list[Verdict]:
    """A verdict for each."""
    return await asked.check(requests, time.monotonic() + 10.0)


# Accounts of the lower half of the slots, and of the upper one.
LOW, LOW_TOO, HIGH, HIGH_TOO = "account-2", "account-3", "account-0", "account-1"


async def test_each_leg_on_its_shard() -> None:
    """A shard is asked about its own legs, all of a kind in one call."""
    left, right = AskedShard(), AskedShard()
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
    left, right = AskedShard(), AskedShard()
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
    left, right = AskedShard(), AskedShard()
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
    left, right = AskedShard(), AskedShard()
    one = journal((LOW, "-1"), (HIGH, "1"))
    asked = validator((left, right))
    for outcome, leg in ((Outcome.COMMITTED, 0), (Outcome.ACCOUNT_CLOSED, 1)):
        left.remembered = Recalled(outcome, leg, one.transaction.fingerprint)
        assert await verdicts(asked, one) == [Verdict(outcome, leg)]
    left.remembered = Recalled(Outcome.COMMITTED, 0, bytes(8))
    assert await verdicts(asked, one) == [Verdict(Outcome.TRANSACTION_ID_REUSED)]
    assert left.checked == right.checked == []


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
    left, right = AskedShard(), AskedShard()
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
    left, right = AskedShard(error), AskedShard()
    assert await verdicts(validator((left, right)), one, other) == [Verdict(outcome), VALID]
    left, right = AskedShard(), AskedShard()
    asked = validator((left, right))
    # Of the legs: what is remembered was asked of the left one alone.
    right.failures.append(error)
    assert (await verdicts(asked, one))[0].outcome is outcome


async def test_what_is_reserved_meanwhile_is_not_known() -> None:
    """A hold that another transaction is about to end may stay, or not."""
    left, right = AskedShard(), AskedShard()
    left.refusing[LOW] = Outcome.BUSY
    one = journal((LOW, "-1"), (HIGH, "1"))
    assert await verdicts(validator((left, right)), one) == [Verdict(Outcome.OUTCOME_UNKNOWN)]


async def test_stale_maps_are_no_answer() -> None:
    """Shards of another epoch are asked again by the next map; codes stay with their legs."""
    stale = [AskedShard(StaleEpochError("moved on")) for _ in range(2)]
    one = journal((LOW, "-1"), (HIGH, "0.25"), (HIGH_TOO, "0.25"), (LOW_TOO, "0.50"))
    assert [leg.account for leg in one.transaction.legs] == [LOW, HIGH, HIGH_TOO, LOW_TOO]
    all_of_it = AskedShard()
    all_of_it.refusing[LOW_TOO] = Outcome.ACCOUNT_CLOSED
    assert await verdicts(validator(stale, (all_of_it,)), one) == [Verdict(Outcome.ACCOUNT_CLOSED, 3)]
