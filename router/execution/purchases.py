"""Finding the purchase that a refund names.

The customer's shard remembers it for as long as it remembers outcomes; then the ledger's archive has it.
Both tell the same merchant and amount, so that a refund sent again is the same refund. An archive that
cannot be reached, or is so far behind that it may lack what the shard has forgotten, is never taken for a
purchase that does not exist.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

from router.execution.maps import at_owner
from router.requests import time_of_id
from shard_node.contract import Outcome
from shard_node.errors import LedgerUnavailableError
from shard_node.ledger.questions import Purchase
from shard_node.ledger.store import stream_place

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from router.execution.maps import Maps
    from router.requests import RefundRequest
    from shard_node.client import Shard
    from shard_node.contract import RememberedOutcome

# Questions to the archive at once: each holds a thread and a connection to the database.
MAX_QUESTIONS = 4


class PurchaseArchive(Protocol):
    """Where purchases are that shards have forgotten: :class:`shard_node.ledger.questions.History`."""

    def reading(self) -> AbstractContextManager[object]:
        """What is asked within is asked on one connection."""

    def has_batch(self, shard_id: str, number: int, batch_hash: bytes) -> bool:
        """Whether a batch is there, with this hash; blocks."""

    def find_purchase(self, transaction_id: bytes, customer: str) -> Purchase | None:
        """The purchase under an id of 16 bytes; blocks. Raises the errors of :mod:`shard_node.errors`."""


# A batch that a shard was told is stored: the shard's id, the batch's number and its hash.
_Told = tuple[str, int, bytes]


class Purchases:
    """Finds purchases. ``archive`` is None where there is no ledger."""

    def __init__(self, directory: Maps, archive: PurchaseArchive | None = None) -> None:
        self._directory = directory
        self._archive = archive
        self._room = asyncio.Semaphore(MAX_QUESTIONS)

    async def find(self, refund: RefundRequest, deadline_seconds: float) -> Purchase | None:
        """The committed purchase that a refund names, None when that customer made none.

        Raises the errors of :mod:`shard_node.errors` when that cannot be said by the deadline.
        """
        key = refund.purchase_id + refund.customer_slot.to_bytes(2, "little")
        found = await at_owner(
            self._directory, refund.customer_slot, lambda shard: shard.outcome(key), deadline_seconds
        )
        purchase = _purchase_of(found, refund.customer)
        if purchase is not None:
            return purchase
        if self._archive is None:
            await self._must_be_young(refund, deadline_seconds)
            return None
        # Looked at before the archive is asked: what it catches up on in between, it may have lacked.
        told = await at_owner(self._directory, refund.customer_slot, _told, deadline_seconds)
        try:
            async with asyncio.timeout(deadline_seconds - time.monotonic()):
                archived, is_whole = await self._ask(self._archive, refund, told)
        except TimeoutError:
            raise LedgerUnavailableError("the ledger did not answer in time") from None
        if archived is None and not is_whole:
            raise LedgerUnavailableError("the ledger does not have yet all that the shard has forgotten")
        return archived

    async def _must_be_young(self, refund: RefundRequest, deadline_seconds: float) -> None:
        """Raises LedgerUnavailableError for an id that the shard may have known and forgotten."""
        forgotten_ms = await at_owner(
            self._directory, refund.customer_slot, lambda shard: shard.horizon_ms(), deadline_seconds
        )
        made_ms = time_of_id(refund.purchase_id)
        if made_ms is None or made_ms < forgotten_ms:
            raise LedgerUnavailableError(
                "the purchase may be older than the deduplication window: start the router with --ledger"
            )

    async def _ask(
        self, archive: PurchaseArchive, refund: RefundRequest, told: _Told | None
    ) -> tuple[Purchase | None, bool]:
        """What the archive has, and whether it has all that the shard may have forgotten."""

        def ask() -> tuple[Purchase | None, bool]:
            with archive.reading():
                # A database that lags behind, a replica, lacks what the shard was told is stored.
                is_whole = told is not None and archive.has_batch(*told)
                return archive.find_purchase(refund.purchase_id, refund.customer), is_whole

        await self._room.acquire()
        # A thread cannot be stopped: it keeps its place until it ends, also when nobody waits any more.
        question = asyncio.ensure_future(asyncio.to_thread(ask))
        question.add_done_callback(self._answered)
        return await asyncio.shield(question)

    def _answered(self, question: asyncio.Future[tuple[Purchase | None, bool]]) -> None:
        self._room.release()
        if not question.cancelled():
            # Looked at, or the loop would report it should nobody wait any more.
            question.exception()


async def _told(shard: Shard) -> _Told | None:
    """The last batch that a shard was told of; None when it may have forgotten more than is stored."""
    state = await shard.ledger_state()
    waiting = await shard.ledger_after(state.stream_id, 1)
    is_stored = not waiting or stream_place(waiting[0][0])[0] > await shard.horizon_ms()
    return (shard.shard_id, state.number, state.head) if is_stored else None


def _purchase_of(found: RememberedOutcome | None, customer: str) -> Purchase | None:
    """What a shard remembers, if it is a purchase that this customer paid for.

    Anything else under the id says nothing: an id may have been used again after it was forgotten.
    """
    if (
        found is None
        or found.outcome is not Outcome.COMMITTED
        or found.payer != customer
        or found.payee is None
    ):
        return None
    return Purchase(found.payee, found.amount_minor, found.currency)
