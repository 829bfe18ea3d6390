"""What every server offers beside its own services: health, reflection and channelz."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from deploy.local.launcher import LocalCluster
from tests.router.bank import Bank, payment
from tests.router.contract import CALL_TIMEOUT_SECONDS, Contract

pytestmark = pytest.mark.cluster

OFFERED = {
    "router": {
        "tallystick.v1.WalletService",
        "tallystick.v1.LedgerService",
        "tallystick.v1.ClusterService",
    },
    "coordinator": {"tallystick.v1.CoordinatorService", "tallystick.v1.ClusterService"},
}
EVERYWHERE = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.channelz.v1.Channelz",
}


@pytest.fixture(params=OFFERED)
def kind(request: pytest.FixtureRequest) -> str:
    """A router, and a coordinator."""
    name: str = request.param
    return name


@pytest.fixture
def address(kind: str, cluster: LocalCluster) -> str:
    """Where the server listens."""
    return (cluster.router_addresses if kind == "router" else cluster.coordinator_addresses)[0]


@pytest.fixture
def channel(address: str) -> Iterator[grpc.Channel]:
    """A connection to the server."""
    with grpc.insecure_channel(address) as opened:
        yield opened


def test_health(channel: grpc.Channel, kind: str) -> None:
    """The server as a whole and each of its services are SERVING; other names are unknown."""
    health: Any = health_pb2_grpc.HealthStub(channel)
    for name in ("", *OFFERED[kind]):
        asked = health_pb2.HealthCheckRequest(service=name)
        assert (
            health.Check(asked, timeout=CALL_TIMEOUT_SECONDS).status == health_pb2.HealthCheckResponse.SERVING
        )
        watched = health.Watch(asked, timeout=CALL_TIMEOUT_SECONDS)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        watched.cancel()
    with pytest.raises(grpc.RpcError) as refused:
        health.Check(health_pb2.HealthCheckRequest(service="no.such"), timeout=CALL_TIMEOUT_SECONDS)
    assert isinstance(refused.value, grpc.Call)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_services(channel: grpc.Channel, kind: str) -> None:
    """A tool without the .proto files learns which services there are."""
    assert set(ProtoReflectionDescriptorDatabase(channel).get_services()) == OFFERED[kind] | EVERYWHERE


def test_reflection_is_the_contract(channel: grpc.Channel, kind: str, contract: Contract) -> None:
    """What reflection tells of each service is what the .proto files say: the stubs in use are current."""
    database = ProtoReflectionDescriptorDatabase(channel)
    files = {file.name: without_json_names(file) for file in contract.files}
    for service in OFFERED[kind]:
        told = database.FindFileContainingSymbol(service)
        assert without_json_names(told) == files[told.name]
        for name in told.dependency:
            assert without_json_names(database.FindFileByName(name)) == files[name]


def without_json_names(file: FileDescriptorProto) -> FileDescriptorProto:
    """A file without the names that protoc derives from the others and stubs leave out."""
    copy = FileDescriptorProto()
    copy.CopyFrom(file)
    for message in copy.message_type:
        for field in message.field:
            field.ClearField("json_name")
    return copy


def test_a_call_by_reflection_alone(channel: grpc.Channel) -> None:
    """A tool that knows only what the server tells can make a call."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName("tallystick.v1.ClusterService").methods_by_name["GetTopology"]
    call: Any = channel.unary_unary(
        "/tallystick.v1.ClusterService/GetTopology",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    topology = call(GetMessageClass(method.input_type)(), timeout=CALL_TIMEOUT_SECONDS)
    assert sum(shard.slot_count for shard in topology.shards) == 16384


def test_channelz_counts_calls(channel: grpc.Channel) -> None:
    """Channelz shows the server and the calls it has taken."""
    channelz = channelz_pb2_grpc.ChannelzStub(channel)
    asked = channelz_pb2.GetServersRequest(start_server_id=0)
    (first,) = channelz.GetServers(asked, timeout=CALL_TIMEOUT_SECONDS).server
    (second,) = channelz.GetServers(asked, timeout=CALL_TIMEOUT_SECONDS).server
    assert second.data.calls_started == first.data.calls_started + 1
    assert len(first.listen_socket) == 1


def test_channelz_shows_the_coordinators(bank: Bank, cluster: LocalCluster) -> None:
    """A router's channelz shows its connections to coordinators, by their addresses."""
    bank.wallet.call("Transfer", **payment(*bank.pair(bank.routes["across shards"])))
    with grpc.insecure_channel(cluster.router_addresses[0]) as channel:
        channelz = channelz_pb2_grpc.ChannelzStub(channel)
        channels = channelz.GetTopChannels(
            channelz_pb2.GetTopChannelsRequest(start_channel_id=0), timeout=CALL_TIMEOUT_SECONDS
        ).channel
    called = {found.data.target: found.data.calls_succeeded for found in channels}
    coordinator = cluster.coordinator_addresses[0]
    (calls,) = [succeeded for target, succeeded in called.items() if target.endswith(coordinator)]
    assert calls >= 1
