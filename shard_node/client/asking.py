"""Asks shards, and says why when one gave no answer: the calls of the commit protocol, and a router's.

Invariant: a failure is never taken for an answer. A call that may have been carried out is LOST.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, overload

import structlog

from shard_node.contract import Call, JournalCall, JournalReply, Reply
from shard_node.errors import ShardFullError, ShardNodeError, ShardUnavailableError, StaleEpochError

if TYPE_CHECKING:
    from shard_node.client.directory import Cluster
    from shard_node.client.shard import Shard

log = structlog.get_logger(__name__)


class NoReply(Enum):
    """Why a shard gave no answer to a call."""

    # Whether it was carried out is not known: a time-out, a broken connection.
    LOST = "lost"
    # Not carried out: the shard has another epoch.
    STALE = "stale"
    # Not carried out: the shard's memory is full.
    FULL = "full"


Answer = Reply | NoReply
JournalAnswer = JournalReply | NoReply


@overload
async def ask(shard: Shard, call: Call) -> Answer: ...
@overload
async def ask(shard: Shard, call: JournalCall) -> JournalAnswer: ...
async def ask(shard: Shard, call: Call | JournalCall) -> Answer | JournalAnswer:
    """One call; a failure becomes the reason why there is no reply."""
    try:
        return await shard.call(call)
    except StaleEpochError:
        return NoReply.STALE
    except ShardFullError as error:
        log.error("shard is full", shard=shard.shard_id, call=call.FUNCTION, error=str(error))
        return NoReply.FULL
    except ShardUnavailableError as error:
        log.warning("no answer", shard=shard.shard_id, call=call.FUNCTION, error=str(error))
    except ShardNodeError as error:
        log.error("call failed", shard=shard.shard_id, call=call.FUNCTION, error=str(error))
    return NoReply.LOST


@overload
async def ask_all(cluster: Cluster, calls: Mapping[int, Call]) -> dict[int, Answer]: ...
@overload
async def ask_all(cluster: Cluster, calls: Mapping[int, JournalCall]) -> dict[int, JournalAnswer]: ...
async def ask_all(cluster: Cluster, calls: Mapping[int, Any]) -> dict[int, Any]:
    """All calls at once; the answers by the same shard index."""
    if len(calls) == 1:
        ((index, call),) = calls.items()
        return {index: await ask(cluster.shards[index], call)}
    answers = await asyncio.gather(*(ask(cluster.shards[index], call) for index, call in calls.items()))
    return dict(zip(calls, answers, strict=True))
