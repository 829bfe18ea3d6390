"""Every transfer of a call gets one outcome, whatever the answer is."""

import pytest

from bench.errors import BenchError
from bench.locust_rig.answers import batch_outcomes, single_outcome
from bench.settings import MAX_ACCOUNTS, Shape
from bench.transfers.wire import Call, Supply, Wire
from bench.transfers.workload import Workload, make_accounts
from shard_node.cluster.slots import SLOT_COUNT
from tallystick.v1 import outcome_pb2, wallet_pb2


def supply() -> Supply:
    """Transfers between the rig's accounts."""
    shape = Shape(1000)
    accounts = make_accounts(shape, "locust")
    return Supply(Workload(shape, accounts, [0] * SLOT_COUNT), Wire(accounts.ids), 100)


def answer_to(batch: Call) -> wallet_pb2.BatchTransferResponse:
    """The answer when all are committed, as a message."""
    return wallet_pb2.BatchTransferResponse(
        results=[
            wallet_pb2.TransferResponse(transaction_id=sent, outcome=outcome_pb2.OUTCOME_COMMITTED)
            for sent in batch.ids()
        ]
    )


def test_the_expected_answer_is_all_committed() -> None:
    """As a router writes it, byte for byte, so that it need not be parsed."""
    batch = supply().next(100)
    assert batch_outcomes(batch, answer_to(batch).SerializeToString()) == {"COMMITTED": 100}


def test_single_transfers_are_messages_of_their_own() -> None:
    """Each is another one; a committed answer is known by its beginning, with or without balances."""
    source = supply()
    singles = [source.next(1) for _ in range(600)]
    sent = [wallet_pb2.TransferRequest.FromString(single.single_request()) for single in singles]
    assert len({transfer.transaction_id for transfer in sent}) == 600
    assert {transfer.from_account[:7] for transfer in sent} == {"locust-"}
    answer = wallet_pb2.TransferResponse(
        transaction_id=sent[0].transaction_id,
        outcome=outcome_pb2.OUTCOME_COMMITTED,
        from_available="-1.00",
        to_available="1.00",
    )
    assert answer.SerializeToString().startswith(singles[0].single_answer())
    assert single_outcome(singles[0], answer.SerializeToString()) == "COMMITTED"
    assert single_outcome(singles[1], answer.SerializeToString()) == "WRONG_ANSWER"


def test_every_transfer_of_an_odd_answer_gets_one_outcome() -> None:
    """Refused, of another transfer, left out, too many, unreadable."""
    source = supply()
    # Not the first of its block.
    batch = [source.next(10) for _ in range(2)][-1]
    answer = answer_to(batch)
    answer.results[3].outcome = outcome_pb2.OUTCOME_INSUFFICIENT_FUNDS
    answer.results[4].transaction_id = answer.results[5].transaction_id
    answer.results[6].outcome = 99  # type: ignore[assignment]
    del answer.results[9]
    assert batch_outcomes(batch, answer.SerializeToString()) == {
        "COMMITTED": 6,
        "INSUFFICIENT_FUNDS": 1,
        "WRONG_ANSWER": 2,
        "OUTCOME_99": 1,
    }
    committed = batch.committed_answer()
    assert batch_outcomes(batch, committed + committed[:42]) == {"COMMITTED": 10}
    assert batch_outcomes(batch, b"\xff") == {"WRONG_ANSWER": 10}
    assert single_outcome(source.next(1), b"\xff") == "WRONG_ANSWER"


@pytest.mark.parametrize("accounts", [1, MAX_ACCOUNTS + 1])
def test_a_bad_number_of_accounts_is_named(accounts: int) -> None:
    """With its limits."""
    with pytest.raises(BenchError, match=r"accounts: .* is not within 2 to 1,000,000"):
        Shape(accounts)
