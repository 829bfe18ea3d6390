"""What became of transfers: the outcomes in an answer that is not the expected one, or in a failed call.

Invariant: every transfer of a call gets exactly one outcome, also when the answer is lost or wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import grpc
from google.protobuf.message import DecodeError

from bench.locust_rig.transfer_bytes import Batch, Single
from tallystick.status import from_rpc_error
from tallystick.v1 import outcome_pb2, wallet_pb2

COMMITTED = "COMMITTED"
# No outcome of the contract: the answer is not of this transfer, or cannot be read.
WRONG_ANSWER = "WRONG_ANSWER"

Answer = bytes | Exception


def batch_outcomes(batch: Batch, answer: Answer) -> Mapping[str, int]:
    """How many of the batch's transfers had which outcome, by name."""
    if answer == batch.committed:
        return {COMMITTED: batch.size}
    if isinstance(answer, Exception):
        return {_outcome_of_failure(answer): batch.size}
    try:
        results = wallet_pb2.BatchTransferResponse.FromString(answer).results
    except DecodeError:
        return {WRONG_ANSWER: batch.size}
    sent = wallet_pb2.BatchTransferRequest.FromString(batch.request).transfers
    outcomes = Counter(
        _name(result.outcome) if result.transaction_id == transfer.transaction_id else WRONG_ANSWER
        for result, transfer in zip(results, sent, strict=False)
    )
    # Left out, or too many.
    if missing := batch.size - len(results):
        outcomes[WRONG_ANSWER] += max(missing, 0)
    return +outcomes


def single_outcome(single: Single, answer: Answer) -> str:
    """The outcome of a single transfer, by name."""
    if isinstance(answer, Exception):
        return _outcome_of_failure(answer)
    if answer.startswith(single.committed_prefix):
        return COMMITTED
    try:
        response = wallet_pb2.TransferResponse.FromString(answer)
    except DecodeError:
        return WRONG_ANSWER
    sent = wallet_pb2.TransferRequest.FromString(single.request)
    return _name(response.outcome) if response.transaction_id == sent.transaction_id else WRONG_ANSWER


def _outcome_of_failure(error: Exception) -> str:
    if not isinstance(error, grpc.RpcError):
        raise error
    return from_rpc_error(error).error.outcome.name


def _name(outcome: int) -> str:
    try:
        return outcome_pb2.Outcome.Name(outcome).removeprefix("OUTCOME_")
    except ValueError:
        # Of a newer service.
        return f"OUTCOME_{outcome}"
