"""Finds attempts that others left behind, and ends them.

Every coordinator runs one; a lock in ZooKeeper gives each shard to one of them. The lock only spares
work: the protocol allows any number of resolvers at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from coordinator.attempts import InDoubt, Recovery
from coordinator.driver import MINIMUM_AGE_MS, end
from coordinator.pace import Pace
from shard_node.cluster import RESOLVER_LOCKS
from shard_node.contract import PreparedAttempt
from shard_node.errors import RegistryError, ShardNodeError
from shard_node.limits import MAX_BATCH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from shard_node.client import Cluster, Directory, Shard
    from shard_node.cluster import Registry
    from shard_node.contract import Doubt

# Between two looks at a shard.
SCAN_SECONDS = 1.0
# Attempts and commits a look, fewer than a call may be about; more are there only after an outage, and then
# the next look follows at once.
SCAN_LIMIT = 256

log = structlog.get_logger(__name__)


class Resolver:
    """Looks after what is in doubt on the shards whose lock it gets."""

    def __init__(self, name: str, registry: Registry, directory: Directory) -> None:
        self._name = name
        self._registry = registry
        self._directory = directory
        # The serial number that the last look at a shard ended with; none when it came to what is young.
        self._cursors: dict[str, int] = {}

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
            log.warning("cannot look for attempts in doubt", shard=shard.shard_id, error=str(error))
        return False

    async def resolve(self, cluster: Cluster, shard: Shard, minimum_age_ms: int) -> bool:
        """Ends what is at least that old on the shard; whether it made progress and more is there.

        Goes on where the last look ended: what cannot be ended now, because another shard is away, must not
        stand in the way of what can.
        """
        found = await self._find(shard, minimum_age_ms)
        if not found:
            return False
        home, shard_ids = cluster.shards.index(shard), cluster.shard_ids
        sized = [(one, len(doubt.codes)) for doubt in found if (one := _named(doubt, home, shard_ids))]
        ended = 0
        for doubts in _pieces(sized):
            ended += await end(Pace(cluster), Recovery(doubts, shard_ids))
        log.info("resolved", shard=shard.shard_id, in_doubt=len(found), ended=ended)
        return ended > 0 and shard.shard_id in self._cursors

    async def _find(self, shard: Shard, minimum_age_ms: int) -> list[Doubt]:
        """The next page of what is that old. Bundles come along, so young ones are not even asked for."""
        status = await shard.info()
        after = self._cursors.pop(shard.shard_id, 0)
        if status.oldest_in_doubt_ms < minimum_age_ms:
            return []
        page = await shard.in_doubt(after, SCAN_LIMIT)
        if after and not page:
            page = await shard.in_doubt(0, SCAN_LIMIT)
        latest_ms = status.now_ms - minimum_age_ms
        old = [doubt for doubt in page if doubt.since_ms <= latest_ms]
        if page and len(old) == len(page):
            self._cursors[shard.shard_id] = page[-1].serial
        return old


def _named(doubt: Doubt, home: int, shard_ids: Sequence[str]) -> InDoubt | None:
    """As recovery takes it; None where nobody can say any more what became of it."""
    if not isinstance(doubt, PreparedAttempt):
        return InDoubt(doubt.attempt_id, home)
    if doubt.decider not in shard_ids:
        log.error(
            "the deciding shard of an attempt has left the cluster",
            attempt=doubt.attempt_id.hex(),
            decider=doubt.decider,
        )
        return None
    return InDoubt(doubt.attempt_id, shard_ids.index(doubt.decider), {home})


def _pieces(sized: Iterable[tuple[InDoubt, int]]) -> Iterator[list[InDoubt]]:
    """Attempts with their sizes, so many at a time that a call about them all stays within its limit."""
    piece: list[InDoubt] = []
    transactions = 0
    for doubt, size in sized:
        if piece and transactions + size > MAX_BATCH:
            yield piece
            piece, transactions = [], 0
        piece.append(doubt)
        transactions += size
    if piece:
        yield piece
