"""Fixtures of the tests over gRPC: one cluster, and clients made from the .proto files alone."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from deploy.local.launcher import LocalCluster
from tests.router.bank import Bank, Route
from tests.router.contract import Client, Contract


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
