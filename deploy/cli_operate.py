"""`tallystick verify` and `in-doubt`: what an operator asks of a running cluster."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import grpc
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from deploy.connection import CALL_TIMEOUT_SECONDS, cluster_service, explain, find_operators
from deploy.errors import NoClusterError
from deploy.options import DataOption, JsonOption, RouterOption, err, out
from tallystick.v1 import cluster_pb2
from tallystick.v1.cluster_pb2_grpc import ClusterServiceStub

# `verify` reads every account; a shard gives some 100,000 a second.
VERIFY_TIMEOUT_SECONDS = 3600.0
# Transfers that run while the accounts are read make the sums worthless: wait for a quiet moment, not long.
BUSY_TRIES = 5
BUSY_WAIT_SECONDS = 1.0
EXIT_BALANCED, EXIT_BROKEN, EXIT_NOT_KNOWN = 0, 1, 2

_VERDICTS = {
    cluster_pb2.VERDICT_BALANCED: ("balanced", EXIT_BALANCED),
    cluster_pb2.VERDICT_BROKEN: ("broken", EXIT_BROKEN),
    cluster_pb2.VERDICT_BUSY: ("busy", EXIT_NOT_KNOWN),
}
_STATES = {
    cluster_pb2.IN_DOUBT_STATE_PREPARED: "prepared",
    cluster_pb2.IN_DOUBT_STATE_UNSETTLED: "unsettled",
}


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command()(verify)
    app.command("in-doubt")(in_doubt)


def verify(*, as_json: JsonOption = False, router: RouterOption = None, data: DataOption = None) -> None:
    """Read every account and what is in flight: per currency the sum must be zero.

    Exit code 0: balanced. 1: money was made or lost. 2: not known, because transfers kept running or a part
    of the cluster did not answer.
    """
    try:
        with cluster_service(find_operators(router, data)) as service:
            result = verify_balance(service)
    except (grpc.RpcError, NoClusterError) as error:
        reason = explain(error) if isinstance(error, grpc.RpcError) else str(error)
        if as_json:
            out.print_json(json.dumps({"verdict": "unknown", "reason": reason}))
        err.print(f"[bold red]error:[/] not verified: {reason}", soft_wrap=True)
        raise typer.Exit(EXIT_NOT_KNOWN) from error
    verdict, exit_code = _VERDICTS.get(result.verdict, ("unknown", EXIT_NOT_KNOWN))
    if as_json:
        out.print_json(json.dumps(_verify_document(result, verdict)))
    else:
        show_verification(result)
    raise typer.Exit(exit_code)


def in_doubt(
    *,
    min_age: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Only entries at least this old.")
    ] = 0.0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 1000,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """List transfers that are prepared, or committed and not finished everywhere, the oldest first.

    Under load there are always some, a moment old. The resolvers finish what grows older than seconds.
    """
    request = cluster_pb2.ListInDoubtRequest(minimum_age_ms=round(min_age * 1000), limit=limit)
    with cluster_service(find_operators(router, data)) as service:
        answer = service.ListInDoubt(request, timeout=CALL_TIMEOUT_SECONDS)
    if as_json:
        out.print_json(json.dumps(_in_doubt_document(answer)))
        return
    if not answer.transfers:
        out.print("nothing is in doubt")
        return
    table = Table("transaction", "state", "shard", "from", "to", "amount", "age s")
    table.columns[5].justify = table.columns[6].justify = "right"
    for entry in answer.transfers:
        table.add_row(
            entry.transaction_id,
            _STATES.get(entry.state, "?"),
            entry.shard_id,
            entry.from_account,
            entry.to_account,
            f"{entry.amount} {entry.currency}",
            f"{entry.age_ms / 1000:.1f}",
        )
    out.print(table)
    if answer.truncated:
        out.print(f"more than {limit} are in doubt; --limit shows more")


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
    table = Table("currency", "accounts", "customers", "system", "in flight", "total")
    for column in table.columns[1:]:
        column.justify = "right"
    for total in result.currencies:
        table.add_row(
            total.currency, str(total.accounts), total.customers, total.system, total.in_flight, total.total
        )
    out.print(table)
    verdict = {
        cluster_pb2.VERDICT_BALANCED: "[bold green]balanced[/]: every currency sums to zero",
        cluster_pb2.VERDICT_BROKEN: "[bold red]broken[/]: money was made or lost, or a leg was missed",
        cluster_pb2.VERDICT_BUSY: "[yellow]busy[/]: transfers ran meanwhile, so the sums prove nothing",
    }.get(result.verdict, "[yellow]no verdict[/]")
    out.print(
        f"{verdict}. {result.accounts} accounts, {result.prepared} prepared, {result.unsettled} unsettled, "
        f"{result.alarms} alarms",
        highlight=False,
        soft_wrap=True,
    )


def _verify_once(service: ClusterServiceStub) -> cluster_pb2.VerifyResult:
    columns = (TextColumn("reading accounts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    result = cluster_pb2.VerifyResult()
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("verify", total=None)
        for answer in service.Verify(cluster_pb2.VerifyRequest(), timeout=VERIFY_TIMEOUT_SECONDS):
            progress.update(task, completed=answer.accounts_read, total=answer.accounts_total)
            if answer.HasField("result"):
                result = answer.result
    return result


def _verify_document(result: cluster_pb2.VerifyResult, verdict: str) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "accounts": result.accounts,
        "prepared": result.prepared,
        "unsettled": result.unsettled,
        "alarms": result.alarms,
        "currencies": [
            {
                "currency": total.currency,
                "accounts": total.accounts,
                "customers": total.customers,
                "system": total.system,
                "in_flight": total.in_flight,
                "total": total.total,
            }
            for total in result.currencies
        ],
    }


def _in_doubt_document(answer: cluster_pb2.ListInDoubtResponse) -> dict[str, Any]:
    return {
        "truncated": answer.truncated,
        "transfers": [
            {
                "transaction_id": entry.transaction_id,
                "state": _STATES.get(entry.state, "?"),
                "shard_id": entry.shard_id,
                "from_account": entry.from_account,
                "to_account": entry.to_account,
                "amount": entry.amount,
                "currency": entry.currency,
                "age_ms": entry.age_ms,
            }
            for entry in answer.transfers
        ],
    }
