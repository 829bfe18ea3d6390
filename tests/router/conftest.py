"""Fixtures of the tests over gRPC, one cluster and clients made from the .proto files alone; and shards."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from deploy.local.launcher import LocalCluster
from tests.engine.server import EngineServer
from tests.router.bank import Bank, Route
from tests.router.contract import Client, Contract
from tests.router.samples import NOW_MS
from tests.router.transaction_cluster import SHARDS, CallableShard, MakeShards, RealShard, model_shards


@pytest.fixture(scope="session")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    """The .proto files, compiled anew."""
    return Contract(tmp_path_factory.mktemp("contract"))


@pytest.fixture(scope="session")
def router_channel(cluster: LocalCluster) -> Iterator[grpc.Channel]:
    """A connection to a router."""
    with grpc.insecure_channel(cluster.router_addresses[0]) as channel:
        yield channel


@pytest.fixture(scope="session")
def wallet(contract: Contract, router_channel: grpc.Channel) -> Client:
    """The WalletService."""
    return contract.client("WalletService", router_channel)


@pytest.fixture(scope="session")
def ledger(contract: Contract, router_channel: grpc.Channel) -> Client:
    """The LedgerService of a router."""
    return contract.client("LedgerService", router_channel)


@pytest.fixture(scope="session")
def operators(contract: Contract, router_channel: grpc.Channel) -> Client:
    """The ClusterService of a router."""
    return contract.client("ClusterService", router_channel)


@pytest.fixture(scope="session")
def bank(contract: Contract, cluster: LocalCluster, wallet: Client, operators: Client) -> Bank:
    """Makes accounts on chosen shards. One in dollars is there already, so that the cluster knows them."""
    made = Bank(contract, cluster, wallet, operators)
    made.open(made.tags[0], currency="USD")
    return made


@pytest.fixture(params=["same shard", "across shards"])
def route(request: pytest.FixtureRequest, bank: Bank) -> Route:
    """Where payer and payee are: each test that asks for it runs both ways."""
    return bank.routes[request.param]


@pytest.fixture(scope="session")
def engine_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EngineServer]]:
    """As many servers with the engine as a cluster has shards."""
    started: list[EngineServer] = []
    try:
        for number in range(SHARDS):
            server = EngineServer(tmp_path_factory.mktemp(f"shard-{number}"), manual_clock=True)
            started.append(server)
            server.start()
        yield started
    finally:
        for server in started:
            server.stop()


@pytest.fixture(params=["model", pytest.param("engine", marks=pytest.mark.servers)])
def make_shards(request: pytest.FixtureRequest) -> MakeShards:
    """Empty shards: the plain model, and the engine itself."""
    if request.param == "model":
        return model_shards
    running: list[EngineServer] = request.getfixturevalue("engine_servers")

    def make(count: int) -> list[CallableShard]:
        shards: list[CallableShard] = []
        for number, server in enumerate(running[:count]):
            server.redis.flushall()
            server.set_clock(NOW_MS)
            shard = RealShard(server, f"test/shard-{number}")
            shard.bind()
            shards.append(shard)
        return shards

    return make
