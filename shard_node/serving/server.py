"""How every gRPC server of the cluster is set up, announced, drained and stopped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from shard_node.errors import ShardNodeError
from shard_node.limits import MAX_MESSAGE_BYTES
from shard_node.serving.decoding import reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Clients ping at most this often; a server that allows less would cut them off.
KEEPALIVE_MS = 30_000
# From withdrawing the address to refusing calls: callers see the withdrawal within this.
NOTICE_SECONDS = 0.5
# Calls under way get this long to end.
GRACE_SECONDS = 10.0

CHANNELZ = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name

MAX_PENDING_CALLS = 50_000

# The core ends a call with a longer message as RESOURCE_EXHAUSTED, which says "send it again". So it takes
# more than the contract does: up to here, `decoding` answers INVALID_ARGUMENT with the contract's limit.
MAX_RECEIVED_BYTES = 2 * MAX_MESSAGE_BYTES

SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Calls that arrived and wait for the event loop. Past gRPC's own limits (1000, then at random) calls
    # end as CANCELLED; whoever is too many shall hear RESOURCE_EXHAUSTED from the service instead.
    ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING_CALLS),
    # A second process on the same port must fail, not share it.
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    ("grpc.keepalive_permit_without_calls", 1),
)
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Whether to repeat a call is decided by who knows its transaction ids.
    ("grpc.enable_retries", 0),
)


class ListenError(ShardNodeError):
    """The server cannot listen where it was told to."""


class Methods(grpc.GenericRpcHandler):
    """The methods of all services of a server, in one table.

    To be handed to the functions that protoc made, as if it were the server. They would register each method
    with gRPC's core as well, and grpc.aio then waits anew, at every call, for a call of every method: with a
    router's forty, a tenth of what a Transfer costs it.
    """

    def __init__(self) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def __iter__(self) -> Iterator[grpc.RpcMethodHandler[Any, Any]]:
        return iter(self._handlers.values())

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Who answers a call; None when nobody does."""
        return self._handlers.get(handler_call_details.method)

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Does nothing: the same methods come by the other way."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Adds methods of a service, in the place of those of the same name; see :func:`decoding.reading`."""
        self._handlers.update(
            {f"/{service_name}/{name}": reading(one) for name, one in method_handlers.items()}
        )


class Server:
    """A grpc.aio server with health, reflection and channelz. ``methods`` take further services."""

    def __init__(self, service_names: Sequence[str]) -> None:
        self.methods = Methods()
        self._grpc = grpc.aio.server(handlers=(self.methods,), options=SERVER_OPTIONS)
        self._health = health.aio.HealthServicer()
        self._names = [*service_names, ""]
        # Their annotations ask for a server. The packages' own helpers would take the table for one
        # without an event loop, and have each open stream hold a thread.
        methods: Any = self.methods
        health_pb2_grpc.add_HealthServicer_to_server(self._health, methods)
        channelz_pb2_grpc.add_ChannelzServicer_to_server(channelz.aio.ChannelzServicer(), methods)
        names = (*service_names, health.SERVICE_NAME, CHANNELZ, reflection.SERVICE_NAME)
        add_reflection: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
        add_reflection(reflection.aio.ReflectionServicer(names), methods)

    async def start(self, listen: str) -> str:
        """Listens on host:port (port 0 for a free one); the address it got. Raises ListenError."""
        try:
            port = self._grpc.add_insecure_port(listen)
        except RuntimeError as error:
            raise ListenError(f"cannot listen on {listen}: is the port taken?") from error
        await self._grpc.start()
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return f"{listen.rpartition(':')[0]}:{port}"

    async def drain(self) -> None:
        """Ends in order, once the address is withdrawn: lets callers notice, then calls end."""
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(NOTICE_SECONDS)
        await self._grpc.stop(GRACE_SECONDS)
