"""Outcomes as callers see them: one number and name everywhere, a sentence, a status with details."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from router.requests import TransactionRequest
from router.requests.fields import MAX_CLOCK_AHEAD_MS, BadField
from router.services import refusals
from shard_node.cluster.slots import slot
from shard_node.contract import Outcome
from shard_node.ledger.questions import Purchase
from tallystick.v1 import outcome_pb2, wallet_pb2
from tests.router.samples import FIELDS, ID, NOW_MS, asked, attempt, transactions, uuid7
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


def test_an_id_that_may_be_forgotten_is_not_sent_again_blindly() -> None:
    """Beyond the window only a UUIDv7 counts once: of another id it is said that it may move money twice."""
    sentence = refusals.refusal(Outcome.TRANSACTION_NOT_FOUND).message
    assert "unless that is no UUIDv7 and older than the window: then it may move again" in sentence


def test_one_numbering() -> None:
    """The shard's public outcomes and the contract's enum have the same names and numbers, all of them."""
    contract = {name: number for name, number in outcome_pb2.Outcome.items() if number}
    assert contract == {f"OUTCOME_{outcome.name}": outcome.value for outcome in PUBLIC}


@pytest.mark.parametrize("outcome", PUBLIC, ids=lambda outcome: outcome.name)
def test_public_outcomes_are_handed_on(outcome: Outcome) -> None:
    """A public outcome is the same to callers."""
    assert int(refusals.wire_outcome(outcome)) == outcome.value


@pytest.mark.parametrize("code", [0, *INTERNAL, *range(25, 32), 63, 255])
def test_nothing_else_leaks(code: int) -> None:
    """Steps of the protocol, and numbers that are no outcome, become "not known": never ok, never refused."""
    assert refusals.wire_outcome(code) == outcome_pb2.OUTCOME_OUTCOME_UNKNOWN
    assert refusals.refusal(code).outcome == outcome_pb2.OUTCOME_OUTCOME_UNKNOWN


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
        (Outcome.INSUFFICIENT_FUNDS, "to_account"),
        (Outcome.CURRENCY_MISMATCH, "to_account"),
        (Outcome.ACCOUNT_FROZEN, "to_account"),
        (Outcome.ACCOUNT_CLOSED, "to_account"),
        (Outcome.ACCOUNT_NOT_FOUND, "to_account"),
        (Outcome.BALANCE_LIMIT, "to_account"),
        (Outcome.VERSION_MISMATCH, "expected_version"),
        (Outcome.TRANSACTION_ID_REUSED, "transaction_id"),
        (Outcome.TRANSACTION_ID_EXPIRED, "transaction_id"),
        (Outcome.TRANSFER_LIMIT, "to_account"),
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
    """A refusal names the account's field or the id that it concerns, in the request's own words."""
    assert refusals.refusal(code, "to_account").field == field_name


def read(**more: Any) -> TransactionRequest:
    """A transfer of alice's to bob."""
    return transactions().transfer(asked(**more))


def journal() -> TransactionRequest:
    """A journal whose legs have another order than the request's."""
    request = wallet_pb2.PostJournalRequest(transaction_id=ID)
    for account, amount in (("carol", "2"), ("bob", "-1"), ("alice", "-1")):
        request.legs.add(account_id=account, amount=amount, currency="EUR")
    request.legs[2].expected_version = 5
    return transactions().journal(request)


@pytest.mark.parametrize(
    ("request_", "code", "leg", "field"),
    [
        (read(), Outcome.ACCOUNT_FROZEN, 0, "from_account"),
        (read(), Outcome.ACCOUNT_FROZEN, 1, "to_account"),
        (read(expected_version=3), Outcome.VERSION_MISMATCH, 0, "expected_version"),
        (read(), Outcome.TRANSACTION_ID_REUSED, 0, "transaction_id"),
        (read(), Outcome.OUTCOME_UNKNOWN, 0, ""),
        (journal(), Outcome.INSUFFICIENT_FUNDS, 0, "legs[2].account_id"),
        (journal(), Outcome.ACCOUNT_CLOSED, 1, "legs[1].account_id"),
        (journal(), Outcome.BALANCE_LIMIT, 2, "legs[0].account_id"),
        (journal(), Outcome.VERSION_MISMATCH, 0, "legs[2].expected_version"),
    ],
)
def test_the_field_of_a_leg(request_: TransactionRequest, code: Outcome, leg: int, field: str) -> None:
    """A refusal of a transaction names the part of the request that its leg came from."""
    why = refusals.of_transaction(request_, code, leg)
    assert (why.outcome, why.field) == (code.value, field)


@pytest.mark.parametrize(
    ("kind", "leg", "said"), [("deposit", 0, "Deposits on this shard"), ("withdrawal", 1, "Withdrawals on")]
)
def test_a_system_account_is_nobodys_field(kind: str, leg: int, said: str) -> None:
    """What a system account cannot take is the operator's business; of the customer's account it is his."""
    message = {"deposit": wallet_pb2.DepositRequest, "withdrawal": wallet_pb2.WithdrawRequest}[kind]
    request = message(transaction_id=ID, account_id="alice", amount="1", currency="EUR")
    made = getattr(transactions(), kind)(request)
    why = refusals.of_transaction(made, Outcome.BALANCE_LIMIT, leg)
    assert (why.field, said in why.message) == ("", True)
    assert refusals.of_transaction(made, Outcome.BALANCE_LIMIT, 1 - leg).field == "account_id"


def test_whose_account_of_a_refund() -> None:
    """The merchant is named by the purchase alone, so the message says that it is his account."""
    request = wallet_pb2.RefundRequest(
        transaction_id=ID, purchase_transaction_id=ID, customer_account="alice", amount="1", currency="EUR"
    )
    refund = transactions().refund(request).transaction(Purchase("shop", 100, "EUR"), slot("shop"))
    merchants = refusals.of_transaction(refund, Outcome.INSUFFICIENT_FUNDS, 0)
    assert merchants.field == "purchase_transaction_id"
    assert merchants.message.endswith(" (the merchant's account)")
    customers = refusals.of_transaction(refund, Outcome.ACCOUNT_CLOSED, 1)
    assert (customers.field, "merchant" in customers.message) == ("customer_account", False)


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
    refused = attempt(lambda: read(**{name: character * 100_000}))
    assert isinstance(refused, BadField)
    context = await ended(refusals.invalid(refused), transaction_id=uuid7(NOW_MS + MAX_CLOCK_AHEAD_MS))
    # The text is sent percent-encoded, the details in base64.
    assert 3 * len(context.text.encode()) + 4 / 3 * len(context.trailing["grpc-status-details-bin"]) < 8192
