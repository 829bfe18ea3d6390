"""Asks shards for a coordinator: one command a shard at once, and none any more after too long a pause.

Invariant: a failure is never taken for an answer. A command that may have been carried out is LOST.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

import structlog

from shard_node.client import NoReply
from shard_node.errors import ShardFullError, ShardNodeError, ShardUnavailableError, StaleEpochError
from shard_node.limits import MIN_WINDOW_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coordinator.attempts import Calls
    from shard_node.contract.commands import Answer, Command

# A coordinator that was stopped for longer than this between two steps, and wakes up, must not go on: what it
# knows may be forgotten by the shards, and the id in other hands. Half of the shortest window; a batch whose
# every call takes as long as it may is through in 45 s.
MAX_PAUSE_SECONDS = 0.5 * MIN_WINDOW_SECONDS

log = structlog.get_logger(__name__)


class Shard(Protocol):
    """Whoever carries out commands, or raises the errors of :mod:`shard_node.errors`."""

    @property
    def shard_id(self) -> str:
        """Its name in the topology."""

    async def call(self, command: Command) -> Answer:
        """Carries out one command."""


class Cluster(Protocol):
    """Shards by their index in one topology."""

    @property
    def shards(self) -> Sequence[Shard]:
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
        if len(calls) == 1:
            ((index, command),) = calls.items()
            return {index: await ask(self._shards[index], command)}
        asked = (ask(self._shards[index], command) for index, command in calls.items())
        return dict(zip(calls, await asyncio.gather(*asked), strict=True))


async def ask(shard: Shard, command: Command) -> Answer | NoReply:
    """One command; a failure becomes the reason why there is no answer."""
    try:
        return await shard.call(command)
    except StaleEpochError:
        return NoReply.STALE
    except ShardFullError as error:
        log.error("shard is full", shard=shard.shard_id, command=command.COMMAND, error=str(error))
        return NoReply.FULL
    except ShardUnavailableError as error:
        log.warning("no answer", shard=shard.shard_id, command=command.COMMAND, error=str(error))
    except ShardNodeError as error:
        log.error("call failed", shard=shard.shard_id, command=command.COMMAND, error=str(error))
    return NoReply.LOST
