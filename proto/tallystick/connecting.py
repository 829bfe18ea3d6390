"""What all asyncio clients have in common: they connect at their first call, for one event loop."""

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Self, TypeVar

from tallystick import limits, wire
from tallystick.addresses import router_addresses
from tallystick.caller import Caller
from tallystick.errors import ClientClosed, WrongEventLoop
from tallystick.forking import require_same_process, require_usable
from tallystick.retry import RetryPolicy
from tallystick.rotation import Rotation
from tallystick.settings import ClientSettings
from tallystick.surroundings import Surroundings
from tallystick.transport import Method, RequestT, ResponseT, Transport

TransportT = TypeVar("TransportT", bound=Transport)
ResultT = TypeVar("ResultT")


class Connection(Generic[TransportT]):
    """What a client has once it runs inside an event loop."""

    __slots__ = ("caller", "loop", "policy", "rotation", "transport")

    def __init__(
        self, transport: TransportT, settings: ClientSettings, world: Surroundings, routers: int
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport = transport
        self.rotation = Rotation(
            routers,
            settings.batches_in_flight,
            settings.router_rest_s,
            settings.longest_router_rest_s,
        )
        self.policy = RetryPolicy(settings.first_retry_delay_s, settings.longest_retry_delay_s, world.jitter)
        self.caller = Caller(transport, self.rotation, self.policy, world, settings.attempt_timeout_s)

    async def close(self, grace_s: float) -> None:  # noqa: ARG002 - for those that have something on its way
        """Begin nothing more, give what is on its way so long to land, and disconnect."""
        self.caller.close()
        await self.transport.close()


ConnectionT = TypeVar("ConnectionT", bound=Connection[Any])


class LoopClient(ABC, Generic[ConnectionT]):
    """A client for one event loop.

    Args:
        addresses: "host:port" of the routers, one by one or as lists.
        settings: limits and waits.
        surroundings: time, chance and the way to the routers, for tests.

    Raises:
        InvalidArgument: an address is not HOST:PORT, or there is none.
        ForkedClient: gRPC cannot be used in this process.
    """

    def __init__(
        self,
        *addresses: str | Iterable[str],
        settings: ClientSettings | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        require_usable()
        self._addresses = router_addresses(addresses)
        self._settings = settings or ClientSettings()
        self._world = surroundings or Surroundings()
        self._clock = self._world.clock
        self._connection: ConnectionT | None = None
        self._closed = False
        self._process_id = os.getpid()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._connection else "not connected"
        return f"<{type(self).__name__} {', '.join(self._addresses)} {state}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Settle what waits, give calls in flight a moment (`settings.close_grace_s`), and disconnect."""
        self._closed = True
        connection = self._connection
        # Another process's is not ours to end.
        if connection is None or self._process_id != os.getpid():
            return
        self._connection = None
        if connection.loop is asyncio.get_running_loop():
            await connection.close(self._settings.close_grace_s)
        else:
            # Nothing can be awaited in another event loop.
            connection.transport.drop()

    @abstractmethod
    def _connect(self, addresses: Sequence[str]) -> ConnectionT:
        """Make the connection, inside the running event loop."""

    def _connected(self) -> ConnectionT:
        """The connection, made by the first call.

        Raises:
            ClientClosed: the client is closed.
            WrongEventLoop: it was made in another event loop.
            ForkedClient: the client was made in another process, or gRPC cannot be used in this one.
        """
        require_same_process(self._process_id)
        if self._closed:
            raise ClientClosed
        connection = self._connection
        if connection is None:
            connection = self._connection = self._connect(self._addresses)
        elif connection.loop is not asyncio.get_running_loop():
            raise WrongEventLoop
        return connection

    async def _ask(
        self,
        method: Method[RequestT, ResponseT],
        arguments: dict[str, Any],
        result_of: Callable[[ResponseT, RequestT], ResultT],
    ) -> ResultT:
        """Call, with the arguments of a method of this client for the fields of the message.

        Args:
            method: what to call.
            arguments: all of them, `self` and `timeout_s` included, which are no fields.
            result_of: makes a value of the answer and the request.
        """
        timeout_s = arguments.pop("timeout_s")
        del arguments["self"]
        identity = ""
        if "transaction_id" in arguments:
            identity = arguments["transaction_id"] = self._identity(arguments["transaction_id"])
        request = wire.request_of(method.request, arguments)
        return result_of(await self._call(method, request, timeout_s, identity), request)

    def _identity(self, transaction_id: Any) -> str:
        """A transaction id as text."""
        return wire.id_text(transaction_id)

    async def _call(
        self,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        timeout_s: float | None,
        transaction_id: str = "",
    ) -> ResponseT:
        """Call until there is an answer, a refusal, or no time left."""
        caller, deadline_s = self._connected().caller, self._deadline_s(timeout_s)
        return await caller.call(method, request, deadline_s, transaction_id)

    def _deadline_s(self, timeout_s: float | None) -> float:
        if timeout_s is None:
            return self._clock() + self._settings.timeout_s
        return self._clock() + limits.seconds(timeout_s, "timeout_s")
