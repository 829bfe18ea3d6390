"""What a server does around the engine: transactions, scripts, databases, keys that go, logs that end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from shard_node.cluster.slots import slot
from shard_node.contract import Kind, Outcome, Post, Transaction, bundle_of
from tests.engine.busy import ALICE, BOB, WORLD, fill, posted, transfer, uuid7
from tests.engine.conftest import NOW_MS, StartServer
from tests.engine.server import EngineServer
from tests.engine.shard import EngineShard

COMMITTED = bytes((Outcome.COMMITTED,))


def deposit(number: int, amount: int = 1_000) -> Transaction:
    """Money for Alice."""
    made = transfer(uuid7(NOW_MS, number), WORLD, ALICE, amount, kind=Kind.DEPOSIT)
    return replace(made, deciding_slot=slot(ALICE))


def post(*transactions: Transaction) -> tuple[str, int, bytes]:
    """A post's name and arguments behind the fence."""
    return Post.COMMAND, 0, bundle_of(transactions)


def agrees_with_its_log(shard: EngineShard) -> None:
    """Killed and brought back from its log, the shard is what it was."""
    before = shard.digest()
    shard.server.restart(killed=True)
    assert shard.digest() == before


@pytest.fixture
def alone(start_server: StartServer) -> EngineShard:
    """A shard with two accounts on a server of its own."""
    shard = EngineShard(start_server(manual_clock=True))
    shard.server.set_clock(NOW_MS)
    shard.bind()
    shard.open_plain(ALICE, BOB)
    return shard


def test_commands_of_one_transaction_of_the_server_are_logged_together(alone: EngineShard) -> None:
    """MULTI and EXEC, other keys among them: all of it is done once, and comes back; DISCARD does nothing."""
    redis = alone.server.redis
    with redis.pipeline(transaction=True) as pipe:
        name, *arguments = post(deposit(1))
        pipe.execute_command(name, alone.fence, *arguments)
        pipe.set("other", 1)
        name, *arguments = post(transfer(uuid7(NOW_MS, 2), ALICE, BOB, 400), deposit(1))
        pipe.execute_command(name, alone.fence, *arguments)
        # Refused, which leaves the others as they are.
        pipe.execute_command(name, "test/shard-0/7", *arguments)
        answers = pipe.execute(raise_on_error=False)
    assert [answers[0][0], answers[1], answers[2][0]] == [COMMITTED, True, COMMITTED]
    assert "STALE_EPOCH" in str(answers[3])
    assert (alone.account(ALICE).available_minor, alone.account(BOB).available_minor) == (600, 400)
    agrees_with_its_log(alone)
    assert redis.get("other") == b"1"


def test_state_that_goes_within_a_transaction_of_the_server_is_gone(alone: EngineShard) -> None:
    """Each command finds the state anew: after a DEL there is none, after a bind an empty one."""
    name, *arguments = post(deposit(1))
    with alone.server.redis.pipeline(transaction=True) as pipe:
        pipe.execute_command(name, alone.fence, *arguments)
        pipe.delete("tallystick")
        pipe.execute_command(name, alone.fence, *arguments)
        pipe.execute_command("tallystick.bind", alone.name, 3, 10, 10)
        pipe.execute_command("tallystick.accounts", "test/shard-0/3", b"\1\0\5alice")
        answers = pipe.execute(raise_on_error=False)
    assert answers[0][0] == COMMITTED
    assert "STALE_EPOCH the shard is at no epoch" in str(answers[2])
    assert answers[4][60] == 255 or answers[4][58] == 255
    agrees_with_its_log(alone)


def test_scripts_may_call_the_engine_and_fail_after_that(alone: EngineShard) -> None:
    """What a script had done before it failed was done, logged and comes back."""
    script = (
        "local done = redis.call('tallystick.post', KEYS[1], '0', ARGV[1])\n"
        "redis.call('tallystick.mark', KEYS[1])\n"
        "if ARGV[2] == 'fail' then error('no more') end\n"
        "return done[1]"
    )
    redis = alone.server.redis
    bundles = [bundle_of([deposit(number)]) for number in (1, 2)]
    assert redis.eval(script, 1, alone.fence, bundles[0], "go") == COMMITTED
    with pytest.raises(ResponseError, match="no more"):
        redis.eval(script, 1, alone.fence, bundles[1], "fail")
    assert alone.account(ALICE).available_minor == 2_000
    with pytest.raises(ResponseError, match="STALE_EPOCH"):
        redis.eval(script, 1, "test/shard-0/9", bundles[0], "go")
    with pytest.raises(ResponseError, match="Write commands are not allowed"):
        redis.execute_command("EVAL_RO", script, 1, alone.fence, bundles[0], "go")
    agrees_with_its_log(alone)
    assert alone.account(ALICE).available_minor == 2_000


def test_entries_of_the_log_are_refused_to_clients_scripts_and_clients_of_replicas(
    start_server: StartServer, alone: EngineShard
) -> None:
    """Nobody applies what nobody decided."""
    decisions = b"\1\1\1\0" + bytes(8)
    said = ("tallystick.post", NOW_MS * 1000, "-", decisions, 0, bundle_of([deposit(1)]))
    entry = ("tallystick.apply", 1, *said)
    replica = start_server(manual_clock=True)
    replica.redis.config_set("replica-read-only", "no")
    replica.follow(alone.server)
    for redis in (alone.server.redis, replica.redis):
        before = redis.execute_command("tallystick.digest")
        with pytest.raises(ResponseError, match="only for the log"):
            redis.execute_command(*entry)
        with pytest.raises(ResponseError, match="only for the log"):
            redis.eval("return redis.call(unpack(ARGV))", 0, *entry)
        with redis.pipeline(transaction=True) as pipe:
            pipe.execute_command(*entry)
            assert "only for the log" in str(pipe.execute(raise_on_error=False)[0])
        assert redis.execute_command("tallystick.digest") == before


def _unlink(redis: Redis) -> None:
    redis.unlink("tallystick")


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda redis: redis.flushall(asynchronous=True), id="flushed by another thread"),
        pytest.param(lambda redis: redis.flushall(), id="flushed"),
        pytest.param(_unlink, id="unlinked"),
        pytest.param(lambda redis: redis.execute_command("PEXPIRE", "tallystick", 1), id="expired"),
        pytest.param(lambda redis: redis.set("tallystick", "a string"), id="overwritten"),
        pytest.param(lambda redis: redis.rename("ledger", "tallystick"), id="another type"),
    ],
)
def test_shard_whose_key_goes_is_freed_and_can_begin_anew(
    shard: EngineShard, end: Callable[[Redis], object]
) -> None:
    """Attempts, commits and holds with their texts are given back; nothing of them is used again."""
    redis = shard.server.redis
    for _ in range(3):
        fill(shard, NOW_MS)
        end(redis)
        # What has a time is there until it is over.
        while redis.pttl("tallystick") >= 0:
            pass
        with pytest.raises(ResponseError, match=r"STALE_EPOCH|WRONGTYPE"):
            shard.fenced("mark")
        redis.delete("tallystick", "ledger")
        shard.server.set_clock(NOW_MS)
        shard.bind()
        assert shard.info()["accounts"] == 0
    assert "crashed by signal" not in shard.server.log


def test_databases_of_a_server_hold_shards_of_their_own(alone: EngineShard) -> None:
    """Another database has no shard, or another; SWAPDB swaps both, and all of it comes back."""
    server = alone.server
    second = Redis("127.0.0.1", server.port, db=5)
    with pytest.raises(ResponseError, match="STALE_EPOCH the shard is at no epoch"):
        second.execute_command("tallystick.mark", alone.fence)
    second.execute_command("tallystick.bind", "test/shard-9", 4, 10, 1000)
    second.execute_command("tallystick.mark", "test/shard-9/4")
    assert posted(alone, deposit(1)) == [Outcome.COMMITTED]
    digests = [one.execute_command("tallystick.digest") for one in (server.redis, second)]
    server.redis.execute_command("SWAPDB", 0, 5)
    assert [one.execute_command("tallystick.digest") for one in (second, server.redis)] == digests
    second.execute_command("tallystick.post", alone.fence, 0, bundle_of([deposit(2)]))
    digests = [one.execute_command("tallystick.digest") for one in (server.redis, second)]
    second.close()
    server.restart(killed=True)
    second = Redis("127.0.0.1", server.port, db=5)
    assert [one.execute_command("tallystick.digest") for one in (server.redis, second)] == digests
    second.close()


def test_log_that_ends_anywhere_brings_back_what_it_has(alone: EngineShard) -> None:
    """Cut at any byte, the log gives the state after one of the commands, never half of one."""
    server = alone.server
    digests = {alone.digest()}
    for number in range(6):
        with server.redis.pipeline(transaction=number % 2 == 1) as pipe:
            name, *arguments = post(deposit(2 * number))
            pipe.execute_command(name, alone.fence, *arguments)
            if number % 2:
                name, *arguments = post(transfer(uuid7(NOW_MS, 2 * number + 1), ALICE, BOB, 3))
                pipe.execute_command(name, alone.fence, *arguments)
            pipe.execute()
        digests.add(alone.digest())
    [log] = (server.folder / "appendonlydir").glob("*.incr.aof")
    server.kill()
    whole = log.read_bytes()
    seen = set()
    first = whole.index(b"alice")
    for size in range(len(whole), first + 60, -max(1, len(whole) // 60)):
        log.write_bytes(whole[:size])
        seen.add(_brought_back(server))
    # Also before the accounts were opened, and before the shard was bound.
    assert len(seen & digests) >= 6
    assert seen <= digests | {_after(server, log, whole, first)}


def _after(server: EngineServer, log: Path, whole: bytes, size: int) -> int | None:
    log.write_bytes(whole[:size])
    return _brought_back(server)


def _brought_back(server: EngineServer) -> int | None:
    """The digest of what the server has after its start; None for no shard."""
    server.start()
    try:
        digest: int = server.redis.execute_command("tallystick.digest")
    except ResponseError:
        return None
    else:
        return digest
    finally:
        server.kill()


def test_replica_that_loads_and_clients_that_are_paused_harm_nothing(
    start_server: StartServer, alone: EngineShard
) -> None:
    """CLIENT PAUSE, a failover by the server's own command, and a pipeline of thousands: all agree."""
    replica = start_server(manual_clock=True)
    replica.follow(alone.server)
    redis = alone.server.redis
    redis.client_pause(50, all=False)
    assert posted(alone, deposit(1, 10**9)) == [Outcome.COMMITTED]
    with redis.pipeline(transaction=False) as pipe:
        for number in range(3_000):
            name, *arguments = post(transfer(uuid7(NOW_MS, 10 + number // 2), ALICE, BOB, 1 + number % 2))
            pipe.execute_command(name, alone.fence, *arguments)
        codes = [one[0] for one in pipe.execute()]
    reused = bytes((Outcome.TRANSACTION_ID_REUSED,))
    assert codes == [COMMITTED, reused] * 1_500
    replica.caught_up(alone.server)
    assert EngineShard(replica).digest() == alone.digest()


HARMLESS = (
    "DEBUG DIGEST",
    "DEBUG DIGEST-VALUE tallystick",
    "DEBUG OBJECT tallystick",
    "DEBUG LOADAOF",
    "DEBUG RELOAD",
    "DEBUG CHANGE-REPL-ID",
    "MEMORY USAGE tallystick",
    "MEMORY PURGE",
    "OBJECT ENCODING tallystick",
    "OBJECT FREQ tallystick",
    "COPY tallystick copy",
    "CONFIG SET activedefrag yes",
    "CONFIG SET maxmemory 1",
    "MODULE UNLOAD tallystick",
    "MODULE LIST",
    "COMMAND GETKEYS tallystick.mark x",
    "SCRIPT FLUSH",
    "FUNCTION FLUSH",
    "XTRIM ledger MAXLEN 0",
    "XADD ledger * a b",
)


def test_servers_own_commands_change_nothing_of_a_shard(alone: EngineShard) -> None:
    """Whatever an operator asks of the server: the shard is what it was, and goes on."""
    fill(alone, NOW_MS)
    before = alone.digest()
    for command in HARMLESS:
        with suppress(ResponseError):
            alone.raw(*command.split())
        assert alone.digest() == before, command
    # While memory is above its limit nothing new is begun, and what is in flight lands.
    with pytest.raises(ResponseError, match="maxmemory"):
        posted(alone, deposit(900))
    alone.fenced("mark")
    alone.raw("CONFIG", "SET", "maxmemory", 0)
    assert posted(alone, deposit(900)) == [Outcome.COMMITTED]
    agrees_with_its_log(alone)


@pytest.mark.parametrize("command", ["MOVE tallystick 1", "MOVE ledger 1", "RENAMENX ledger frames"])
def test_keys_that_were_moved_are_missed_and_never_crash(alone: EngineShard, command: str) -> None:
    """The engine begins a ledger anew; without its state it holds no shard. The log agrees."""
    fill(alone, NOW_MS)
    redis = alone.server.redis
    redis.execute_command(*command.split())
    if "ledger" in command:
        assert posted(alone, deposit(900)) == [Outcome.COMMITTED]
    else:
        with pytest.raises(ResponseError, match="STALE_EPOCH"):
            posted(alone, deposit(900))
    before = redis.execute_command("DEBUG", "DIGEST")
    alone.server.restart(killed=True)
    assert redis.execute_command("DEBUG", "DIGEST") == before
