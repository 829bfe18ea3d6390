"""The client under gevent: every wait is a greenlet's, so that no user of Locust's stops the others.

Locust replaces the standard library's threads by greenlets, which gRPC's asyncio API does not survive: its
poller is such a thread, and blocks the process for ever. An asyncio client in a native thread of gevent's
pool fails alike, for there too whatever asyncio and gRPC take from the standard library is gevent's. So the
client's own coroutines, with their batches and their retries, run here in a loop that waits by gevent, and
its calls go by gRPC's synchronous API, which has gevent support. That runs the core's waits in a pool of
ten native threads, of which a blocking call holds one until its answer comes: the eleventh user would wait
for the first one's answer, unseen. Calls as futures share one waiting thread a channel, however many are
under way.
"""

import asyncio
import os
from asyncio.events import _set_running_loop
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import gevent
import grpc
from gevent.event import AsyncResult, Event
from grpc.experimental import gevent as grpc_gevent

from tallystick.client import Client
from tallystick.errors import ClientClosed, RetryableError
from tallystick.forking import require_same_process
from tallystick.rotation import RouterState
from tallystick.settings import ClientSettings
from tallystick.status import Failure, from_rpc_error
from tallystick.surroundings import Surroundings
from tallystick.sync import SyncClient
from tallystick.transport import CHANNEL_OPTIONS, CallFailed, Method, RequestT, ResponseT
from tallystick.v1 import wallet_pb2_grpc

ResultT = TypeVar("ResultT")

# After the standard library's threads were replaced, and before the first channel.
grpc_gevent.init_gevent()


@dataclass(frozen=True, slots=True)
class Done(Generic[ResultT]):
    """What a call came to.

    Attributes:
        result: what it returned. Not to be read when it raised.
        error: what it raised, or None.
        killed: whether its user was stopped meanwhile. The user must end once it has counted the call.
    """

    result: ResultT
    error: Exception | None
    killed: bool


def to_its_end(call: Callable[[], ResultT]) -> Done[ResultT]:
    """Makes a call in a greenlet that nobody kills, and waits until it has ended.

    Locust stops a user by killing its greenlet, wherever that is. But what was sent may have moved money, so
    its answer is waited for, and counted; the call's own deadline bounds the wait.
    """

    def carry_out() -> tuple[Any, Exception | None]:
        try:
            return call(), None
        except Exception as error:  # noqa: BLE001 - handed over to who waits
            return None, error

    caller = gevent.spawn(carry_out)
    killed = False
    while not caller.ready():
        try:
            caller.join()
        except gevent.GreenletExit:
            killed = True
    result, error = caller.get()
    return Done(result, error, killed)


class GreenletClient(SyncClient):
    """A `SyncClient` for greenlets: the same methods, of which each stops only the greenlet that calls it.

    Any number of greenlets may share one; their transfers leave together in batches. For a process of Locust,
    or any other in which gevent has replaced the standard library's threads before gRPC was first used.
    """

    def __init__(self, *addresses: str | Iterable[str], settings: ClientSettings | None = None) -> None:
        # Not the base's, which would start a thread.
        world = Surroundings(connect=GreenletTransport)
        self._client = Client(*addresses, settings=settings, surroundings=world)
        self._thread = LoopGreenlet()  # type: ignore[assignment] # it has what a SyncClient's methods use


class GreenletTransport:
    """The way to the routers by gRPC's synchronous API; the client's loop goes on while calls are under way.

    Args:
        addresses: "host:port" of each router; a call names one by its place here.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._channels = [grpc.insecure_channel(address, options=CHANNEL_OPTIONS) for address in addresses]
        # Generated without types; a method is found by its name.
        self._stubs: list[Any] = [wallet_pb2_grpc.WalletServiceStub(channel) for channel in self._channels]

    async def call(
        self, router: int, method: Method[RequestT, ResponseT], request: RequestT, timeout_s: float
    ) -> ResponseT:
        """Call one router.

        Raises:
            CallFailed: there is no response.
        """
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        try:
            call = getattr(self._stubs[router], method.name).future(request, timeout=timeout_s)
        except ValueError as error:
            # gRPC says so of a closed channel.
            raise CallFailed(Failure(ClientClosed(), RouterState.BROKEN)) from error
        call.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set))
        try:
            await ended.wait()
        except asyncio.CancelledError:
            call.cancel()
            raise
        try:
            return cast("ResponseT", call.result())
        except grpc.RpcError as error:
            raise CallFailed(from_rpc_error(error, router=self._addresses[router])) from error

    async def close(self) -> None:
        """End the connections; calls in flight fail."""
        self.drop()

    def drop(self) -> None:
        """As `close`, without an event loop."""
        for channel in self._channels:
            channel.close()


class LoopGreenlet:
    """A `LoopThread` for gevent: runs coroutines for greenlets, each of which waits for its own."""

    def __init__(self) -> None:
        self._process_id = os.getpid()
        self._loop = _GeventLoop()
        self._greenlet: Any = None

    @property
    def closed(self) -> bool:
        """Whether it was closed, here or by not surviving a fork."""
        return self._loop.is_closed() or self._process_id != os.getpid()

    def run(self, call: Coroutine[Any, Any, ResultT]) -> ResultT:
        """The coroutine's result, or its error; killed while it waits, it takes the call back.

        Raises:
            ClientClosed: it was closed.
            ForkedClient: it was made in another process.
        """
        try:
            require_same_process(self._process_id)
            if self._loop.is_closed():
                raise ClientClosed
        except RetryableError:
            call.close()
            raise
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._loop.run_forever)
        ended = AsyncResult()
        task = self._loop.create_task(call)
        task.add_done_callback(ended.set)
        self._loop.wake()
        try:
            ended.wait()
        except BaseException:
            task.cancel()
            self._loop.wake()
            raise
        return task.result()

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Runs this, then ends the loop and its greenlet. Done again, or in a fork, it does nothing."""
        if self.closed:
            last.close()
            return
        self.run(last)
        if self._greenlet is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._greenlet.join()
            self._greenlet = None
        self._loop.close()


class _GeventLoop(asyncio.BaseEventLoop):
    """asyncio's loop without sockets, for gRPC's core has its own: it waits by gevent alone.

    It is what asyncio calls the loop's selector, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._selector = self
        self._woken = Event()

    def wake(self) -> None:
        """Ends the loop's wait: something was put into its queue."""
        self._woken.set()

    # The three methods that asyncio's base leaves to its kinds of loops.
    _write_to_self = wake

    def select(self, timeout: float | None) -> tuple[()]:
        """Waits for `wake`, or so many seconds."""
        # asyncio keeps the running loop by thread: other greenlets must not take this one for theirs.
        _set_running_loop(None)
        self._woken.wait(timeout)
        self._woken.clear()
        _set_running_loop(self)
        return ()

    def _process_events(self, events: tuple[()]) -> None:
        """There are none: callbacks come by `call_soon_threadsafe`."""
