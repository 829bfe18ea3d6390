"""Calls to routers over gRPC: one channel each, and every foreign error mapped here, once."""

import asyncio
import concurrent.futures
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from tallystick import forking
from tallystick.errors import ClientClosed, OutcomeUnknown
from tallystick.rotation import RouterState
from tallystick.status import Failure, from_rpc_error
from tallystick.v1 import wallet_pb2, wallet_pb2_grpc

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT")

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    # The contract's largest message. Of what `limits` lets pass, 8192 items stay below.
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


# How long a fork waits for calls under way, and how often it, and a call that it holds up, looks.
_LONGEST_CALL_S = 1.0
_POLL_S = 0.001


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT, ResponseT]):
    """A unary method of the contract.

    Attributes:
        name: the contract's.
        request: the class of what is sent.
        response: the class of what comes back.
        only_asks: whether it changes nothing, so that without an answer nothing has happened.
    """

    name: str
    request: type[RequestT]
    response: type[ResponseT]
    only_asks: bool = False


OPEN_ACCOUNT = Method("OpenAccount", wallet_pb2.OpenAccountRequest, wallet_pb2.Account)
OPEN_ACCOUNTS = Method(
    "BatchOpenAccounts", wallet_pb2.BatchOpenAccountsRequest, wallet_pb2.BatchAccountsResponse
)
GET_ACCOUNT = Method("GetAccount", wallet_pb2.GetAccountRequest, wallet_pb2.Account, only_asks=True)
GET_ACCOUNTS = Method(
    "BatchGetAccounts", wallet_pb2.BatchGetAccountsRequest, wallet_pb2.BatchAccountsResponse, only_asks=True
)
LIST_ACCOUNTS = Method(
    "ListAccounts", wallet_pb2.ListAccountsRequest, wallet_pb2.ListAccountsResponse, only_asks=True
)
TRANSFERS = Method("BatchTransfer", wallet_pb2.BatchTransferRequest, wallet_pb2.BatchTransferResponse)
GET_TRANSFER = Method(
    "GetTransfer", wallet_pb2.GetTransferRequest, wallet_pb2.GetTransferResponse, only_asks=True
)
DEPOSIT = Method("Deposit", wallet_pb2.DepositRequest, wallet_pb2.TransferResponse)
WITHDRAW = Method("Withdraw", wallet_pb2.WithdrawRequest, wallet_pb2.TransferResponse)
PURCHASE = Method("Purchase", wallet_pb2.PurchaseRequest, wallet_pb2.TransferResponse)
REFUND = Method("Refund", wallet_pb2.RefundRequest, wallet_pb2.TransferResponse)
HOLD = Method("Hold", wallet_pb2.HoldRequest, wallet_pb2.HoldResponse)
CAPTURE = Method("Capture", wallet_pb2.CaptureRequest, wallet_pb2.TransferResponse)
VOID = Method("Void", wallet_pb2.VoidRequest, wallet_pb2.HoldResponse)
POST_JOURNAL = Method("PostJournal", wallet_pb2.PostJournalRequest, wallet_pb2.PostJournalResponse)
FREEZE_ACCOUNT = Method("FreezeAccount", wallet_pb2.FreezeAccountRequest, wallet_pb2.Account)
UNFREEZE_ACCOUNT = Method("UnfreezeAccount", wallet_pb2.UnfreezeAccountRequest, wallet_pb2.Account)
CLOSE_ACCOUNT = Method("CloseAccount", wallet_pb2.CloseAccountRequest, wallet_pb2.Account)


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
        """End the connections; calls in flight fail."""
        ...

    def drop(self) -> None:
        """Let go of connections that no call uses, without an event loop."""
        ...


class GrpcTransport:
    """The routers' gRPC channels, for one event loop. They are made by the first call, and anew after a fork.

    Args:
        addresses: "host:port" of each router; a call names one by its place here.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._loop = asyncio.get_running_loop()
        self._channels: list[grpc.aio.Channel] = []
        # Generated without types; a method is found by its name.
        self._stubs: list[Any] = []
        self._calls = 0
        self._closed = False

    async def call(
        self, router: int, method: Method[RequestT, ResponseT], request: RequestT, timeout_s: float
    ) -> ResponseT:
        """Call one router.

        Raises:
            CallFailed: there is no response.
        """
        await self.ready()
        multicallable = getattr(self._stubs[router], method.name)
        self._calls += 1
        try:
            return await cast("Awaitable[ResponseT]", multicallable(request, timeout=timeout_s))
        except grpc.RpcError as error:
            raise CallFailed(from_rpc_error(error, router=self._addresses[router])) from error
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
        finally:
            self._calls -= 1

    async def ready(self) -> None:
        """Be connected, and not within a fork.

        Raises:
            CallFailed: it was closed.
        """
        while forking.under_way() or not self._stubs:
            if self._closed:
                raise CallFailed(Failure(ClientClosed(), RouterState.BROKEN))
            if forking.begin_connecting(self):
                try:
                    self._connect()
                finally:
                    forking.end_connecting()
            else:
                await asyncio.sleep(_POLL_S)

    async def close(self) -> None:
        """End the connections; calls in flight fail."""
        self._closed = True
        await self._disconnect()

    def drop(self) -> None:
        """Let go of connections that no call uses. The last one takes gRPC's threads along: see `forking`."""
        self._stubs, self._channels = [], []

    def rest(self) -> None:
        """Disconnect before a fork, unless a call is under way that does not end soon."""
        if not self._channels:
            return
        if self._loop.is_running() and self._loop is not _running_loop():
            future = asyncio.run_coroutine_threadsafe(self._disconnect_when_idle(), self._loop)
            concurrent.futures.wait((future,), 2 * _LONGEST_CALL_S)
        elif not self._calls:
            # In this very thread, or in one that has ended: nothing can be awaited.
            self.drop()

    def _connect(self) -> None:
        if not self._stubs:
            self._channels = [
                grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) for address in self._addresses
            ]
            self._stubs = [self._stub(channel) for channel in self._channels]

    def _stub(self, channel: grpc.aio.Channel) -> Any:
        return wallet_pb2_grpc.WalletServiceStub(channel)

    async def _disconnect(self) -> None:
        await asyncio.gather(*(channel.close(None) for channel in self._channels))
        self.drop()

    async def _disconnect_when_idle(self) -> None:
        give_up_at_s = time.monotonic() + _LONGEST_CALL_S
        # Looked at, not waited for: calls need not pay for what a fork may ask some time.
        while self._calls and time.monotonic() < give_up_at_s:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        if not self._calls:
            await self._disconnect()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
