"""What agents ask of shards, and do to their own, to keep them in order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shard_node.agent.rotation import Peer
from shard_node.agent.upkeep import ask_peer, end_due_holds
from shard_node.client import Shard, connect
from shard_node.cluster.slots import slot
from shard_node.cluster.topology import Topology
from shard_node.contract import (
    Decide,
    Decided,
    Finish,
    Kind,
    Outcome,
    Post,
    Prepare,
    Prepared,
    Settle,
    bundle_of,
)
from tests.engine.busy import ALICE, BOB, WORLD, attempt_id, hold, transfer, uuid7
from tests.engine.conftest import NOW_MS
from tests.engine.server import HOST
from tests.engine.shard import EngineShard


@pytest.fixture
def topology(shard: EngineShard) -> Topology:
    """One that has the server as the primary of shard-0, at its epoch."""
    initial = Topology.initial("test", ["shard-0"])
    return initial.changed([replace(initial.shards[0], primary=f"{HOST}:{shard.server.port}")])


async def test_shards_tell_whether_they_have_been_in_doubt_for_long(
    shard: EngineShard, topology: Topology
) -> None:
    """What is prepared counts as what is committed does; what is young, finished or settled does not."""
    (info,) = topology.shards
    shard.open_plain(ALICE, BOB)
    deposit = replace(
        transfer(uuid7(NOW_MS, 1), WORLD, ALICE, 100, kind=Kind.DEPOSIT), deciding_slot=slot(ALICE)
    )
    shard.call(Post(bundle_of([deposit])))
    incoming = bundle_of([transfer(uuid7(NOW_MS, 2), "dora", BOB, 5, payee_owner=1)])
    shard.call(Prepare([Prepared(attempt_id(NOW_MS, 2), "shard-1", 1, incoming)]))
    shard.server.set_clock(NOW_MS + 1_000)
    assert await ask_peer(topology, info, 1_000) is Peer.LAGGING
    assert await ask_peer(topology, info, 1_001) is Peer.SETTLED
    shard.call(Finish([attempt_id(NOW_MS, 2)], [bytes((Outcome.ABANDONED,))]))
    assert await ask_peer(topology, info, 0) is Peer.SETTLED
    outgoing = bundle_of([transfer(uuid7(NOW_MS, 3), ALICE, "dora", 5, payee_owner=1)])
    decided = shard.call(Decide([Decided(attempt_id(NOW_MS, 3), ["shard-1"], b"", b"", outgoing)]))
    assert decided.codes == [bytes((Outcome.COMMITTED,))]
    assert await ask_peer(topology, info, 1) is Peer.SETTLED
    shard.server.set_clock(NOW_MS + 2_000)
    assert await ask_peer(topology, info, 1_000) is Peer.LAGGING
    assert await ask_peer(topology, info, 1_001) is Peer.SETTLED
    shard.call(Settle([(attempt_id(NOW_MS, 3), 1)]))
    assert await ask_peer(topology, info, 1_000) is Peer.SETTLED


async def test_answer_of_a_peer_is_in_its_log(shard: EngineShard, topology: Topology) -> None:
    """A read alone could be taken back by a failover."""
    before = shard.server.redis.info("persistence")["aof_current_size"]
    assert await ask_peer(topology, topology.shards[0], 0) is Peer.SETTLED
    assert shard.server.redis.info("persistence")["aof_current_size"] > before


async def test_peer_that_does_not_answer_is_silent(shard: EngineShard, topology: Topology) -> None:
    """Nobody at the address, no address at all, or another shard or epoch there."""
    (info,) = topology.shards
    for address in ("127.0.0.1:1", ""):
        assert await ask_peer(topology, replace(info, primary=address), 0) is Peer.SILENT
    assert await ask_peer(topology, replace(info, epoch=2), 0) is Peer.SILENT
    assert await ask_peer(topology, replace(info, shard_id="shard-1"), 0) is Peer.SILENT
    shard.server.redis.flushall()
    assert await ask_peer(topology, info, 0) is Peer.SILENT


async def test_all_due_holds_are_ended(shard: EngineShard) -> None:
    """However many calls it takes: a call ends fewer when their texts are long."""
    shard.open_plain(ALICE)
    deposit = replace(
        transfer(uuid7(NOW_MS, 1), WORLD, ALICE, 10_000, kind=Kind.DEPOSIT), deciding_slot=slot(ALICE)
    )
    shard.call(Post(bundle_of([deposit])))
    details = b"x" * 60_000
    holds = [replace(hold(uuid7(NOW_MS, 10 + n), ALICE, 1, 1_000), details=details) for n in range(40)]
    shard.call(Post(bundle_of(holds)))
    late = hold(uuid7(NOW_MS, 9), ALICE, 1, 9_000)
    shard.call(Post(bundle_of([late])))
    shard.server.set_clock(NOW_MS + 1_000)
    async with Shard("shard-0", shard.fence, connect(f"{HOST}:{shard.server.port}")) as client:
        assert await end_due_holds(client) == len(holds)
        assert await end_due_holds(client) == 0
    assert shard.account(ALICE).held_minor == 1
