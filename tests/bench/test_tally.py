"""What makes a run fail rather than count."""

import grpc
import grpc.aio
import numpy as np
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from bench.errors import BenchError
from bench.load.tally import Tally
from bench.settings import Shape
from bench.transfers.wire import Call, Wire
from bench.transfers.workload import Payments, make_accounts
from tallystick.v1 import outcome_pb2, wallet_pb2

COMMITTED = outcome_pb2.OUTCOME_COMMITTED
REFUSED = outcome_pb2.OUTCOME_INSUFFICIENT_FUNDS


def call_of(expected: str) -> Call:
    """A call with a transfer for each letter: "c" must be committed, "r" refused."""
    refused = np.array([letter == "r" for letter in expected])
    numbers = np.arange(len(expected), dtype=np.intp)
    payments = Payments(numbers, numbers + 50, numbers, refused)
    block = Wire(make_accounts(Shape(accounts=100)).ids).block(payments)
    return Call(block, 0, len(expected))


def answer(call: Call, *outcomes: outcome_pb2.Outcome) -> wallet_pb2.BatchTransferResponse:
    """A response with these outcomes, in the order of the call; as many as there are outcomes."""
    return wallet_pb2.BatchTransferResponse(
        results=[
            wallet_pb2.TransferResponse(
                transaction_id=transaction_id,
                outcome=outcome,
                refusal=None if outcome == COMMITTED else wallet_pb2.Refusal(outcome=outcome, message="why"),
            )
            for transaction_id, outcome in zip(call.ids(), outcomes, strict=False)
        ]
    )


def status(code: grpc.StatusCode, reason: str = "", transaction_id: str = "") -> grpc.aio.AioRpcError:
    """A status, with the service's own details when there is a reason."""
    details = any_pb2.Any()
    details.Pack(
        error_details_pb2.ErrorInfo(
            reason=reason, domain="tallystick", metadata={"transaction_id": transaction_id}
        )
    )
    rich = status_pb2.Status(code=code.value[0], message="why", details=[details])
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", rich.SerializeToString()))
    return grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), trailing if reason else grpc.aio.Metadata(), details="why"
    )


def test_every_transfer_is_counted_in_its_second() -> None:
    """Committed and refused ones apart; a second with nothing has a zero."""
    tally = Tally(begun=100.0)
    call, mixed = call_of("ccc"), call_of("crc")
    tally.add_batch(call, call.committed_answer(), 100.9)
    tally.add_batch(mixed, answer(mixed, COMMITTED, REFUSED, COMMITTED).SerializeToString(), 103.1)
    assert (tally.committed, tally.refused) == (5, 1)
    assert tally.per_second == [3, 0, 0, 2]


def test_an_answer_that_says_more_is_read_all_the_same() -> None:
    """Balances, or fields of a newer version, make the bytes differ, not the outcomes."""
    call = call_of("cc")
    response = answer(call, COMMITTED, COMMITTED)
    response.results[1].from_available = "1.00"
    tally = Tally(0.0)
    tally.add_batch(call, response.SerializeToString(), 0.0)
    assert tally.committed == 2


@pytest.mark.parametrize(
    "odd",
    [
        REFUSED,
        outcome_pb2.OUTCOME_OUTCOME_UNKNOWN,
        outcome_pb2.OUTCOME_ABORTED,
        outcome_pb2.OUTCOME_ACCOUNT_NOT_FOUND,
        outcome_pb2.OUTCOME_UNSPECIFIED,
    ],
)
def test_any_other_outcome_fails_the_run(odd: outcome_pb2.Outcome) -> None:
    """One such transfer in a batch is enough, and it is named."""
    call = call_of("ccc")
    response = answer(call, COMMITTED, odd, COMMITTED).SerializeToString()
    with pytest.raises(BenchError, match=f"{outcome_pb2.Outcome.Name(odd)} in place of OUTCOME_COMMITTED"):
        Tally(0.0).add_batch(call, response, 0.0)


def test_a_transfer_without_funds_that_is_committed_fails_the_run() -> None:
    """Also when the answer's bytes are those of an ordinary batch."""
    call = call_of("cr")
    with pytest.raises(BenchError, match="COMMITTED in place of OUTCOME_INSUFFICIENT_FUNDS"):
        Tally(0.0).add_batch(call, call.committed_answer(), 0.0)


def test_answers_of_other_transfers_fail_the_run() -> None:
    """Too few answers, too many, none, and answers in another order are not read as outcomes."""
    call = call_of("ccc")
    whole = answer(call, COMMITTED, COMMITTED, COMMITTED)
    swapped, longer = wallet_pb2.BatchTransferResponse(), wallet_pb2.BatchTransferResponse()
    swapped.results.extend([whole.results[1], whole.results[0], whole.results[2]])
    longer.results.extend([*whole.results, whole.results[2]])
    twice = wallet_pb2.BatchTransferResponse(results=[whole.results[0]] * 3)
    for wrong in (answer(call, COMMITTED, COMMITTED), swapped, longer, twice, answer(call)):
        tally = Tally(0.0)
        with pytest.raises(BenchError, match="order"):
            tally.add_batch(call, wrong.SerializeToString(), 0.0)
        assert tally.committed == 0


def test_an_answer_that_is_no_message_fails_the_run() -> None:
    """Bytes of something else."""
    for add in (Tally(0.0).add_batch, Tally(0.0).add_single):
        with pytest.raises(BenchError, match="is no"):
            add(call_of("c"), b"\xff\xff\xff", 0.0)


def test_a_single_answer_is_checked_as_closely() -> None:
    """Its id and its outcome."""
    call, tally = call_of("c"), Tally(0.0)
    (right,) = answer(call, COMMITTED).results
    tally.add_single(call, right.SerializeToString(), 0.0)
    assert tally.committed == 1
    (other,) = answer(call_of("c"), COMMITTED).results
    with pytest.raises(BenchError, match="not that of its transfer"):
        tally.add_single(call, other.SerializeToString(), 0.0)
    (aborted,) = answer(call, outcome_pb2.OUTCOME_ABORTED).results
    with pytest.raises(BenchError, match="ABORTED"):
        tally.add_single(call, aborted.SerializeToString(), 0.0)
    refused = call_of("r")
    with pytest.raises(BenchError, match="in place of OUTCOME_INSUFFICIENT_FUNDS"):
        tally.add_single(refused, answer(refused, COMMITTED).results[0].SerializeToString(), 0.0)


def test_a_status_that_was_expected_is_counted() -> None:
    """A single transfer without funds is refused by a status; the reason is in its details."""
    call, tally = call_of("r"), Tally(0.0)
    (transaction_id,) = call.ids()
    tally.add_status(
        call, status(grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_FUNDS", transaction_id), 0.0
    )
    assert (tally.committed, tally.refused) == (0, 1)


@pytest.mark.parametrize(
    ("refuse", "code", "reason", "own_id"),
    [
        # Not expected.
        (False, grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_FUNDS", True),
        (False, grpc.StatusCode.UNAVAILABLE, "", True),
        # Not for lack of funds, or nobody knows why.
        (True, grpc.StatusCode.FAILED_PRECONDITION, "ACCOUNT_FROZEN", True),
        (True, grpc.StatusCode.FAILED_PRECONDITION, "", True),
        (True, grpc.StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN", True),
        # Of another transfer.
        (True, grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_FUNDS", False),
    ],
)
def test_any_other_status_fails_the_run(
    code: grpc.StatusCode, reason: str, *, refuse: bool, own_id: bool
) -> None:
    """Other refusals have the same code, so the reason counts."""
    call = call_of("r" if refuse else "c")
    transaction_id = call.ids()[0] if own_id else call_of("r" if refuse else "c").ids()[0]
    tally = Tally(0.0)
    with pytest.raises(grpc.aio.AioRpcError):
        tally.add_status(call, status(code, reason, transaction_id), 0.0)
    assert tally.refused == 0
