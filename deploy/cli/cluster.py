"""`tallystick up` and `tallystick down`: a cluster on this machine."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.cli.status import show_problems
from deploy.local import (
    DEFAULT_DATA,
    DEFAULT_SHARDS,
    MAX_NICENESS,
    ClusterSpec,
    Kind,
    LocalCluster,
    Verdict,
    masked,
    survey,
)
from deploy.terminal import doubtful, err, good, out
from shard_node.limits import MIN_WINDOW_SECONDS

# How often the foreground looks whether a process has ended.
_WATCH_SECONDS = 0.5

_DataFolder = Annotated[Path, typer.Option("--data", metavar="DIR", help="Where everything is kept.")]


def _optional(**settings: Any) -> Any:
    """An option whose help says what holds without it."""
    return typer.Option(show_default=False, **settings)


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command()(up)
    app.command()(down)
    app.command()(adopt)


def up(
    *,
    data: _DataFolder = DEFAULT_DATA,
    shards: Annotated[int | None, _optional(min=1, help=f"Redis shards. [default: {DEFAULT_SHARDS}]")] = None,
    routers: Annotated[int | None, _optional(min=1, help="[default: 1]")] = None,
    coordinators: Annotated[int | None, _optional(min=1, help="[default: 1]")] = None,
    archivers: Annotated[
        int | None,
        _optional(
            min=0,
            help="They move the ledger into its database. With 0 it stays on the shards, without history, "
            "and they take nothing new once --max-backlog entries wait. [default: 1]",
        ),
    ] = None,
    archiver_niceness: Annotated[
        int | None,
        _optional(
            min=0,
            max=MAX_NICENESS,
            help="How far archivers give way to transfers on a busy machine, as nice(1) has it; their "
            "backlog grows meanwhile. [default: 0, not at all]",
        ),
    ] = None,
    max_backlog: Annotated[
        int | None,
        _optional(
            min=1,
            metavar="ENTRIES",
            help="So many that wait to be archived, and a shard refuses new transfers. [default: 5000000]",
        ),
    ] = None,
    ledger: Annotated[
        str | None,
        _optional(
            metavar="URL",
            help="The ledger's database, for SQLAlchemy: postgresql+psycopg://user@host/name. Its password "
            "is best left to ~/.pgpass, for processes show their arguments. [default: SQLite in --data]",
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when the cluster is ready; 'tallystick down' stops it.")
    ] = False,
    dedupe_window_seconds: Annotated[
        int | None,
        _optional(
            min=MIN_WINDOW_SECONDS, help="How long outcomes are remembered at least. [default: an hour]"
        ),
    ] = None,
    new_ports: Annotated[
        bool, typer.Option("--new-ports", help="Choose other ports than the cluster has had so far.")
    ] = False,
) -> None:
    """Start a cluster of real servers on this machine, or resume the one in --data.

    Stays in the foreground until Ctrl-C, then stops everything. What was moved stays in --data.
    """
    spec = ClusterSpec(
        shards,
        routers,
        coordinators,
        dedupe_window_seconds,
        archivers,
        ledger,
        max_backlog,
        archiver_niceness,
        new_ports,
    )
    cluster = LocalCluster(data, spec)
    # A SIGTERM, or a terminal that closes, must stop what was started just as Ctrl-C does.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    with err.busy("starting ZooKeeper, shard nodes, archivers, coordinators, routers"):
        # Interrupted in here, it stops what it has started.
        started = cluster.start()
    try:
        if not started:
            out.print(f"already up in {data}:")
        _show_addresses(cluster)
        well = _show_readiness(cluster)
        if not started or detach:
            if not well:
                raise typer.Exit(1)
            return
        err.print("Ctrl-C stops the cluster.")
        _watch(cluster)
    except KeyboardInterrupt:
        # A second Ctrl-C must not leave half of it running.
        for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(ending, signal.SIG_IGN)
        if not started:
            return
    with err.busy("stopping"):
        cluster.stop()
    out.print("stopped")


def down(*, data: _DataFolder = DEFAULT_DATA) -> None:
    """Stop the cluster in --data. Its data stays."""
    with err.busy("stopping"):
        stopped = LocalCluster(data).stop()
    if stopped:
        out.print(f"stopped {', '.join(stopped)}")
    else:
        out.print(f"no cluster runs in {data}")


def adopt(
    *,
    data: _DataFolder = DEFAULT_DATA,
    cluster_id: Annotated[
        str | None,
        _optional(metavar="ID", help="The copy's own id. [default: made up]"),
    ] = None,
    ledger: Annotated[
        str | None,
        _optional(
            metavar="URL",
            help="A database with a copy of the original's ledger; needed when that is not in the folder.",
        ),
    ] = None,
    moved: Annotated[
        bool,
        typer.Option(
            "--moved", help="It is no copy but the cluster itself, moved or restored: it keeps its identity."
        ),
    ] = False,
) -> None:
    """Make a copied data folder a cluster of its own, which may run beside the original.

    It gets an id, ports and a ledger of its own; accounts and history are as they were copied. Until then
    every command refuses the folder.
    """
    cluster = LocalCluster(data)
    if moved:
        if (cluster_id, ledger) != (None, None):
            raise typer.BadParameter("--moved keeps the cluster's id and ledger")
        cluster.adopt_moved()
        out.print(f"{data} is the place of cluster {cluster.record.cluster_id} now")
    else:
        with err.busy("adopting"):
            notes = cluster.adopt(cluster_id, ledger)
        for note in notes:
            err.print(doubtful("note:"), f" {note}")
        out.print(f"{data} is cluster {cluster.record.cluster_id} now")
    out.print(f"'tallystick up --data {data}' starts it")


def _show_addresses(cluster: LocalCluster) -> None:
    record = cluster.record
    for kind in Kind:
        for process in record.of_kind(kind):
            if kind is not Kind.REDIS:
                what = f"{process.name} (Redis)" if kind is Kind.SHARD_NODE else process.name
                out.print(f"  {what:<18} {process.address:<22} pid {process.pid}")
    out.print(f"  logs               {cluster.log('zookeeper').parent}")
    if record.archivers:
        out.print(f"  ledger             {masked(cluster.ledger_url)}")


def _show_readiness(cluster: LocalCluster) -> bool:
    """Says whether the whole cluster is ready, and what of it is not."""
    found = survey(cluster.data, cluster.record)
    if well := found.verdict is Verdict.WELL:
        out.print(good("ready"))
    else:
        show_problems(found, cluster.data)
    return well


def _watch(cluster: LocalCluster) -> None:
    """Returns when no process of the cluster is left; KeyboardInterrupt ends it earlier."""
    never = threading.Event()
    while not never.wait(_WATCH_SECONDS):
        ended = cluster.exited()
        record = cluster.record
        if not record.processes:
            # `tallystick down`, from elsewhere.
            return
        for name in ended:
            err.print(doubtful(f"{name} has ended"), f", its log is {cluster.log(name)}")
            err.print(f"to start it again, in another terminal: tallystick up --detach --data {cluster.data}")
