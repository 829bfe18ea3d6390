"""Work by the newest map of the cluster, repeated while a shard says that the map is not the one it has.

That is how calls wait, rather than fail, while slots move. Everything in the router that calls shards
repeats itself here, and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from shard_node.errors import ShardNodeError, StaleEpochError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from shard_node.client import Cluster, Shard

T = TypeVar("T")

# Between two tries with the same map: the shard may be about to learn of its new epoch.
FIRST_RETRY_SECONDS = 0.02
LAST_RETRY_SECONDS = 0.5


class Maps(Protocol):
    """Where the newest map of the cluster comes from: :class:`shard_node.client.directory.Directory`."""

    @property
    def current(self) -> Cluster:
        """The newest one seen."""

    async def newer_than(self, version: int, timeout_seconds: float) -> bool:
        """Waits for a map above ``version``; whether there is one."""


class Tries:
    """The map for each try, to be looped over: one at once, and others until the deadline.

    Before every further try it waits for a newer map, for a growing while. The loop's body leaves the loop
    when no shard was stale; where the loop ends by itself, time was up. ``deadline_seconds`` is of the
    monotonic clock; a deadline that has passed still gives one try.
    """

    __slots__ = ("_deadline_seconds", "_maps", "_pause_seconds", "_tried")

    def __init__(self, maps: Maps, deadline_seconds: float) -> None:
        self._maps = maps
        self._deadline_seconds = deadline_seconds
        self._pause_seconds = FIRST_RETRY_SECONDS
        self._tried: Cluster | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Cluster:
        if self._tried is not None:
            pause = self._pause_seconds
            if self._deadline_seconds - time.monotonic() <= pause:
                raise StopAsyncIteration
            await self._maps.newer_than(self._tried.topology.version, pause)
            self._pause_seconds = min(pause * 2, LAST_RETRY_SECONDS)
        self._tried = self._maps.current
        return self._tried


async def at_owner(maps: Maps, slot: int, ask: Callable[[Shard], Awaitable[T]], deadline_seconds: float) -> T:
    """What the shard that owns the slot answers.

    Raises the errors of :mod:`shard_node.errors` when it does not answer by the deadline.
    """
    answers = await spread(maps, {0: slot}, lambda shard, _: _alone(ask(shard)), deadline_seconds)
    answer = answers[0]
    if isinstance(answer, ShardNodeError):
        raise answer
    return answer


async def spread(
    maps: Maps,
    slots: Mapping[int, int],
    work: Callable[[Shard, list[int]], Awaitable[Sequence[T]]],
    deadline_seconds: float,
) -> dict[int, T | ShardNodeError]:
    """Does ``work`` once for each shard's positions; the answer to each position, or why there is none.

    ``slots`` gives the slot of each position. ``work`` answers for the positions it was given, in order.
    """
    results: dict[int, T | ShardNodeError] = {}
    positions = list(slots)
    if not positions:
        return results
    async for cluster in Tries(maps, deadline_seconds):
        groups: dict[int, list[int]] = {}
        for position in positions:
            groups.setdefault(cluster.owner[slots[position]], []).append(position)
        answers = await asyncio.gather(
            *(work(cluster.shards[shard], group) for shard, group in groups.items()), return_exceptions=True
        )
        positions = []
        for group, answer in zip(groups.values(), answers, strict=True):
            if isinstance(answer, ShardNodeError):
                results |= dict.fromkeys(group, answer)
                if isinstance(answer, StaleEpochError):
                    positions += group
            elif isinstance(answer, BaseException):
                raise answer
            else:
                results |= dict(zip(group, answer, strict=True))
        if not positions:
            break
    return results


async def _alone(answer: Awaitable[T]) -> tuple[T]:
    return (await answer,)
