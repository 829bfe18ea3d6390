"""Refunds and voids: what is looked up before there is a transaction."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from uuid import UUID

import grpc
import pytest

from shard_node.cluster.slots import slot
from shard_node.contract import AccountRecord, AccountState, Bundle, Outcome, RememberedOutcome
from shard_node.errors import LedgerUnavailableError
from shard_node.ledger.questions import Purchase
from tallystick.v1 import wallet_pb2
from tests.router.samples import uuid7
from tests.router.service_bench import HIGH, LOW, Bench, aborted
from tests.router.stand_ins import Context

PURCHASE_ID = uuid7(0, 999)
PURCHASE = RememberedOutcome(Outcome.COMMITTED, 0, 5, 4000, "EUR", bytes(8), LOW, HIGH)


class Archive:
    """An archive with one answer."""

    def __init__(self) -> None:
        self.answer: Purchase | Exception | None = None

    def reading(self) -> AbstractContextManager[None]:
        """One connection is all there is."""
        return nullcontext()

    def has_batch(self, *_: object) -> bool:
        """It lacks none."""
        return True

    def find_purchase(self, transaction_id: bytes, customer: str) -> Purchase | None:
        """Answers as told."""
        assert (transaction_id, customer) == (UUID(PURCHASE_ID).bytes, LOW)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
async def bench() -> Bench:
    """A service over stand-ins, without a ledger."""
    return Bench()


def a_refund(merchant_currency: str = "EUR", number: int = 1) -> wallet_pb2.RefundRequest:
    """A refund of three euros to LOW."""
    return wallet_pb2.RefundRequest(
        transaction_id=uuid7(0, number),
        purchase_transaction_id=PURCHASE_ID,
        customer_account=LOW,
        amount="3",
        currency=merchant_currency,
    )


async def test_a_refund_sent_again_is_the_same_transaction() -> None:
    """With the purchase from memory or from the archive it is the same one, so that it moves money once."""
    bench = Bench(archive := Archive())
    bench.left.remembered = PURCHASE
    response = await bench.service.Refund(a_refund(), Context())
    assert (response.from_available, response.to_available) == ("-3.00", "3.00")
    bench.left.remembered = None
    archive.answer = Purchase(HIGH, 4000, "EUR")
    await bench.service.Refund(a_refund(), Context())
    first, second = bench.committers.transactions()
    assert first == second
    assert first.bound == 4000


async def test_an_archive_that_is_away() -> None:
    """A purchase of which nothing can be said is not "not found"."""
    bench = Bench(archive := Archive())
    archive.answer = LedgerUnavailableError("the database is away")
    context, info = await aborted(bench.service.Refund, a_refund())
    assert (context.code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN")
    archive.answer = None
    context, info = await aborted(bench.service.Refund, a_refund())
    assert (context.code, info.reason) == (grpc.StatusCode.NOT_FOUND, "PURCHASE_NOT_FOUND")
    assert "ledger" not in context.text
    assert bench.committers.asked == []


async def test_without_a_ledger(bench: Bench) -> None:
    """Without a ledger a purchase that may have been forgotten is not known, rather than not found."""
    context, info = await aborted(bench.service.Refund, a_refund())
    assert (info.reason, info.metadata["field"]) == ("PURCHASE_NOT_FOUND", "purchase_transaction_id")
    bench.left.forgotten_ms = 2**47
    context, info = await aborted(bench.service.Refund, a_refund())
    assert (context.code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN")
    assert "--ledger" in context.text


async def test_the_currency_of_a_purchase(bench: Bench) -> None:
    """A refund in another currency is refused before anything is begun."""
    bench.left.remembered = PURCHASE
    context, info = await aborted(bench.service.Refund, a_refund("USD"))
    assert (info.reason, info.metadata["field"]) == ("CURRENCY_MISMATCH", "currency")
    assert "EUR" in context.text
    assert bench.committers.asked == []


async def test_a_void_has_its_accounts_currency(bench: Bench) -> None:
    """The currency that a void does not name is the account's."""
    bench.left.known[LOW] = AccountRecord(0, 5, 1, 0, 0, 0, 0, slot(LOW), AccountState.FROZEN, "JPY")
    void = wallet_pb2.VoidRequest(transaction_id=uuid7(0), hold_transaction_id=uuid7(0, 2), account_id=LOW)
    response = await bench.service.Void(void, Context())
    assert response.available == "0"
    (call,) = bench.left.calls
    assert Bundle.unpack(call.bundle).transactions[0].legs[0].currency == "JPY"
