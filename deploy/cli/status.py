"""`tallystick status`: what of a cluster should run and does, and what is known of its shards.

Exit code 0: all is well. 1: something is missing or does not do its work. 2: not known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import typer

from deploy.cli.answers import document
from deploy.cli.options import Asking, with_options
from deploy.errors import DeployError, NoClusterError
from deploy.local import (
    DEFAULT_DATA,
    State,
    Survey,
    Verdict,
    cluster_file,
    cluster_service,
    named_routers,
    no_cluster,
    said,
    survey,
)
from deploy.terminal import Piece, Table, bad, doubtful, err, good, out, strong, write_json
from tallystick.v1 import cluster_pb2

EXIT_CODES = {Verdict.WELL: 0, Verdict.IMPAIRED: 1, Verdict.UNKNOWN: 2}


def add_to(app: typer.Typer) -> None:
    """Adds the command of this module."""
    app.command()(status)


@with_options
def status(asking: Asking) -> None:
    """Show which parts should run and which do, the shards' slots and backlogs, and how much is in doubt.

    Exit code 0: all is well. 1: something is missing or does not do its work. 2: not known.
    """
    folder: Path | None = None
    try:
        routers = named_routers(asking.router, asking.data)
        folder = None if routers else asking.data or DEFAULT_DATA
        found = _survey(folder, routers)
    except grpc.RpcError as error:
        _end(Verdict.UNKNOWN, f"the router does not say: {said(error)}", as_json=asking.as_json, error=error)
    except DeployError as error:
        nothing_runs = folder is not None and isinstance(error, NoClusterError)
        verdict = Verdict.IMPAIRED if nothing_runs else Verdict.UNKNOWN
        _end(verdict, str(error), as_json=asking.as_json, error=error)
    if asking.as_json:
        write_json(_document(found))
    else:
        _show(found)
        show_problems(found, folder)
    raise typer.Exit(EXIT_CODES[found.verdict])


def show_problems(found: Survey, folder: Path | None) -> None:
    """Prints, to standard error, what is not well and not known, and what to do about it on this machine."""
    for part in found.parts:
        if part.state is not State.PRESENT:
            how = f", {part.how}" if part.how else ""
            err.print(f"{part.name}: ", _shown(part.state), how)
    for shard in sorted(found.full):
        waiting = f"{found.backlogs[shard].entries_waiting:,} ledger entries wait"
        err.print(
            f"{shard}: ", bad("full"), f", {waiting}; it refuses every transfer until some are archived"
        )
    for note in found.notes:
        err.print(doubtful("note:"), f" {note}")
    if folder is not None and any(part.state is State.MISSING for part in found.parts):
        command = f"tallystick up --detach --data {folder}"
        err.print(f"'{command}' starts what is missing")


def _survey(folder: Path | None, routers: list[str]) -> Survey:
    if folder is None:
        from deploy.local import survey_from  # noqa: PLC0415 - one of the two is needed

        with cluster_service(routers) as service:
            return survey_from(service)
    record = cluster_file.read(folder)
    if record is None or not record.processes:
        raise no_cluster(folder)
    return survey(folder, record)


def _end(verdict: Verdict, reason: str, *, as_json: bool, error: Exception) -> None:
    if as_json:
        write_json({"verdict": verdict, "error": reason})
    err.print(bad("error:"), f" {reason}")
    raise typer.Exit(EXIT_CODES[verdict]) from error


def _show(found: Survey) -> None:
    about = ""
    if found.topology is not None:
        doubt = "unknown" if found.in_doubt is None else found.in_doubt
        about = f", topology version {found.topology.version}, in doubt: {doubt}"
    out.print("cluster ", strong(found.cluster_id), about)
    if found.topology is not None:
        table = Table(
            "shard", "epoch", "primary", "slots", "count", "backlog", right={"backlog"}, folds={"slots"}
        )
        for shard in found.topology.shards:
            table.add_row(
                shard.shard_id,
                str(shard.epoch),
                shard.primary,
                ", ".join(f"{r.first}-{r.last}" for r in shard.slots),
                str(shard.slot_count),
                _waiting(found.backlogs.get(shard.shard_id), full=shard.shard_id in found.full),
            )
        out.table(table)
        out.print()
    table = Table("part", "kind", "state", "address", "pid")
    for part in found.parts:
        pid = "" if part.pid is None else str(part.pid)
        table.add_row(part.name, part.kind, _shown(part.state), part.address, pid)
    out.table(table)


def _shown(state: State) -> Piece:
    match state:
        case State.PRESENT:
            return good(state)
        case State.UNKNOWN:
            return doubtful(state)
    return bad(state)


def _waiting(backlog: cluster_pb2.Backlog | None, *, full: bool) -> Piece:
    if backlog is None:
        return "unknown"
    waiting = f"{backlog.entries_waiting:,}"
    return bad(f"{waiting}, full") if full else waiting


def _document(found: Survey) -> dict[str, Any]:
    topology = found.topology
    return {
        "verdict": found.verdict,
        "cluster_id": found.cluster_id,
        "topology_version": None if topology is None else topology.version,
        "in_doubt": found.in_doubt,
        "shards": None if topology is None else [_shard_document(found, shard) for shard in topology.shards],
        "parts": [document(part) for part in found.parts],
        "notes": list(found.notes),
    }


def _shard_document(found: Survey, shard: cluster_pb2.Shard) -> dict[str, Any]:
    backlog = found.backlogs.get(shard.shard_id)
    return document(shard, "shard_id", "epoch", "primary", "slot_count") | {
        "slots": [[r.first, r.last] for r in shard.slots],
        "backlog": backlog and document(backlog, "entries_waiting", "entries_limit", "archived_batch"),
    }
