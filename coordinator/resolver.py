"""Finds transfers that others left behind, and ends them.

Every coordinator runs one; a lock in ZooKeeper gives each shard to one of them. The lock only spares
work: the protocol allows any number of resolvers at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from coordinator.driver import ask_all, sound_alarm
from coordinator.journal_protocol import JournalRecovery
from coordinator.protocol import Recovery
from shard_node.errors import RegistryError, ShardNodeError
from shard_node.registry import RESOLVER_LOCKS
from shard_node.shard import CALL_TIMEOUT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shard_node.directory import Cluster, Directory
    from shard_node.records import PendingTransfer
    from shard_node.registry import Registry
    from shard_node.shard import Shard

# Between two looks at a shard.
SCAN_SECONDS = 1.0
# Younger entries are most likely still in the hands of the coordinator that made them: no call of its
# takes longer. Acting on one would be safe, but under load abort transfers that only wait their turn.
MINIMUM_AGE_MS = int(CALL_TIMEOUT_SECONDS * 1000)
# Entries a look; more are there only after an outage, and then the next look follows at once.
SCAN_LIMIT = 4096

log = structlog.get_logger(__name__)


class Resolver:
    """Looks after the in-doubt transfers of the shards whose lock it gets."""

    def __init__(self, name: str, registry: Registry, directory: Directory) -> None:
        self._name = name
        self._registry = registry
        self._directory = directory

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
        """Ends what is at least that old on the shard; whether it made progress and more is there."""
        prepared = await shard.pending("prepared", minimum_age_ms, SCAN_LIMIT)
        unsettled = await shard.pending("unsettled", minimum_age_ms, SCAN_LIMIT)
        if not prepared and not unsettled:
            return False
        recovery = Recovery(_transfers(prepared), _transfers(unsettled), cluster.owner)
        answers = await ask_all(cluster, recovery.resolve())
        answers = await ask_all(cluster, recovery.finish(answers))
        await ask_all(cluster, recovery.settle(answers))
        journals = JournalRecovery(_journals(prepared), _journals(unsettled), cluster.owner)
        about_journals = await ask_all(cluster, journals.resolve())
        about_journals = await ask_all(cluster, journals.finish(about_journals))
        await ask_all(cluster, journals.settle(about_journals))
        sound_alarm([*recovery.missing, *journals.missing])
        applied, dropped = recovery.applied + journals.applied, recovery.dropped + journals.dropped
        log.info(
            "resolved",
            shard=shard.shard_id,
            prepared=len(prepared),
            unsettled=len(unsettled),
            applied=applied,
            dropped=dropped,
        )
        full = SCAN_LIMIT in (len(prepared), len(unsettled))
        return full and applied + dropped > 0


def _transfers(entries: Sequence[PendingTransfer]) -> list[PendingTransfer]:
    return [entry for entry in entries if not entry.of_journal]


def _journals(entries: Sequence[PendingTransfer]) -> list[PendingTransfer]:
    return [entry for entry in entries if entry.of_journal]
