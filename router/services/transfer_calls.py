"""The calls that are transfers of two legs: one at a time, gathered, or a batch."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from router.execution import DEFAULT_DEADLINE_SECONDS, Coalescer, OverloadedError, deadline_of, of_transfer
from router.requests import BadField, BatchReader, UnknownCurrency, columns
from router.services import refusals
from router.services.batch_answers import answer
from shard_node.contract import PAYEE, Outcome
from shard_node.errors import ExponentUnknownError, RegistryError
from shard_node.limits import NO_BALANCE
from shard_node.money import to_text
from shard_node.serving import NOT_UTF8, rows_decoded
from tallystick.v1 import outcome_pb2, wallet_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from typing import Protocol

    from router.execution import Checker, Engine, KeptTasks, Results
    from router.requests import ReadTransfers, RequestReader
    from shard_node.cluster import Currencies
    from shard_node.contract import Row, Transfers

    class Request(Protocol):
        """What every one of these requests has."""

        transaction_id: str
        validate_only: bool


_COMMITTED = int(Outcome.COMMITTED)

# So much of a malformed transaction_id is repeated in the answer to its row.
MAX_ECHOED_CHARS = 64

# outcome, payer's balance, payee's balance
Single = tuple[int, int, int]


class TransferCalls:
    """Reads transfers, hands them on or has them checked, and answers."""

    def __init__(
        self,
        engine: Engine,
        reader: RequestReader,
        currencies: Currencies,
        checker: Checker,
        kept: KeptTasks,
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._currencies = currencies
        self._batches = BatchReader(reader.exponents)
        self._checker = checker
        self._kept = kept
        self._coalescer: Coalescer[Row, Single] = Coalescer(self._execute_singles)

    async def finish_all(self) -> None:
        """Waits for everything under way."""
        await self._coalescer.finish_all()

    async def single(
        self,
        read: Callable[[Any], Row],
        request: Request,
        context: Any,
        payer_field: str,
        payee_field: str,
    ) -> wallet_pb2.TransferResponse:
        """One transfer, gathered with others that come at the same time.

        ``read`` makes its row; the fields are those that name its accounts.
        """
        transaction_id = request.transaction_id
        try:
            row = read(request)
        except BadField as bad:
            row = await refusals.read_again(read, request, bad, self._currencies, context)
        if request.validate_only:
            await refusals.check_room(self._kept, 1, context)
            checked = self._checked({0: row}, deadline_of(context), payer_field, payee_field)
            response = (await self._kept.run(checked, 1))[0]
            response.transaction_id = transaction_id
            if response.HasField("refusal"):
                await refusals.abort(context, response.refusal, transaction_id=transaction_id)
            return response
        try:
            future = self._coalescer.submit(row)
        except OverloadedError:
            why = refusals.refusal(Outcome.RESOURCE_EXHAUSTED)
            await refusals.abort(context, why, transaction_id=transaction_id)
        code, payer_balance, payee_balance = await future
        if code != _COMMITTED:
            why = refusals.of_transfer(code, row, payer_field, payee_field)
            await refusals.abort(context, why, transaction_id=transaction_id)
        response = wallet_pb2.TransferResponse(
            transaction_id=transaction_id, outcome=outcome_pb2.OUTCOME_COMMITTED
        )
        self._add_balances(response, row, payer_balance, payee_balance)
        return response

    async def batch(self, request: bytes, context: Any) -> bytes:
        """Transfers, each with an outcome of its own.

        Takes a BatchTransferRequest and answers with a BatchTransferResponse, both serialized.
        """
        packed = self._batches.read(request, self._reader.latest_id())
        if packed is None:
            rows, undecodable = await rows_decoded(wallet_pb2.BatchTransferRequest, request, context)
            return await self._row_by_row(rows, undecodable, context)
        await refusals.check_room(self._kept, len(packed), context)
        work = self._engine.execute(packed, deadline_of(context), with_balances=False)
        results = await self._kept.run(work, len(packed))
        return answer(packed.id_texts, results.outcomes)

    async def _row_by_row(
        self, request: wallet_pb2.BatchTransferRequest, undecodable: Mapping[int, str], context: Any
    ) -> bytes:
        """A batch in which something is out of the ordinary; the answer serialized.

        ``undecodable`` names, by row, the field that is not UTF-8.
        """
        count = len(request.transfers)
        await refusals.check_size("transfers", count, context)
        await refusals.check_room(self._kept, count, context)
        deadline_seconds = deadline_of(context)
        for position in undecodable:
            # Without a payer a row is refused, whatever else may be right about it.
            request.transfers[position].from_account = ""
        (batch, bad, to_check), no_word = await self._read(request)
        bad |= {position: BadField(field, NOT_UTF8) for position, field in undecodable.items()}
        aside: dict[int, wallet_pb2.TransferResponse] = {}
        for position, field in bad.items():
            if no_word and isinstance(field, UnknownCurrency):
                why = refusals.no_answer(no_word)
            else:
                why = refusals.invalid(field)
            aside[position] = wallet_pb2.TransferResponse(outcome=why.outcome, refusal=why)
        work = self._engine.execute(batch, deadline_seconds, with_balances=request.return_balances)
        if to_check:
            checking = self._checked(to_check, deadline_seconds)
            results, checked = await self._kept.run(_both(work, checking), count)
            aside |= checked
        else:
            results = await self._kept.run(work, count)
        return self._batch_response(request, batch, aside, results).SerializeToString()

    async def _read(
        self, request: wallet_pb2.BatchTransferRequest
    ) -> tuple[ReadTransfers, RegistryError | None]:
        """The requests apart; and why nobody knows whether the cluster has the currencies new to us."""
        read = self._reader.transfers(request.transfers)
        new = {bad.currency for bad in read.bad.values() if isinstance(bad, UnknownCurrency)}
        if not new:
            return read, None
        try:
            await self._currencies.require_exponents(new)
        except ExponentUnknownError:
            # Of one of them: others may be known by now.
            pass
        except RegistryError as error:
            return read, error
        return self._reader.transfers(request.transfers), None

    async def _checked(
        self,
        rows: dict[int, Row],
        deadline_seconds: float,
        payer_field: str = "from_account",
        payee_field: str = "to_account",
    ) -> dict[int, wallet_pb2.TransferResponse]:
        """What each row would get; nothing moves."""
        verdicts = await self._checker.check([of_transfer(row) for row in rows.values()], deadline_seconds)
        responses = {}
        for (position, row), (outcome, leg) in zip(rows.items(), verdicts, strict=True):
            response = wallet_pb2.TransferResponse(outcome=refusals.wire_outcome(outcome))
            if outcome not in (Outcome.VALID, Outcome.COMMITTED):
                code = outcome | PAYEE if leg else outcome
                response.refusal.CopyFrom(refusals.of_transfer(code, row, payer_field, payee_field))
            responses[position] = response
        return responses

    def _add_balances(
        self, response: wallet_pb2.TransferResponse, row: Row, payer_balance: int, payee_balance: int
    ) -> None:
        digits = self._reader.currency(row[4])
        # A system account's balance is the cluster's business.
        if payer_balance != NO_BALANCE and row[1][0] != "@":
            response.from_available = to_text(payer_balance, digits)
        if payee_balance != NO_BALANCE and row[2][0] != "@":
            response.to_available = to_text(payee_balance, digits)

    def _batch_response(
        self,
        request: wallet_pb2.BatchTransferRequest,
        batch: Transfers,
        aside: dict[int, wallet_pb2.TransferResponse],
        results: Results,
    ) -> wallet_pb2.BatchTransferResponse:
        """The answer; ``aside`` has, by position, the results of what was not carried out."""
        response = wallet_pb2.BatchTransferResponse()
        add = response.results.add
        with_balances = request.return_balances
        outcomes = results.outcomes
        row = -1
        for position, transfer in enumerate(request.transfers):
            if aside and position in aside:
                result = aside[position]
                # One that is no id may be so long that the answer would be no message any more.
                result.transaction_id = transfer.transaction_id[:MAX_ECHOED_CHARS]
                response.results.append(result)
                continue
            row += 1
            code = outcomes[row]
            if code == _COMMITTED:
                result = add(transaction_id=transfer.transaction_id, outcome=outcome_pb2.OUTCOME_COMMITTED)
                if with_balances:
                    self._add_balances(
                        result, batch.row(row), results.payer_balances[row], results.payee_balances[row]
                    )
            else:
                why = refusals.refusal(code)
                add(transaction_id=transfer.transaction_id, outcome=why.outcome, refusal=why)
        return response

    async def _execute_singles(self, rows: list[Row]) -> list[Single]:
        results = await self._engine.execute(columns(rows), time.monotonic() + DEFAULT_DEADLINE_SECONDS)
        return list(zip(results.outcomes, results.payer_balances, results.payee_balances, strict=True))


async def _both(
    work: Coroutine[Any, Any, Results], checking: Coroutine[Any, Any, dict[int, wallet_pb2.TransferResponse]]
) -> tuple[Results, dict[int, wallet_pb2.TransferResponse]]:
    results, checked = await asyncio.gather(work, checking)
    return results, checked
