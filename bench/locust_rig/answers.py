"""What became of transfers: the outcomes in an answer that is not the expected one, or in a failed call.

Invariant: every transfer of a call gets exactly one outcome, also when the answer is lost or wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import grpc
from google.protobuf.message import DecodeError

from bench.transfers import Call
from tallystick.status import from_rpc_error
from tallystick.v1 import outcome_pb2, wallet_pb2

COMMITTED = "COMMITTED"
# No outcome of the contract: the answer is not of this transfer, or cannot be read.
WRONG_ANSWER = "WRONG_ANSWER"

Answer = bytes | Exception


def batch_outcomes(batch: Call, answer: Answer) -> Mapping[str, int]:
    """How many of the transfers of a BatchTransfer had which outcome, by name."""
    if answer == batch.committed_answer():
        return {COMMITTED: len(batch)}
    if isinstance(answer, Exception):
        return {_outcome_of_failure(answer): len(batch)}
    try:
        results = wallet_pb2.BatchTransferResponse.FromString(answer).results
    except DecodeError:
        return {WRONG_ANSWER: len(batch)}
    outcomes = Counter(
        _name(result.outcome) if result.transaction_id == sent else WRONG_ANSWER
        for result, sent in zip(results, batch.ids(), strict=False)
    )
    # Left out, or too many.
    if missing := len(batch) - len(results):
        outcomes[WRONG_ANSWER] += max(missing, 0)
    return +outcomes


def single_outcome(single: Call, answer: Answer) -> str:
    """The outcome of a Transfer, by name."""
    if isinstance(answer, Exception):
        return _outcome_of_failure(answer)
    if answer.startswith(single.single_answer()):
        return COMMITTED
    try:
        response = wallet_pb2.TransferResponse.FromString(answer)
    except DecodeError:
        return WRONG_ANSWER
    return _name(response.outcome) if [response.transaction_id] == single.ids() else WRONG_ANSWER


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
