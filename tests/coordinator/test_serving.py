"""How the methods of a server's services are found."""

from __future__ import annotations

import gc
import inspect
import weakref
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shard_node.serving import statuses
from shard_node.serving.server import Methods, Server
from tallystick.v1 import coordinator_pb2, coordinator_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

COMMIT = "/tallystick.v1.CoordinatorService/CommitAttempts"
TIMEOUT_SECONDS = 10.0


class CommitsNothing(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """A coordinator that answers every batch with an empty response."""

    async def CommitAttempts(  # noqa: N802 -- the contract's name
        self, _request: coordinator_pb2.CommitAttemptsRequest, _context: Any
    ) -> coordinator_pb2.CommitAttemptsResponse:
        """Answers."""
        return coordinator_pb2.CommitAttemptsResponse()


async def test_calls_find_their_methods() -> None:
    """A service that was added and the server's own answer; what nobody added is UNIMPLEMENTED."""
    server = Server(("tallystick.v1.CoordinatorService",))
    coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(CommitsNothing(), server.methods)
    address = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        serving = await health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        assert serving.status == health_pb2.HealthCheckResponse.SERVING
        stub: Any = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        answer = await stub.CommitAttempts(coordinator_pb2.CommitAttemptsRequest(), timeout=TIMEOUT_SECONDS)
        assert answer == coordinator_pb2.CommitAttemptsResponse()
        nowhere: Any = channel.unary_unary("/no.such/Method")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await nowhere(b"", timeout=TIMEOUT_SECONDS)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.drain()


def test_what_is_added_later_takes_the_place_of_the_earlier() -> None:
    """One method of a service may be given another handler."""
    methods = Methods()
    coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(CommitsNothing(), methods)
    special: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
        CommitsNothing().CommitAttempts, response_serializer=bytes
    )
    methods.add_registered_method_handlers("tallystick.v1.CoordinatorService", {"CommitAttempts": special})
    details: Any = type("Details", (), {"method": COMMIT})
    found = methods.service(details)
    assert found is not None
    assert found.response_serializer is bytes


class Refuses:
    """Methods that end every call, and weak references to what they had in hand."""

    def __init__(self) -> None:
        self.held: list[weakref.ref[object]] = []

    async def unary(self, _: object, context: Any) -> bytes:
        """Ends the call as servers do: because of an error of their own."""
        in_hand = type("InHand", (), {})()
        self.held.append(weakref.ref(in_hand))
        try:
            return bytes(int("no number"))
        except ValueError:
            await statuses.abort_invalid(context, "field", "is wrong")

    async def write(self, request: object, context: Any) -> None:
        """The same, of a method that writes its stream."""
        await self.unary(request, context)

    async def stream(self, request: object, context: Any) -> AsyncIterator[bytes]:
        """The same, of a method that makes its stream, after its first message."""
        yield b""
        await self.unary(request, context)

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """Each kind of method, one that reads bytes and one that is given a message."""
        made: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for name, read in (("bytes", None), ("message", coordinator_pb2.CommitAttemptsRequest.FromString)):
            made[f"unary_{name}"] = grpc.unary_unary_rpc_method_handler(self.unary, read)
            made[f"stream_{name}"] = grpc.unary_stream_rpc_method_handler(self.stream, read)
            made[f"write_{name}"] = grpc.unary_stream_rpc_method_handler(self.write, read)
        return made


async def test_a_refused_call_keeps_nothing() -> None:
    """What it had in hand, such as its request, is gone with it, not when Python next looks for cycles."""
    refuses = Refuses()
    server = Server(())
    server.methods.add_registered_method_handlers("x.Refuses", refuses.handlers())
    address = await server.start("127.0.0.1:0")
    gc.disable()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            for name in refuses.handlers():
                call: Any = channel.unary_stream(f"/x.Refuses/{name}")
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    [_ async for _ in call(b"", timeout=TIMEOUT_SECONDS)]
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        await server.drain()
        assert [held() for held in refuses.held] == [None] * 6
    finally:
        gc.enable()


async def test_no_method_is_registered_with_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """At every call grpc.aio looks at all methods that are: none may be, or each call costs a part more."""
    registered: list[str] = []

    def register(_: grpc.aio.Server, service_name: str, _methods: Mapping[str, object]) -> None:
        registered.append(service_name)

    monkeypatch.setattr(type(grpc.aio.server()), "add_registered_method_handlers", register)
    server = Server(("tallystick.v1.CoordinatorService",))
    coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(CommitsNothing(), server.methods)
    assert registered == []


async def test_no_stream_takes_a_thread() -> None:
    """The server's own are answered on the event loop: a few open ones would use up all of its threads."""
    server = Server(("tallystick.v1.CoordinatorService",))
    streams = [handler for handler in server.methods if handler.response_streaming]
    assert len(streams) == 2
    for handler in streams:
        answers = handler.stream_stream or handler.unary_stream
        assert inspect.iscoroutinefunction(answers) or inspect.isasyncgenfunction(answers), answers
