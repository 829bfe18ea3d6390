"""How the methods of a server's services are found."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coordinator.serving import Methods, Server
from tallystick.v1 import coordinator_pb2, coordinator_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMIT = "/tallystick.v1.CoordinatorService/Commit"
TIMEOUT_SECONDS = 10.0


class CommitsNothing(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """A coordinator that answers every batch with an empty response."""

    async def Commit(  # noqa: N802 -- the contract's name
        self, _request: coordinator_pb2.CommitRequest, _context: Any
    ) -> coordinator_pb2.CommitResponse:
        """Answers."""
        return coordinator_pb2.CommitResponse()


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
        answer = await stub.Commit(coordinator_pb2.CommitRequest(), timeout=TIMEOUT_SECONDS)
        assert answer == coordinator_pb2.CommitResponse()
        nowhere: Any = channel.unary_unary("/no.such/Method")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await nowhere(b"", timeout=TIMEOUT_SECONDS)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.drain()


def test_what_is_added_later_takes_the_place_of_the_earlier() -> None:
    """One method of a service may be given another handler."""
    methods = Methods()
    coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(CommitsNothing(), methods)
    special: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(CommitsNothing().Commit)
    methods.add_registered_method_handlers("tallystick.v1.CoordinatorService", {"Commit": special})
    details: Any = type("Details", (), {"method": COMMIT})
    assert methods.service(details) is special


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
