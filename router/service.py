"""WalletService: accounts and transfers over gRPC."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from coordinator.money import to_text
from router import refusals
from router.accounts import open_accounts, read_accounts
from router.coalescer import Coalescer, OverloadedError
from router.requests import BadField, RequestReader, columns
from shard_node.errors import ShardNodeError
from shard_node.limits import MAX_BATCH, NO_BALANCE
from shard_node.outcomes import Outcome
from shard_node.transfers import Kind
from tallystick.v1 import outcome_pb2, wallet_pb2, wallet_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from router.engine import Engine, Maps, Results
    from shard_node.transfers import Row, Transfers

# For calls that bring no deadline, and the most that a longer one counts for.
DEFAULT_DEADLINE_SECONDS = 10.0
# Items of batch calls that write, in the router's hands at once: some eight of the largest batches.
MAX_IN_HAND = 8 * MAX_BATCH

T = TypeVar("T")

_COMMITTED = int(Outcome.COMMITTED)


class WalletService(wallet_pb2_grpc.WalletServiceServicer):
    """Validates, hands on, answers.

    Work on money runs in tasks of its own, which a caller that hangs up does not cancel.
    """

    def __init__(self, engine: Engine, directory: Maps, reader: RequestReader) -> None:
        self._engine = engine
        self._directory = directory
        self._reader = reader
        self._coalescer = Coalescer(self._execute_singles)
        self._in_hand = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def finish_all(self) -> None:
        """Waits for everything under way."""
        await self._coalescer.finish_all()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._engine.finish_all()

    # ------------------------------------------------------------------ accounts

    async def OpenAccount(  # noqa: N802 -- the contract's names, here and below
        self, request: wallet_pb2.OpenAccountRequest, context: Any
    ) -> wallet_pb2.Account:
        """Opens one account."""
        (result,) = await self._kept(
            open_accounts(self._directory, self._reader, [request], _deadline(context))
        )
        return await _account_or_abort(result, context)

    async def BatchOpenAccounts(  # noqa: N802
        self, request: wallet_pb2.BatchOpenAccountsRequest, context: Any
    ) -> wallet_pb2.BatchAccountsResponse:
        """Opens up to MAX_BATCH accounts."""
        count = len(request.accounts)
        await _check_size("accounts", count, context)
        await self._check_room(count, context)
        results = await self._kept(
            open_accounts(self._directory, self._reader, request.accounts, _deadline(context)), count
        )
        return wallet_pb2.BatchAccountsResponse(results=results)

    async def GetAccount(  # noqa: N802
        self, request: wallet_pb2.GetAccountRequest, context: Any
    ) -> wallet_pb2.Account:
        """Reads one account."""
        (result,) = await read_accounts(
            self._directory, self._reader, [request.account_id], _deadline(context)
        )
        return await _account_or_abort(result, context)

    async def BatchGetAccounts(  # noqa: N802
        self, request: wallet_pb2.BatchGetAccountsRequest, context: Any
    ) -> wallet_pb2.BatchAccountsResponse:
        """Reads up to MAX_BATCH accounts."""
        await _check_size("account_ids", len(request.account_ids), context)
        results = await read_accounts(self._directory, self._reader, request.account_ids, _deadline(context))
        return wallet_pb2.BatchAccountsResponse(results=results)

    # ------------------------------------------------------------------ transfers

    async def Transfer(  # noqa: N802
        self, request: wallet_pb2.TransferRequest, context: Any
    ) -> wallet_pb2.TransferResponse:
        """One transfer, gathered with others that come at the same time."""
        try:
            row = self._reader.transfer(request)
        except BadField as bad:
            await refusals.abort(context, refusals.invalid(bad))
        return await self._single(row, request.transaction_id, context, "from_account", "to_account")

    async def Deposit(  # noqa: N802
        self, request: wallet_pb2.DepositRequest, context: Any
    ) -> wallet_pb2.TransferResponse:
        """Money from outside; one call on the account's shard."""
        return await self._world(Kind.DEPOSIT, request, context)

    async def Withdraw(  # noqa: N802
        self, request: wallet_pb2.WithdrawRequest, context: Any
    ) -> wallet_pb2.TransferResponse:
        """Money to outside; one call on the account's shard."""
        return await self._world(Kind.WITHDRAWAL, request, context)

    async def BatchTransfer(  # noqa: N802
        self, request: wallet_pb2.BatchTransferRequest, context: Any
    ) -> wallet_pb2.BatchTransferResponse:
        """Up to MAX_BATCH transfers, each with an outcome of its own."""
        transfers = request.transfers
        count = len(transfers)
        await _check_size("transfers", count, context)
        await self._check_room(count, context)
        batch, bad = self._reader.transfers(transfers)
        results = await self._kept(self._engine.execute(batch, _deadline(context)), count)
        return self._batch_response(request, batch, bad, results)

    async def GetTransfer(  # noqa: N802
        self, request: wallet_pb2.GetTransferRequest, context: Any
    ) -> wallet_pb2.GetTransferResponse:
        """What the payer's shard remembers."""
        try:
            transaction_id = self._reader.transaction_id(request.transaction_id)
            slot = self._reader.account_slot(request.from_account, "from_account")
        except BadField as bad:
            await refusals.abort(context, refusals.invalid(bad))
        try:
            found = await self._engine.outcome(transaction_id, slot, _deadline(context))
        except ShardNodeError as error:
            why = refusals.refusal(Outcome.OUTCOME_UNKNOWN)
            why.message = f"{error}: ask again"
            await refusals.abort(context, why)
        if found is None:
            await refusals.abort(context, refusals.refusal(Outcome.TRANSACTION_NOT_FOUND))
        decided_at = Timestamp()
        decided_at.FromMilliseconds(found.decided_at_ms)
        return wallet_pb2.GetTransferResponse(
            transaction_id=request.transaction_id,
            from_account=request.from_account,
            outcome=refusals.wire_outcome(found.outcome),
            amount=to_text(found.amount_minor, self._reader.currency(found.currency)),
            currency=found.currency,
            decided_at=decided_at,
        )

    # ------------------------------------------------------------------ within

    async def _world(
        self, kind: Kind, request: wallet_pb2.DepositRequest | wallet_pb2.WithdrawRequest, context: Any
    ) -> wallet_pb2.TransferResponse:
        try:
            row = self._reader.world_transfer(
                kind,
                request.transaction_id,
                request.account_id,
                request.amount,
                request.currency,
                request.reference,
            )
        except BadField as bad:
            await refusals.abort(context, refusals.invalid(bad))
        return await self._single(row, request.transaction_id, context, "account_id", "account_id")

    async def _single(
        self, row: Row, transaction_id: str, context: Any, payer_field: str, payee_field: str
    ) -> wallet_pb2.TransferResponse:
        try:
            future = self._coalescer.submit(row)
        except OverloadedError:
            await refusals.abort(
                context, refusals.refusal(Outcome.RESOURCE_EXHAUSTED), transaction_id=transaction_id
            )
        code, payer_balance, payee_balance = await future
        if code != _COMMITTED:
            why = refusals.refusal(code, payer_field, payee_field)
            await refusals.abort(context, why, transaction_id=transaction_id)
        response = wallet_pb2.TransferResponse(
            transaction_id=transaction_id, outcome=outcome_pb2.OUTCOME_COMMITTED
        )
        self._add_balances(response, row, payer_balance, payee_balance)
        return response

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
        bad: dict[int, BadField],
        results: Results,
    ) -> wallet_pb2.BatchTransferResponse:
        response = wallet_pb2.BatchTransferResponse()
        add = response.results.add
        with_balances = request.return_balances
        outcomes = results.outcomes
        row = -1
        for position, transfer in enumerate(request.transfers):
            if bad and position in bad:
                why = refusals.invalid(bad[position])
                add(transaction_id=transfer.transaction_id, outcome=why.outcome, refusal=why)
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

    async def _execute_singles(self, rows: list[Row]) -> Results:
        return await self._engine.execute(columns(rows), time.monotonic() + DEFAULT_DEADLINE_SECONDS)

    async def _check_room(self, count: int, context: Any) -> None:
        if self._in_hand + count > MAX_IN_HAND:
            await refusals.abort(context, refusals.refusal(Outcome.RESOURCE_EXHAUSTED))

    async def _kept(self, work: Coroutine[Any, Any, T], items: int = 0) -> T:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        self._in_hand += items

        def done(_: asyncio.Task[T]) -> None:
            # Not when the caller leaves: work that goes on without it counts all the same.
            self._tasks.discard(task)
            self._in_hand -= items

        task.add_done_callback(done)
        return await asyncio.shield(task)


def _deadline(context: Any) -> float:
    remaining = context.time_remaining()
    if remaining is None or remaining > DEFAULT_DEADLINE_SECONDS:
        remaining = DEFAULT_DEADLINE_SECONDS
    # A little before the caller gives up, so that it gets the outcomes that are known.
    return float(time.monotonic() + remaining * 0.9)


async def _check_size(field: str, count: int, context: Any) -> None:
    if count > MAX_BATCH:
        bad = BadField(field, f"a batch has at most {MAX_BATCH} items, this one has {count}")
        await refusals.abort(context, refusals.invalid(bad))


async def _account_or_abort(result: wallet_pb2.AccountResult, context: Any) -> wallet_pb2.Account:
    if result.HasField("refusal"):
        await refusals.abort(context, result.refusal)
    return result.account
