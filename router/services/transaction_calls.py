"""The calls that are single transactions: transfers, refunds, holds, journals of the caller's legs."""

# ruff: noqa: N802 -- the contract names its calls so

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from router.execution import (
    DEFAULT_DEADLINE_SECONDS,
    Coalescer,
    OverloadedError,
    Purchases,
    at_owner,
    deadline_of,
)
from router.requests import BadField, Transactions
from router.services import refusals
from router.services.calls import Calls
from shard_node.contract import Outcome
from shard_node.errors import ShardNodeError
from shard_node.limits import NO_BALANCE
from shard_node.money import to_text
from tallystick.v1 import outcome_pb2, wallet_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from router.requests import RefundRequest, TransactionRequest, VoidRequest
    from shard_node.cluster import Exponents
    from shard_node.ledger import questions

T = TypeVar("T")
RequestT = TypeVar("RequestT")

_DONE = frozenset((Outcome.COMMITTED, Outcome.VALID))


class Result(NamedTuple):
    """What became of one transaction.

    ``leg`` is the number of the leg that a refusal concerns; ``balances`` are available minor units after,
    one a leg, NO_BALANCE where not known.
    """

    outcome: int
    leg: int
    balances: Sequence[int]


def balance_texts(
    asked: TransactionRequest, balances: Sequence[int], exponents: Exponents
) -> list[str | None]:
    """Each leg's balance as text; None where it is not known, or is the cluster's business."""
    return [
        None if minor == NO_BALANCE or leg.account[0] == "@" else to_text(minor, exponents[leg.currency])
        for leg, minor in zip(asked.transaction.legs, balances, strict=True)
    ]


class TransactionCalls(Calls):
    """Single transactions; those that come together are handed on together."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._purchases = Purchases(self._directory, self._archive)
        self._coalescer: Coalescer[TransactionRequest, Result] = Coalescer(self._execute, _weight)

    async def finish_all(self) -> None:
        """Waits for everything under way."""
        await self._coalescer.finish_all()
        await super().finish_all()

    async def Transfer(
        self, request: wallet_pb2.TransferRequest, context: Any
    ) -> wallet_pb2.TransferResponse:
        """Money from one account to another."""
        return await self._transferred(self._reader.transfer, request, context)

    async def Deposit(self, request: wallet_pb2.DepositRequest, context: Any) -> wallet_pb2.TransferResponse:
        """Money from outside."""
        return await self._transferred(self._reader.deposit, request, context)

    async def Withdraw(
        self, request: wallet_pb2.WithdrawRequest, context: Any
    ) -> wallet_pb2.TransferResponse:
        """Money to outside."""
        return await self._transferred(self._reader.withdrawal, request, context)

    async def Purchase(
        self, request: wallet_pb2.PurchaseRequest, context: Any
    ) -> wallet_pb2.TransferResponse:
        """A customer pays a merchant."""
        return await self._transferred(self._reader.purchase, request, context)

    async def Capture(self, request: wallet_pb2.CaptureRequest, context: Any) -> wallet_pb2.TransferResponse:
        """A payment from a hold."""
        return await self._transferred(self._reader.capture, request, context)

    async def Refund(self, request: wallet_pb2.RefundRequest, context: Any) -> wallet_pb2.TransferResponse:
        """Money of a purchase back to its customer."""
        read = await self._read(self._reader.refund, request, context)
        purchase = await self._purchase(read, request.transaction_id, context)
        slot = self._fields.account_slot(purchase.merchant, "purchase_transaction_id")
        return await self._transfer_response(read.transaction(purchase, slot), request, context)

    async def Hold(self, request: wallet_pb2.HoldRequest, context: Any) -> wallet_pb2.HoldResponse:
        """Money reserved for a time."""
        asked = await self._read(self._reader.hold, request, context)
        return await self._hold_response(asked, request, context)

    async def Void(self, request: wallet_pb2.VoidRequest, context: Any) -> wallet_pb2.HoldResponse:
        """The end of a hold."""
        read = await self._read(self._reader.void, request, context)
        reading = self._currency_of(read, deadline_of(context))
        currency = await self._looked_up(reading, request.transaction_id, context)
        if currency is None:
            why = refusals.refusal(Outcome.ACCOUNT_NOT_FOUND, "account_id")
            await refusals.abort(context, why, transaction_id=request.transaction_id)
        return await self._hold_response(read.transaction(currency), request, context)

    async def PostJournal(
        self, request: wallet_pb2.PostJournalRequest, context: Any
    ) -> wallet_pb2.PostJournalResponse:
        """A journal of the caller's own legs."""
        asked = await self._read(self._reader.journal, request, context)
        outcome, available = await self._carried_out(asked, request, context)
        texts = dict(zip(asked.places, available, strict=True))
        return wallet_pb2.PostJournalResponse(
            transaction_id=request.transaction_id,
            outcome=outcome,
            available=[texts[place] or "" for place in range(len(texts))],
        )

    # ------------------------------------------------------------------ within

    async def _transferred(
        self, read: Callable[[RequestT], TransactionRequest], request: RequestT, context: Any
    ) -> wallet_pb2.TransferResponse:
        return await self._transfer_response(await self._read(read, request, context), request, context)

    async def _transfer_response(
        self, asked: TransactionRequest, request: Any, context: Any
    ) -> wallet_pb2.TransferResponse:
        outcome, (payer, payee) = await self._carried_out(asked, request, context)
        return wallet_pb2.TransferResponse(
            transaction_id=request.transaction_id,
            outcome=outcome,
            from_available=payer,
            to_available=payee,
        )

    async def _hold_response(
        self, asked: TransactionRequest, request: Any, context: Any
    ) -> wallet_pb2.HoldResponse:
        outcome, (available,) = await self._carried_out(asked, request, context)
        return wallet_pb2.HoldResponse(
            transaction_id=request.transaction_id, outcome=outcome, available=available
        )

    async def _read(self, read: Callable[[RequestT], T], request: RequestT, context: Any) -> T:
        try:
            return read(request)
        except BadField as bad:
            return await refusals.read_again(read, request, bad, self._currencies, context)

    async def _currency_of(self, read: VoidRequest, deadline_seconds: float) -> str | None:
        """The currency of a void's account, which never changes; known here, for its balance is told."""
        (account,) = await at_owner(
            self._directory, read.slot, lambda shard: shard.accounts([read.account]), deadline_seconds
        )
        if account is None:
            return None
        await self._currencies.require_exponents((account.currency,))
        return account.currency

    async def _purchase(self, read: RefundRequest, transaction_id: str, context: Any) -> questions.Purchase:
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

    async def _carried_out(
        self, asked: TransactionRequest, request: Any, context: Any
    ) -> tuple[outcome_pb2.Outcome, list[str | None]]:
        """The outcome of what was committed or, when only checked, is valid; and each leg's balance after."""
        transaction_id = request.transaction_id
        if request.validate_only:
            checking = self._validator.check([asked], deadline_of(context))
            ((outcome, leg),) = await self._looked_up(checking, transaction_id, context)
            result = Result(outcome, leg, (NO_BALANCE,) * len(asked.slots))
        else:
            try:
                future = self._coalescer.submit(asked)
            except OverloadedError:
                why = refusals.refusal(Outcome.RESOURCE_EXHAUSTED)
                await refusals.abort(context, why, transaction_id=transaction_id)
            result = await future
        if result.outcome not in _DONE:
            why = refusals.of_transaction(asked, result.outcome, result.leg)
            await refusals.abort(context, why, transaction_id=transaction_id)
        texts = balance_texts(asked, result.balances, self._fields.exponents)
        return refusals.wire_outcome(result.outcome), texts

    async def _execute(self, asked: list[TransactionRequest]) -> list[Result]:
        batch = Transactions(asked)
        results = await self._dispatcher.execute(batch, time.monotonic() + DEFAULT_DEADLINE_SECONDS)
        balances = results.balances.tolist()
        columns = zip(
            results.outcomes.tolist(), results.legs.tolist(), pairwise(batch.first_legs), strict=True
        )
        return [Result(outcome, leg, balances[first:last]) for outcome, leg, (first, last) in columns]


def _weight(asked: TransactionRequest) -> int:
    """So much of a batch it fills: one with twice as many legs as transactions is full."""
    return (len(asked.slots) + 1) // 2
