"""Transfers cut short: what callers hear of one that was never decided, and of one that is not finished yet.

The steps of the protocol are made by hand here, as a coordinator makes them that dies in between.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import grpc
import pytest

from shard_node.client import Shard, connect
from shard_node.contract import (
    Abandon,
    Decide,
    Decided,
    Finish,
    Outcome,
    Prepare,
    Prepared,
    Settle,
    bundle_of,
    new_attempt_id,
)
from tests.router.bank import Bank, Route, payment, wait_for
from tests.router.contract import Client
from tests.router.samples import asked as requested
from tests.router.samples import transactions, wall_ms

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


class Attempt(NamedTuple):
    """Requests as a coordinator hands them to shards: those of the payers, and of the payees."""

    attempt_id: bytes
    bundle: bytes
    decider: str
    participant: str

    async def prepare(self, shard: Shard) -> None:
        """Has all payees' legs kept."""
        prepared = Prepared(self.attempt_id, self.decider, 1, self.bundle)
        assert (await shard.call(Prepare([prepared]))).codes == [bytes((Outcome.PREPARED,))]

    async def decide(self, shard: Shard) -> bytes:
        """The outcomes, of all in one when they are alike."""
        decided = Decided(self.attempt_id, [self.participant], b"", b"", self.bundle)
        (codes,) = (await shard.call(Decide([decided]))).codes
        return codes

    async def finish(self, shard: Shard, code: Outcome) -> bytes:
        """Applies or drops all."""
        (codes,) = (await shard.call(Finish([self.attempt_id], [bytes((code,))]))).codes
        return codes


def new_attempt(bank: Bank, *asked: dict[str, Any]) -> Attempt:
    """An attempt at transfers between the same shards."""
    read = [transactions().transfer(requested(**one)).transaction for one in asked]
    shards = [bank.shard_of(leg.account) for leg in read[0].legs]
    return Attempt(new_attempt_id(wall_ms()), bundle_of(read), *shards)


def in_doubt(operators: Client, transaction_id: str, **fields: Any) -> list[Any]:
    """What operators see of a transfer."""
    response = operators.call("ListInDoubt", **fields)
    return [entry for entry in response.transfers if entry.transaction_id == transaction_id]


async def test_never_decided(bank: Bank, operators: Client, route: Route, shard_of: ShardOf) -> None:
    """A later try of a transfer whose coordinator died before the commit point is carried out, once."""
    payer, payee = bank.pair(route)
    asked = payment(payer, payee)
    attempt = new_attempt(bank, asked)
    before = bank.look(payer, payee)
    async with shard_of(payee) as shard:
        await attempt.prepare(shard)
    assert len(in_doubt(operators, asked["transaction_id"])) == 1
    # Not credited: it may never be.
    assert bank.look(payer, payee) == before
    for _ in range(2):
        assert bank.outcome(bank.wallet.call("Transfer", **asked)) == "COMMITTED"
        assert (bank.available(payer), bank.available(payee)) == ("99.00", "1.00")
    # As recovery does: what was not decided never will be.
    async with shard_of(payer) as shard:
        assert (await shard.call(Abandon([attempt.attempt_id]))).codes == [bytes((Outcome.ABANDONED,))]
        assert await attempt.decide(shard) == bytes((Outcome.ABANDONED,))
    async with shard_of(payee) as shard:
        assert await attempt.finish(shard, Outcome.ABANDONED) == bytes((Outcome.DROPPED,))
    wait_for(lambda: True if not in_doubt(operators, asked["transaction_id"]) else None, "settlement")
    found = bank.wallet.call("GetTransfer", transaction_id=asked["transaction_id"], from_account=payer)
    assert bank.outcome(found) == "COMMITTED"
    assert (bank.available(payer), bank.available(payee)) == ("99.00", "1.00")


async def test_committed_by_another_and_not_finished(
    bank: Bank, operators: Client, shard_of: ShardOf
) -> None:
    """A retry of a transfer whose coordinator died behind the commit point finishes it, once."""
    payer, payee = bank.pair(bank.routes["across shards"])
    asked = payment(payer, payee, "5.00")
    attempt = new_attempt(bank, asked)
    async with shard_of(payee) as shard:
        await attempt.prepare(shard)
    async with shard_of(payer) as shard:
        assert await attempt.decide(shard) == bytes((Outcome.COMMITTED,))
    # Not isolated: the debit is seen, the credit is not yet.
    assert (bank.available(payer), bank.available(payee)) == ("95.00", "0.00")
    for _ in range(2):
        assert bank.outcome(bank.wallet.call("Transfer", **asked)) == "COMMITTED"
        assert (bank.available(payer), bank.available(payee)) == ("95.00", "5.00")
    # The dead coordinator's finish may still arrive.
    async with shard_of(payee) as shard:
        assert await attempt.finish(shard, Outcome.COMMITTED) == bytes((Outcome.FINISHED,))
    assert bank.available(payee) == "5.00"
    wait_for(lambda: True if not in_doubt(operators, asked["transaction_id"]) else None, "settlement")


async def test_one_row_of_a_bundle_is_in_doubt(bank: Bank, shard_of: ShardOf) -> None:
    """A retry of one transfer ends the whole bundle that it was committed in."""
    payer, payee = bank.pair(bank.routes["across shards"])
    asked = [payment(payer, payee, amount) for amount in ("5.00", "200.00", "7.00")]
    attempt = new_attempt(bank, *asked)
    async with shard_of(payee) as shard:
        await attempt.prepare(shard)
    async with shard_of(payer) as shard:
        codes = await attempt.decide(shard)
    assert codes == bytes((Outcome.COMMITTED, Outcome.INSUFFICIENT_FUNDS, Outcome.COMMITTED))
    # New ones go along in the same batch, and are not held up.
    new = payment(payer, payee, "1.00")
    results = bank.wallet.call("BatchTransfer", transfers=[new, asked[1], asked[2]]).results
    assert [bank.outcome(result) for result in results] == ["COMMITTED", "INSUFFICIENT_FUNDS", "COMMITTED"]
    assert (bank.available(payer), bank.available(payee)) == ("87.00", "13.00")
    assert bank.outcome(bank.wallet.call("Transfer", **asked[0])) == "COMMITTED"
    assert (bank.available(payer), bank.available(payee)) == ("87.00", "13.00")


async def test_unknown_until_finished(bank: Bank, operators: Client, shard_of: ShardOf) -> None:
    """A commit whose money is on its way is OUTCOME_UNKNOWN to a call on one shard, and then COMMITTED."""
    payer, payee = bank.pair(bank.routes["same shard"])
    asked = payment(payer, payee, "5.00")
    attempt = new_attempt(bank, asked)
    async with shard_of(payer) as shard:
        await attempt.prepare(shard)
        assert await attempt.decide(shard) == bytes((Outcome.COMMITTED,))
        refused = bank.wallet.refused("Transfer", **asked)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN")
        assert refused.retry_ms
        (result,) = bank.wallet.call("BatchTransfer", transfers=[asked], return_balances=True).results
        assert (bank.outcome(result), bank.outcome(result.refusal)) == ("OUTCOME_UNKNOWN", "OUTCOME_UNKNOWN")
        seen = in_doubt(operators, asked["transaction_id"])
        await attempt.finish(shard, Outcome.COMMITTED)
        await shard.call(Settle([(attempt.attempt_id, 1)]))
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
    attempt = new_attempt(bank, *asked)
    # Transfers of earlier tests are settled within a second.
    wait_for(lambda: True if not operators.call("ListInDoubt").transfers else None, "settlement")
    async with shard_of(payee) as shard:
        await attempt.prepare(shard)
        few = operators.call("ListInDoubt", limit=2)
        every = operators.call("ListInDoubt", limit=3)
        old = operators.call("ListInDoubt", minimum_age_ms=3_600_000)
        await attempt.finish(shard, Outcome.ABANDONED)
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
