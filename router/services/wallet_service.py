"""WalletService: accounts, transfers and journals over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from router.execution import at_owner, deadline_of
from router.requests import BadField
from router.services import refusals
from router.services.account_calls import AccountCalls
from router.services.batch_calls import BatchCalls
from router.services.transaction_calls import TransactionCalls
from shard_node.contract import Outcome
from shard_node.errors import ShardNodeError
from shard_node.money import to_text
from shard_node.serving import rows_decoded
from tallystick.v1 import wallet_pb2, wallet_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shard_node.serving import Methods

MessageT = TypeVar("MessageT", bound=Message)

_SERVICE = "tallystick.v1.WalletService"


class WalletService(AccountCalls, TransactionCalls, BatchCalls):
    """All calls of the service; see :class:`router.services.calls.Calls`."""

    async def GetTransfer(  # noqa: N802 -- the contract's name
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
