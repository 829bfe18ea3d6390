"""Verifies a running cluster, and shows the sums: for the command, the demo and the measurements alike."""

from __future__ import annotations

import time

from deploy.terminal.rendering import Table, bad, doubtful, err, good, out
from tallystick.v1 import cluster_pb2
from tallystick.v1.cluster_pb2_grpc import ClusterServiceStub

# `verify` reads every account; a shard gives some 100,000 a second.
VERIFY_TIMEOUT_SECONDS = 3600.0
# Transfers that run while the accounts are read make the sums worthless: wait for a quiet moment, not long.
BUSY_TRIES = 5
BUSY_WAIT_SECONDS = 1.0


def verify_balance(service: ClusterServiceStub) -> cluster_pb2.VerifyResult:
    """Verifies with a progress bar, again while the cluster is busy; the last result.

    Raises grpc.RpcError when the router, or a shard, does not answer.
    """
    for tries_left in reversed(range(BUSY_TRIES)):
        result = _verify_once(service)
        if result.verdict != cluster_pb2.VERDICT_BUSY or not tries_left:
            break
        time.sleep(BUSY_WAIT_SECONDS)
    return result


def show_verification(result: cluster_pb2.VerifyResult) -> None:
    """Prints the sums and the verdict."""
    sums_of = ("accounts", "customers", "system", "in flight", "total")
    table = Table("currency", *sums_of, right=sums_of)
    for total in result.currencies:
        table.add_row(
            total.currency, str(total.accounts), total.customers, total.system, total.in_flight, total.total
        )
    out.table(table)
    verdict, meaning = {
        cluster_pb2.VERDICT_BALANCED: (good("balanced"), ": every currency sums to zero"),
        cluster_pb2.VERDICT_BROKEN: (bad("broken"), ": money was made or lost, or a leg was missed"),
        cluster_pb2.VERDICT_BUSY: (doubtful("busy"), ": transfers ran meanwhile, so the sums prove nothing"),
    }.get(result.verdict, (doubtful("no verdict"), ""))
    out.print(
        verdict,
        f"{meaning}. {result.accounts} accounts, {result.prepared} prepared, {result.unsettled} unsettled, "
        f"{result.alarms} alarms",
    )


def _verify_once(service: ClusterServiceStub) -> cluster_pb2.VerifyResult:
    result = cluster_pb2.VerifyResult()
    with err.progress("reading accounts") as advance:
        for answer in service.Verify(cluster_pb2.VerifyRequest(), timeout=VERIFY_TIMEOUT_SECONDS):
            read, total = answer.accounts_read, answer.accounts_total
            advance(read, total, f"{read:,} of {total:,}")
            if answer.HasField("result"):
                result = answer.result
    return result
