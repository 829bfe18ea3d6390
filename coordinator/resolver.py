"""Finds transfers that others left behind, and ends them.

Every coordinator runs one; a lock in ZooKeeper gives each shard to one of them. The lock only spares
work: the protocol allows any number of resolvers at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from coordinator.driver import Pace, batches, end
from coordinator.journal_protocol import JournalRecovery
from coordinator.protocol import Recovery
from shard_node.client import CALL_TIMEOUT_SECONDS
from shard_node.cluster import RESOLVER_LOCKS
from shard_node.errors import RegistryError, ShardNodeError
from shard_node.limits import MAX_BATCH, MAX_LEGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shard_node.client import Cluster, Directory, PendingTable, Shard
    from shard_node.cluster import Registry
    from shard_node.contract import PendingAttempt, PendingCommit, PendingTransfer

# Between two looks at a shard.
SCAN_SECONDS = 1.0
# Younger entries are most likely still in the hands of the coordinator that made them: no call of its
# takes longer. Acting on one would be safe, but under load abort transfers that only wait their turn.
MINIMUM_AGE_MS = int(CALL_TIMEOUT_SECONDS * 1000)
# Entries a look, or a page more; more are there only after an outage, and then the next look follows at once.
SCAN_LIMIT = 4096

log = structlog.get_logger(__name__)


class Resolver:
    """Looks after the in-doubt transfers of the shards whose lock it gets."""

    def __init__(self, name: str, registry: Registry, directory: Directory) -> None:
        self._name = name
        self._registry = registry
        self._directory = directory
        # Where the last look at a shard's table ended, by what the table has.
        self._cursors: dict[tuple[str, str, str], int] = {}

    async def run(self) -> None:
        """Forever."""
        while True:
            cluster = self._directory.current
            more = await asyncio.gather(*(self._look(cluster, shard) for shard in cluster.shards))
            if not any(more):
                await asyncio.sleep(SCAN_SECONDS)

    async def _look(self, cluster: Cluster, shard: Shard) -> bool:
        """One look at one shard; whether there is more to do at once."""
        try:
            if not await self._registry.try_lock(f"{RESOLVER_LOCKS}/{shard.shard_id}", self._name):
                return False
            return await self.resolve(cluster, shard, MINIMUM_AGE_MS)
        except RegistryError as error:
            log.warning("no lock", shard=shard.shard_id, error=str(error))
        except ShardNodeError as error:
            log.warning("cannot look for transfers in doubt", shard=shard.shard_id, error=str(error))
        return False

    async def resolve(self, cluster: Cluster, shard: Shard, minimum_age_ms: int) -> bool:
        """Ends what is at least that old on the shard; whether it made progress and more is there.

        Goes on where the last look ended: entries that cannot be ended now, because their other shard is
        away, must not stand in the way of those that can.
        """
        pace = Pace(cluster)
        attempts, commits = await self._bundles(shard, minimum_age_ms)
        prepared = await self._scan(shard, "prepared", minimum_age_ms)
        unsettled = await self._scan(shard, "unsettled", minimum_age_ms)
        if not (attempts or commits or prepared or unsettled):
            return False
        ended = 0
        home, owner, shard_ids = cluster.shards.index(shard), cluster.owner, cluster.shard_ids
        for some_attempts in batches(attempts):
            transfers = Recovery(home, some_attempts, (), owner, shard_ids)
            ended += await end(pace, transfers, "attempt")
        for some_commits in batches(commits):
            transfers = Recovery(home, (), some_commits, owner, shard_ids)
            ended += await end(pace, transfers, "attempt")
        for some_prepared, some_unsettled in _pieces(prepared, unsettled):
            journals = JournalRecovery(some_prepared, some_unsettled, owner)
            ended += await end(pace, journals, "transaction_id")
        log.info(
            "resolved",
            shard=shard.shard_id,
            prepared=len(prepared) + sum(attempt.size for attempt in attempts),
            unsettled=len(unsettled) + sum(commit.size for commit in commits),
            ended=ended,
        )
        more = any(cursor for (shard_id, _, _), cursor in self._cursors.items() if shard_id == shard.shard_id)
        return ended > 0 and more

    async def _scan(self, shard: Shard, table: PendingTable, minimum_age_ms: int) -> list[PendingTransfer]:
        """Legs of journals, or journals."""
        place = (shard.shard_id, "journals", table)
        entries, self._cursors[place] = await shard.pending_from(
            self._cursors.get(place, 0), table, minimum_age_ms, SCAN_LIMIT
        )
        return entries

    async def _bundles(
        self, shard: Shard, minimum_age_ms: int
    ) -> tuple[list[PendingAttempt], list[PendingCommit]]:
        """What is prepared and what is unsettled of transfers."""
        first, second = (shard.shard_id, "transfers", "prepared"), (shard.shard_id, "transfers", "unsettled")
        attempts, self._cursors[first] = await shard.pending_bundles_from(
            self._cursors.get(first, 0), "prepared", minimum_age_ms, SCAN_LIMIT
        )
        commits, self._cursors[second] = await shard.pending_bundles_from(
            self._cursors.get(second, 0), "unsettled", minimum_age_ms, SCAN_LIMIT
        )
        return attempts, commits


def _pieces(
    prepared: Sequence[PendingTransfer], unsettled: Sequence[PendingTransfer]
) -> Iterator[tuple[list[PendingTransfer], list[PendingTransfer]]]:
    """Entries of journals in pieces of so few that a call stays within its limit, if all had all legs."""
    journals = [(entry, True) for entry in prepared]
    journals += [(entry, False) for entry in unsettled]
    for first in range(0, len(journals), MAX_BATCH // MAX_LEGS):
        piece = journals[first : first + MAX_BATCH // MAX_LEGS]
        yield [entry for entry, is_leg in piece if is_leg], [entry for entry, is_leg in piece if not is_leg]
