"""Journals in the service: gathered, bounded, carried on without their callers; lookups before them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.rpc import error_details_pb2
from router.execution.engine import Engine
from router.execution.journal_engine import JournalEngine
from shard_node.contract.records import Account, AccountState, RememberedOutcome

from router.execution import coalescer, kept
from router.execution.purchases import Purchase
from router.services.wallet_service import WalletService
from shard_node.cluster.slots import slot
from shard_node.contract.outcomes import Outcome
from shard_node.errors import LedgerUnavailableError, ShardUnavailableError
from tallystick.v1 import outcome_pb2, wallet_pb2
from tests.exponents import CurrenciesStandIn
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
PURCHASE_ID = uuid7(0, 999)


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


@dataclass(slots=True)
class Bench:
    """A service over two stand-in shards: LOW is on the left one, HIGH on the right one."""

    archive: Archive | None = None
    left: ShardStandIn = field(default_factory=lambda: ShardStandIn("left"))
    right: ShardStandIn = field(default_factory=lambda: ShardStandIn("right"))
    committers: CommittersStandIn = field(default_factory=CommittersStandIn)
    service: WalletService = field(init=False)

    def __post_init__(self) -> None:
        maps = MapsStandIn(Clock(), cluster_cut_at(1, slot(HIGH), self.left, self.right))
        self.service = WalletService(
            Engine(maps, self.committers),
            JournalEngine(maps, self.committers),
            maps,
            reader(),
            CurrenciesStandIn(),
            self.archive,
        )

    def holds(self) -> list[list[int]]:
        """The amounts of the holds of each call to the left shard."""
        return [[j.legs[0].amount_minor for j in call.batch.journals] for call in self.left.calls]  # type: ignore[union-attr]


@pytest.fixture
async def bench() -> Bench:
    """A service over stand-ins, without a ledger."""
    return Bench()


def a_hold(number: int) -> wallet_pb2.HoldRequest:
    """A hold on the left shard, told from others by its amount."""
    return wallet_pb2.HoldRequest(
        transaction_id=uuid7(0, number), account_id=LOW, amount=f"{number / 100:.2f}", currency="EUR"
    )


def a_refund(merchant_currency: str = "EUR", number: int = 1) -> wallet_pb2.RefundRequest:
    """A refund of three euros to LOW."""
    return wallet_pb2.RefundRequest(
        transaction_id=uuid7(0, number),
        purchase_transaction_id=PURCHASE_ID,
        customer_account=LOW,
        amount="3",
        currency=merchant_currency,
    )


async def aborted(call: Handler, request: Any) -> tuple[Context, error_details_pb2.ErrorInfo]:
    """How a call that must be refused ended."""
    context = Context()
    with pytest.raises(AbortedError):
        await call(request, context)
    (info,) = context.detail(error_details_pb2.ErrorInfo)
    return context, info


async def turns() -> None:
    """Lets the loop do all that is ready."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_journals_travel_together(bench: Bench) -> None:
    """Concurrent calls share a batch and each gets its own answer."""
    responses = await asyncio.gather(*(bench.service.Hold(a_hold(n), Context()) for n in range(1, 101)))
    assert bench.holds() == [list(range(1, 101))]
    assert [r.transaction_id for r in responses] == [a_hold(n).transaction_id for n in range(1, 101)]
    assert [r.available for r in responses] == [a_hold(n).amount for n in range(1, 101)]


async def test_too_many_journals(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Legs are counted, not journals: what the router will not hold is refused, nothing of it begun."""
    monkeypatch.setattr(coalescer, "MAX_BATCHES", 1)
    monkeypatch.setattr(coalescer, "MAX_WAITING", 3)
    bench.left.open_gate.clear()
    legs = [
        wallet_pb2.JournalLeg(account_id=account, amount=amount, currency="EUR")
        for account, amount in ((LOW, "-2"), (FRIEND, "1"), (FRIEND + "2", "1"))
    ]
    journal = wallet_pb2.PostJournalRequest(transaction_id=uuid7(0, 7), legs=legs)
    calls = []
    for number in (1, 2):
        calls.append(asyncio.ensure_future(bench.service.Hold(a_hold(number), Context())))
        await turns()
    context, info = await aborted(bench.service.PostJournal, journal)
    assert (context.code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED")
    assert info.metadata["transaction_id"] == journal.transaction_id
    assert len(context.detail(error_details_pb2.RetryInfo)) == 1
    bench.left.open_gate.set()
    await asyncio.gather(*calls)
    assert (await bench.service.PostJournal(journal, Context())).outcome == outcome_pb2.OUTCOME_COMMITTED
    assert bench.holds() == [[1], [2], [200]]


async def test_hanging_up_stops_nothing(bench: Bench) -> None:
    """A hold whose caller has left is carried out, and draining waits for it."""
    bench.left.open_gate.clear()
    call = asyncio.ensure_future(bench.service.Hold(a_hold(1), Context()))
    await turns()
    call.cancel()
    finished = asyncio.ensure_future(bench.service.finish_all())
    await turns()
    assert (call.cancelled(), finished.done()) == (True, False)
    bench.left.open_gate.set()
    await finished
    assert bench.holds() == [[1]]


async def test_lookups_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has to be looked up first, and what is only checked, counts towards the router's limit."""
    monkeypatch.setattr(kept, "MAX_IN_HAND", 0)
    void = wallet_pb2.VoidRequest(transaction_id=uuid7(0), hold_transaction_id=uuid7(0, 2), account_id=LOW)
    check = a_hold(1)
    check.validate_only = True
    transfer = wallet_pb2.TransferRequest(
        transaction_id=uuid7(0),
        from_account=LOW,
        to_account=HIGH,
        amount="1",
        currency="EUR",
        validate_only=True,
    )
    asked: list[tuple[Handler, Any]] = [
        (bench.service.Refund, a_refund()),
        (bench.service.Void, void),
        (bench.service.Hold, check),
        (bench.service.Transfer, transfer),
    ]
    for call, request in asked:
        context, info = await aborted(call, request)
        assert (context.code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED")
    assert (bench.left.decisions, bench.left.checked, bench.left.calls) == ([], [], [])


async def test_a_shard_without_an_answer(bench: Bench) -> None:
    """Whatever is asked of a shard that is away is UNAVAILABLE, reason OUTCOME_UNKNOWN: also a lookup."""
    void = wallet_pb2.VoidRequest(transaction_id=uuid7(0), hold_transaction_id=uuid7(0, 2), account_id=LOW)
    check = a_hold(1)
    check.validate_only = True
    freeze = wallet_pb2.GetAccountRequest(account_id=LOW)
    asked: list[tuple[Handler, Any]] = [
        (bench.service.Hold, a_hold(1)),
        (bench.service.Hold, check),
        (bench.service.Refund, a_refund()),
        (bench.service.Void, void),
        (bench.service.GetAccount, freeze),
    ]
    for call, request in asked:
        bench.left.answers.append(ShardUnavailableError("left: no answer"))
        context, info = await aborted(call, request)
        assert (context.code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN")
        assert len(context.detail(error_details_pb2.RetryInfo)) == 1


async def test_a_refund_sent_again_is_the_same_journal() -> None:
    """From memory or from the archive, a refund becomes the same journal, so that it moves money once."""
    bench = Bench(archive := Archive())
    bench.left.remembered = RememberedOutcome(Outcome.COMMITTED, 5, 4000, "EUR", bytes(32), LOW, HIGH)
    response = await bench.service.Refund(a_refund(), Context())
    assert (response.from_available, response.to_available) == ("3.00", "3.00")
    bench.left.remembered = None
    archive.answer = Purchase(HIGH, 4000, "EUR")
    await bench.service.Refund(a_refund(), Context())
    (first, _), (second, _) = bench.committers.journal_batches
    assert first == second
    assert first[0].bound == 4000


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
    assert bench.committers.journal_batches == []


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
    bench.left.remembered = RememberedOutcome(Outcome.COMMITTED, 5, 4000, "EUR", bytes(32), LOW, HIGH)
    context, info = await aborted(bench.service.Refund, a_refund("USD"))
    assert (info.reason, info.metadata["field"]) == ("CURRENCY_MISMATCH", "currency")
    assert "EUR" in context.text
    assert bench.committers.journal_batches == []


async def test_a_void_has_its_accounts_currency(bench: Bench) -> None:
    """The currency that a void does not name is the account's."""
    bench.left.known[LOW] = Account(0, 5, 1, 0, AccountState.FROZEN, "JPY")
    void = wallet_pb2.VoidRequest(transaction_id=uuid7(0), hold_transaction_id=uuid7(0, 2), account_id=LOW)
    response = await bench.service.Void(void, Context())
    assert response.available == "0"
    (call,) = bench.left.calls
    assert call.batch.journals[0].legs[0].currency == "JPY"  # type: ignore[union-attr]
