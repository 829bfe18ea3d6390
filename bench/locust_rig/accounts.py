"""Opens the accounts that a test pays between, and says politely when there is no cluster to do so."""

from __future__ import annotations

import logging

import grpc

from bench.errors import BenchError
from bench.local import open_accounts
from bench.locust_rig.settings import RigSettings
from bench.locust_rig.transfer_bytes import POOR_ACCOUNTS, account_id, poor_account_id
from deploy.connection import CALL_TIMEOUT_SECONDS, cluster_service, explain
from deploy.errors import NoClusterError
from shard_node.limits import MAX_BATCH
from tallystick import SyncClient
from tallystick.v1 import cluster_pb2

_PROGRESS_STEPS = 10
_HELP = "start one with 'make locust' (with this rig) or 'tallystick up --detach', or name its --routers"

_log = logging.getLogger(__name__)


def check_cluster(settings: RigSettings) -> None:
    """Raises BenchError unless a router answers."""
    try:
        with cluster_service(list(settings.routers)) as service:
            service.GetTopology(cluster_pb2.GetTopologyRequest(), timeout=CALL_TIMEOUT_SECONDS)
    except NoClusterError as error:
        raise BenchError(f"no router answers at {', '.join(settings.routers)}: {_HELP}") from error
    except grpc.RpcError as error:
        raise BenchError(f"{explain(error)}; {_HELP}") from error


def open_all(client: SyncClient, settings: RigSettings) -> None:
    """Opens all accounts; those that are open already stay as they are. Raises BenchError when it cannot."""
    ids = [account_id(number) for number in range(settings.accounts)]
    piece = max(MAX_BATCH, -(-len(ids) // _PROGRESS_STEPS))
    for first in range(0, len(ids), piece):
        open_accounts(client, ids[first : first + piece])
        _log.info("opened %s of %s accounts", f"{min(first + piece, len(ids)):,}", f"{len(ids):,}")
    if settings.reject_share:
        open_accounts(client, [poor_account_id(number) for number in range(POOR_ACCOUNTS)], "0")
