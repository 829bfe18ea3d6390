"""Asks shards for a coordinator: one command a shard at once, and none any more after too long a pause.

Invariant: a failure is never taken for an answer. A command that may have been carried out is LOST.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

import structlog

from shard_node.client import AskedShard, NoReply, ask_all
from shard_node.limits import MIN_WINDOW_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coordinator.attempts import Calls
    from shard_node.contract import Answer

# A coordinator that was stopped for longer than this between two steps, and wakes up, must not go on: what it
# knows may be forgotten by the shards, and the id in other hands. Half of the shortest window; a batch whose
# every call takes as long as it may is through in 45 s.
MAX_PAUSE_SECONDS = 0.5 * MIN_WINDOW_SECONDS

log = structlog.get_logger(__name__)


class Cluster(Protocol):
    """Shards by their index in one topology."""

    @property
    def shards(self) -> Sequence[AskedShard]:
        """The shards, in the topology's order."""

    @property
    def shard_ids(self) -> list[str]:
        """Their names."""


class Pace:
    """Asks shards step by step, and stops when a step comes too long after the first."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._shards = cluster.shards
        self._clock = clock
        self._begun = clock()

    async def ask_all(self, calls: Calls) -> dict[int, Answer | NoReply]:
        """All calls at once; the answers by the same shard index. Too late, none is made and all are LOST."""
        if calls and self._clock() - self._begun > MAX_PAUSE_SECONDS:
            log.error("stopped for too long in the middle of a batch; recovery will end it")
            return dict.fromkeys(calls, NoReply.LOST)
        return await ask_all(self._shards, calls)
