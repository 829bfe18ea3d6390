"""Transfers cut short: what callers hear of one that was aborted, and of one that is not finished yet.

The steps of the protocol are made by hand here, as a coordinator makes them that dies in between.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
import pytest

from router.requests import columns
from shard_node.calls import Decide, Finish, Prepare, Resolve, Settle
from shard_node.outcomes import Outcome
from shard_node.shard import Shard, connect
from shard_node.transfers import Transfers
from tests.router.bank import Bank, Route, payment, wait_for
from tests.router.contract import Client, Refusal
from tests.router.samples import Asked, reader

pytestmark = pytest.mark.cluster

# The calls of the protocol to the shard of an account.
ShardOf = Callable[[str], AbstractAsyncContextManager[Shard]]


@pytest.fixture
def shard_of(bank: Bank, operators: Client) -> ShardOf:
    """Opens the shard that an account is on, by the topology that the cluster tells."""

    @asynccontextmanager
    async def opened(account_id: str) -> AsyncIterator[Shard]:
        topology = operators.call("GetTopology")
        info = next(s for s in topology.shards if s.shard_id == bank.shard_of(account_id))
        fence = f"{topology.cluster_id}/{info.shard_id}/{info.epoch}"
        async with Shard(info.shard_id, fence, connect(info.primary)) as shard:
            yield shard

    return opened


def as_batch(asked: dict[str, Any]) -> Transfers:
    """A request as the shards know it."""
    return columns([reader().transfer(Asked(**asked))])


def in_doubt(operators: Client, transaction_id: str, **fields: Any) -> list[Any]:
    """What operators see of a transfer."""
    response = operators.call("ListInDoubt", **fields)
    return [entry for entry in response.transfers if entry.transaction_id == transaction_id]


async def test_aborted(bank: Bank, operators: Client, route: Route, shard_of: ShardOf) -> None:
    """A transfer that recovery aborted is ABORTED to every later try, which leaves no leg behind."""
    payer, payee = bank.pair(route)
    asked = payment(payer, payee)
    batch = as_batch(asked)
    before = bank.look(payer, payee)
    async with shard_of(payee) as shard:
        assert (await shard.call(Prepare(batch))).codes == [Outcome.PREPARED]
    assert len(in_doubt(operators, asked["transaction_id"])) == 1
    async with shard_of(payer) as shard:
        reply = await shard.call(Resolve(batch.keys, batch.bodies))
        assert reply.codes == [Outcome.ABORTED]
    expected = Refusal(grpc.StatusCode.ABORTED, "ABORTED", "")
    for _ in range(2):
        assert bank.wallet.refused("Transfer", **asked) == expected
    (result,) = bank.wallet.call("BatchTransfer", transfers=[asked]).results
    assert bank.outcome(result) == "ABORTED"
    found = bank.wallet.call("GetTransfer", transaction_id=asked["transaction_id"], from_account=payer)
    assert bank.outcome(found) == "ABORTED"
    assert bank.look(payer, payee) == before
    if route.name == "across shards":
        assert in_doubt(operators, asked["transaction_id"]) == []
    else:
        # One call on one shard does not look for legs. They are recovery's to find.
        async with shard_of(payee) as shard:
            await shard.call(Finish(batch.keys, [Outcome.ABORTED]))


async def test_committed_by_another_and_not_finished(bank: Bank, shard_of: ShardOf) -> None:
    """A retry of a transfer whose coordinator died behind the commit point finishes it, once."""
    payer, payee = bank.pair(bank.routes["across shards"])
    asked = payment(payer, payee, "5.00")
    batch = as_batch(asked)
    async with shard_of(payee) as shard:
        await shard.call(Prepare(batch))
    async with shard_of(payer) as shard:
        assert (await shard.call(Decide(batch, [0]))).codes == [Outcome.COMMITTED]
    # Not isolated: the debit is seen, the credit is not yet.
    assert (bank.available(payer), bank.available(payee)) == ("95.00", "0.00")
    for _ in range(2):
        assert bank.outcome(bank.wallet.call("Transfer", **asked)) == "COMMITTED"
        assert (bank.available(payer), bank.available(payee)) == ("95.00", "5.00")


async def test_unknown_until_finished(bank: Bank, operators: Client, shard_of: ShardOf) -> None:
    """A commit whose money is still on its way is told as OUTCOME_UNKNOWN, and then as COMMITTED.

    One call on one shard meets such a transfer when a resize has brought payer and payee together.
    """
    payer, payee = bank.pair(bank.routes["same shard"])
    asked = payment(payer, payee, "5.00")
    batch = as_batch(asked)
    async with shard_of(payer) as shard:
        await shard.call(Prepare(batch))
        await shard.call(Decide(batch, [0]))
        refused = bank.wallet.refused("Transfer", **asked)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN")
        assert refused.retry_ms
        (result,) = bank.wallet.call("BatchTransfer", transfers=[asked], return_balances=True).results
        assert (bank.outcome(result), bank.outcome(result.refusal)) == ("OUTCOME_UNKNOWN", "OUTCOME_UNKNOWN")
        seen = in_doubt(operators, asked["transaction_id"])
        await shard.call(Finish(batch.keys, [Outcome.COMMITTED]))
        await shard.call(Settle(batch.keys))
    states = {bank.contract.number("InDoubtState", f"IN_DOUBT_STATE_{s}") for s in ("PREPARED", "UNSETTLED")}
    assert {entry.state for entry in seen} == states
    for entry in seen:
        assert (entry.from_account, entry.to_account) == (payer, payee)
        assert (entry.amount, entry.currency, entry.shard_id) == ("5.00", "EUR", bank.shard_of(payer))
        assert 0 <= entry.age_ms < 60_000
    assert in_doubt(operators, asked["transaction_id"]) == []
    assert bank.outcome(bank.wallet.call("Transfer", **asked)) == "COMMITTED"
    assert (bank.available(payer), bank.available(payee)) == ("95.00", "5.00")


async def test_in_doubt_list_is_bounded(bank: Bank, operators: Client, shard_of: ShardOf) -> None:
    """The list has at most as many entries as asked for, says when there are more, and knows ages."""
    payer, payee = bank.pair(bank.routes["across shards"])
    asked = [payment(payer, payee, "0.01") for _ in range(3)]
    batch = columns([reader().transfer(Asked(**one)) for one in asked])
    # Transfers of earlier tests are settled within a second.
    wait_for(lambda: True if not operators.call("ListInDoubt").transfers else None, "settlement")
    async with shard_of(payee) as shard:
        await shard.call(Prepare(batch))
        few = operators.call("ListInDoubt", limit=2)
        every = operators.call("ListInDoubt", limit=3)
        old = operators.call("ListInDoubt", minimum_age_ms=3_600_000)
        await shard.call(Finish(batch.keys, [Outcome.ABORTED] * 3))
    assert (len(few.transfers), few.truncated) == (2, True)
    assert (len(every.transfers), every.truncated) == (3, False)
    assert (len(old.transfers), old.truncated) == (0, False)


@pytest.mark.parametrize("fields", [{"limit": -1}, {"limit": 10_001}, {"minimum_age_ms": -1}])
def test_in_doubt_list_refuses(operators: Client, fields: dict[str, int]) -> None:
    """A limit or age out of range is INVALID_ARGUMENT."""
    with pytest.raises(grpc.RpcError) as refused:
        operators.call("ListInDoubt", **fields)
    assert isinstance(refused.value, grpc.Call)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
