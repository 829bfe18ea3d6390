"""What a shard holds comes back: from the log, from a snapshot, on a replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shard_node.cluster.slots import SLOT_COUNT
from shard_node.contract import Abandon, Finish, Outcome
from tests.engine.busy import ALICE, BOB, CARLA, HOUR_MS, LONG, WORLD, attempt_id, fill
from tests.engine.conftest import NOW_MS, StartServer
from tests.engine.server import EngineServer
from tests.engine.shard import EngineShard

NAMES = (ALICE, BOB, CARLA, LONG, WORLD)


def busy(server: EngineServer) -> EngineShard:
    """A shard with some of everything on a fresh server with a manual clock."""
    shard = EngineShard(server)
    server.set_clock(NOW_MS)
    shard.bind()
    fill(shard, NOW_MS)
    return shard


def seen(shard: EngineShard) -> dict[str, Any]:
    """All that can be read of a shard, but for what depends on the process."""
    info = shard.info()
    # Memory depends on how tables grew; the clock is the process's.
    for name in ("memory_bytes", "now_ms", "oldest_in_doubt_ms"):
        del info[name]
    return {
        "digest": shard.digest(),
        "digest of Redis": shard.raw("DEBUG", "DIGEST-VALUE", "tallystick", "ledger"),
        "info": info,
        "accounts": shard.accounts(*NAMES),
        "in doubt": shard.fenced("in_doubt", 0, 100),
        "names": shard.names([*range(SLOT_COUNT), 65535]),
        "frames": shard.frames(),
    }


def test_digest_and_answers_are_the_same_after_a_kill_and_replay(start_server: StartServer) -> None:
    """A shard that was killed comes back from its log as it was, byte for byte."""
    server = start_server(manual_clock=True)
    shard = busy(server)
    before = seen(shard)
    server.restart(killed=True)
    assert seen(shard) == before


def test_digest_and_answers_are_the_same_after_reloading_a_snapshot(start_server: StartServer) -> None:
    """A shard that was saved and loaded is as it was; so is one that was loaded twice."""
    server = start_server(manual_clock=True)
    shard = busy(server)
    before = seen(shard)
    server.redis.execute_command("DEBUG", "RELOAD")
    assert seen(shard) == before
    server.redis.execute_command("DEBUG", "RELOAD")
    assert seen(shard) == before


def test_digest_and_answers_are_the_same_after_a_rewrite(start_server: StartServer) -> None:
    """A log that was rewritten, and went on after that, brings the shard back."""
    server = start_server(manual_clock=True)
    shard = busy(server)
    server.rewrite()
    shard.open_plain("after-the-rewrite")
    before = seen(shard)
    server.restart(killed=True)
    assert seen(shard) == before


def test_replica_holds_the_same(start_server: StartServer) -> None:
    """A replica that joined half way, and then followed the log, holds what its primary holds."""
    primary, replica = start_server(manual_clock=True), start_server(manual_clock=True)
    shard = busy(primary)
    replica.follow(primary)
    copy = EngineShard(replica)
    go_on(shard)
    primary.confirmed()
    assert seen(copy) == seen(shard)
    replica.restart(killed=True)
    replica.follow(primary)
    assert seen(copy) == seen(shard)


def test_replica_that_lost_its_primary_recovers_from_its_own_log(start_server: StartServer) -> None:
    """What a replica applied is in its own log too."""
    primary, replica = start_server(manual_clock=True), start_server(manual_clock=True)
    shard = busy(primary)
    replica.follow(primary)
    replica.rewritten()
    go_on(shard)
    primary.confirmed()
    before = seen(shard)
    replica.redis.replicaof("NO", "ONE")
    primary.stop()
    replica.restart(killed=True)
    assert seen(EngineShard(replica)) == before


def go_on(shard: EngineShard) -> None:
    """Ends what was in doubt: pins, reservations and side tables are used after they were brought back."""
    prepared, incoming = attempt_id(NOW_MS, 5), attempt_id(NOW_MS, 6)
    codes = bytes((Outcome.COMMITTED, Outcome.COMMITTED, Outcome.ACCOUNT_NOT_FOUND))
    answer = shard.call(Finish([prepared, incoming], [codes, bytes((Outcome.COMMITTED,))]))
    assert answer.codes == [
        bytes((Outcome.FINISHED, Outcome.FINISHED, Outcome.DROPPED)),
        bytes((Outcome.FINISHED,)),
    ]
    assert shard.call(Abandon([attempt_id(NOW_MS, 4)])).unfinished == [{2: "test/shard-2"}]
    # The outcomes of what is not settled are carried over each time.
    assert shard.fenced("rotate", 0, 0) == 2
    assert shard.fenced("rotate", 0, 0) == 2
    assert shard.fenced("expire", 100) == 2


@pytest.mark.parametrize(
    "bring_back",
    [
        pytest.param(lambda server: server.restart(killed=True), id="log"),
        pytest.param(lambda server: server.redis.execute_command("DEBUG", "RELOAD"), id="snapshot"),
    ],
)
def test_shard_goes_on_as_if_nothing_had_been(
    start_server: StartServer, bring_back: Callable[[EngineServer], None]
) -> None:
    """What is done after a shard came back gives the same as on one that never went away."""
    one, other = start_server(manual_clock=True), start_server(manual_clock=True)
    shards = [busy(one), busy(other)]
    bring_back(one)
    one.set_clock(NOW_MS + HOUR_MS)
    for shard in shards:
        go_on(shard)
    assert seen(shards[0]) == seen(shards[1])


def test_rewrite_without_a_snapshot_fails_and_keeps_the_old_log(start_server: StartServer) -> None:
    """With `aof-use-rdb-preamble no` set later, a rewrite fails loudly and nothing is lost."""
    server = start_server(manual_clock=True)
    shard = busy(server)
    before = seen(shard)
    server.redis.config_set("aof-use-rdb-preamble", "no")
    with pytest.raises(RuntimeError, match="aof-use-rdb-preamble must be yes"):
        server.rewrite()
    server.restart(killed=True)
    assert seen(shard) == before
