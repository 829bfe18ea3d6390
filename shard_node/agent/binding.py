"""Whose data a Redis holds, and binding it to its shard and epoch.

Invariant: the topology names a Redis at an epoch before the Redis accepts calls at that epoch. No topology
has epoch 0: at that one a Redis is claimed, so that an agent that comes back finds it begun, and not empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shard_node.client import Shard, status_of
from shard_node.errors import WrongShardError

if TYPE_CHECKING:
    from shard_node.client import ShardRedis
    from shard_node.cluster import Topology

DEFAULT_MAX_BACKLOG: Final = 5_000_000
_CLAIMED: Final = 0


@dataclass(frozen=True, slots=True)
class Holding:
    """What a Redis says of itself: the shard whose data it holds, and whether it ever served."""

    identity: str | None
    served: bool

    def may_be_named(self, topology: Topology, shard_id: str, address: str) -> None:
        """Raises WrongShardError unless the topology may name this Redis, at ``address``, as the primary.

        To be asked of the very topology that is then changed. An empty Redis in a shard's place would
        be the loss of all its money. One that claimed the shard when it had no primary, and never
        served, is as good as empty as soon as another was named.
        """
        identity, primary = f"{topology.cluster_id}/{shard_id}", topology.shard(shard_id).primary
        if self.identity not in (None, identity):
            raise WrongShardError(
                f"this Redis holds {self.identity}, not {identity}: is --data the right folder?"
            )
        claimed_and_named = self.identity is not None and primary == address
        if primary and not self.served and not claimed_and_named:
            raise WrongShardError(
                f"this Redis is empty, but {shard_id} has served from {primary}: is --data the right folder?"
            )


async def claim(redis: ShardRedis, topology: Topology, shard_id: str) -> Holding:
    """What this Redis holds. An empty one becomes this shard's, when the shard has no primary as yet."""
    status = await status_of(redis, shard_id)
    if status is None and not topology.shard(shard_id).primary:
        claiming = Shard(shard_id, f"{topology.cluster_id}/{shard_id}/{_CLAIMED}", redis)
        await claiming.bind(0, 0)
        status = await status_of(redis, shard_id)
    if status is None:
        return Holding(None, served=False)
    return Holding(status.shard, served=status.epoch > _CLAIMED)


async def bind(
    redis: ShardRedis,
    topology: Topology,
    shard_id: str,
    window_ms: int,
    max_backlog: int = DEFAULT_MAX_BACKLOG,
) -> None:
    """Binds a Redis to its shard and epoch. Raises WrongShardError when it holds another's data."""
    fence = topology.fence(topology.shard(shard_id))
    await Shard(shard_id, fence, redis).bind(window_ms, max_backlog)
