"""The demo's ledger: an archiver that dies under load, an audit, copies of the ledger with planted faults.

The archiver is killed, not stopped, halfway through a load. What it had not stored waits on the shards; once
it is back nothing may be missing and nothing there twice, which the audit shows.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from deploy.auditor import run_audit
from deploy.cli import show_findings, show_report
from deploy.demo.faults import FAULTS, Fault, changing, copy_ledger
from deploy.demo.steps import must, wait_until
from deploy.local import CALL_TIMEOUT_SECONDS, LocalCluster, cluster_service, sqlite_file
from deploy.terminal import out, strong
from tallystick import Account, Client, Outcome, Transfer
from tallystick.v1 import cluster_pb2

ARCHIVER = "archiver-0"
BATCHES, BATCH = 20, 1000
# Some 30,000 entries a second are stored on a core; this machine's cores have other things to do.
CATCH_UP_SECONDS = 60.0
# The first findings say it all; one fault may make thousands.
SHOWN_FINDINGS = 3
_AMOUNT = Decimal("0.50")


def audit_passes(cluster: LocalCluster) -> None:
    """Audits the cluster's ledger; DemoError when it is not consistent."""
    start = time.monotonic()
    report = run_audit(cluster.ledger_url, cluster.zookeeper_address)
    show_report(report, time.monotonic() - start)
    must(report.consistent, "the audit found something")


def entries_waiting(addresses: list[str]) -> int:
    """How many entries wait on the shards to be archived."""
    with cluster_service(addresses) as service:
        answer = service.ListBacklogs(cluster_pb2.ListBacklogsRequest(), timeout=CALL_TIMEOUT_SECONDS)
    must(not any(backlog.unknown for backlog in answer.backlogs), "a shard does not say what waits")
    return sum(backlog.entries_waiting for backlog in answer.backlogs)


def wait_until_archived(addresses: list[str]) -> float:
    """Waits until no entry waits; the seconds that took."""
    return wait_until(
        lambda: not entries_waiting(addresses), CATCH_UP_SECONDS, "the archiver did not catch up"
    )


@dataclass(frozen=True, slots=True)
class KilledArchiver:
    """A load on a running cluster, with the archiver's death in the middle."""

    cluster: LocalCluster
    accounts: Sequence[Account]
    seed: int

    def run(self) -> None:
        """Raises DemoError when a transfer fails, or the archiver does not catch up."""
        addresses = self.cluster.router_addresses
        start = time.monotonic()
        outcomes = asyncio.run(self._load(addresses))
        seconds = time.monotonic() - start
        total = BATCHES * BATCH
        must(outcomes == {Outcome.COMMITTED: total}, f"of {total} transfers there were {dict(outcomes)}")
        out.print(f"{total:,} transfers in {seconds:.1f} s, all COMMITTED")
        waiting = entries_waiting(addresses)
        must(waiting > 0, "without an archiver no entries wait")
        out.print(f"{waiting:,} entries wait on the shards; start the archiver again")
        self.cluster.restart(ARCHIVER)
        waited = wait_until_archived(addresses)
        out.print(f"all of them are archived after {waited:.1f} s")

    async def _load(self, addresses: list[str]) -> Counter[Outcome]:
        outcomes: Counter[Outcome] = Counter()
        pairs = random.Random(self.seed)  # noqa: S311 - a reproducible load, no secrets
        async with Client(addresses) as client:
            for number in range(BATCHES):
                if number == BATCHES // 2:
                    await asyncio.to_thread(self.cluster.kill, ARCHIVER)
                    out.print(f"{ARCHIVER} is dead (SIGKILL); transfers go on")
                results = await client.transfers([self._transfer(pairs) for _ in range(BATCH)])
                outcomes.update(result.outcome for result in results)
        return outcomes

    def _transfer(self, pairs: random.Random) -> Transfer:
        payer, payee = pairs.sample(self.accounts, 2)
        return Transfer(payer.account_id, payee.account_id, _AMOUNT, payer.currency, reference="load")


@dataclass(frozen=True, slots=True)
class TamperedCopies:
    """Copies of a cluster's ledger, each with one fault, each audited. The ledger itself stays as it is."""

    cluster: LocalCluster
    account_id: str

    def run(self) -> None:
        """Raises DemoError when the audit misses a fault, or does not name the rule that it breaks."""
        source = sqlite_file(self.cluster.ledger_url)
        must(source is not None, "only an SQLite ledger is copied so simply")
        assert source is not None  # noqa: S101 - for the type checker
        with tempfile.TemporaryDirectory(prefix="tallystick-copies-") as scratch:
            sound, copy = Path(scratch) / "sound.db", Path(scratch) / "copy.db"
            copy_ledger(source, sound)
            for fault in FAULTS:
                shutil.copyfile(sound, copy)
                self._audit(fault, copy)

    def _audit(self, fault: Fault, copy: Path) -> None:
        with changing(copy) as connection:
            fault.plant(connection, self.account_id)
        report = run_audit(f"sqlite:///{copy}", self.cluster.zookeeper_address)
        out.print()
        out.print(strong(fault.told))
        show_findings(report, SHOWN_FINDINGS)
        broken = {finding.rule for finding in report.findings.kept}
        must(fault.rules <= broken, f"the audit should have named {', '.join(sorted(fault.rules))}")
