"""`make demo`: a real cluster on this machine carries 50,000 payments, and proves that no money got lost.

Then it makes every other money operation, prints a statement, kills the archiver under load, audits the
ledger, and shows the audit catching copies of it that were tampered with.

Every step checks what it shows: the outcomes are known beforehand, the sums must be zero, and a second and a
third import must change nothing. Exits non-zero when anything is not as it must be; always stops the cluster.
"""

from __future__ import annotations

import csv
import logging
import shutil
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli import DEFAULT_FUND, read_statement, run_import, show_statement, show_summary
from deploy.demo.ledger import KilledArchiver, TamperedCopies, audit_passes, wait_until_archived
from deploy.demo.money import Cast, MoneyDemo, choose_cast
from deploy.demo.payments import (
    DEFAULT_ROWS,
    EXPECTED,
    Kind,
    PaymentsGenerator,
    expected_outcomes,
    write_payments,
)
from deploy.demo.steps import heading, must
from deploy.importing import ImportSettings, read_results, result_path
from deploy.local import CALL_TIMEOUT_SECONDS, ClusterSpec, LocalCluster, cluster_service
from deploy.moments import EVERYTHING
from deploy.terminal import Table, err, good, out, plain_errors, show_verification, verify_balance
from shard_node.cluster import slot
from tallystick import Account, Outcome, SyncClient, SyncLedgerClient
from tallystick.v1 import cluster_pb2

SHARDS = 3


@dataclass(frozen=True, slots=True)
class Demo:
    """The steps, on a running cluster and a payments file with so many rows of each kind."""

    cluster: LocalCluster
    payments: Path
    kinds: Counter[Kind]

    def run(self) -> None:
        """All steps. Raises DemoError at the first that does not hold."""
        heading("Import: open the accounts, fund the payers, move the money")
        self._import(self.payments, must_send=self.kinds.total() - self.kinds[Kind.REPEATED])
        self._verify()
        before = self._accounts()
        heading("Where the money is now")
        self._show_shards(before)
        heading("Import again: every outcome is known, nothing is sent")
        self._import(self.payments, must_send=0)
        heading(
            "Send every row once more, from a copy: the cluster gives every outcome again, and moves nothing"
        )
        copy = Path(shutil.copy(self.payments, self.payments.with_name("copy.csv")))
        self._import(copy, must_send=self.kinds.total() - self.kinds[Kind.REPEATED])
        must(_outcomes(copy) == _outcomes(self.payments), "a row got another outcome than before")
        must(self._accounts() == before, "sending the file again changed an account")
        self._verify()
        self._money_and_ledger(before)

    def _money_and_ledger(self, payers: list[Account]) -> None:
        addresses = self.cluster.router_addresses
        heading("Deposits, a purchase and its refunds, holds in all their ends, a journal")
        with SyncClient(addresses) as client:
            money = MoneyDemo(client, choose_cast(self._topology()))
            money.run()
        heading("The statement of one account, from the ledger")
        wait_until_archived(addresses)
        self._statement(money.cast)
        heading("A load, and SIGKILL for the archiver in the middle of it")
        euros = [account for account in payers if account.currency == "EUR"]
        KilledArchiver(self.cluster, euros, seed=1).run()
        heading("Audit: replay the ledger from its first entry, compare it with every live account")
        audit_passes(self.cluster)
        heading("Audit of copies of the ledger that somebody has tampered with")
        TamperedCopies(self.cluster, money.cast.customer).run()
        self._verify()

    def _statement(self, cast: Cast) -> None:
        with SyncLedgerClient(self.cluster.router_addresses) as client:
            statement = read_statement(client, cast.customer, None, None, wait_for=EVERYTHING)
        show_statement(statement)
        with SyncClient(self.cluster.router_addresses) as client:
            live = client.get_account(cast.customer)
        closing = statement.closing
        must(
            (closing.available, closing.held, closing.version) == (live.available, live.held, live.version),
            f"the statement closes with {closing.available}, the live account has {live.available}",
        )
        out.print("the amounts add up to the closing balance, and that is what the live account has")

    def _import(self, payments: Path, must_send: int) -> None:
        settings = ImportSettings(fund=DEFAULT_FUND)
        summary, seconds = run_import(payments, self.cluster.router_addresses, settings)
        show_summary(summary, seconds)
        expected = expected_outcomes(self.kinds)
        must(summary.outcomes == expected, f"the outcomes should have been {_counts(expected)}")
        # A row that comes again may be known by then.
        known_meanwhile = self.kinds[Kind.REPEATED] if must_send else 0
        must(
            must_send <= summary.sent <= must_send + known_meanwhile,
            f"{summary.sent} rows were sent, not {must_send}",
        )

    def _verify(self) -> None:
        heading("Verify: read every account on every shard")
        with cluster_service(self.cluster.router_addresses) as service:
            result = verify_balance(service)
        show_verification(result)
        must(result.verdict == cluster_pb2.VERDICT_BALANCED, "the books do not balance")

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

    def _topology(self) -> cluster_pb2.Topology:
        with cluster_service(self.cluster.router_addresses) as service:
            request = cluster_pb2.GetTopologyRequest()
            topology: cluster_pb2.Topology = service.GetTopology(request, timeout=CALL_TIMEOUT_SECONDS)
        return topology

    def _show_shards(self, accounts: list[Account]) -> None:
        topology = self._topology()
        currencies = sorted({account.currency for account in accounts})
        figures = ("accounts", *(f"customers, {currency}" for currency in currencies))
        table = Table("shard", *figures, right=figures)
        for shard in topology.shards:
            here = [a for a in accounts if any(r.first <= slot(a.account_id) <= r.last for r in shard.slots)]
            sums = (sum((a.available for a in here if a.currency == c), Decimal(0)) for c in currencies)
            table.add_row(shard.shard_id, f"{len(here):,}", *(f"{total:,f}" for total in sums))
        out.table(table)


def main(
    *,
    rows: Annotated[int, typer.Option(min=1000)] = DEFAULT_ROWS,
    seed: int = 1,
) -> None:
    """Start a cluster, import payments, move money in every way, audit, stop."""
    logging.getLogger("kazoo").setLevel(logging.CRITICAL)
    # Whoever ends the demo does not want the cluster to stay.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    with plain_errors(), tempfile.TemporaryDirectory(prefix="tallystick-demo-") as scratch:
        payments = Path(scratch) / "payments.csv"
        heading(f"A payments file of {rows:,} rows, from seed {seed}")
        kinds = write_payments(payments, PaymentsGenerator(seed, time.time_ns() // 1_000_000).payments(rows))
        _show_kinds(kinds)
        heading(f"A cluster: ZooKeeper, {SHARDS} shards, an archiver, a coordinator, a router")
        cluster = LocalCluster(Path(scratch) / "data", ClusterSpec(shards=SHARDS, archivers=1))
        try:
            with err.busy("starting"):
                cluster.start()
            out.print(f"ready in {time.monotonic() - start:.1f} s")
            Demo(cluster, payments, kinds).run()
        finally:
            for ending in (signal.SIGINT, signal.SIGTERM):
                signal.signal(ending, signal.SIG_IGN)
            stopped = cluster.stop()
            out.print()
            out.print(f"stopped {len(stopped)} processes")
        out.print(good(f"done in {time.monotonic() - start:.0f} s"), ": nothing was made, nothing lost")


def _show_kinds(kinds: Counter[Kind]) -> None:
    table = Table("rows that are", "rows", "must end as", right={"rows"})
    for kind in Kind:
        table.add_row(kind.value, f"{kinds[kind]:,}", EXPECTED[kind].name)
    out.table(table)


def _outcomes(payments: Path) -> list[tuple[int | None, Outcome]]:
    return [(result.number, result.outcome) for result in read_results(result_path(payments))]


def _counts(outcomes: Counter[Outcome]) -> str:
    return ", ".join(f"{outcome.name} {count:,}" for outcome, count in outcomes.most_common())


if __name__ == "__main__":
    typer.run(main)
