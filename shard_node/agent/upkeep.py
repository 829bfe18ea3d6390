"""What an agent does to keep its shard in order, and what it asks of the others for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from shard_node.agent.rotation import Peer
from shard_node.client import Shard, connect
from shard_node.errors import ShardNodeError
from shard_node.limits import MAX_BATCH

if TYPE_CHECKING:
    from shard_node.cluster import ShardInfo, Topology

log = structlog.get_logger(__name__)


async def ask_peer(topology: Topology, info: ShardInfo, long_ms: int) -> Peer:
    """Whether a shard has attempts or commits that have been in doubt for at least ``long_ms``.

    Prepared ones count too: once the outcome of an id that never expires is forgotten, a decide that is late
    would carry it out again. Recovery ends the attempt first, and then a late decide is refused.
    """
    try:
        async with Shard(info.shard_id, topology.fence(info), connect(info.primary)) as shard:
            async for _ in shard.all_in_doubt(long_ms):
                return Peer.LAGGING
            # What was read counts once it is in the log.
            await shard.mark()
            return Peer.SETTLED
    except (ShardNodeError, ValueError) as error:
        log.warning("a shard does not answer", peer=info.shard_id, error=str(error))
        return Peer.SILENT


async def end_due_holds(shard: Shard) -> int:
    """Ends all holds whose time is over; how many. Raises the errors of :mod:`shard_node.errors`."""
    ended = 0
    while count := await shard.expire_holds(MAX_BATCH):
        ended += count
    return ended
