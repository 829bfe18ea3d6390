"""Opens the accounts that a test pays between, and says politely when there is no cluster to do so."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import grpc

from bench.locust_rig.errors import RigError
from bench.locust_rig.settings import RigSettings
from bench.locust_rig.transfer_bytes import POOR_ACCOUNTS, account_id, poor_account_id
from bench.workload import CURRENCY, MINIMUM_BALANCE
from deploy.connection import CALL_TIMEOUT_SECONDS, cluster_service, explain
from deploy.errors import NoClusterError
from tallystick.v1 import cluster_pb2, wallet_pb2, wallet_pb2_grpc

_ACCOUNTS_A_CALL = 4096
_PROGRESS_STEPS = 10
_HELP = "start one with 'make locust' (with this rig) or 'tallystick up --detach', or name its --routers"

_log = logging.getLogger(__name__)


def check_cluster(settings: RigSettings) -> None:
    """Raises RigError unless a router answers."""
    try:
        with cluster_service(list(settings.routers)) as service:
            service.GetTopology(cluster_pb2.GetTopologyRequest(), timeout=CALL_TIMEOUT_SECONDS)
    except NoClusterError as error:
        raise RigError(f"no router answers at {', '.join(settings.routers)}: {_HELP}") from error
    except grpc.RpcError as error:
        raise RigError(f"{explain(error)}; {_HELP}") from error


def open_accounts(settings: RigSettings) -> None:
    """Opens all accounts; those that are open already stay as they are. Raises RigError when it cannot."""
    done, told = 0, 0
    try:
        with grpc.insecure_channel(settings.routers[0]) as channel:
            stub = wallet_pb2_grpc.WalletServiceStub(channel)
            for request in _requests(settings):
                response = stub.BatchOpenAccounts(request, timeout=CALL_TIMEOUT_SECONDS)
                _check(response)
                done += len(request.accounts)
                if done * _PROGRESS_STEPS // settings.accounts > told:
                    told = done * _PROGRESS_STEPS // settings.accounts
                    _log.info("opened %s of %s accounts", f"{done:,}", f"{settings.accounts:,}")
    except grpc.RpcError as error:
        raise RigError(f"accounts could not be opened: {explain(error)}") from error


def _requests(settings: RigSettings) -> Iterator[wallet_pb2.BatchOpenAccountsRequest]:
    for first in range(0, settings.accounts, _ACCOUNTS_A_CALL):
        end = min(first + _ACCOUNTS_A_CALL, settings.accounts)
        yield _request([account_id(number) for number in range(first, end)], MINIMUM_BALANCE)
    if settings.reject_share:
        yield _request([poor_account_id(number) for number in range(POOR_ACCOUNTS)], "0")


def _request(ids: list[str], minimum_balance: str) -> wallet_pb2.BatchOpenAccountsRequest:
    request = wallet_pb2.BatchOpenAccountsRequest()
    for account in ids:
        request.accounts.add(account_id=account, currency=CURRENCY, minimum_balance=minimum_balance)
    return request


def _check(response: wallet_pb2.BatchAccountsResponse) -> None:
    for result in response.results:
        if result.HasField("refusal"):
            raise RigError(f"an account was refused: {result.refusal.message}")
