"""`make demo`: a real cluster on this machine carries 50,000 payments, and proves that no money got lost.

Every step checks what it shows: the outcomes are known beforehand, the sums must be zero, and a second and a
third import must change nothing. Exits non-zero when anything is not as it must be; always stops the cluster.
"""

from __future__ import annotations

import csv
import logging
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from deploy.cli_import import DEFAULT_FUND, run_import, show_summary
from deploy.cli_operate import show_verification, verify_balance
from deploy.connection import CALL_TIMEOUT_SECONDS, cluster_service
from deploy.errors import DeployError
from deploy.importer import ImportSettings
from deploy.launcher import ClusterSpec, LocalCluster
from deploy.options import err, out
from deploy.payments import (
    DEFAULT_ROWS,
    EXPECTED,
    Kind,
    PaymentsGenerator,
    expected_outcomes,
    write_payments,
)
from deploy.plain_errors import plain_errors
from deploy.results_file import result_path
from shard_node.slots import slot
from tallystick import Account, Outcome, SyncClient
from tallystick.v1 import cluster_pb2

SHARDS = 3


class DemoError(DeployError):
    """Something was not as it must be."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The steps, on a running cluster and a payments file with so many rows of each kind."""

    cluster: LocalCluster
    payments: Path
    kinds: Counter[Kind]

    def run(self) -> None:
        """All steps. Raises DemoError at the first that does not hold."""
        _heading("Import: open the accounts, fund the payers, move the money")
        self._import(ImportSettings(fund=DEFAULT_FUND), must_send=self.kinds.total())
        self._verify()
        before = self._accounts()
        _heading("Where the money is now")
        self._show_shards(before)
        _heading("Import again: every outcome is known, nothing is sent")
        self._import(ImportSettings(fund=DEFAULT_FUND), must_send=0)
        _heading("Send every row once more: the cluster gives every outcome again, and moves nothing")
        first = result_path(self.payments).read_bytes()
        self._import(ImportSettings(fund=DEFAULT_FUND, resend=True), must_send=self.kinds.total())
        _must(result_path(self.payments).read_bytes() == first, "a row got another outcome than before")
        _must(self._accounts() == before, "sending the file again changed an account")
        self._verify()

    def _import(self, settings: ImportSettings, must_send: int) -> None:
        summary, seconds = run_import(self.payments, self.cluster.router_addresses, settings)
        show_summary(summary, seconds)
        expected = expected_outcomes(self.kinds)
        _must(summary.outcomes == expected, f"the outcomes should have been {_counts(expected)}")
        _must(summary.sent == must_send, f"{summary.sent} rows were sent, not {must_send}")

    def _verify(self) -> None:
        _heading("Verify: read every account on every shard")
        with cluster_service(self.cluster.router_addresses) as service:
            result = verify_balance(service)
        show_verification(result)
        _must(result.verdict == cluster_pb2.VERDICT_BALANCED, "the books do not balance")

    def _accounts(self) -> list[Account]:
        """Every account that the payments name and that is open."""
        with self.payments.open(encoding="utf-8", newline="") as source:
            named = {
                account_id
                for row in csv.DictReader(source)
                for account_id in (row["from_account"], row["to_account"])
            }
        with SyncClient(self.cluster.router_addresses) as client:
            results = client.get_accounts(sorted(named))
        return [result.account for result in results if result.account is not None]

    def _show_shards(self, accounts: list[Account]) -> None:
        with cluster_service(self.cluster.router_addresses) as service:
            topology = service.GetTopology(cluster_pb2.GetTopologyRequest(), timeout=CALL_TIMEOUT_SECONDS)
        currencies = sorted({account.currency for account in accounts})
        table = Table("shard", "accounts", *(f"customers, {currency}" for currency in currencies))
        for column in table.columns[1:]:
            column.justify = "right"
        for shard in topology.shards:
            here = [a for a in accounts if any(r.first <= slot(a.account_id) <= r.last for r in shard.slots)]
            sums = (sum((a.available for a in here if a.currency == c), Decimal(0)) for c in currencies)
            table.add_row(shard.shard_id, f"{len(here):,}", *(f"{total:,f}" for total in sums))
        out.print(table)


def main(
    *,
    rows: Annotated[int, typer.Option(min=1000)] = DEFAULT_ROWS,
    seed: int = 1,
) -> None:
    """Start a cluster, import payments, verify, import again, stop."""
    logging.getLogger("kazoo").setLevel(logging.CRITICAL)
    # Whoever ends the demo does not want the cluster to stay.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    with plain_errors(), tempfile.TemporaryDirectory(prefix="tallystick-demo-") as scratch:
        payments = Path(scratch) / "payments.csv"
        _heading(f"A payments file of {rows:,} rows, from seed {seed}")
        kinds = write_payments(payments, PaymentsGenerator(seed, time.time_ns() // 1_000_000).payments(rows))
        _show_kinds(kinds)
        _heading(f"A cluster: ZooKeeper, {SHARDS} Redis shards with their agents, a coordinator, a router")
        cluster = LocalCluster(Path(scratch) / "data", ClusterSpec(shards=SHARDS))
        try:
            with err.status("starting"):
                cluster.start()
            out.print(f"ready in {time.monotonic() - start:.1f} s", highlight=False)
            Demo(cluster, payments, kinds).run()
        finally:
            for ending in (signal.SIGINT, signal.SIGTERM):
                signal.signal(ending, signal.SIG_IGN)
            stopped = cluster.stop()
            out.print(f"\nstopped {len(stopped)} processes", highlight=False)
        out.print(f"[bold green]done in {time.monotonic() - start:.0f} s[/]: nothing was made, nothing lost")


def _show_kinds(kinds: Counter[Kind]) -> None:
    table = Table("rows that are", "rows", "must end as")
    table.columns[1].justify = "right"
    for kind in Kind:
        table.add_row(kind.value, f"{kinds[kind]:,}", EXPECTED[kind].name)
    out.print(table)


def _counts(outcomes: Counter[Outcome]) -> str:
    return ", ".join(f"{outcome.name} {count:,}" for outcome, count in outcomes.most_common())


def _heading(text: str) -> None:
    out.print(f"\n[bold]{text}[/]", highlight=False)


def _must(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads like an assertion
    if not holds:
        raise DemoError(otherwise)


if __name__ == "__main__":
    typer.run(main)
