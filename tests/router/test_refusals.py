"""Outcomes as callers see them: one number and name everywhere, a sentence, a status with details."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2

from router.requests.fields import MAX_CLOCK_AHEAD_MS, BadField
from router.services import refusals
from shard_node.contract.outcomes import PAYEE, Outcome
from tallystick.v1 import outcome_pb2, wallet_pb2
from tests.router.samples import FIELDS, NOW_MS, Asked, attempt, reader, uuid7
from tests.router.stand_ins import AbortedError, Context

PUBLIC = [outcome for outcome in Outcome if outcome < 32]
INTERNAL = [outcome for outcome in Outcome if outcome >= 32]
# What shards and coordinators may give as a transfer's outcome.
DONE = (Outcome.COMMITTED, Outcome.VALID)
OF_TRANSFERS = [o for o in PUBLIC if o not in (*DONE, Outcome.INVALID_ARGUMENT)]

# As the contract has it, told a second time on purpose.
STATUSES = {
    "INSUFFICIENT_FUNDS": grpc.StatusCode.FAILED_PRECONDITION,
    "CURRENCY_MISMATCH": grpc.StatusCode.FAILED_PRECONDITION,
    "ACCOUNT_FROZEN": grpc.StatusCode.FAILED_PRECONDITION,
    "ACCOUNT_CLOSED": grpc.StatusCode.FAILED_PRECONDITION,
    "BALANCE_LIMIT": grpc.StatusCode.FAILED_PRECONDITION,
    "ACCOUNT_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "TRANSACTION_ID_REUSED": grpc.StatusCode.ALREADY_EXISTS,
    "TRANSACTION_ID_EXPIRED": grpc.StatusCode.FAILED_PRECONDITION,
    "ABORTED": grpc.StatusCode.ABORTED,
    "ACCOUNT_EXISTS": grpc.StatusCode.ALREADY_EXISTS,
    "INVALID_ARGUMENT": grpc.StatusCode.INVALID_ARGUMENT,
    "OUTCOME_UNKNOWN": grpc.StatusCode.UNAVAILABLE,
    "RESOURCE_EXHAUSTED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "TRANSACTION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "REFUND_EXCEEDS_PURCHASE": grpc.StatusCode.FAILED_PRECONDITION,
    "PURCHASE_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "HOLD_NOT_ACTIVE": grpc.StatusCode.FAILED_PRECONDITION,
    "CAPTURE_EXCEEDS_HOLD": grpc.StatusCode.FAILED_PRECONDITION,
    "TRANSFER_LIMIT": grpc.StatusCode.FAILED_PRECONDITION,
    "ACCOUNT_NOT_EMPTY": grpc.StatusCode.FAILED_PRECONDITION,
    "ACCOUNT_IN_USE": grpc.StatusCode.FAILED_PRECONDITION,
    "VERSION_MISMATCH": grpc.StatusCode.ABORTED,
}


async def ended(why: wallet_pb2.Refusal, **metadata: str) -> Context:
    """A call that was ended for this reason."""
    context = Context()
    with pytest.raises(AbortedError):
        await refusals.abort(context, why, **metadata)
    return context


def test_one_numbering() -> None:
    """The shard's public outcomes and the contract's enum have the same names and numbers, all of them."""
    contract = {name: number for name, number in outcome_pb2.Outcome.items() if number}
    assert contract == {f"OUTCOME_{outcome.name}": outcome.value for outcome in PUBLIC}


@pytest.mark.parametrize("outcome", PUBLIC, ids=lambda outcome: outcome.name)
def test_public_outcomes_are_handed_on(outcome: Outcome) -> None:
    """A public outcome is the same to callers, whichever side it concerns."""
    assert int(refusals.wire_outcome(outcome)) == outcome.value
    assert int(refusals.wire_outcome(outcome + PAYEE)) == outcome.value


@pytest.mark.parametrize("code", [0, *INTERNAL, *range(25, 32), 63])
def test_nothing_else_leaks(code: int) -> None:
    """Steps of the protocol, and numbers that are no outcome, become "not known": never ok, never refused."""
    for marked in (code, code + PAYEE):
        assert refusals.wire_outcome(marked) == outcome_pb2.OUTCOME_OUTCOME_UNKNOWN
        assert refusals.refusal(marked).outcome == outcome_pb2.OUTCOME_OUTCOME_UNKNOWN


@pytest.mark.parametrize("outcome", OF_TRANSFERS, ids=lambda outcome: outcome.name)
async def test_every_outcome_has_a_sentence_and_a_status(outcome: Outcome) -> None:
    """Each refusal says in a sentence what is wrong, and has the status that the contract gives it.

    The sentence has no field in it, which stands beside it; the status's message begins with the field.
    """
    why = refusals.refusal(outcome)
    assert len(why.message) > 20
    assert not why.field or why.field not in why.message
    context = await ended(why, transaction_id="an id")
    assert context.code is STATUSES[outcome.name]
    assert context.text == (f"{why.field}: {why.message}" if why.field else why.message)
    status = context.status()
    assert (status.code, status.message) == (context.code.value[0], context.text)
    expected = error_details_pb2.ErrorInfo(
        reason=outcome.name, domain="tallystick", metadata={"transaction_id": "an id"}
    )
    if why.field:
        expected.metadata["field"] = why.field
    assert context.detail(error_details_pb2.ErrorInfo) == [expected]
    assert context.detail(error_details_pb2.BadRequest) == []


@pytest.mark.parametrize("outcome", OF_TRANSFERS, ids=lambda outcome: outcome.name)
async def test_only_what_may_be_retried_says_when(outcome: Outcome) -> None:
    """RetryInfo comes with load and with the unknown, and with no refusal: that would be the same again."""
    retries = (await ended(refusals.refusal(outcome))).detail(error_details_pb2.RetryInfo)
    if outcome in (Outcome.RESOURCE_EXHAUSTED, Outcome.OUTCOME_UNKNOWN):
        assert len(retries) == 1
        assert 0 < retries[0].retry_delay.ToMilliseconds() <= 1000
    else:
        assert retries == []


def test_every_status_is_tested() -> None:
    """No outcome of the contract is without a status, and none has one that the contract lacks."""
    assert {outcome.name for outcome in PUBLIC} - {"COMMITTED", "VALID"} == set(STATUSES)


@pytest.mark.parametrize(
    ("code", "field_name"),
    [
        (Outcome.INSUFFICIENT_FUNDS, "payer"),
        (Outcome.CURRENCY_MISMATCH, "payer"),
        (Outcome.CURRENCY_MISMATCH + PAYEE, "payee"),
        (Outcome.ACCOUNT_FROZEN, "payer"),
        (Outcome.ACCOUNT_FROZEN + PAYEE, "payee"),
        (Outcome.ACCOUNT_CLOSED, "payer"),
        (Outcome.ACCOUNT_CLOSED + PAYEE, "payee"),
        (Outcome.ACCOUNT_NOT_FOUND, "payer"),
        (Outcome.ACCOUNT_NOT_FOUND + PAYEE, "payee"),
        (Outcome.BALANCE_LIMIT + PAYEE, "payee"),
        (Outcome.TRANSACTION_ID_REUSED, "transaction_id"),
        (Outcome.TRANSACTION_ID_EXPIRED, "transaction_id"),
        (Outcome.TRANSFER_LIMIT, "payer"),
        (Outcome.REFUND_EXCEEDS_PURCHASE, "amount"),
        (Outcome.PURCHASE_NOT_FOUND, "purchase_transaction_id"),
        (Outcome.HOLD_NOT_ACTIVE, "hold_transaction_id"),
        (Outcome.CAPTURE_EXCEEDS_HOLD, "amount"),
        (Outcome.ACCOUNT_NOT_EMPTY, "account_id"),
        (Outcome.ACCOUNT_IN_USE, "account_id"),
        (Outcome.ABORTED, ""),
        (Outcome.OUTCOME_UNKNOWN, ""),
        (Outcome.RESOURCE_EXHAUSTED, ""),
    ],
)
def test_the_field_it_concerns(code: int, field_name: str) -> None:
    """A refusal names the side or the id that it concerns, in the request's own words."""
    why = refusals.refusal(code, "payer", "payee")
    assert why.field == field_name


async def test_a_bad_field_is_a_bad_request() -> None:
    """INVALID_ARGUMENT carries BadRequest with the field and the sentence."""
    context = await ended(refusals.invalid(BadField("amount", "must be above zero")))
    assert context.code is grpc.StatusCode.INVALID_ARGUMENT
    assert context.text == "amount: must be above zero"
    violation = error_details_pb2.BadRequest.FieldViolation(field="amount", description="must be above zero")
    assert context.detail(error_details_pb2.BadRequest) == [
        error_details_pb2.BadRequest(field_violations=[violation])
    ]
    assert context.detail(error_details_pb2.ErrorInfo) == [
        error_details_pb2.ErrorInfo(
            reason="INVALID_ARGUMENT", domain="tallystick", metadata={"field": "amount"}
        )
    ]


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("character", ["x", "'", "\x00", "é", "😀", "\U000e0001"])
async def test_details_fit_into_a_header(name: str, character: str) -> None:
    """However long and odd the value, the status stays below the 8 KiB that gRPC peers take as a header."""
    asked = Asked()
    setattr(asked, name, character * 100_000)
    refused = attempt(lambda: reader().transfer(asked))
    assert isinstance(refused, BadField)
    context = await ended(refusals.invalid(refused), transaction_id=uuid7(NOW_MS + MAX_CLOCK_AHEAD_MS))
    # The text is sent percent-encoded, the details in base64.
    assert 3 * len(context.text.encode()) + 4 / 3 * len(context.trailing["grpc-status-details-bin"]) < 8192
