"""Asks shards, and says why when one gave no answer.

Invariant: a failure is never taken for an answer. A call that may have been carried out is LOST.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Protocol

import structlog

from shard_node.contract import Answer, Command
from shard_node.errors import ShardFullError, ShardNodeError, ShardUnavailableError, StaleEpochError

log = structlog.get_logger(__name__)


class NoReply(Enum):
    """Why a shard gave no answer to a command."""

    # Whether it was carried out is not known: a time-out, a broken connection.
    LOST = "lost"
    # Not carried out: the shard has another epoch.
    STALE = "stale"
    # Not carried out: the shard's memory is full.
    FULL = "full"


class AskedShard(Protocol):
    """Whoever carries out commands, or raises the errors of :mod:`shard_node.errors`."""

    @property
    def shard_id(self) -> str:
        """Its name in the topology."""

    async def call(self, command: Command) -> Answer:
        """Carries out one command."""


async def ask(shard: AskedShard, command: Command) -> Answer | NoReply:
    """One command; a failure becomes the reason why there is no reply."""
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
        log.error("command failed", shard=shard.shard_id, command=command.COMMAND, error=str(error))
    return NoReply.LOST


async def ask_all(
    shards: Sequence[AskedShard], commands: Mapping[int, Command]
) -> dict[int, Answer | NoReply]:
    """All commands at once, each to the shard of its index; the answers by the same index."""
    if len(commands) == 1:
        # Of most batches: a task costs more than the rest of this.
        ((index, command),) = commands.items()
        return {index: await ask(shards[index], command)}
    answers = await asyncio.gather(*(ask(shards[index], command) for index, command in commands.items()))
    return dict(zip(commands, answers, strict=True))
