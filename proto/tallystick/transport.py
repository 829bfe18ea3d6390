"""Calls to routers over gRPC: one channel each, and every foreign error mapped here, once."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

import grpc
import grpc.aio

from tallystick.errors import ClientClosed, OutcomeUnknown
from tallystick.rotation import RouterState
from tallystick.status import Failure, from_rpc_error
from tallystick.v1 import wallet_pb2, wallet_pb2_grpc

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
# Method only names its types; it holds neither.
RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
ResponseT_co = TypeVar("ResponseT_co", covariant=True)

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    # A batch of 8192 transfers is about 2 MiB; the servers take as much.
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # A router that restarts is found again in half a second, not in gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # How long one attempt to connect may take, despite its name.
    ("grpc.min_reconnect_backoff_ms", 1000),
    # The servers permit a ping every 30 s; a client that pings faster is cut off.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Retries are ours: by the same transaction_id, within the deadline, at another router.
    ("grpc.enable_retries", 0),
]


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT_contra, ResponseT_co]):
    """A unary method of WalletService, with the types of its messages."""

    name: str


OPEN_ACCOUNT: Method[wallet_pb2.OpenAccountRequest, wallet_pb2.Account] = Method("OpenAccount")
OPEN_ACCOUNTS: Method[wallet_pb2.BatchOpenAccountsRequest, wallet_pb2.BatchAccountsResponse] = Method(
    "BatchOpenAccounts"
)
GET_ACCOUNT: Method[wallet_pb2.GetAccountRequest, wallet_pb2.Account] = Method("GetAccount")
GET_ACCOUNTS: Method[wallet_pb2.BatchGetAccountsRequest, wallet_pb2.BatchAccountsResponse] = Method(
    "BatchGetAccounts"
)
LIST_ACCOUNTS: Method[wallet_pb2.ListAccountsRequest, wallet_pb2.ListAccountsResponse] = Method(
    "ListAccounts"
)
TRANSFERS: Method[wallet_pb2.BatchTransferRequest, wallet_pb2.BatchTransferResponse] = Method("BatchTransfer")
GET_TRANSFER: Method[wallet_pb2.GetTransferRequest, wallet_pb2.GetTransferResponse] = Method("GetTransfer")
DEPOSIT: Method[wallet_pb2.DepositRequest, wallet_pb2.TransferResponse] = Method("Deposit")
WITHDRAW: Method[wallet_pb2.WithdrawRequest, wallet_pb2.TransferResponse] = Method("Withdraw")
PURCHASE: Method[wallet_pb2.PurchaseRequest, wallet_pb2.TransferResponse] = Method("Purchase")
REFUND: Method[wallet_pb2.RefundRequest, wallet_pb2.TransferResponse] = Method("Refund")
HOLD: Method[wallet_pb2.HoldRequest, wallet_pb2.HoldResponse] = Method("Hold")
CAPTURE: Method[wallet_pb2.CaptureRequest, wallet_pb2.TransferResponse] = Method("Capture")
VOID: Method[wallet_pb2.VoidRequest, wallet_pb2.HoldResponse] = Method("Void")
POST_JOURNAL: Method[wallet_pb2.PostJournalRequest, wallet_pb2.PostJournalResponse] = Method("PostJournal")
FREEZE_ACCOUNT: Method[wallet_pb2.FreezeAccountRequest, wallet_pb2.Account] = Method("FreezeAccount")
UNFREEZE_ACCOUNT: Method[wallet_pb2.UnfreezeAccountRequest, wallet_pb2.Account] = Method("UnfreezeAccount")
CLOSE_ACCOUNT: Method[wallet_pb2.CloseAccountRequest, wallet_pb2.Account] = Method("CloseAccount")


class CallFailed(Exception):  # noqa: N818 - never leaves the package
    """A call brought no response.

    Attributes:
        failure: what that means.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


class Transport(Protocol):
    """The way to the routers; tests put a scripted one in its place."""

    async def call(
        self, router: int, method: Method[RequestT, ResponseT], request: RequestT, timeout_s: float
    ) -> ResponseT:
        """Call one router. Raises CallFailed, or CancelledError when the caller itself is cancelled."""
        ...

    async def close(self) -> None:
        """Drop the connections; calls in flight fail."""
        ...


class GrpcTransport:
    """The routers' gRPC channels. To be made inside a running event loop.

    Args:
        addresses: "host:port" of each router; a call names one by its place here.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._channels = [
            grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) for address in addresses
        ]
        # Generated without types; a method is found by its name.
        self._stubs: list[Any] = [wallet_pb2_grpc.WalletServiceStub(channel) for channel in self._channels]

    async def call(
        self, router: int, method: Method[RequestT, ResponseT], request: RequestT, timeout_s: float
    ) -> ResponseT:
        """Call one router.

        Raises:
            CallFailed: there is no response.
        """
        multicallable = getattr(self._stubs[router], method.name)
        try:
            return await cast("Awaitable[ResponseT]", multicallable(request, timeout=timeout_s))
        except grpc.RpcError as error:
            raise CallFailed(from_rpc_error(error)) from error
        except grpc.aio.UsageError as error:
            # The channel was closed before the call began.
            raise CallFailed(Failure(ClientClosed(), RouterState.BROKEN)) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not we but the call was cancelled: its channel was closed under it.
            raise CallFailed(
                Failure(OutcomeUnknown("the client was closed during the call"), RouterState.BROKEN)
            ) from None

    async def close(self) -> None:
        """Drop the connections; calls in flight fail."""
        await asyncio.gather(*(channel.close(None) for channel in self._channels))
