"""A slot moves to another shard by plain commands, while nobody calls: what a resize has to carry over."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from shard_node.slots import slot
from shard_node.transfers import BODY_HEAD
from tests.real_shards import read_hash

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shard_node.directory import Cluster

# Credits above this, and debits, are counted apart in `meta`.
_BIG = 2**36
_TIME_BYTES = 6
# By account id.
_OF_ACCOUNTS = ("accounts", "limits", "coming")
# By an id and a slot.
_OF_SLOTS = ("holds", "refunds")


async def move_slot(cluster: Cluster, moved: int, target_index: int) -> None:
    """Moves all that belongs to a slot to the shard of that index."""
    source, target = cluster.shards[cluster.owner[moved]].redis, cluster.shards[target_index].redis
    names = cast("set[bytes]", await source.smembers(f"slot:{moved}"))
    for name in names:
        await target.sadd(f"slot:{moved}", name)
    await source.delete(f"slot:{moved}")
    for table in (*_OF_ACCOUNTS, *_OF_SLOTS, "done:current", "done:previous", "prepared", "unsettled"):
        for key, value in (await read_hash(source, table)).items():
            if slot_of(table, key, value) == moved:
                await target.hset(table, key, value)
                await source.hdel(table, key)
                if table == "prepared":
                    await _count(source, value, -1)
                    await _count(target, value, 1)
    due = cast("list[tuple[bytes, float]]", await source.zrange("holds:due", 0, -1, withscores=True))
    for name, expires_ms in due:
        if slot_of("holds", name, b"") == moved:
            await target.zadd("holds:due", {name: expires_ms})
            await source.zrem("holds:due", name)


def slot_of(table: str, key: bytes, value: bytes) -> int:
    """The slot that an entry of a shard's table belongs to."""
    if table in _OF_ACCOUNTS:
        return slot(key.decode())
    if table in _OF_SLOTS:
        return int.from_bytes(key[16:], "little")
    if table.startswith("done"):
        # Outcomes have the deciding slot in their key, applied legs their own as their value.
        return int.from_bytes(key[16:] if len(key) == 18 else value, "little")
    _, _, deciding_slot, leg_slot, *_ = BODY_HEAD.unpack_from(value, _TIME_BYTES)
    return cast("int", leg_slot if table == "prepared" else deciding_slot)


async def _count(redis: Redis, value: bytes, change: int) -> None:
    amount = BODY_HEAD.unpack_from(value, _TIME_BYTES)[0]
    if amount > _BIG:
        await redis.hincrby("meta", "big", change)
    elif amount < 0:
        await redis.hincrby("meta", "reserved", change)
