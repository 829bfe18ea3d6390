"""The rig's requests are the contract's messages, and the answers it expects are what a router would send."""

import time
import uuid

import numpy as np
import pytest

from bench.locust_rig.answers import batch_outcomes, single_outcome
from bench.locust_rig.transfer_bytes import (
    MAX_ACCOUNTS,
    POOR_ACCOUNTS,
    Batch,
    Single,
    TransferRequests,
    account_id,
    poor_account_id,
)
from tallystick.v1 import outcome_pb2, wallet_pb2


def requests(accounts: int = 1000, reject_share: float = 0.0, seed: int = 1) -> TransferRequests:
    """A source with a fixed seed."""
    return TransferRequests(accounts, reject_share, np.random.default_rng(seed))


def answer_to(batch: Batch) -> wallet_pb2.BatchTransferResponse:
    """The answer when all are committed, as a message."""
    sent = wallet_pb2.BatchTransferRequest.FromString(batch.request)
    return wallet_pb2.BatchTransferResponse(
        results=[
            wallet_pb2.TransferResponse(
                transaction_id=transfer.transaction_id, outcome=outcome_pb2.OUTCOME_COMMITTED
            )
            for transfer in sent.transfers
        ]
    )


def test_a_batch_is_what_protobuf_would_have_made() -> None:
    """Parsed and written again it is the same bytes; each field is as asked for."""
    batch = requests().batch(500)
    parsed = wallet_pb2.BatchTransferRequest.FromString(batch.request)
    assert len(parsed.transfers) == batch.size == 500
    assert parsed.SerializeToString() == batch.request
    for transfer in parsed.transfers:
        assert transfer.from_account != transfer.to_account
        assert {len(transfer.from_account), len(transfer.to_account)} == {13}
        assert 100 <= float(transfer.amount) <= 999.99
        assert transfer.currency == "EUR"
    assert len({transfer.amount for transfer in parsed.transfers}) > 400
    assert {transfer.from_account for transfer in parsed.transfers} <= {account_id(n) for n in range(1000)}


def test_ids_are_uuids_of_version_7_and_never_the_same() -> None:
    """They carry the time, and two sources of one seed do not make the same."""
    seen: set[str] = set()
    now_ms = time.time_ns() // 1_000_000
    for source in (requests(), requests()):
        for _ in range(3):
            batch = wallet_pb2.BatchTransferRequest.FromString(source.batch(1000).request)
            seen.update(transfer.transaction_id for transfer in batch.transfers)
    assert len(seen) == 6000
    for text in seen:
        made = uuid.UUID(text)
        assert (str(made), made.version, made.variant) == (text, 7, uuid.RFC_4122)
        assert 0 <= (made.int >> 80) - now_ms < 60_000


def test_the_expected_answer_is_what_a_router_writes() -> None:
    """Byte for byte, so that it need not be parsed."""
    batch = requests().batch(100)
    assert answer_to(batch).SerializeToString() == batch.committed
    assert batch_outcomes(batch, batch.committed) == {"COMMITTED": 100}


def test_single_transfers_are_messages_of_their_own() -> None:
    """Each is another one; a committed answer is known by its beginning, with or without balances."""
    source = requests()
    singles = [source.single() for _ in range(600)]
    sent = [wallet_pb2.TransferRequest.FromString(single.request) for single in singles]
    assert len({transfer.transaction_id for transfer in sent}) == 600
    answer = wallet_pb2.TransferResponse(
        transaction_id=sent[0].transaction_id,
        outcome=outcome_pb2.OUTCOME_COMMITTED,
        from_available="-1.00",
        to_available="1.00",
    )
    assert single_outcome(singles[0], answer.SerializeToString()) == "COMMITTED"
    assert single_outcome(singles[1], answer.SerializeToString()) == "WRONG_ANSWER"


def test_every_transfer_of_an_odd_answer_gets_one_outcome() -> None:
    """Refused, of another transfer, left out, too many, unreadable."""
    batch = requests().batch(10)
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
    assert batch_outcomes(batch, batch.committed + batch.committed[:42]) == {"COMMITTED": 10}
    assert batch_outcomes(batch, b"\xff") == {"WRONG_ANSWER": 10}
    assert single_outcome(Single(b"", b"\x0a"), b"\xff") == "WRONG_ANSWER"


def test_the_asked_share_of_payers_has_no_funds() -> None:
    """They are accounts of their own, which nobody pays."""
    batch = wallet_pb2.BatchTransferRequest.FromString(requests(reject_share=0.1).batch(8000).request)
    ids = {poor_account_id(number) for number in range(POOR_ACCOUNTS)}
    poor = [transfer for transfer in batch.transfers if transfer.from_account in ids]
    assert 600 < len(poor) < 1000
    assert not any(transfer.to_account in ids for transfer in batch.transfers)


@pytest.mark.parametrize("accounts", [1, MAX_ACCOUNTS + 1])
def test_a_bad_number_of_accounts_is_named(accounts: int) -> None:
    """With its limits."""
    with pytest.raises(ValueError, match=rf"accounts must be 2 to {MAX_ACCOUNTS}, not {accounts}"):
        TransferRequests(accounts)
