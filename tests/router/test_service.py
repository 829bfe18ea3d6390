"""The service's own promises: bounded work, callers that hang up, shards that do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.rpc import error_details_pb2

from coordinator.cluster_service import ClusterService
from router.execution import coalescer, kept
from router.services.wallet_service import add_methods
from shard_node.cluster.currencies import Exponents
from shard_node.cluster.registry import Member
from shard_node.cluster.slots import slot
from shard_node.contract import Outcome, RememberedOutcome
from shard_node.errors import RegistryError, ShardFullError, ShardUnavailableError, StaleEpochError
from shard_node.serving.server import Methods
from tallystick.v1 import cluster_pb2, outcome_pb2, wallet_pb2
from tests.exponents import CurrenciesStandIn
from tests.router.samples import uuid7
from tests.router.service_bench import FRIEND, HIGH, LOW, Bench, Handler, a_hold, aborted, payment, turns
from tests.router.stand_ins import Context, NoShards

FULL = grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED"
AWAY = grpc.StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN"


@pytest.fixture
async def bench() -> Bench:
    """A service over stand-ins, without a ledger."""
    return Bench()


async def test_too_many_single_transactions(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the router will not hold is refused with RetryInfo, and nothing of it is begun."""
    monkeypatch.setattr(coalescer, "MAX_BATCHES", 1)
    monkeypatch.setattr(coalescer, "MAX_WAITING", 2)
    bench.left.open_gate.clear()
    calls = []
    for number in (1, 2, 3):
        calls.append(asyncio.ensure_future(bench.service.Transfer(payment(number), Context())))
        await turns()
    asked: list[tuple[Handler, Any]] = [
        (bench.service.Transfer, payment(4)),
        (bench.service.Hold, a_hold(5)),
    ]
    for call, request in asked:
        context, info = await aborted(call, request)
        assert (context.code, info.reason) == FULL
        assert len(context.detail(error_details_pb2.RetryInfo)) == 1
        assert info.metadata["transaction_id"] == request.transaction_id
    bench.left.open_gate.set()
    responses = await asyncio.gather(*calls)
    assert [r.outcome for r in responses] == [outcome_pb2.OUTCOME_COMMITTED] * 3
    assert bench.left.posted() == [[1], [2, 3]]


async def test_legs_are_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal fills as much of a batch as half as many transfers have legs."""
    monkeypatch.setattr(coalescer, "MAX_BATCHES", 1)
    monkeypatch.setattr(coalescer, "MAX_WAITING", 2)
    bench.left.open_gate.clear()
    amounts = {LOW: "-3", FRIEND: "1", FRIEND + "2": "2"}
    legs = [wallet_pb2.JournalLeg(account_id=one, amount=amounts[one], currency="EUR") for one in amounts]
    journal = wallet_pb2.PostJournalRequest(transaction_id=uuid7(0, 7), legs=legs)
    calls = []
    for number in (1, 2):
        calls.append(asyncio.ensure_future(bench.service.Hold(a_hold(number), Context())))
        await turns()
    context, info = await aborted(bench.service.PostJournal, journal)
    assert (context.code, info.reason) == FULL
    bench.left.open_gate.set()
    await asyncio.gather(*calls)
    response = await bench.service.PostJournal(journal, Context())
    assert response.outcome == outcome_pb2.OUTCOME_COMMITTED
    assert list(response.available) == ["-3.00", "1.00", "2.00"]
    assert bench.left.posted() == [[1], [2], [300]]


async def test_too_many_in_batches(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches beyond the limit are refused whole; a caller that hangs up makes no room by that."""
    monkeypatch.setattr(kept, "MAX_IN_HAND", 3)
    bench.left.open_gate.clear()
    first = wallet_pb2.BatchTransferRequest(transfers=[payment(n) for n in (1, 2, 3)])
    second = wallet_pb2.BatchTransferRequest(transfers=[payment(4)]).SerializeToString()
    call = asyncio.ensure_future(bench.service.BatchTransfer(first.SerializeToString(), Context()))
    await turns()
    context, info = await aborted(bench.service.BatchTransfer, second)
    assert (context.code, info.reason) == FULL
    call.cancel()
    await turns()
    assert call.cancelled()
    _, info = await aborted(bench.service.BatchTransfer, second)
    assert info.reason == "RESOURCE_EXHAUSTED"
    opening = wallet_pb2.BatchOpenAccountsRequest(
        accounts=[wallet_pb2.OpenAccountRequest(account_id="x", currency="EUR")]
    )
    _, info = await aborted(bench.service.BatchOpenAccounts, opening)
    assert info.reason == "RESOURCE_EXHAUSTED"
    bench.left.open_gate.set()
    await bench.service.finish_all()
    await turns()
    assert [r.outcome for r in await bench.batch(payment(4))] == [outcome_pb2.OUTCOME_COMMITTED]
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
    """A transaction whose caller has left is carried out, and draining waits for it."""
    bench.left.open_gate.clear()
    call = asyncio.ensure_future(bench.service.Transfer(payment(1), Context()))
    await turns()
    call.cancel()
    finished = asyncio.ensure_future(bench.service.finish_all())
    await turns()
    assert (call.cancelled(), finished.done()) == (True, False)
    bench.left.open_gate.set()
    await finished
    assert bench.left.posted() == [[1]]


async def test_single_transactions_travel_together(bench: Bench) -> None:
    """Concurrent calls of all kinds leave together, and each gets its own answer."""
    transfers = [bench.service.Transfer(payment(n), Context()) for n in range(1, 51)]
    holds = [bench.service.Hold(a_hold(n), Context()) for n in range(51, 101)]
    paid, held = await asyncio.gather(asyncio.gather(*transfers), asyncio.gather(*holds))
    # Plain transfers have a bundle of their own.
    assert sorted(bench.left.posted()) == [list(range(1, 51)), list(range(51, 101))]
    assert [r.transaction_id for r in paid] == [payment(n).transaction_id for n in range(1, 51)]
    assert [r.transaction_id for r in held] == [a_hold(n).transaction_id for n in range(51, 101)]
    assert [r.to_available for r in paid] == [payment(n).amount for n in range(1, 51)]
    assert [r.available for r in held] == [a_hold(n).amount for n in range(51, 101)]


def lookups(bench: Bench) -> list[tuple[Handler, Any]]:
    """Calls that look something up on LOW's shard, or check something there, before they do anything."""
    refund = wallet_pb2.RefundRequest(
        transaction_id=uuid7(0),
        purchase_transaction_id=uuid7(0, 2),
        customer_account=LOW,
        amount="3",
        currency="EUR",
    )
    void = wallet_pb2.VoidRequest(transaction_id=uuid7(0), hold_transaction_id=uuid7(0, 2), account_id=LOW)
    return [
        (bench.service.Refund, refund),
        (bench.service.Void, void),
        (bench.service.Hold, a_hold(1, validate_only=True)),
        (bench.service.Transfer, payment(1, to_account=HIGH, validate_only=True)),
    ]


async def test_lookups_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has to be looked up first, and what is only checked, counts towards the router's limit."""
    monkeypatch.setattr(kept, "MAX_IN_HAND", 0)
    for call, request in lookups(bench):
        context, info = await aborted(call, request)
        assert (context.code, info.reason) == FULL
    assert (bench.left.decisions, bench.left.checked, bench.left.calls) == ([], [], [])


async def test_a_shard_without_an_answer(bench: Bench) -> None:
    """Whatever is asked of a shard that is away is UNAVAILABLE, reason OUTCOME_UNKNOWN, with RetryInfo."""
    asked: list[tuple[Handler, Any]] = [
        *lookups(bench),
        (bench.service.Transfer, payment(1)),
        (bench.service.Hold, a_hold(1)),
        (
            bench.service.GetTransfer,
            wallet_pb2.GetTransferRequest(transaction_id=uuid7(0), from_account=LOW),
        ),
        (bench.service.GetAccount, wallet_pb2.GetAccountRequest(account_id=LOW)),
        (bench.service.OpenAccount, wallet_pb2.OpenAccountRequest(account_id=LOW, currency="EUR")),
    ]
    for call, request in asked:
        bench.left.answers.append(ShardUnavailableError("left: no answer"))
        context, info = await aborted(call, request)
        assert (context.code, info.reason) == AWAY
        assert len(context.detail(error_details_pb2.RetryInfo)) == 1


async def test_an_outcome_is_read_under_its_id_and_slot(bench: Bench) -> None:
    """A read that met another epoch is made again; the amount has its currency's decimals."""
    bench.left.remembered = RememberedOutcome(Outcome.COMMITTED, 0, 5, 1250, "EUR", bytes(8))
    bench.left.answers.append(StaleEpochError("left: moved on"))
    request = wallet_pb2.GetTransferRequest(transaction_id=uuid7(0, 3), from_account=LOW)
    response = await bench.service.GetTransfer(request, Context())
    assert (response.outcome, response.amount) == (outcome_pb2.OUTCOME_COMMITTED, "12.50")
    decision = UUID(uuid7(0, 3)).bytes + slot(LOW).to_bytes(2, "little")
    assert bench.left.decisions == [decision] * 2


async def test_a_full_shard(bench: Bench) -> None:
    """A shard without memory refuses for load, of which the caller hears that nothing was begun."""
    opening = wallet_pb2.OpenAccountRequest(account_id=LOW, currency="EUR")
    asked: list[tuple[Handler, Any]] = [
        (bench.service.Transfer, payment(1)),
        (bench.service.OpenAccount, opening),
    ]
    for call, request in asked:
        bench.left.answers.append(ShardFullError("left: out of memory"))
        context, info = await aborted(call, request)
        assert (context.code, info.reason) == FULL
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


@pytest.mark.parametrize("method", ["Transfer", "BatchTransfer", "Hold", "OpenAccount", "BatchOpenAccounts"])
async def test_a_new_currency_while_zookeeper_is_away(method: str) -> None:
    """Not known, in plain words, with nothing asked of a shard; known currencies go on."""
    bench = Bench(currencies=ZookeeperStandIn(None))
    opening = wallet_pb2.OpenAccountRequest(account_id=LOW, currency="CHF")
    known = wallet_pb2.OpenAccountRequest(account_id=LOW, currency="EUR", validate_only=True)
    if method == "BatchTransfer":
        first, second = await bench.batch(payment(1, currency="CHF"), payment(2))
        assert second.outcome == outcome_pb2.OUTCOME_COMMITTED
        assert bench.left.posted() == [[2]]
        why = first.refusal
    elif method == "BatchOpenAccounts":
        accounts = wallet_pb2.BatchOpenAccountsRequest(accounts=[opening, known])
        refused, done = (await bench.service.BatchOpenAccounts(accounts, Context())).results
        assert done.account.available == "0.00"
        why = refused.refusal
    else:
        hold = a_hold(1, currency="CHF")
        requests = {"Transfer": payment(1, currency="CHF"), "Hold": hold, "OpenAccount": opening}
        context, info = await aborted(getattr(bench.service, method), requests[method])
        assert (context.code, info.reason) == AWAY
        why = wallet_pb2.Refusal(outcome=outcome_pb2.OUTCOME_OUTCOME_UNKNOWN, message=context.text)
        assert bench.left.calls == []
    assert why.outcome == outcome_pb2.OUTCOME_OUTCOME_UNKNOWN
    assert why.message == "ZooKeeper did not answer in time"


async def test_a_currency_that_another_router_has_just_opened() -> None:
    """It is read by what that router stored, whatever the package here says of it, alone and in a batch."""
    for send in ("Transfer", "BatchTransfer"):
        bench = Bench(currencies=ZookeeperStandIn({"CHF": 3}))
        if send == "Transfer":
            await bench.service.Transfer(payment(1, currency="CHF"), Context())
        else:
            await bench.batch(payment(1, currency="CHF"))
        assert bench.left.posted() == [[10]]


async def test_money_of_a_currency_that_no_account_has() -> None:
    """Nobody guesses how many decimals it has: it is refused, and says what to do."""
    bench = Bench(currencies=ZookeeperStandIn({}))
    context, info = await aborted(bench.service.Transfer, payment(1, currency="CHF"))
    assert (context.code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
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
    context, info = await aborted(service.ListMembers, cluster_pb2.ListMembersRequest())
    assert (context.code, info.reason) == AWAY
    assert context.text == "ZooKeeper did not answer in time"
    assert len(context.detail(error_details_pb2.RetryInfo)) == 1
