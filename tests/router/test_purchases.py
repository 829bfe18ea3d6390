"""A refund's purchase is found on the shard, or in the archive; what cannot be asked is not "not found"."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import pytest

from router.execution.purchases import MAX_QUESTIONS, Purchases
from router.requests import RefundRequest
from shard_node.cluster.slots import slot
from shard_node.contract import Outcome, RememberedOutcome
from shard_node.errors import LedgerUnavailableError, ShardUnavailableError, StaleEpochError
from shard_node.ledger.questions import Purchase
from tests.router.stand_ins import Clock, MapsStandIn, ShardStandIn, cluster_cut_at

REFUND = RefundRequest(bytes(16), bytes(range(16)), "alice", slot("alice"), 500, "EUR", b"")
REMEMBERED = RememberedOutcome(Outcome.COMMITTED, 0, 5, 4000, "EUR", bytes(8), "alice", "shop")
ARCHIVED = Purchase("old-shop", 3000, "USD")
PATIENCE_SECONDS = 5.0


class Archive:
    """An archive that answers or fails as told, once its gate is open."""

    def __init__(self, answer: Purchase | Exception | None) -> None:
        self.answer = answer
        self.asked: list[tuple[bytes, str]] = []
        self.lags = False
        self.gate = threading.Event()
        self.gate.set()

    def reading(self) -> AbstractContextManager[None]:
        """One connection is all there is."""
        return nullcontext()

    def has_batch(self, shard_id: str, number: int, batch_hash: bytes) -> bool:
        """Answers as told."""
        assert (shard_id, number, batch_hash) == ("left", 0, b"")
        return not self.lags

    def find_purchase(self, transaction_id: bytes, customer: str) -> Purchase | None:
        """Answers as told."""
        self.asked.append((transaction_id, customer))
        assert self.gate.wait(PATIENCE_SECONDS)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def made(
    archive: Archive | None, remembered: RememberedOutcome | None, *errors: Exception
) -> tuple[Purchases, ShardStandIn]:
    """Purchases of one shard that remembers this."""
    left = ShardStandIn("left", *errors)
    left.remembered = remembered
    cluster = cluster_cut_at(1, slot("alice") + 1, left, ShardStandIn("right"))
    return Purchases(MapsStandIn(Clock(), cluster), archive), left


def soon() -> float:
    """A deadline."""
    return time.monotonic() + PATIENCE_SECONDS


async def test_on_the_shard() -> None:
    """What the customer's shard remembers is the purchase; the archive is not asked."""
    archive = Archive(ARCHIVED)
    purchases, left = made(archive, REMEMBERED, StaleEpochError("moved on"))
    assert await purchases.find(REFUND, soon()) == Purchase("shop", 4000, "EUR")
    assert left.decisions == [bytes(range(16)) + slot("alice").to_bytes(2, "little")] * 2
    assert archive.asked == []


@pytest.mark.parametrize(
    "remembered",
    [
        replace(REMEMBERED, outcome=Outcome.INSUFFICIENT_FUNDS),
        replace(REMEMBERED, payer=None, payee=None),
        # Another account with the same hash tag.
        replace(REMEMBERED, payer="{alice}:usd"),
    ],
    ids=["refused", "no purchase", "of a neighbour"],
)
async def test_no_purchase_of_this_customer(remembered: RememberedOutcome) -> None:
    """What else an id was used for is no purchase of this customer, and does not hide one in the archive."""
    archive = Archive(None)
    purchases, _ = made(archive, remembered)
    assert await purchases.find(REFUND, soon()) is None
    archive.answer = ARCHIVED
    assert await purchases.find(REFUND, soon()) == ARCHIVED


async def test_in_the_archive() -> None:
    """What the shard has forgotten the archive has, or has not."""
    archive = Archive(ARCHIVED)
    purchases, _ = made(archive, None)
    assert await purchases.find(REFUND, soon()) == ARCHIVED
    archive.answer = None
    assert await purchases.find(REFUND, soon()) is None
    assert archive.asked == [(REFUND.purchase_id, "alice")] * 2


async def test_an_archive_that_is_behind() -> None:
    """An archive that may lack what the shard forgot says only what it has; "not there" is not believed."""
    archive = Archive(None)
    purchases, left = made(archive, None)
    left.forgotten_ms = 5_000
    left.waiting = [("5001-0", {}), ("6000-0", {})]
    assert await purchases.find(REFUND, soon()) is None
    left.waiting.insert(0, ("5000-3", {}))
    with pytest.raises(LedgerUnavailableError, match="yet"):
        await purchases.find(REFUND, soon())
    archive.answer = ARCHIVED
    assert await purchases.find(REFUND, soon()) == ARCHIVED


async def test_a_database_that_lags_behind() -> None:
    """A replica that lacks what the shard was told is stored has no word on what is not there."""
    archive = Archive(None)
    archive.lags = True
    purchases, _ = made(archive, None)
    with pytest.raises(LedgerUnavailableError, match="yet"):
        await purchases.find(REFUND, soon())


async def test_without_an_archive() -> None:
    """Without a ledger a purchase is not there only if its id is too young to have been forgotten."""
    purchases, left = made(None, None)
    left.forgotten_ms = 5_000
    young = bytes.fromhex("00000000138870008000000000000001")
    assert await purchases.find(replace(REFUND, purchase_id=young), soon()) is None
    left.forgotten_ms = 5_001
    for purchase_id in (young, REFUND.purchase_id):
        with pytest.raises(LedgerUnavailableError, match="--ledger"):
            await purchases.find(replace(REFUND, purchase_id=purchase_id), soon())


async def test_what_cannot_be_asked_is_not_not_found() -> None:
    """A silent shard, an archive that fails and one that is late are errors that say "ask again"."""
    archive = Archive(LedgerUnavailableError("the database is away"))
    purchases, _ = made(archive, None, ShardUnavailableError("no answer"))
    with pytest.raises(ShardUnavailableError):
        await purchases.find(REFUND, soon())
    with pytest.raises(LedgerUnavailableError, match="away"):
        await purchases.find(REFUND, soon())
    archive.gate.clear()
    with pytest.raises(LedgerUnavailableError, match="in time"):
        await purchases.find(REFUND, time.monotonic() + 0.05)
    archive.gate.set()


async def test_few_questions_at_once() -> None:
    """A slow archive is asked a few questions at a time; who waits longer than its deadline is told so."""
    archive = Archive(ARCHIVED)
    archive.gate.clear()
    purchases, _ = made(archive, None)
    asking = [asyncio.ensure_future(purchases.find(REFUND, soon())) for _ in range(MAX_QUESTIONS)]
    with pytest.raises(LedgerUnavailableError):
        await purchases.find(REFUND, time.monotonic() + 0.1)
    assert len(archive.asked) <= MAX_QUESTIONS
    # One that nobody waits for any more keeps its place until it ends.
    asking[0].cancel()
    with pytest.raises(LedgerUnavailableError):
        await purchases.find(REFUND, time.monotonic() + 0.1)
    archive.gate.set()
    assert await asyncio.gather(*asking[1:]) == [ARCHIVED] * (MAX_QUESTIONS - 1)
    assert await purchases.find(REFUND, soon()) == ARCHIVED
