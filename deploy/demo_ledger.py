"""The demo's ledger: an archiver that dies under load, an audit, copies of the ledger with planted faults.

The archiver is killed, not stopped, halfway through a load. What it had not stored waits on the shards; once
it is back nothing may be missing and nothing there twice, which the audit shows.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from deploy.connection import CALL_TIMEOUT_SECONDS, cluster_service
from deploy.demo_steps import must, wait_until
from deploy.launcher import LocalCluster
from deploy.options import out
from tallystick import Account, Client, Outcome, Transfer
from tallystick.v1 import cluster_pb2

ARCHIVER = "archiver-0"
BATCHES, BATCH = 20, 1000
# Some 30,000 entries a second are stored on a core; this machine's cores have other things to do.
CATCH_UP_SECONDS = 60.0
_AMOUNT = Decimal("0.50")


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
        out.print(f"{total:,} transfers in {seconds:.1f} s, all COMMITTED", highlight=False)
        waiting = entries_waiting(addresses)
        must(waiting > 0, "without an archiver no entries wait")
        out.print(f"{waiting:,} entries wait on the shards; start the archiver again", highlight=False)
        self.cluster.restart(ARCHIVER)
        waited = wait_until_archived(addresses)
        out.print(f"all of them are archived after {waited:.1f} s", highlight=False)

    async def _load(self, addresses: list[str]) -> Counter[Outcome]:
        outcomes: Counter[Outcome] = Counter()
        pairs = random.Random(self.seed)  # noqa: S311 - a reproducible load, no secrets
        async with Client(addresses) as client:
            for number in range(BATCHES):
                if number == BATCHES // 2:
                    await asyncio.to_thread(self.cluster.kill, ARCHIVER)
                    out.print(f"{ARCHIVER} is dead (SIGKILL); transfers go on", highlight=False)
                results = await client.transfers([self._transfer(pairs) for _ in range(BATCH)])
                outcomes.update(result.outcome for result in results)
        return outcomes

    def _transfer(self, pairs: random.Random) -> Transfer:
        payer, payee = pairs.sample(self.accounts, 2)
        return Transfer(payer.account_id, payee.account_id, _AMOUNT, payer.currency, reference="load")
