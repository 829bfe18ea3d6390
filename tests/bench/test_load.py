"""Load processes against a stand-in for a router: what they count, and the faults that they must see."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from bench.errors import BenchError
from bench.load.processes import load_processes
from bench.settings import Arrivals, BenchSettings
from router.services.refusals import refusal
from shard_node.contract.outcomes import Outcome
from tallystick.v1 import outcome_pb2, wallet_pb2, wallet_pb2_grpc

pytestmark = pytest.mark.servers

COMMITTED = outcome_pb2.OUTCOME_COMMITTED
OWNERS = [0] * 16384


class StandIn(wallet_pb2_grpc.WalletServiceServicer):
    """Commits what comes, but refuses the poor; a test makes it do something wrong."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.payments: list[tuple[str, str, str]] = []
        self.opened: list[str] = []
        self.versions = 0
        # The batch or single call, from 1, from which on something is wrong.
        self.wrong_from = 0
        self.fault = ""
        self.stall_seconds = 0.0
        self._calls = 0
        self._lock = threading.Lock()

    def BatchOpenAccounts(self, request: wallet_pb2.BatchOpenAccountsRequest, _: Any) -> Any:  # noqa: N802
        with self._lock:
            self.opened += [account.account_id for account in request.accounts]
        return self._accounts(account.account_id for account in request.accounts)

    def BatchGetAccounts(self, request: wallet_pb2.BatchGetAccountsRequest, _: Any) -> Any:  # noqa: N802
        return self._accounts(request.account_ids)

    def BatchTransfer(self, request: wallet_pb2.BatchTransferRequest, _: Any) -> Any:  # noqa: N802
        wrong = self._seen(request.transfers)
        response = wallet_pb2.BatchTransferResponse(results=[_result(t) for t in request.transfers])
        if wrong and self.fault == "outcome":
            response.results[-1].outcome = outcome_pb2.OUTCOME_ABORTED
        elif wrong and self.fault == "swapped":
            first, second = response.results[0].transaction_id, response.results[1].transaction_id
            response.results[0].transaction_id, response.results[1].transaction_id = second, first
        elif wrong and self.fault == "missing":
            del response.results[-1]
        return response

    def Transfer(self, request: wallet_pb2.TransferRequest, context: grpc.ServicerContext) -> Any:  # noqa: N802
        wrong = self._seen([request])
        if wrong and self.fault == "status":
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        return _result(request)

    def _seen(self, transfers: Any) -> bool:
        # Under a lock: while one call stalls, all do.
        with self._lock:
            self._calls += 1
            self.ids += [transfer.transaction_id for transfer in transfers]
            self.payments += [(t.from_account, t.to_account, t.amount) for t in transfers]
            if self._calls == self.wrong_from:
                time.sleep(self.stall_seconds)
            return 0 < self.wrong_from <= self._calls

    def _accounts(self, ids: Any) -> wallet_pb2.BatchAccountsResponse:
        return wallet_pb2.BatchAccountsResponse(
            results=[
                wallet_pb2.AccountResult(account=wallet_pb2.Account(account_id=i, version=self.versions))
                for i in ids
            ]
        )


def _result(transfer: wallet_pb2.TransferRequest) -> wallet_pb2.TransferResponse:
    response = wallet_pb2.TransferResponse(transaction_id=transfer.transaction_id, outcome=COMMITTED)
    if "x" in transfer.from_account:
        why = refusal(Outcome.INSUFFICIENT_FUNDS)
        response.outcome = why.outcome
        response.refusal.CopyFrom(why)
    return response


@contextmanager
def serving(stand_in: StandIn) -> Iterator[str]:
    """The stand-in's address, for as long as the block lasts."""
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    wallet_pb2_grpc.add_WalletServiceServicer_to_server(stand_in, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_several_processes_share_the_work_and_none_of_it_twice() -> None:
    """Accounts, transfers and refusals over three processes; ids unique over all and over runs."""
    settings = BenchSettings(
        clients=3, accounts=20_000, batch=50, concurrency=5, transfers=1000, rejections=0.2, seed=3
    )
    stand_in = StandIn()
    stand_in.versions = 2
    with serving(stand_in) as address, load_processes(settings, [address], OWNERS) as load:
        assert list(load.pids) == ["client-0", "client-1", "client-2"]
        assert load.open_accounts() == load.read_accounts() == 2 * 22_000
        results = [load.run(number, 60.0, settings.transfers) for number in (1, 2)]
    assert len(set(stand_in.opened)) == len(stand_in.opened) == 22_000
    assert len(set(stand_in.ids)) == len(stand_in.ids) == 2000
    # Each process draws payments of its own, in each run others.
    assert len(set(stand_in.payments)) == 2000
    for result in results:
        assert result.transfers == 1000
        # Six standard deviations.
        assert result.insufficient_funds == pytest.approx(200, abs=76)
        assert sum(result.per_second) == result.committed
        # 334, 333 and 333 transfers by 50.
        assert result.latencies.count == 21
        assert result.lags.count == 0
        assert result.seconds > 0


@pytest.mark.parametrize(
    ("fault", "unary", "sentence"),
    [
        ("outcome", False, "ABORTED"),
        ("swapped", False, "order"),
        ("missing", False, "order"),
        ("status", True, "UNAVAILABLE: gone"),
    ],
)
def test_a_wrong_answer_in_the_middle_of_a_run_fails_it(fault: str, sentence: str, *, unary: bool) -> None:
    """The process says so, and takes further orders."""
    settings = BenchSettings(accounts=100, batch=20, unary=unary, transfers=1000, concurrency=2)
    stand_in = StandIn()
    stand_in.fault, stand_in.wrong_from = fault, 10
    with serving(stand_in) as address, load_processes(settings, [address], OWNERS) as load:
        with pytest.raises(BenchError, match=sentence):
            load.run(1, 60.0, settings.transfers)
        stand_in.wrong_from = 0
        assert load.run(2, 60.0, settings.transfers).committed == 1000


def test_a_stalled_service_shows_in_an_open_loop() -> None:
    """One second without any answer, 100 calls due in it: over real processes and a real connection."""
    settings = BenchSettings(
        accounts=100, unary=True, rate=100.0, arrivals=Arrivals.EVEN, clients=2, concurrency=4
    )
    stand_in = StandIn()
    stand_in.wrong_from, stand_in.stall_seconds = 50, 1.0
    with serving(stand_in) as address, load_processes(settings, [address], OWNERS) as load:
        begun = time.monotonic()
        result = load.run(1, 2.0, None)
        elapsed = time.monotonic() - begun
    assert result.committed == result.latencies.count == 200
    # The processes ran beside each other.
    assert 1.9 < result.seconds < elapsed
    # At least: half of all calls were due while nothing was answered, and waited for what was left of it.
    assert result.latencies.percentile_ms(99) > 950
    assert result.latencies.percentile_ms(75) > 450
    # They could not all be in flight, so they were sent late as well.
    assert result.lags.percentile_ms(99) > 900


def test_an_open_loop_keeps_to_its_rate() -> None:
    """However fast answers come: as many batches as were due, in the time that was asked for."""
    settings = BenchSettings(accounts=100, batch=10, rate=1000.0, arrivals=Arrivals.EVEN)
    with serving(StandIn()) as address, load_processes(settings, [address], OWNERS) as load:
        result = load.run(1, 1.0, None)
    assert result.committed == 1000
    assert result.seconds >= 0.99


def test_a_load_that_cannot_be_is_refused_by_its_process() -> None:
    """With its own sentence."""
    settings = BenchSettings(accounts=100, same_shard=0.0)
    with (
        load_processes(settings, ["127.0.0.1:1"], OWNERS) as load,
        pytest.raises(BenchError, match="too few"),
    ):
        load.open_accounts()
