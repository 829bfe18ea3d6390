"""Finding the purchase that a refund names.

The customer's shard remembers it for as long as it remembers outcomes; then the ledger's archive has it.
Both tell the same merchant and amount, so that a refund sent again is the same refund. An archive that
cannot be reached, or is so far behind that it may lack what the shard has forgotten, is never taken for a
purchase that does not exist.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from router.maps import at_owner
from shard_node.bundles import id_times_ms
from shard_node.errors import LedgerUnavailableError
from shard_node.outcomes import Outcome

if TYPE_CHECKING:
    from router.journal_requests import PurchaseTerms, RefundRequest
    from router.maps import Maps
    from shard_node.records import RememberedOutcome
    from shard_node.shard import Shard

# Questions to the archive at once: each holds a thread and a connection to the database.
MAX_QUESTIONS = 4


class PurchaseArchive(Protocol):
    """Where purchases are that shards have forgotten: :class:`shard_node.ledger.history.History`."""

    def find_purchase(self, transaction_id: bytes, customer: str) -> PurchaseTerms | None:
        """The purchase under an id of 16 bytes; blocks. Raises the errors of :mod:`shard_node.errors`."""


@dataclass(frozen=True, slots=True)
class Purchase:
    """A committed purchase."""

    merchant: str
    amount_minor: int
    currency: str


class Purchases:
    """Finds purchases. ``archive`` is None where there is no ledger."""

    def __init__(self, directory: Maps, archive: PurchaseArchive | None = None) -> None:
        self._directory = directory
        self._archive = archive
        self._room = asyncio.Semaphore(MAX_QUESTIONS)

    async def find(self, refund: RefundRequest, deadline_seconds: float) -> PurchaseTerms | None:
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
        behind = await at_owner(self._directory, refund.customer_slot, _is_behind, deadline_seconds)
        try:
            async with asyncio.timeout(deadline_seconds - time.monotonic()):
                archived = await self._ask(self._archive, refund)
        except TimeoutError:
            raise LedgerUnavailableError("the ledger did not answer in time") from None
        if archived is None and behind:
            raise LedgerUnavailableError("the ledger does not have yet all that the shard has forgotten")
        return archived

    async def _must_be_young(self, refund: RefundRequest, deadline_seconds: float) -> None:
        """Raises LedgerUnavailableError for an id that the shard may have known and forgotten."""
        forgotten_ms = await at_owner(
            self._directory, refund.customer_slot, lambda shard: shard.horizon_ms(), deadline_seconds
        )
        oldest, _ = id_times_ms([refund.purchase_id])
        is_timed = refund.purchase_id[6] >> 4 == 7
        if not is_timed or oldest < forgotten_ms:
            raise LedgerUnavailableError(
                "the purchase may be older than the deduplication window: start the router with --ledger"
            )

    async def _ask(self, archive: PurchaseArchive, refund: RefundRequest) -> PurchaseTerms | None:
        await self._room.acquire()
        # A thread cannot be stopped: it keeps its place until it ends, also when nobody waits any more.
        question = asyncio.ensure_future(
            asyncio.to_thread(archive.find_purchase, refund.purchase_id, refund.customer)
        )
        question.add_done_callback(self._answered)
        return await asyncio.shield(question)

    def _answered(self, question: asyncio.Future[PurchaseTerms | None]) -> None:
        self._room.release()
        if not question.cancelled():
            # Looked at, or the loop would report it should nobody wait any more.
            question.exception()


async def _is_behind(shard: Shard) -> bool:
    """Whether entries wait to be archived that are as old as what the shard may have forgotten."""
    state = await shard.ledger_state()
    waiting = await shard.ledger_after(state.stream_id, 1)
    if not waiting:
        return False
    oldest_ms, _, _ = waiting[0][0].partition("-")
    return int(oldest_ms) <= await shard.horizon_ms()


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
