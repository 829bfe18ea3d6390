"""`tallystick verify` and `in-doubt`: what an operator asks of a running cluster."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from deploy.cli.options import DataOption, JsonOption, RouterOption
from deploy.local import CALL_TIMEOUT_SECONDS, cluster_service, find_operators
from deploy.terminal import (
    EXIT_NOT_KNOWN,
    Table,
    not_known,
    out,
    show_verification,
    verify_balance,
    write_json,
)
from tallystick.v1 import cluster_pb2

EXIT_BALANCED, EXIT_BROKEN = 0, 1

_VERDICTS = {
    cluster_pb2.VERDICT_BALANCED: ("balanced", EXIT_BALANCED),
    cluster_pb2.VERDICT_BROKEN: ("broken", EXIT_BROKEN),
    cluster_pb2.VERDICT_BUSY: ("busy", EXIT_NOT_KNOWN),
}
_STATES = {
    cluster_pb2.IN_DOUBT_STATE_PREPARED: "prepared",
    cluster_pb2.IN_DOUBT_STATE_UNSETTLED: "unsettled",
}
# Thirty years: in milliseconds still a number that the contract holds.
MAX_AGE_SECONDS = 1e9


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command()(verify)
    app.command("in-doubt")(in_doubt)


def verify(*, as_json: JsonOption = False, router: RouterOption = None, data: DataOption = None) -> None:
    """Read every account and what is in flight: per currency the sum must be zero.

    Exit code 0: balanced. 1: money was made or lost. 2: not known, because transfers kept running or a part
    of the cluster did not answer.
    """
    with not_known("verdict", "unknown"), cluster_service(find_operators(router, data)) as service:
        result = verify_balance(service)
    verdict, exit_code = _VERDICTS.get(result.verdict, ("unknown", EXIT_NOT_KNOWN))
    if as_json:
        write_json(_verify_document(result, verdict))
    else:
        show_verification(result)
    raise typer.Exit(exit_code)


def in_doubt(
    *,
    min_age: Annotated[
        float,
        typer.Option(min=0, max=MAX_AGE_SECONDS, metavar="SECONDS", help="Only entries at least this old."),
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
        write_json(_in_doubt_document(answer))
        return
    if not answer.transfers:
        out.print("nothing is in doubt")
        return
    table = Table(
        "transaction",
        "state",
        "shard",
        "from",
        "to",
        "amount",
        "age s",
        right={"amount", "age s"},
        folds={"transaction", "from", "to"},
    )
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
    out.table(table)
    if answer.truncated:
        out.print(f"more than {limit} are in doubt; --limit shows more")


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
