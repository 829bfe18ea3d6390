"""Batches of transfers, each with an outcome of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from router.execution import deadline_of
from router.requests import BadField, BatchReader, Transactions, UnknownCurrency
from router.services import refusals
from router.services.batch_answers import answer, balance_fields
from router.services.calls import Calls
from router.services.transaction_calls import balance_texts
from shard_node.contract import Outcome
from shard_node.errors import ExponentUnknownError, RegistryError
from shard_node.serving import NOT_UTF8, rows_decoded
from tallystick.v1 import outcome_pb2, wallet_pb2

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from router.execution import Results
    from router.requests import ReadTransfers, TransactionRequest

    Answers = dict[int, wallet_pb2.TransferResponse]

_COMMITTED = int(Outcome.COMMITTED)

# So much of a malformed transaction_id is repeated in the answer to its row.
MAX_ECHOED_CHARS = 64


class BatchCalls(Calls):
    """Reads batches of transfers, hands them on or has them checked, and answers."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._columns = BatchReader(self._fields.exponents)

    async def BatchTransfer(  # noqa: N802 -- the contract's name
        self, request: bytes, context: Any
    ) -> bytes:
        """Up to MAX_BATCH transfers, each with an outcome of its own.

        Takes a BatchTransferRequest and answers with a BatchTransferResponse, both serialized.
        """
        batch = self._columns.read(request, self._fields.latest_id())
        if batch is None:
            rows, undecodable = await rows_decoded(wallet_pb2.BatchTransferRequest, request, context)
            return await self._row_by_row(rows, undecodable, context)
        await refusals.check_room(self._kept, len(batch), context)
        work = self._dispatcher.execute(batch, deadline_of(context))
        results = await self._kept.run(work, len(batch))
        balances = balance_fields(results.balances, batch.digits) if batch.with_balances else ()
        return answer(batch.id_texts, results.outcomes, results.legs, balances)

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
        read, no_word = await self._read_rows(request)
        bad = read.bad | {position: BadField(field, NOT_UTF8) for position, field in undecodable.items()}
        aside: Answers = {}
        for position, field in bad.items():
            if no_word and isinstance(field, UnknownCurrency):
                aside[position] = _refused(refusals.no_answer(no_word))
            else:
                aside[position] = _refused(refusals.invalid(field))
        batch = Transactions(read.batch, with_balances=request.return_balances)
        work = self._dispatcher.execute(batch, deadline_seconds)
        if read.to_check:
            checking = self._checked(read.to_check, deadline_seconds)
            results, checked = await self._kept.run(_both(work, checking), count)
            aside |= checked
        else:
            results = await self._kept.run(work, count)
        return self._response(request, read.batch, batch.first_legs, aside, results).SerializeToString()

    async def _read_rows(
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

    async def _checked(self, asked: dict[int, TransactionRequest], deadline_seconds: float) -> Answers:
        """What each row would get; nothing moves."""
        verdicts = await self._validator.check(list(asked.values()), deadline_seconds)
        return {
            position: wallet_pb2.TransferResponse(outcome=refusals.wire_outcome(outcome))
            if outcome in (Outcome.VALID, Outcome.COMMITTED)
            else _refused(refusals.of_transaction(one, outcome, leg))
            for (position, one), (outcome, leg) in zip(asked.items(), verdicts, strict=True)
        }

    def _response(
        self,
        request: wallet_pb2.BatchTransferRequest,
        batch: list[TransactionRequest],
        first_legs: list[int],
        aside: Answers,
        results: Results,
    ) -> wallet_pb2.BatchTransferResponse:
        """The answer; ``aside`` has, by position, the results of what was not carried out."""
        response = wallet_pb2.BatchTransferResponse()
        outcomes, legs = results.outcomes.tolist(), results.legs.tolist()
        balances = results.balances.tolist()
        row = -1
        for position, transfer in enumerate(request.transfers):
            if position in aside:
                result = aside[position]
                # One that is no id may be so long that the answer would be no message any more.
                result.transaction_id = transfer.transaction_id[:MAX_ECHOED_CHARS]
                response.results.append(result)
                continue
            row += 1
            if outcomes[row] != _COMMITTED:
                why = refusals.of_transaction(batch[row], outcomes[row], legs[row])
                response.results.add(transaction_id=transfer.transaction_id, outcome=why.outcome, refusal=why)
                continue
            payer = payee = None
            if balances:
                told = balances[first_legs[row] : first_legs[row + 1]]
                payer, payee = balance_texts(batch[row], told, self._fields.exponents)
            response.results.add(
                transaction_id=transfer.transaction_id,
                outcome=outcome_pb2.OUTCOME_COMMITTED,
                from_available=payer,
                to_available=payee,
            )
        return response


def _refused(why: wallet_pb2.Refusal) -> wallet_pb2.TransferResponse:
    return wallet_pb2.TransferResponse(outcome=why.outcome, refusal=why)


async def _both(
    work: Coroutine[Any, Any, Results], checking: Coroutine[Any, Any, Answers]
) -> tuple[Results, Answers]:
    results, checked = await asyncio.gather(work, checking)
    return results, checked
