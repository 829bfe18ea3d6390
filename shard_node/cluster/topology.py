"""The map of the cluster: which shard owns which slots, at which epoch, at which address.

An immutable snapshot, kept in ZooKeeper as JSON. Every change goes through :meth:`Topology.changed`,
which raises the version, and through compare-and-set in the registry.
"""

from __future__ import annotations

import json
import re
from array import array
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from shard_node.cluster.slots import SLOT_COUNT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SHARD_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class TopologyError(ValueError):
    """A topology that breaks its own rules: a slot with no owner or two, an ill-formed id."""


@dataclass(frozen=True, slots=True)
class SlotRange:
    """Slots ``first`` to ``last``, both included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One shard. ``primary`` is host:port of its Redis, empty before the first start.

    The epoch rises whenever the slots or the primary change: a caller with an older map is refused.
    """

    shard_id: str
    epoch: int
    primary: str
    slots: tuple[SlotRange, ...]

    @property
    def slot_count(self) -> int:
        """How many slots the shard owns."""
        return sum(r.last - r.first + 1 for r in self.slots)


@dataclass(frozen=True, slots=True)
class Topology:
    """The whole map. ``owner[slot]`` is the index in ``shards`` of the slot's owner."""

    cluster_id: str
    version: int
    shards: tuple[ShardInfo, ...]
    owner: array[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        owner = array("i", [-1]) * SLOT_COUNT
        for index, shard in enumerate(self.shards):
            if not _SHARD_ID.fullmatch(shard.shard_id):
                msg = f"shard id {shard.shard_id!r}: 1-63 lower-case letters, digits and dashes"
                raise TopologyError(msg)
            for r in shard.slots:
                if not 0 <= r.first <= r.last < SLOT_COUNT:
                    msg = f"{shard.shard_id}: slots {r.first}-{r.last} are not within 0-{SLOT_COUNT - 1}"
                    raise TopologyError(msg)
                for slot in range(r.first, r.last + 1):
                    if owner[slot] != -1:
                        msg = f"slot {slot} has two owners"
                        raise TopologyError(msg)
                    owner[slot] = index
        if -1 in owner:
            msg = f"slot {owner.index(-1)} has no owner"
            raise TopologyError(msg)
        object.__setattr__(self, "owner", owner)

    @classmethod
    def initial(cls, cluster_id: str, shard_ids: Sequence[str]) -> Topology:
        """The first topology: the slots dealt out evenly, in contiguous ranges."""
        if not 1 <= len(shard_ids) <= SLOT_COUNT:
            msg = f"a cluster has 1 to {SLOT_COUNT} shards, not {len(shard_ids)}"
            raise TopologyError(msg)
        count = len(shard_ids)
        bounds = [SLOT_COUNT * i // count for i in range(count + 1)]
        shards = (
            ShardInfo(shard_id, 1, "", (SlotRange(first, end - 1),))
            for shard_id, first, end in zip(shard_ids, bounds, bounds[1:], strict=False)
        )
        return cls(cluster_id, 1, tuple(shards))

    def shard(self, shard_id: str) -> ShardInfo:
        """The shard of that id; KeyError when there is none."""
        for shard in self.shards:
            if shard.shard_id == shard_id:
                return shard
        raise KeyError(shard_id)

    def fence(self, shard: ShardInfo) -> str:
        """What a call to the shard must carry: it names cluster, shard and epoch.

        Not the epoch alone: after restarts another shard, or another cluster's, may answer on an
        address, and small epochs are often equal.
        """
        return f"{self.cluster_id}/{shard.shard_id}/{shard.epoch}"

    def changed(self, shards: Iterable[ShardInfo]) -> Topology:
        """The next version, with these shards."""
        return Topology(self.cluster_id, self.version + 1, tuple(shards))

    def with_primary(self, shard_id: str, address: str) -> Topology:
        """The next version with the shard's primary at ``address``, its epoch one higher."""
        return self.changed(
            replace(s, primary=address, epoch=s.epoch + 1) if s.shard_id == shard_id else s
            for s in self.shards
        )

    def to_json(self) -> bytes:
        """The form kept in ZooKeeper."""
        content = {
            "cluster_id": self.cluster_id,
            "version": self.version,
            "shards": [
                {
                    "shard_id": s.shard_id,
                    "epoch": s.epoch,
                    "primary": s.primary,
                    "slots": [[r.first, r.last] for r in s.slots],
                }
                for s in self.shards
            ],
        }
        return json.dumps(content, indent=1).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Topology:
        """Reads :meth:`to_json`. Raises TopologyError on anything else."""
        try:
            raw: dict[str, Any] = json.loads(content)
            shards = tuple(
                ShardInfo(
                    s["shard_id"],
                    s["epoch"],
                    s["primary"],
                    tuple(SlotRange(first, last) for first, last in s["slots"]),
                )
                for s in raw["shards"]
            )
            return cls(raw["cluster_id"], raw["version"], shards)
        except (KeyError, TypeError, ValueError) as error:
            msg = f"not a topology: {error}"
            raise TopologyError(msg) from error
