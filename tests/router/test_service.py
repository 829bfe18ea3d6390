"""The service's own promises: bounded work, callers that hang up, shards that do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from router.execution.engine import Engine
from router.execution.journal_engine import JournalEngine

from coordinator.cluster_service import ClusterService
from router.execution import coalescer, kept
from router.services.wallet_service import WalletService, add_methods
from shard_node.cluster.currencies import Exponents
from shard_node.cluster.registry import Member
from shard_node.cluster.slots import slot
from shard_node.errors import RegistryError, ShardFullError, ShardUnavailableError, StaleEpochError
from shard_node.serving.server import Methods
from tallystick.v1 import cluster_pb2, outcome_pb2, wallet_pb2
from tests.exponents import CurrenciesStandIn
from tests.router.samples import reader, uuid7
from tests.router.stand_ins import (
    AbortedError,
    Clock,
    CommittersStandIn,
    Context,
    MapsStandIn,
    NoShards,
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
    currencies: CurrenciesStandIn = field(default_factory=CurrenciesStandIn)
    service: WalletService = field(init=False)

    def __post_init__(self) -> None:
        maps = MapsStandIn(Clock(), cluster_cut_at(1, slot(HIGH), self.left, self.right))
        committers = CommittersStandIn()
        self.service = WalletService(
            Engine(maps, committers),
            JournalEngine(maps, committers),
            maps,
            reader(exponents=self.currencies.exponents),
            self.currencies,
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


# ---------------------------------------------------------------------- currencies


class ZookeeperStandIn(CurrenciesStandIn):
    """A ZooKeeper that is away, or answers with what another router has stored meanwhile."""

    def __init__(self, stored: dict[str, int] | None) -> None:
        super().__init__(Exponents(EUR=2))
        self._stored = stored

    async def require_exponents(self, currencies: Iterable[str]) -> None:
        """Reads anew what is not known."""
        if set(currencies) - self.exponents.keys():
            if self._stored is None:
                raise RegistryError("ZooKeeper did not answer in time")
            self.exponents.learn(self._stored)
        await super().require_exponents(currencies)


def of_currency(currency: str, number: int = 1) -> wallet_pb2.TransferRequest:
    """A transfer in that currency."""
    request = payment(number)
    request.currency = currency
    return request


@pytest.mark.parametrize("method", ["Transfer", "BatchTransfer", "Hold", "OpenAccount", "BatchOpenAccounts"])
async def test_a_new_currency_while_zookeeper_is_away(method: str) -> None:
    """Not known, in plain words, with nothing asked of a shard; known currencies go on."""
    bench = Bench(currencies=ZookeeperStandIn(None))
    opening = wallet_pb2.OpenAccountRequest(account_id=LOW, currency="CHF")
    known = wallet_pb2.OpenAccountRequest(account_id=LOW, currency="EUR", validate_only=True)
    if method == "BatchTransfer":
        batch = wallet_pb2.BatchTransferRequest(transfers=[of_currency("CHF"), of_currency("EUR", 2)])
        answer = await bench.service.BatchTransfer(batch.SerializeToString(), Context())
        first, second = wallet_pb2.BatchTransferResponse.FromString(answer).results
        assert second.outcome == outcome_pb2.OUTCOME_COMMITTED
        assert bench.left.posted() == [[2]]
        why = first.refusal
    elif method == "BatchOpenAccounts":
        accounts = wallet_pb2.BatchOpenAccountsRequest(accounts=[opening, known])
        refused, done = (await bench.service.BatchOpenAccounts(accounts, Context())).results
        assert done.account.available == "0.00"
        why = refused.refusal
    else:
        hold = wallet_pb2.HoldRequest(
            transaction_id=uuid7(0), account_id=LOW, amount="1", currency="CHF", reference="r"
        )
        requests = {"Transfer": of_currency("CHF"), "Hold": hold, "OpenAccount": opening}
        context, reason = await aborted(getattr(bench.service, method), requests[method])
        assert (context.code, reason) == (grpc.StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN")
        why = wallet_pb2.Refusal(outcome=outcome_pb2.OUTCOME_OUTCOME_UNKNOWN, message=context.text)
        assert bench.left.calls == []
    assert why.outcome == outcome_pb2.OUTCOME_OUTCOME_UNKNOWN
    assert why.message == "ZooKeeper did not answer in time"


async def test_a_currency_that_another_router_has_just_opened() -> None:
    """It is read by what that router stored, whatever the package here says of it, alone and in a batch."""
    for send in ("Transfer", "BatchTransfer"):
        bench = Bench(currencies=ZookeeperStandIn({"CHF": 3}))
        if send == "Transfer":
            await bench.service.Transfer(of_currency("CHF"), Context())
        else:
            batch = wallet_pb2.BatchTransferRequest(transfers=[of_currency("CHF")])
            await bench.service.BatchTransfer(batch.SerializeToString(), Context())
        assert bench.left.posted() == [[10]]


async def test_money_of_a_currency_that_no_account_has() -> None:
    """Nobody guesses how many decimals it has: it is refused, and says what to do."""
    bench = Bench(currencies=ZookeeperStandIn({}))
    context, reason = await aborted(bench.service.Transfer, of_currency("CHF"))
    assert (context.code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert context.text == "currency: no account was ever opened in CHF, so none can pay or be paid in it"
    assert bench.left.calls == []


# ---------------------------------------------------------------------- operators


class RegistryStandIn:
    """A registry whose ZooKeeper is away."""

    async def members(self) -> list[Member]:
        """Nobody knows."""
        raise RegistryError("ZooKeeper did not answer in time")


async def test_an_operator_without_an_answer_learns_when_to_ask_again() -> None:
    """The details are those of every other service: a reason, and how soon."""
    service = ClusterService(RegistryStandIn(), NoShards())  # type: ignore[arg-type]  # what they need alone
    context, reason = await aborted(service.ListMembers, cluster_pb2.ListMembersRequest())
    assert (context.code, reason) == (grpc.StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN")
    assert context.text == "ZooKeeper did not answer in time"
    assert len(context.detail(error_details_pb2.RetryInfo)) == 1
