"""The contract as a stranger reads it: from the .proto files alone.

Nothing here knows the project's stubs or client. The files are compiled anew, into a descriptor pool of
their own, and calls are made from what the descriptors say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from grpc_tools import protoc  # type: ignore[import-untyped]

PROTO = Path(__file__).parents[2] / "proto"
PACKAGE = "tallystick.v1"
# A call that takes longer has gone wrong; the router itself gives up after 10 s.
CALL_TIMEOUT_SECONDS = 15.0


def compile_protos(*outputs: str) -> None:
    """Runs protoc over the contract with these output options."""
    files = sorted(str(file) for file in (PROTO / "tallystick/v1").glob("*.proto"))
    well_known = str(resources.files("grpc_tools") / "_proto")
    status = protoc.main(["protoc", f"-I{PROTO}", f"-I{well_known}", *outputs, *files])
    assert status == 0


class Contract:
    """The compiled .proto files."""

    def __init__(self, folder: Path) -> None:
        target = folder / "contract.binpb"
        compile_protos(f"--descriptor_set_out={target}", "--include_imports")
        self.files = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file
        self.pool = DescriptorPool()
        for file in self.files:
            self.pool.AddSerializedFile(file.SerializeToString())

    def client(self, service: str, channel: grpc.Channel) -> Client:
        """A client of one service."""
        return Client(self, service, channel)

    def number(self, enum: str, name: str) -> int:
        """The number of an enum's value."""
        number: int = self.pool.FindEnumTypeByName(f"{PACKAGE}.{enum}").values_by_name[name].number
        return number

    def name(self, enum: str, number: int) -> str:
        """The name of an enum's value."""
        name: str = self.pool.FindEnumTypeByName(f"{PACKAGE}.{enum}").values_by_number[number].name
        return name


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a unary call was refused. ``violations`` are the fields that BadRequest names."""

    code: grpc.StatusCode
    reason: str
    field: str
    violations: tuple[str, ...] = ()
    retry_ms: int | None = None


class Client:
    """Calls the methods of one service with fields by name; nested messages are dicts."""

    def __init__(self, contract: Contract, service: str, channel: grpc.Channel) -> None:
        self.descriptor = contract.pool.FindServiceByName(f"{PACKAGE}.{service}")
        self.name = contract.name
        self._channel = channel

    @property
    def methods(self) -> list[str]:
        """The names of the service's methods."""
        return [method.name for method in self.descriptor.methods]

    def call(self, method: str, /, **fields: Any) -> Any:
        """The response. Raises grpc.RpcError."""
        return self._unary(method)(self._request(method, fields), timeout=CALL_TIMEOUT_SECONDS)

    def future(self, method: str, /, **fields: Any) -> Any:
        """A response to come."""
        return self._unary(method).future(self._request(method, fields), timeout=CALL_TIMEOUT_SECONDS)

    def stream(self, method: str, /, **fields: Any) -> Iterator[Any]:
        """The responses of a method that streams them."""
        made = self._make(self._channel.unary_stream, method)
        responses: Iterator[Any] = made(self._request(method, fields), timeout=CALL_TIMEOUT_SECONDS)
        return responses

    def refused(self, method: str, /, **fields: Any) -> Refusal:
        """How a call that must not succeed was refused, once its details are found well-formed."""
        try:
            response = self.call(method, **fields)
        except grpc.RpcError as error:
            return read_refusal(error)
        raise AssertionError(f"{method} was not refused: {response}")

    def _request(self, method: str, fields: dict[str, Any]) -> Any:
        return GetMessageClass(self.descriptor.methods_by_name[method].input_type)(**fields)

    def _unary(self, method: str) -> Any:
        return self._make(self._channel.unary_unary, method)

    def _make(self, kind: Callable[..., Any], method: str) -> Any:
        found = self.descriptor.methods_by_name[method]
        response = GetMessageClass(found.output_type)
        return kind(
            f"/{self.descriptor.full_name}/{method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=response.FromString,
        )


def read_refusal(error: grpc.RpcError) -> Refusal:
    """The google.rpc details of an error, checked against each other."""
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None, f"no details: {error}"
    assert (status.code, status.message) == (error.code().value[0], error.details())
    assert status.message
    infos, violations, retries = [], [], []
    for packed in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if packed.Unpack(info):
            infos.append(info)
        elif packed.Unpack(bad):
            assert all(violation.description for violation in bad.field_violations)
            violations += [violation.field for violation in bad.field_violations]
        elif packed.Unpack(retry):
            retries.append(retry.retry_delay.ToMilliseconds())
        else:
            raise AssertionError(f"unexpected detail {packed}")
    (info,) = infos
    assert info.domain == "tallystick"
    return Refusal(
        error.code(),
        info.reason,
        info.metadata.get("field", ""),
        tuple(violations),
        retries[0] if retries else None,
    )
