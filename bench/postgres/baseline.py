"""The measurement of the PostgreSQL wallet: the server, the callers, CPU time around every run, the proof.

A figure comes out only when the server syncs every commit to its disk, and when the books afterwards are
whole: the sum of all balances as before, two ledger rows a transfer, every balance the sum of its rows.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from bench.cluster import file_system, read_cpu, read_tree
from bench.command import Progress
from bench.errors import BenchError
from bench.load import Load, load_processes
from bench.postgres.caller import Caller
from bench.postgres.server import PostgresqlServer, postgresql_server
from bench.reporting import MICROS
from bench.settings import AccountsOption, BenchSettings, RunsOption, SecondsOption, SeedOption, Shape
from bench.transfers import CURRENCY, MINIMUM_BALANCE, make_accounts
from shard_node.cluster import SLOT_COUNT
from shard_node.limits import MAX_BATCH

_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
# As for a machine of this size; checkpoints, which would slow some runs and not others, come seldom.
_SETTINGS = {
    **_DURABLE,
    "shared_buffers": "1GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "15min",
    "jit": "off",
}
# Whoever looks and repairs, beside the callers.
_SPARE_CONNECTIONS = 10


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """What to measure. ``group`` transfers make one transaction."""

    accounts: AccountsOption = 100_000
    processes: Annotated[int, typer.Option(min=1, max=16, help="Processes that call.")] = 2
    connections: Annotated[int, typer.Option(min=1, max=64, help="Connections of each process.")] = 8
    group: Annotated[
        int,
        typer.Option(
            min=1,
            max=MAX_BATCH,
            help="Transfers in one transaction, by a function that takes many. 1: the wallet as services "
            "use it, each call a transfer of its own.",
        ),
    ] = 1
    seconds: SecondsOption = 10.0
    runs: RunsOption = 5
    seed: SeedOption = 1
    beside: Annotated[
        bool,
        typer.Option("--beside", help="Then measure a cluster under the same load, and print the ratio."),
    ] = False
    batch: Annotated[
        int, typer.Option(min=1, max=MAX_BATCH, help="With --beside: transfers in one BatchTransfer.")
    ] = 1000


@dataclass(frozen=True, slots=True)
class PostgresRun:
    """One run. CPU in seconds; ``others_cpu`` is what the rest of the machine spent."""

    committed: int
    insufficient_funds: int
    seconds: float
    server_cpu: float
    client_cpu: float
    others_cpu: float

    @property
    def transfers(self) -> int:
        """All that had an outcome."""
        return self.committed + self.insufficient_funds

    @property
    def rate(self) -> float:
        """Transfers that moved money, a second."""
        return self.committed / self.seconds

    @property
    def server_us(self) -> float:
        """CPU microseconds a transfer in all processes of the server."""
        return self.server_cpu * MICROS / self.transfers

    @property
    def client_us(self) -> float:
        """CPU microseconds a transfer in the processes that call."""
        return self.client_cpu * MICROS / self.transfers


@dataclass(frozen=True, slots=True)
class PostgresFigures:
    """All runs, and where they ran. Figures are their medians."""

    runs: Sequence[PostgresRun]
    version: str
    file_system: str
    cpus: int

    @property
    def rate(self) -> float:
        """Transfers a second."""
        return statistics.median(run.rate for run in self.runs)

    @property
    def server_us(self) -> float:
        """CPU microseconds a transfer in the server."""
        return statistics.median(run.server_us for run in self.runs)

    @property
    def client_us(self) -> float:
        """CPU microseconds a transfer in the callers."""
        return statistics.median(run.client_us for run in self.runs)


def measure_postgres(settings: PostgresSettings, progress: Progress) -> PostgresFigures:
    """Starts the server, runs the load, checks the books, stops everything.

    Raises BenchError when the figures are not worth printing.
    """
    progress("starting PostgreSQL")
    connections = settings.processes * settings.connections + _SPARE_CONNECTIONS
    with postgresql_server({**_SETTINGS, "max_connections": str(connections)}) as server:
        conninfo = server.create_database("wallet")
        progress(f"opening {settings.accounts:,} accounts")
        version = make_wallet(conninfo, make_accounts(Shape(settings.accounts)).ids)
        load_settings = BenchSettings(
            accounts=settings.accounts,
            seed=settings.seed,
            clients=settings.processes,
            concurrency=settings.processes * settings.connections,
            unary=True,
        )
        make = partial(Caller, conninfo=conninfo, group=settings.group)
        # To PostgreSQL all accounts are in one place.
        with load_processes(load_settings, [], [0] * SLOT_COUNT, make) as load:
            # Connects, and lets every server process plan its statements.
            runs = [_run(0, min(1.0, settings.seconds), server, load)]
            for number in range(1, settings.runs + 1):
                progress(f"run {number} of {settings.runs}")
                runs.append(_run(number, settings.seconds, server, load))
        progress("checking the books")
        check_books(conninfo, sum(run.committed for run in runs))
        return PostgresFigures(runs[1:], version, file_system(server.folder), os.cpu_count() or 1)


def make_wallet(conninfo: str, accounts: Sequence[str]) -> str:
    """Makes the tables, opens the accounts; the server's version. BenchError when commits are not synced."""
    minimum = int(MINIMUM_BALANCE.replace(".", ""))
    with _connected(conninfo) as connection:
        found = {name: _one(connection, f"SHOW {name}") for name in _DURABLE}
        if found != _DURABLE:
            raise BenchError(f"PostgreSQL does not sync every commit: {found}")
        connection.execute(Path(__file__).with_name("wallet.sql").read_bytes())
        with connection.cursor().copy("COPY accounts FROM STDIN") as copy:
            for account in accounts:
                copy.write_row((account, CURRENCY, 0, minimum, 0))
        connection.execute("VACUUM ANALYZE accounts")
        connection.execute("CHECKPOINT")
        return str(_one(connection, "SHOW server_version"))


def check_books(conninfo: str, committed: int) -> None:
    """Raises BenchError unless so many transfers moved money once each, and none was made or lost."""
    with _connected(conninfo) as connection:
        recorded = _one(connection, "SELECT count(*) FROM transfers WHERE outcome = 1")
        if recorded != committed:
            raise BenchError(f"{committed} transfers were answered as committed, {recorded} are recorded")
        entries = _one(connection, "SELECT count(*) FROM entries")
        if entries != 2 * committed:
            raise BenchError(f"{committed} transfers left {entries} ledger rows, not two each")
        total = _one(connection, "SELECT sum(balance) FROM accounts")
        if total != 0:
            raise BenchError(f"the sum of all balances went from 0 to {total}")
        odd = _one(
            connection,
            """
            SELECT count(*) FROM accounts FULL JOIN (
              SELECT account, sum(delta) AS balance, count(*) AS version FROM entries GROUP BY account
            ) AS kept ON kept.account = accounts.id
            WHERE (accounts.balance, accounts.version)
              IS DISTINCT FROM (coalesce(kept.balance, 0), coalesce(kept.version, 0))
            """,
        )
        if odd:
            raise BenchError(f"the balances of {odd} accounts are not the sums of their ledger rows")


@contextmanager
def _connected(conninfo: str) -> Iterator[psycopg.Connection]:
    """A connection; what goes wrong with it is a BenchError."""
    try:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            yield connection
    except psycopg.Error as error:
        raise BenchError(f"PostgreSQL said: {error}") from error


def _one(connection: psycopg.Connection, query: str) -> object:
    """The one value that a query, of this module's own making, answers with."""
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def _run(number: int, seconds: float, server: PostgresqlServer, load: Load) -> PostgresRun:
    server_before, before = read_tree("PostgreSQL", server.pid), read_cpu(load.pids)
    result = load.run(number, seconds, None)
    spent = before.until(read_cpu(load.pids))
    server_cpu = read_tree("PostgreSQL", server.pid) - server_before
    if not result.committed:
        raise BenchError("nothing was committed: the run was too short, or nobody had funds")
    return PostgresRun(
        result.committed,
        result.insufficient_funds,
        result.seconds,
        server_cpu,
        spent.in_all,
        max(0.0, spent.elsewhere - server_cpu),
    )
