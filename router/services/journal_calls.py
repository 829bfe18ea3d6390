"""The calls that are journals: refunds, holds, captures, voids, and journals of the caller's own legs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from router.execution import (
    DEFAULT_DEADLINE_SECONDS,
    Coalescer,
    JournalResult,
    OverloadedError,
    Purchases,
    deadline_of,
    of_journal,
)
from router.requests import BadField, JournalReader
from router.services import refusals
from router.services.accounts import currency_of
from shard_node.contract import Journals, Kind, Outcome
from shard_node.errors import ShardNodeError
from shard_node.limits import NO_BALANCE
from shard_node.money import to_text
from tallystick.v1 import wallet_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from router.execution import Checker, JournalEngine, KeptTasks, Maps, PurchaseArchive
    from router.requests import JournalRequest, PurchaseTerms, RefundRequest, RequestReader, VoidRequest
    from shard_node.cluster import Currencies, Exponents

T = TypeVar("T")
RequestT = TypeVar("RequestT")

_DONE = frozenset((Outcome.COMMITTED, Outcome.VALID))


def _leg_count(request: JournalRequest) -> int:
    return len(request.journal.legs)


class JournalCalls:
    """Reads journals, hands them on or has them checked, and answers."""

    def __init__(
        self,
        engine: JournalEngine,
        directory: Maps,
        reader: RequestReader,
        currencies: Currencies,
        checker: Checker,
        kept: KeptTasks,
        archive: PurchaseArchive | None,
    ) -> None:
        self._engine = engine
        self._directory = directory
        self._fields = reader
        self._currencies = currencies
        self._reader = JournalReader(reader)
        self._checker = checker
        self._kept = kept
        self._purchases = Purchases(directory, archive)
        self._coalescer: Coalescer[JournalRequest, JournalResult] = Coalescer(self._execute, _leg_count)

    async def finish_all(self) -> None:
        """Waits for everything under way."""
        await self._coalescer.finish_all()

    async def refund(self, request: wallet_pb2.RefundRequest, context: Any) -> wallet_pb2.TransferResponse:
        """Money of a purchase back to its customer."""
        read = await self._read(self._reader.refund, request, context)
        purchase = await self._purchase(read, request.transaction_id, context)
        slot = self._fields.account_slot(purchase.merchant, "purchase_transaction_id")
        asked = read.journal(purchase, slot)
        result = await self._carried_out(asked, request, context)
        return _transfer_response(request.transaction_id, asked, result, self._fields.exponents)

    async def hold(self, request: wallet_pb2.HoldRequest, context: Any) -> wallet_pb2.HoldResponse:
        """Money reserved for a time."""
        asked = await self._read(self._reader.hold, request, context)
        result = await self._carried_out(asked, request, context)
        return _hold_response(request.transaction_id, asked, result, self._fields.exponents)

    async def capture(self, request: wallet_pb2.CaptureRequest, context: Any) -> wallet_pb2.TransferResponse:
        """A payment from a hold."""
        asked = await self._read(self._reader.capture, request, context)
        result = await self._carried_out(asked, request, context)
        return _transfer_response(request.transaction_id, asked, result, self._fields.exponents)

    async def void(self, request: wallet_pb2.VoidRequest, context: Any) -> wallet_pb2.HoldResponse:
        """The end of a hold."""
        read = await self._read(self._reader.void, request, context)
        reading = self._currency_of(read, deadline_of(context))
        currency = await self._looked_up(reading, request.transaction_id, context)
        if currency is None:
            why = refusals.refusal(Outcome.ACCOUNT_NOT_FOUND, "account_id")
            await refusals.abort(context, why, transaction_id=request.transaction_id)
        asked = read.journal(currency)
        result = await self._carried_out(asked, request, context)
        return _hold_response(request.transaction_id, asked, result, self._fields.exponents)

    async def post_journal(
        self, request: wallet_pb2.PostJournalRequest, context: Any
    ) -> wallet_pb2.PostJournalResponse:
        """A journal of the caller's own legs."""
        asked = await self._read(self._reader.journal, request, context)
        result = await self._carried_out(asked, request, context)
        texts = dict(zip(asked.places, _balances(asked, result, self._fields.exponents), strict=True))
        return wallet_pb2.PostJournalResponse(
            transaction_id=request.transaction_id,
            outcome=refusals.wire_outcome(result.outcome),
            available=[texts[place] or "" for place in range(len(texts))],
        )

    # ------------------------------------------------------------------ within

    async def _read(self, read: Callable[[RequestT], T], request: RequestT, context: Any) -> T:
        try:
            return read(request)
        except BadField as bad:
            return await refusals.read_again(read, request, bad, self._currencies, context)

    async def _currency_of(self, read: VoidRequest, deadline_seconds: float) -> str | None:
        """The currency of a void's account; known here, so that its balance can be told."""
        currency = await currency_of(self._directory, read.account, read.slot, deadline_seconds)
        if currency is not None:
            await self._currencies.require_exponents((currency,))
        return currency

    async def _purchase(self, read: RefundRequest, transaction_id: str, context: Any) -> PurchaseTerms:
        finding = self._purchases.find(read, deadline_of(context))
        purchase = await self._looked_up(finding, transaction_id, context)
        if purchase is None:
            why = refusals.refusal(Outcome.PURCHASE_NOT_FOUND)
            await refusals.abort(context, why, transaction_id=transaction_id)
        if purchase.currency != read.currency:
            why = refusals.refusal(
                Outcome.CURRENCY_MISMATCH, "currency", why=f"the purchase was in {purchase.currency}"
            )
            await refusals.abort(context, why, transaction_id=transaction_id)
        return purchase

    async def _looked_up(self, work: Coroutine[Any, Any, T], transaction_id: str, context: Any) -> T:
        """What a request leaves out. Nothing was begun yet: a caller that hangs up here ends its call."""
        if not self._kept.has_room(1):
            work.close()
            await refusals.check_room(self._kept, 1, context)
        try:
            return await self._kept.run(work, 1)
        except ShardNodeError as error:
            await refusals.abort(context, refusals.no_answer(error), transaction_id=transaction_id)

    async def _carried_out(self, asked: JournalRequest, request: Any, context: Any) -> JournalResult:
        """What became of a journal that was committed or, when only checked, is valid."""
        if request.validate_only:
            checking = self._checker.check([of_journal(asked)], deadline_of(context))
            ((outcome, leg),) = await self._looked_up(checking, request.transaction_id, context)
            result = JournalResult(outcome, leg, (NO_BALANCE,) * _leg_count(asked))
        else:
            try:
                future = self._coalescer.submit(asked)
            except OverloadedError:
                why = refusals.refusal(Outcome.RESOURCE_EXHAUSTED)
                await refusals.abort(context, why, transaction_id=request.transaction_id)
            result = await future
        if result.outcome not in _DONE:
            why = _refusal(asked, result)
            await refusals.abort(context, why, transaction_id=request.transaction_id)
        return result

    async def _execute(self, asked: list[JournalRequest]) -> list[JournalResult]:
        batch = Journals.of([(one.transaction_id, one.journal) for one in asked])
        results = await self._engine.execute(batch, time.monotonic() + DEFAULT_DEADLINE_SECONDS)
        return results.rows()


def _refusal(asked: JournalRequest, result: JournalResult) -> wallet_pb2.Refusal:
    of_merchant = asked.journal.kind is Kind.REFUND and result.leg == 0
    field = asked.fields[result.leg]
    why = refusals.refusal(result.outcome, field)
    if of_merchant and why.field == field:
        why.message += " (the merchant's account)"
    return why


def _balances(asked: JournalRequest, result: JournalResult, exponents: Exponents) -> list[str | None]:
    """Each leg's balance as text, None where it is not known."""
    return [
        None if minor == NO_BALANCE else to_text(minor, exponents[leg.currency])
        for leg, minor in zip(asked.journal.legs, result.balances, strict=True)
    ]


def _transfer_response(
    transaction_id: str, asked: JournalRequest, result: JournalResult, exponents: Exponents
) -> wallet_pb2.TransferResponse:
    payer, payee = _balances(asked, result, exponents)
    return wallet_pb2.TransferResponse(
        transaction_id=transaction_id,
        outcome=refusals.wire_outcome(result.outcome),
        from_available=payer,
        to_available=payee,
    )


def _hold_response(
    transaction_id: str, asked: JournalRequest, result: JournalResult, exponents: Exponents
) -> wallet_pb2.HoldResponse:
    (available,) = _balances(asked, result, exponents)
    return wallet_pb2.HoldResponse(
        transaction_id=transaction_id, outcome=refusals.wire_outcome(result.outcome), available=available
    )
