"""What the answers said, and what makes a run fail rather than count.

Invariant: every transfer's outcome is known before it is sent. A run that saw any other one, an answer out of
order, or none, fails.
"""

from __future__ import annotations

import grpc.aio
from google.protobuf.message import DecodeError

from bench.errors import BenchError
from bench.load.latency import Latencies
from bench.transfers import Call
from tallystick import InsufficientFunds
from tallystick.status import from_rpc_error
from tallystick.v1 import outcome_pb2, wallet_pb2


class Tally:
    """Outcomes and times of one run, in one load process. Times are readings of one clock, in seconds."""

    def __init__(self, begun: float) -> None:
        self._begun = begun
        self.committed = 0
        self.refused = 0
        # From when a call was due to its answer.
        self.latencies = Latencies()
        # From when a call was due to when it was sent: what the generator itself was late.
        self.lags = Latencies()
        # Transfers committed in each second of the run.
        self.per_second: list[int] = []

    def sent(self, due: float, now: float) -> None:
        """Notes that a call that was due is sent."""
        self.lags.record(now - due)

    def answered(self, due: float, now: float) -> None:
        """Notes that a call that was due has its answer."""
        self.latencies.record(now - due)

    def add_batch(self, call: Call, answer: bytes, now: float) -> None:
        """Counts a BatchTransferResponse. Raises BenchError for one that should not be."""
        # Nearly every answer is just what it should be, so it is not looked at one by one.
        if answer == call.committed_answer() and not any(call.refused()):
            self.count(len(call), 0, now)
            return
        try:
            results = wallet_pb2.BatchTransferResponse.FromString(answer).results
        except DecodeError as error:
            raise BenchError(f"an answer is no BatchTransferResponse: {error}") from error
        if [result.transaction_id for result in results] != call.ids():
            raise BenchError("the answers of a batch are not those of its transfers, in their order")
        refused = call.refused()
        for result, refuse in zip(results, refused, strict=True):
            _check_outcome(result, refuse=refuse)
        self.count(len(call) - sum(refused), sum(refused), now)

    def add_single(self, call: Call, answer: bytes, now: float) -> None:
        """Counts a TransferResponse. Raises BenchError for one that should not be."""
        try:
            result = wallet_pb2.TransferResponse.FromString(answer)
        except DecodeError as error:
            raise BenchError(f"an answer is no TransferResponse: {error}") from error
        if [result.transaction_id] != call.ids():
            raise BenchError("an answer is not that of its transfer")
        _check_outcome(result, refuse=call.refused()[0])
        self.count(1, 0, now)

    def add_status(self, call: Call, status: grpc.aio.AioRpcError, now: float) -> None:
        """Counts a single call's status as the refusal that was expected; raises it when none was."""
        error = from_rpc_error(status).error
        lacks_funds = isinstance(error, InsufficientFunds) and [error.transaction_id] == call.ids()
        if not (call.refused()[0] and lacks_funds):
            raise status
        self.count(0, 1, now)

    def count(self, committed: int, refused: int, now: float) -> None:
        """Counts transfers that had the outcome which they should have."""
        self.committed += committed
        self.refused += refused
        second = max(0, int(now - self._begun))
        self.per_second += [0] * (second + 1 - len(self.per_second))
        self.per_second[second] += committed


def _check_outcome(result: wallet_pb2.TransferResponse, *, refuse: bool) -> None:
    expected = outcome_pb2.OUTCOME_INSUFFICIENT_FUNDS if refuse else outcome_pb2.OUTCOME_COMMITTED
    if result.outcome != expected:
        raise BenchError(
            f"{outcome_pb2.Outcome.Name(result.outcome)} in place of {outcome_pb2.Outcome.Name(expected)}: "
            f"{result.refusal.message or 'no reason given'}"
        )
