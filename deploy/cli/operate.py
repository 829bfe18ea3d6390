"""`tallystick verify` and `in-doubt`: what an operator asks of a running cluster."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from deploy.cli.answers import document
from deploy.cli.options import Asking, with_options
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


@with_options
def verify(asking: Asking) -> None:
    """Read every account and what is in flight: per currency the sum must be zero.

    Exit code 0: balanced. 1: money was made or lost. 2: not known, because transfers kept running or a part
    of the cluster did not answer.
    """
    with (
        not_known("verdict", "unknown"),
        cluster_service(find_operators(asking.router, asking.data)) as service,
    ):
        result = verify_balance(service)
    verdict, exit_code = _VERDICTS.get(result.verdict, ("unknown", EXIT_NOT_KNOWN))
    if asking.as_json:
        write_json(_verify_document(result, verdict))
    else:
        show_verification(result)
    raise typer.Exit(exit_code)


@with_options
def in_doubt(
    asking: Asking,
    *,
    min_age: Annotated[
        float,
        typer.Option(min=0, max=MAX_AGE_SECONDS, metavar="SECONDS", help="Only entries at least this old."),
    ] = 0.0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 1000,
) -> None:
    """List transfers that are prepared, or committed and not finished everywhere, the oldest first.

    Under load there are always some, a moment old. The resolvers finish what grows older than seconds.
    """
    request = cluster_pb2.ListInDoubtRequest(minimum_age_ms=round(min_age * 1000), limit=limit)
    with cluster_service(find_operators(asking.router, asking.data)) as service:
        answer = service.ListInDoubt(request, timeout=CALL_TIMEOUT_SECONDS)
    if asking.as_json:
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
    names = ("currency", "accounts", "customers", "system", "in_flight", "total")
    counts = document(result, "accounts", "prepared", "unsettled", "alarms")
    return {
        "verdict": verdict,
        **counts,
        "currencies": [document(sums, *names) for sums in result.currencies],
    }


def _in_doubt_document(answer: cluster_pb2.ListInDoubtResponse) -> dict[str, Any]:
    names = ("transaction_id", "shard_id", "from_account", "to_account", "amount", "currency", "age_ms")
    return {
        "truncated": answer.truncated,
        "transfers": [
            document(entry, *names) | {"state": _STATES.get(entry.state, "?")} for entry in answer.transfers
        ],
    }
