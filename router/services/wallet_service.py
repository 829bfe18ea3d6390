"""WalletService: accounts, transfers and journals over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from router.execution import AccountQuery, KeptTasks, Validator, account_page, at_owner, deadline_of
from router.requests import BadField
from router.services import refusals
from router.services.accounts import open_accounts, read_accounts, set_state
from router.services.batch_calls import BatchCalls
from router.services.transaction_calls import TransactionCalls
from shard_node.contract import Kind, Outcome
from shard_node.errors import ShardNodeError
from shard_node.money import to_text
from shard_node.serving import rows_decoded
from tallystick.v1 import wallet_pb2, wallet_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from router.execution import Dispatcher, Maps, PurchaseArchive
    from router.requests import FieldReader
    from shard_node.cluster import Currencies
    from shard_node.serving import Methods

MessageT = TypeVar("MessageT", bound=Message)

_SERVICE = "tallystick.v1.WalletService"


class WalletService(wallet_pb2_grpc.WalletServiceServicer):
    """Validates, hands on, answers.

    Work on money runs in tasks of its own, which a caller that hangs up does not cancel. ``archive`` has
    the purchases that shards have forgotten; without one they cannot be refunded.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        directory: Maps,
        fields: FieldReader,
        currencies: Currencies,
        archive: PurchaseArchive | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._directory = directory
        self._fields = fields
        self._currencies = currencies
        self._kept = KeptTasks()
        validator = Validator(directory)
        self._batches = BatchCalls(dispatcher, fields, currencies, validator, self._kept)
        self._transactions = TransactionCalls(
            dispatcher, directory, fields, currencies, validator, self._kept, archive
        )

    async def finish_all(self) -> None:
        """Waits for everything under way."""
        await self._transactions.finish_all()
        await self._kept.finish_all()
        await self._dispatcher.finish_all()

    # ------------------------------------------------------------------ accounts

    async def OpenAccount(  # noqa: N802 -- the contract's names, here and below
        self, request: wallet_pb2.OpenAccountRequest, context: Any
    ) -> wallet_pb2.Account:
        """Opens one account."""
        (result,) = await self._kept.run(
            open_accounts(self._directory, self._fields, self._currencies, [request], deadline_of(context))
        )
        return await _account_or_abort(result, context)

    async def BatchOpenAccounts(  # noqa: N802
        self, request: wallet_pb2.BatchOpenAccountsRequest, context: Any
    ) -> wallet_pb2.BatchAccountsResponse:
        """Opens up to MAX_BATCH accounts."""
        count = len(request.accounts)
        await refusals.check_size("accounts", count, context)
        await refusals.check_room(self._kept, count, context)
        results = await self._kept.run(
            open_accounts(
                self._directory, self._fields, self._currencies, request.accounts, deadline_of(context)
            ),
            count,
        )
        return wallet_pb2.BatchAccountsResponse(results=results)

    async def GetAccount(  # noqa: N802
        self, request: wallet_pb2.GetAccountRequest, context: Any
    ) -> wallet_pb2.Account:
        """Reads one account."""
        reading = read_accounts(
            self._directory, self._fields, self._currencies, [request.account_id], deadline_of(context)
        )
        (result,) = await self._kept.run(reading)
        return await _account_or_abort(result, context)

    async def BatchGetAccounts(  # noqa: N802
        self, request: wallet_pb2.BatchGetAccountsRequest, context: Any
    ) -> wallet_pb2.BatchAccountsResponse:
        """Reads up to MAX_BATCH accounts."""
        await refusals.check_size("account_ids", len(request.account_ids), context)
        reading = read_accounts(
            self._directory, self._fields, self._currencies, request.account_ids, deadline_of(context)
        )
        results = await self._kept.run(reading)
        return wallet_pb2.BatchAccountsResponse(results=results)

    async def ListAccounts(  # noqa: N802
        self, request: wallet_pb2.ListAccountsRequest, context: Any
    ) -> wallet_pb2.ListAccountsResponse:
        """A page of all accounts."""
        deadline_seconds = deadline_of(context)
        try:
            query = AccountQuery.read(request)
            page = await self._kept.run(account_page(self._directory, query, deadline_seconds))
        except BadField as bad:
            await refusals.abort(context, refusals.invalid(bad))
        except ShardNodeError as error:
            await refusals.abort(context, refusals.no_answer(error))
        reading = read_accounts(
            self._directory, self._fields, self._currencies, page.account_ids, deadline_seconds
        )
        accounts = [await _account_or_abort(result, context) for result in await self._kept.run(reading)]
        return wallet_pb2.ListAccountsResponse(accounts=accounts, next_page_token=page.next_token)

    async def FreezeAccount(  # noqa: N802
        self, request: wallet_pb2.FreezeAccountRequest, context: Any
    ) -> wallet_pb2.Account:
        """From now on it neither pays nor is paid."""
        return await self._set_state(Kind.FREEZE, request, context)

    async def UnfreezeAccount(  # noqa: N802
        self, request: wallet_pb2.UnfreezeAccountRequest, context: Any
    ) -> wallet_pb2.Account:
        """It takes part again."""
        return await self._set_state(Kind.UNFREEZE, request, context)

    async def CloseAccount(  # noqa: N802
        self, request: wallet_pb2.CloseAccountRequest, context: Any
    ) -> wallet_pb2.Account:
        """For ever."""
        return await self._set_state(Kind.CLOSE, request, context)

    # ------------------------------------------------------------------ transfers

    async def Transfer(  # noqa: N802
        self, request: wallet_pb2.TransferRequest, context: Any
    ) -> wallet_pb2.TransferResponse:
        """One transfer, gathered with others that come at the same time."""
        return await self._transactions.transfer(request, context)

    async def Deposit(  # noqa: N802
        self, request: wallet_pb2.DepositRequest, context: Any
    ) -> wallet_pb2.TransferResponse:
        """Money from outside; one call on the account's shard."""
        return await self._transactions.deposit(request, context)

    async def Withdraw(  # noqa: N802
        self, request: wallet_pb2.WithdrawRequest, context: Any
    ) -> wallet_pb2.TransferResponse:
        """Money to outside; one call on the account's shard."""
        return await self._transactions.withdraw(request, context)

    async def Purchase(  # noqa: N802
        self, request: wallet_pb2.PurchaseRequest, context: Any
    ) -> wallet_pb2.TransferResponse:
        """A customer pays a merchant."""
        return await self._transactions.purchase(request, context)

    async def BatchTransfer(  # noqa: N802
        self, request: bytes, context: Any
    ) -> bytes:
        """Up to MAX_BATCH transfers, each with an outcome of its own.

        Takes a BatchTransferRequest and answers with a BatchTransferResponse, both serialized.
        """
        return await self._batches.transfers(request, context)

    async def GetTransfer(  # noqa: N802
        self, request: wallet_pb2.GetTransferRequest, context: Any
    ) -> wallet_pb2.GetTransferResponse:
        """What the deciding shard remembers."""
        try:
            transaction_id = self._fields.transaction_id(request.transaction_id)
            slot = self._fields.account_slot(request.from_account, "from_account")
        except BadField as bad:
            await refusals.abort(context, refusals.invalid(bad))
        try:
            decision = transaction_id + slot.to_bytes(2, "little")
            reading = at_owner(
                self._directory, slot, lambda shard: shard.outcome(decision), deadline_of(context)
            )
            found = await self._kept.run(reading)
            if found is not None:
                await self._currencies.require_exponents((found.currency,))
        except ShardNodeError as error:
            await refusals.abort(context, refusals.no_answer(error))
        if found is None:
            await refusals.abort(context, refusals.refusal(Outcome.TRANSACTION_NOT_FOUND))
        decided_at = Timestamp()
        decided_at.FromMilliseconds(found.decided_at_ms)
        return wallet_pb2.GetTransferResponse(
            transaction_id=request.transaction_id,
            from_account=request.from_account,
            outcome=refusals.wire_outcome(found.outcome),
            amount=to_text(found.amount_minor, self._fields.exponents[found.currency]),
            currency=found.currency,
            decided_at=decided_at,
        )

    # ------------------------------------------------------------------ journals

    async def Refund(  # noqa: N802
        self, request: wallet_pb2.RefundRequest, context: Any
    ) -> wallet_pb2.TransferResponse:
        """Money of a purchase back to its customer."""
        return await self._transactions.refund(request, context)

    async def Hold(  # noqa: N802
        self, request: wallet_pb2.HoldRequest, context: Any
    ) -> wallet_pb2.HoldResponse:
        """Reserves money for a time."""
        return await self._transactions.hold(request, context)

    async def Capture(  # noqa: N802
        self, request: wallet_pb2.CaptureRequest, context: Any
    ) -> wallet_pb2.TransferResponse:
        """Pays from a hold."""
        return await self._transactions.capture(request, context)

    async def Void(  # noqa: N802
        self, request: wallet_pb2.VoidRequest, context: Any
    ) -> wallet_pb2.HoldResponse:
        """Ends a hold."""
        return await self._transactions.void(request, context)

    async def PostJournal(  # noqa: N802
        self, request: wallet_pb2.PostJournalRequest, context: Any
    ) -> wallet_pb2.PostJournalResponse:
        """Legs of the caller's own, all or none."""
        return await self._transactions.post_journal(request, context)

    # ------------------------------------------------------------------ within

    async def _set_state(self, target: Kind, request: Any, context: Any) -> wallet_pb2.Account:
        setting = set_state(
            self._directory, self._fields, self._currencies, target, request, deadline_of(context)
        )
        return await _account_or_abort(await self._kept.run(setting), context)


async def _account_or_abort(result: wallet_pb2.AccountResult, context: Any) -> wallet_pb2.Account:
    if result.HasField("refusal"):
        await refusals.abort(context, result.refusal)
    return result.account


def add_methods(service: WalletService, methods: Methods) -> None:
    """Adds the service's methods to those of a server.

    As the generated function does, but batches read the bytes of their requests themselves, so that a row
    which cannot be decoded does not spoil the others. BatchTransfer also writes those of its answer.
    """
    batches: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "BatchTransfer": grpc.unary_unary_rpc_method_handler(service.BatchTransfer),
        "BatchOpenAccounts": _by_row(wallet_pb2.BatchOpenAccountsRequest, service.BatchOpenAccounts),
        "BatchGetAccounts": _by_row(wallet_pb2.BatchGetAccountsRequest, service.BatchGetAccounts),
    }
    wallet_pb2_grpc.add_WalletServiceServicer_to_server(service, methods)
    # In the place of those that were just added.
    methods.add_registered_method_handlers(_SERVICE, batches)


def _by_row(
    kind: type[MessageT], answer: Callable[[MessageT, Any], Awaitable[wallet_pb2.BatchAccountsResponse]]
) -> grpc.RpcMethodHandler[bytes, wallet_pb2.BatchAccountsResponse]:
    """A batch of accounts. A text that cannot be decoded reaches the checks with U+FFFD in it.

    So they refuse its row, by the field's name: no field of these rows may hold that character.
    """

    async def call(data: bytes, context: Any) -> wallet_pb2.BatchAccountsResponse:
        request, _ = await rows_decoded(kind, data, context)
        return await answer(request, context)

    return grpc.unary_unary_rpc_method_handler(
        call, response_serializer=wallet_pb2.BatchAccountsResponse.SerializeToString
    )
