"""The load process' own checks: what makes a run fail rather than count."""

import uuid

import pytest

from bench.client import Tally, batch_request
from bench.errors import BenchError
from bench.workload import CURRENCY, Payments
from tallystick.v1 import outcome_pb2, wallet_pb2

PAYMENTS = Payments(("a", "b", "c"), ("d", "e", "f"), ("0.01", "1.00", "9.99"))


def answer(
    request: wallet_pb2.BatchTransferRequest, *outcomes: outcome_pb2.Outcome
) -> wallet_pb2.BatchTransferResponse:
    """A response with these outcomes, in the order of the request."""
    return wallet_pb2.BatchTransferResponse(
        results=[
            wallet_pb2.TransferResponse(transaction_id=transfer.transaction_id, outcome=outcome)
            for transfer, outcome in zip(request.transfers, outcomes, strict=False)
        ]
    )


def test_a_batch_carries_its_payments_under_new_ids() -> None:
    """Columns become transfers, in order; ids are UUIDv7 and never come twice."""
    requests = [batch_request(PAYMENTS) for _ in range(2)]
    for request in requests:
        rows = [(t.from_account, t.to_account, t.amount, t.currency) for t in request.transfers]
        assert rows == [
            ("a", "d", "0.01", CURRENCY),
            ("b", "e", "1.00", CURRENCY),
            ("c", "f", "9.99", CURRENCY),
        ]
    ids = [t.transaction_id for request in requests for t in request.transfers]
    assert {uuid.UUID(transaction_id).version for transaction_id in ids} == {7}
    assert len(set(ids)) == 6


def test_every_outcome_is_counted() -> None:
    """Committed and lacking funds are told apart."""
    request = batch_request(PAYMENTS)
    tally = Tally()
    outcomes = (
        outcome_pb2.OUTCOME_COMMITTED,
        outcome_pb2.OUTCOME_INSUFFICIENT_FUNDS,
        outcome_pb2.OUTCOME_COMMITTED,
    )
    tally.add(request, answer(request, *outcomes))
    tally.add(request, answer(request, *outcomes))
    assert tally.outcomes[outcome_pb2.OUTCOME_COMMITTED] == 4
    assert tally.outcomes[outcome_pb2.OUTCOME_INSUFFICIENT_FUNDS] == 2


@pytest.mark.parametrize(
    "odd",
    [
        outcome_pb2.OUTCOME_OUTCOME_UNKNOWN,
        outcome_pb2.OUTCOME_ABORTED,
        outcome_pb2.OUTCOME_ACCOUNT_NOT_FOUND,
        outcome_pb2.OUTCOME_UNSPECIFIED,
    ],
)
def test_any_other_outcome_fails_the_run(odd: outcome_pb2.Outcome) -> None:
    """One such transfer in a batch is enough, and it is named."""
    request = batch_request(PAYMENTS)
    good = outcome_pb2.OUTCOME_COMMITTED
    with pytest.raises(BenchError, match=outcome_pb2.Outcome.Name(odd)):
        Tally().add(request, answer(request, good, odd, good))


def test_answers_of_other_transfers_fail_the_run() -> None:
    """Too few answers, and answers in another order, are not read as outcomes."""
    request = batch_request(PAYMENTS)
    good = outcome_pb2.OUTCOME_COMMITTED
    with pytest.raises(BenchError, match="order"):
        Tally().add(request, answer(request, good, good))
    swapped = answer(request, good, good, good)
    swapped.results[0].transaction_id = request.transfers[1].transaction_id
    with pytest.raises(BenchError, match="order"):
        Tally().add(request, swapped)
