"""A slot moves to another shard by plain commands, while nobody calls: what a resize has to carry over.

Accounts and outcomes move, and what is in doubt of journals. What is in doubt of transfers does not: attempts
and commits hold rows of many slots, and stay with their shard. So a slot may not leave while one of its
accounts waits there for a credit, or has paid what is not settled.

Outcomes of both generations come to the younger one: the two shards forget at times of their own, and one
that is about to forget the second time must not take along what has just come.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, cast

from shard_node.cluster.slots import slot
from shard_node.cluster.topology import SlotRange, Topology
from shard_node.contract.bundles import DECISION_BYTES, id_times_ms
from shard_node.contract.calls import ATTEMPT_BYTES, COMMIT_BYTES
from shard_node.contract.records import PendingAttempt, PendingCommit
from shard_node.contract.transfers import BODY_HEAD
from tests.real_shards import read_hash

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shard_node.client.directory import Cluster

# Credits above this, and debits, are counted apart in `meta`.
_BIG = 2**36
_TIME_BYTES = 6
# By account id.
_OF_ACCOUNTS = ("accounts", "limits", "coming")
# By an id and a slot.
_OF_SLOTS = ("holds", "refunds")
# Generations of outcomes.
_DONE = ("done:current", "done:previous")


class SlotInUseError(Exception):
    """Something of the slot is in doubt on the shard that it shall leave."""


async def move_slot(cluster: Cluster, moved: int, target_index: int) -> None:
    """Moves all that belongs to a slot to the shard of that index. Raises SlotInUseError."""
    source, target = cluster.shards[cluster.owner[moved]].redis, cluster.shards[target_index].redis
    if moved in await slots_in_use(source):
        raise SlotInUseError(f"slot {moved} is in doubt")
    names = await read_hash(source, f"slot:{moved}")
    for name in names:
        await target.hset(f"slot:{moved}", name, b"")
    await source.delete(f"slot:{moved}")
    for table in (*_OF_ACCOUNTS, *_OF_SLOTS, *_DONE, "prepared", "unsettled"):
        of_slot = {
            key: value
            for key, value in (await read_hash(source, table)).items()
            if slot_of(table, key, value) == moved
        }
        for key, value in of_slot.items():
            await target.hset(_DONE[0] if table in _DONE else table, key, value)
            await source.hdel(table, key)
            if table == "prepared":
                await _count(source, value, -1)
                await _count(target, value, 1)
        if table in _DONE:
            # When they have become the older generation, an id younger than this is not looked for there.
            _, newest_ms = id_times_ms(list(of_slot))
            await _raise(target, "newest", newest_ms)
    # What the source has forgotten is expired at the target too.
    await _raise(target, "horizon", int(await source.hget("meta", "horizon") or 0))
    due = cast("list[tuple[bytes, float]]", await source.zrange("holds:due", 0, -1, withscores=True))
    for name, expires_ms in due:
        if slot_of("holds", name, b"") == moved:
            await target.zadd("holds:due", {name: expires_ms})
            await source.zrem("holds:due", name)


def with_slot_moved(topology: Topology, moved: int, target_index: int) -> Topology:
    """The next topology, in which the slot is another shard's; the epochs of both shards rise."""
    owner = list(topology.owner)
    changed = {owner[moved], target_index}
    owner[moved] = target_index
    ranges: list[list[SlotRange]] = [[] for _ in topology.shards]
    for index, run in groupby(range(len(owner)), key=owner.__getitem__):
        slots = list(run)
        ranges[index].append(SlotRange(slots[0], slots[-1]))
    return topology.changed(
        replace(info, epoch=info.epoch + 1, slots=tuple(ranges[index])) if index in changed else info
        for index, info in enumerate(topology.shards)
    )


async def slots_in_use(redis: Redis) -> set[int]:
    """Slots that may not leave a shard: those of payees of attempts, and those of payers of commits."""
    used: set[int] = set()
    attempts, commits = await read_hash(redis, "attempts"), await read_hash(redis, "commits")
    for name in [name for name in attempts if len(name) == ATTEMPT_BYTES]:
        attempt = PendingAttempt.unpack(name, *_columns(attempts, name))
        used |= {waiting.terms.payee_slot for waiting in attempt.transfers()}
    for name in [name for name in commits if len(name) == COMMIT_BYTES]:
        commit = PendingCommit.unpack(name, *_columns(commits, name))
        used |= {committed.terms.payer_slot for committed in commit.transfers()}
    return used


def _columns(fields: dict[bytes, bytes], name: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """What is read of a bundle: its record, decisions, terms and bodies."""
    return fields[name], fields[name + b"d"], fields[name + b"t"], fields[name + b"b"]


def slot_of(table: str, key: bytes, value: bytes) -> int:
    """The slot that an entry of a shard's table belongs to."""
    if table in _OF_ACCOUNTS:
        return slot(key.decode())
    if table in _OF_SLOTS:
        return int.from_bytes(key[16:], "little")
    if table in _DONE:
        # Outcomes have the deciding slot in their key, applied legs of journals their own as their value.
        return int.from_bytes(key[16:] if len(key) == DECISION_BYTES else value, "little")
    _, _, deciding_slot, leg_slot, *_ = BODY_HEAD.unpack_from(value, _TIME_BYTES)
    return cast("int", leg_slot if table == "prepared" else deciding_slot)


async def _raise(redis: Redis, field: str, at_least: int) -> None:
    """A field of `meta` that only rises."""
    if at_least > int(await redis.hget("meta", field) or 0):
        await redis.hset("meta", field, str(at_least))


async def _count(redis: Redis, value: bytes, change: int) -> None:
    amount = BODY_HEAD.unpack_from(value, _TIME_BYTES)[0]
    if amount > _BIG:
        await redis.hincrby("meta", "big", change)
    elif amount < 0:
        await redis.hincrby("meta", "reserved", change)
