"""Transfers cut short: what callers hear of one that was aborted, and of one that is not finished yet.

The steps of the protocol are made by hand here, as a coordinator makes them that dies in between.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
import pytest
from router.requests.reader import columns
from shard_node.contract.bundles import split_decisions, split_short
from shard_node.contract.calls import (
    ATTEMPT_BYTES,
    Attempt,
    Decide,
    Finish,
    Prepare,
    Reply,
    ResolveAttempts,
    SettleCommits,
)

from shard_node.client.shard import Shard, connect
from shard_node.contract import Outcome
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


def new_attempt(*asked: dict[str, Any]) -> Attempt:
    """Requests as a coordinator hands them to shards."""
    rows = [reader().transfer(Asked(**one)) for one in asked]
    return Attempt(os.urandom(ATTEMPT_BYTES), columns(rows).bundle())


async def decide(shard: Shard, attempt: Attempt, payees_shard: str) -> Reply:
    """Commits all of an attempt."""
    reply: Reply = await shard.call(Decide([attempt], [payees_shard], [b""]))
    assert reply.codes == [bytes((Outcome.COMMITTED,))]
    return reply


async def finish(shard: Shard, attempt: Attempt, verdict: Outcome) -> Sequence[bytes]:
    """Applies or drops all of an attempt."""
    reply: Reply = await shard.call(Finish([attempt.attempt_id], [bytes((verdict,))]))
    return reply.codes


def in_doubt(operators: Client, transaction_id: str, **fields: Any) -> list[Any]:
    """What operators see of a transfer."""
    response = operators.call("ListInDoubt", **fields)
    return [entry for entry in response.transfers if entry.transaction_id == transaction_id]


async def test_aborted(bank: Bank, operators: Client, route: Route, shard_of: ShardOf) -> None:
    """A transfer that recovery aborted is ABORTED to every later try, which leaves no leg behind."""
    payer, payee = bank.pair(route)
    asked = payment(payer, payee)
    attempt = new_attempt(asked)
    before = bank.look(payer, payee)
    async with shard_of(payee) as shard:
        assert (await shard.call(Prepare([attempt]))).codes == [bytes((Outcome.PREPARED,))]
    assert len(in_doubt(operators, asked["transaction_id"])) == 1
    async with shard_of(payer) as shard:
        bundle = attempt.bundle
        resolve = ResolveAttempts(
            [attempt.attempt_id], split_decisions(bundle.decisions), split_short(bundle.terms)
        )
        assert (await shard.call(resolve)).codes == [bytes((Outcome.ABORTED,))]
    expected = Refusal(grpc.StatusCode.ABORTED, "ABORTED", "")
    for _ in range(2):
        assert bank.wallet.refused("Transfer", **asked) == expected
    (result,) = bank.wallet.call("BatchTransfer", transfers=[asked]).results
    assert bank.outcome(result) == "ABORTED"
    found = bank.wallet.call("GetTransfer", transaction_id=asked["transaction_id"], from_account=payer)
    assert bank.outcome(found) == "ABORTED"
    assert bank.look(payer, payee) == before
    # Later tries dropped what they prepared, and nothing else: this leg is recovery's to end.
    assert len(in_doubt(operators, asked["transaction_id"])) == 1
    async with shard_of(payee) as shard:
        assert await finish(shard, attempt, Outcome.ABORTED) == [bytes((Outcome.DROPPED,))]
    assert in_doubt(operators, asked["transaction_id"]) == []
    assert bank.look(payer, payee) == before


async def test_committed_by_another_and_not_finished(
    bank: Bank, operators: Client, shard_of: ShardOf
) -> None:
    """A retry of a transfer whose coordinator died behind the commit point finishes it, once."""
    payer, payee = bank.pair(bank.routes["across shards"])
    asked = payment(payer, payee, "5.00")
    attempt = new_attempt(asked)
    async with shard_of(payee) as shard:
        await shard.call(Prepare([attempt]))
    async with shard_of(payer) as shard:
        await decide(shard, attempt, bank.shard_of(payee))
    # Not isolated: the debit is seen, the credit is not yet.
    assert (bank.available(payer), bank.available(payee)) == ("95.00", "0.00")
    for _ in range(2):
        assert bank.outcome(bank.wallet.call("Transfer", **asked)) == "COMMITTED"
        assert (bank.available(payer), bank.available(payee)) == ("95.00", "5.00")
    # The dead coordinator's finish may still arrive.
    async with shard_of(payee) as shard:
        assert await finish(shard, attempt, Outcome.COMMITTED) == [bytes((Outcome.FINISHED,))]
    assert bank.available(payee) == "5.00"
    wait_for(lambda: True if not in_doubt(operators, asked["transaction_id"]) else None, "settlement")


async def test_one_row_of_a_bundle_is_in_doubt(bank: Bank, operators: Client, shard_of: ShardOf) -> None:
    """A retry of one transfer ends the whole bundle that it was committed in."""
    payer, payee = bank.pair(bank.routes["across shards"])
    asked = [payment(payer, payee, amount) for amount in ("5.00", "200.00", "7.00")]
    attempt = new_attempt(*asked)
    async with shard_of(payee) as shard:
        await shard.call(Prepare([attempt]))
    async with shard_of(payer) as shard:
        reply = await shard.call(Decide([attempt], [bank.shard_of(payee)], [b""]))
    some = bytes((Outcome.COMMITTED, Outcome.INSUFFICIENT_FUNDS, Outcome.COMMITTED))
    assert reply.codes == [some]
    # New ones go along in the same batch, and are not held up.
    new = payment(payer, payee, "1.00")
    results = bank.wallet.call("BatchTransfer", transfers=[new, asked[1], asked[2]]).results
    assert [bank.outcome(result) for result in results] == ["COMMITTED", "INSUFFICIENT_FUNDS", "COMMITTED"]
    assert (bank.available(payer), bank.available(payee)) == ("87.00", "13.00")
    assert bank.outcome(bank.wallet.call("Transfer", **asked[0])) == "COMMITTED"
    assert (bank.available(payer), bank.available(payee)) == ("87.00", "13.00")


async def test_unknown_until_finished(bank: Bank, operators: Client, shard_of: ShardOf) -> None:
    """A commit whose money is still on its way is told as OUTCOME_UNKNOWN, and then as COMMITTED.

    One call on one shard meets such a transfer when a resize has brought payer and payee together.
    """
    payer, payee = bank.pair(bank.routes["same shard"])
    asked = payment(payer, payee, "5.00")
    attempt = new_attempt(asked)
    async with shard_of(payer) as shard:
        await shard.call(Prepare([attempt]))
        commits = (await decide(shard, attempt, bank.shard_of(payee))).commits
        refused = bank.wallet.refused("Transfer", **asked)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN")
        assert refused.retry_ms
        (result,) = bank.wallet.call("BatchTransfer", transfers=[asked], return_balances=True).results
        assert (bank.outcome(result), bank.outcome(result.refusal)) == ("OUTCOME_UNKNOWN", "OUTCOME_UNKNOWN")
        seen = in_doubt(operators, asked["transaction_id"])
        await finish(shard, attempt, Outcome.COMMITTED)
        await shard.call(SettleCommits(commits))
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
    attempt = new_attempt(*asked)
    # Transfers of earlier tests are settled within a second.
    wait_for(lambda: True if not operators.call("ListInDoubt").transfers else None, "settlement")
    async with shard_of(payee) as shard:
        await shard.call(Prepare([attempt]))
        few = operators.call("ListInDoubt", limit=2)
        every = operators.call("ListInDoubt", limit=3)
        old = operators.call("ListInDoubt", minimum_age_ms=3_600_000)
        await finish(shard, attempt, Outcome.ABORTED)
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
