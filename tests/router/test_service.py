"""The service's own promises: bounded work, callers that hang up, shards that do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from coordinator.serving import Methods
from router import coalescer, kept
from router.engine import Engine
from router.journal_engine import JournalEngine
from router.service import WalletService, add_methods
from shard_node.errors import ShardFullError, ShardUnavailableError, StaleEpochError
from shard_node.slots import slot
from tallystick.v1 import outcome_pb2, wallet_pb2
from tests.router.samples import reader, uuid7
from tests.router.stand_ins import (
    AbortedError,
    Clock,
    CommittersStandIn,
    Context,
    MapsStandIn,
    ShardStandIn,
    cluster_cut_at,
)

Handler = Callable[[Any, Any], Coroutine[Any, Any, Any]]

LOW, HIGH = sorted(["alice", "bob"], key=slot)
FRIEND = "{" + LOW + "}"


@dataclass(slots=True)
class Bench:
    """A service over two stand-in shards: LOW is on the left one, HIGH on the right one."""

    left: ShardStandIn = field(default_factory=lambda: ShardStandIn("left"))
    right: ShardStandIn = field(default_factory=lambda: ShardStandIn("right"))
    service: WalletService = field(init=False)

    def __post_init__(self) -> None:
        maps = MapsStandIn(Clock(), cluster_cut_at(1, slot(HIGH), self.left, self.right))
        committers = CommittersStandIn()
        self.service = WalletService(
            Engine(maps, committers), JournalEngine(maps, committers), maps, reader()
        )


@pytest.fixture
async def bench() -> Bench:
    """A service over stand-ins."""
    return Bench()


def payment(number: int) -> wallet_pb2.TransferRequest:
    """A transfer that stays on the left shard; its amount tells it from others."""
    return wallet_pb2.TransferRequest(
        transaction_id=uuid7(0, seed=number),
        from_account=LOW,
        to_account=FRIEND,
        amount=f"{number / 100:.2f}",
        currency="EUR",
    )


async def aborted(call: Handler, request: Any) -> tuple[Context, str]:
    """How a call that must be refused ended, and the reason it gave."""
    context = Context()
    with pytest.raises(AbortedError):
        await call(request, context)
    (info,) = context.detail(error_details_pb2.ErrorInfo)
    return context, info.reason


async def turns() -> None:
    """Lets the loop do all that is ready."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_too_many_single_transfers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the router will not hold is refused with RetryInfo, and nothing of it is begun."""
    monkeypatch.setattr(coalescer, "MAX_BATCHES", 1)
    monkeypatch.setattr(coalescer, "MAX_WAITING", 2)
    bench.left.open_gate.clear()
    calls = []
    for number in (1, 2, 3):
        calls.append(asyncio.ensure_future(bench.service.Transfer(payment(number), Context())))
        await turns()
    context, reason = await aborted(bench.service.Transfer, payment(4))
    assert (context.code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED")
    assert len(context.detail(error_details_pb2.RetryInfo)) == 1
    (info,) = context.detail(error_details_pb2.ErrorInfo)
    assert info.metadata["transaction_id"] == payment(4).transaction_id
    bench.left.open_gate.set()
    responses = await asyncio.gather(*calls)
    assert [r.outcome for r in responses] == [outcome_pb2.OUTCOME_COMMITTED] * 3
    assert bench.left.posted() == [[1], [2, 3]]


async def test_too_many_in_batches(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches beyond the limit are refused whole; a caller that hangs up makes no room by that."""
    monkeypatch.setattr(kept, "MAX_IN_HAND", 3)
    bench.left.open_gate.clear()
    first = wallet_pb2.BatchTransferRequest(transfers=[payment(n) for n in (1, 2, 3)])
    second = wallet_pb2.BatchTransferRequest(transfers=[payment(4)]).SerializeToString()
    call = asyncio.ensure_future(bench.service.BatchTransfer(first.SerializeToString(), Context()))
    await turns()
    context, reason = await aborted(bench.service.BatchTransfer, second)
    assert (context.code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED")
    call.cancel()
    await turns()
    assert call.cancelled()
    _, reason = await aborted(bench.service.BatchTransfer, second)
    assert reason == "RESOURCE_EXHAUSTED"
    opening = wallet_pb2.BatchOpenAccountsRequest(
        accounts=[wallet_pb2.OpenAccountRequest(account_id="x", currency="EUR")]
    )
    _, reason = await aborted(bench.service.BatchOpenAccounts, opening)
    assert reason == "RESOURCE_EXHAUSTED"
    bench.left.open_gate.set()
    await bench.service.finish_all()
    await turns()
    answer = await bench.service.BatchTransfer(second, Context())
    response = wallet_pb2.BatchTransferResponse.FromString(answer)
    assert [r.outcome for r in response.results] == [outcome_pb2.OUTCOME_COMMITTED]
    assert bench.left.posted() == [[1, 2, 3], [4]]


@pytest.mark.parametrize("method", ["BatchTransfer", "Transfer"])
@pytest.mark.parametrize("count", [1, 200])
async def test_bytes_that_are_no_message(bench: Bench, method: str, count: int) -> None:
    """They are refused in words, also by the call that reads its bytes itself, and nothing is carried out."""
    whole = wallet_pb2.BatchTransferRequest(transfers=[payment(n) for n in range(1, count + 1)])
    methods = Methods()
    add_methods(bench.service, methods)
    server = grpc.aio.server(handlers=(methods,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary(f"/tallystick.v1.WalletService/{method}")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(whole.SerializeToString()[:-1])
    finally:
        await server.stop(None)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (refused.value.details() or "").startswith("the message cannot be read")
    assert bench.left.posted() == []


async def test_hanging_up_stops_nothing(bench: Bench) -> None:
    """A transfer whose caller has left is carried out, and draining waits for it."""
    bench.left.open_gate.clear()
    call = asyncio.ensure_future(bench.service.Transfer(payment(1), Context()))
    await turns()
    call.cancel()
    finished = asyncio.ensure_future(bench.service.finish_all())
    await turns()
    assert call.cancelled()
    assert not finished.done()
    bench.left.open_gate.set()
    await finished
    assert bench.left.posted() == [[1]]


async def test_single_transfers_travel_together(bench: Bench) -> None:
    """Concurrent calls share a batch and each gets its own answer."""
    responses = await asyncio.gather(*(bench.service.Transfer(payment(n), Context()) for n in range(1, 101)))
    assert bench.left.posted() == [list(range(1, 101))]
    assert [r.transaction_id for r in responses] == [payment(n).transaction_id for n in range(1, 101)]
    assert [r.to_available for r in responses] == [payment(n).amount for n in range(1, 101)]


async def test_a_shard_without_an_answer(bench: Bench) -> None:
    """Whatever is asked of a shard that is away is UNAVAILABLE, reason OUTCOME_UNKNOWN, with RetryInfo."""
    asked: list[tuple[Handler, Any]] = [
        (bench.service.Transfer, payment(1)),
        (
            bench.service.GetTransfer,
            wallet_pb2.GetTransferRequest(transaction_id=uuid7(0), from_account=LOW),
        ),
        (bench.service.GetAccount, wallet_pb2.GetAccountRequest(account_id=LOW)),
        (bench.service.OpenAccount, wallet_pb2.OpenAccountRequest(account_id=LOW, currency="EUR")),
    ]
    for call, request in asked:
        bench.left.answers.append(ShardUnavailableError("left: no answer"))
        context, reason = await aborted(call, request)
        assert (context.code, reason) == (grpc.StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN")
        assert len(context.detail(error_details_pb2.RetryInfo)) == 1


async def test_a_full_shard(bench: Bench) -> None:
    """A shard without memory refuses for load, of which the caller hears that nothing was begun."""
    opening = wallet_pb2.OpenAccountRequest(account_id=LOW, currency="EUR")
    asked: list[tuple[Handler, Any]] = [
        (bench.service.Transfer, payment(1)),
        (bench.service.OpenAccount, opening),
    ]
    for call, request in asked:
        bench.left.answers.append(ShardFullError("left: out of memory"))
        context, reason = await aborted(call, request)
        assert (context.code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED")
        assert len(context.detail(error_details_pb2.RetryInfo)) == 1


async def test_reading_goes_on_where_it_can(bench: Bench) -> None:
    """A batch of reads answers for the shards that answer; a shard with another epoch is asked again."""
    bench.left.answers.append(ShardUnavailableError("left: no answer"))
    bench.right.answers.append(StaleEpochError("right: moved on"))
    request = wallet_pb2.BatchGetAccountsRequest(account_ids=[HIGH, LOW, HIGH])
    response = await bench.service.BatchGetAccounts(request, Context())
    assert [r.refusal.outcome for r in response.results] == [
        outcome_pb2.OUTCOME_ACCOUNT_NOT_FOUND,
        outcome_pb2.OUTCOME_OUTCOME_UNKNOWN,
        outcome_pb2.OUTCOME_ACCOUNT_NOT_FOUND,
    ]
