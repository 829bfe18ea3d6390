"""Whoever has another map is refused, and then nothing is written; what may be acted on is always written."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from shard_node.contract import (
    Abandon,
    Command,
    Decide,
    Decided,
    Finish,
    Outcome,
    Post,
    Prepare,
    Prepared,
    Settle,
    bundle_of,
)
from tests.engine.busy import ALICE, BOB, OTHER, attempt_id, transfer, uuid7
from tests.engine.conftest import NOW_MS
from tests.engine.shard import EngineShard

COMMITTED = bytes((Outcome.COMMITTED,))
INCOMING, OUTGOING, NEVER = (attempt_id(NOW_MS, number) for number in (1, 2, 3))
# In an order in which each does something.
CALLS: list[Command] = [
    Post(bundle_of([transfer(uuid7(NOW_MS, 1), ALICE, BOB, 5)])),
    Prepare(
        [Prepared(INCOMING, OTHER, 1, bundle_of([transfer(uuid7(NOW_MS, 2), "dora", BOB, 5, payee_owner=1)]))]
    ),
    Finish([INCOMING], [COMMITTED]),
    Decide(
        [
            Decided(
                OUTGOING,
                [OTHER],
                b"",
                b"",
                bundle_of([transfer(uuid7(NOW_MS, 3), ALICE, "dora", 5, payee_owner=1)]),
            )
        ]
    ),
    Settle([(OUTGOING, 1)]),
    Abandon([NEVER]),
]


def log_bytes(shard: EngineShard) -> int:
    """How long the append-only file is."""
    size: int = shard.server.redis.info("persistence")["aof_current_size"]
    return size


@pytest.mark.parametrize(
    "fence", ["test/shard-0/0", "test/shard-0/2", "test/shard-1/1", "other/shard-0/1", "test/shard-0/1 ", ""]
)
def test_another_fence_is_refused(shard: EngineShard, fence: str) -> None:
    """An older or newer epoch, another shard, another cluster: by each command of the protocol alike."""
    before = log_bytes(shard)
    for command in CALLS:
        with pytest.raises(ResponseError, match="STALE_EPOCH the shard is at test/shard-0/1"):
            shard.raw(command.COMMAND, fence, *command.arguments())
    assert log_bytes(shard) == before


def test_each_protocol_call_writes(shard: EngineShard) -> None:
    """R8: also one that changes nothing writes something, so that waiting for replicas covers its answer."""
    shard.open_plain(ALICE, BOB)
    for command in [*CALLS, *CALLS]:
        before = log_bytes(shard)
        shard.call(command)
        assert log_bytes(shard) > before, command
