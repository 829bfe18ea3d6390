"""A shard's Redis starts with the engine, guards what it holds, and is refused where the parts do not fit."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from shard_node.agent import agent, binding, redis_process
from shard_node.agent.compatibility import require_parts, why_ended
from shard_node.agent.redis_process import RedisProcess
from shard_node.client.connection import connect, disconnect
from shard_node.client.shard import Shard
from shard_node.cluster.topology import Topology
from shard_node.contract.accounts import AccountTerms
from shard_node.engine import engine_path
from shard_node.errors import (
    IncompatibleError,
    ShardNodeError,
    ShardUnavailableError,
    StaleEpochError,
    WrongShardError,
)

pytestmark = pytest.mark.servers

WINDOW_MS = 3_600_000
TOPOLOGY = Topology.initial("test", ["shard-0"])


def process_on(data: Path, *, with_engine: bool = True) -> RedisProcess:
    """A Redis on that folder, not yet started."""
    return RedisProcess(data, "127.0.0.1", None, 0, with_engine=with_engine)


@contextlib.asynccontextmanager
async def running(data: Path, *, with_engine: bool = True) -> AsyncIterator[tuple[RedisProcess, Any]]:
    """A started Redis and a client of it; both are ended after use."""
    process = process_on(data, with_engine=with_engine)
    try:
        await process.start()
        client = connect(process.address)
        try:
            yield process, client
        finally:
            await disconnect(client)
    finally:
        await process.stop()


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Any]:
    """A client of an empty Redis with the engine."""
    async with running(tmp_path / "data") as (_, client):
        yield client


async def refusal(process: RedisProcess) -> ShardNodeError:
    """Why a Redis is not started; it must be one line, and no Redis may be left that was started for it."""
    try:
        with pytest.raises(ShardNodeError) as caught:
            await process.start()
        assert process.adopted or not redis_process._alive(process.pid)
    finally:
        if not process.adopted:
            await process.stop()
    assert "\n" not in str(caught.value)
    return caught.value


# ------------------------------------------------------------------ settings and access


async def test_acknowledged_writes_are_durable(redis: Any) -> None:
    """What section "Durability" of ARCHITECTURE.md promises is what the running Redis has."""
    expected = {
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "aof-use-rdb-preamble": "yes",
        "maxmemory-policy": "noeviction",
        "databases": "1",
        "bind": "127.0.0.1",
        "save": "",
    }
    assert {name: (await redis.config_get(name))[name] for name in expected} == expected


async def test_any_folder_can_hold_a_shard(tmp_path: Path) -> None:
    """Spaces, quotes and backslashes in its name are the name's, not the settings'."""
    data = tmp_path / 'a "b" \\c'
    async with running(data) as (process, client):
        assert Path((await client.config_get("dir"))["dir"]) == data.resolve()
        other = process_on(data)
        await other.start()
        assert (other.adopted, other.pid) == (True, process.pid)


@pytest.mark.parametrize(
    "command",
    [
        "SET tallystick x",
        "DEL tallystick",
        "UNLINK tallystick",
        "RENAME tallystick x",
        "COPY tallystick x",
        "RESTORE tallystick 0 x",
        "EXPIRE tallystick 1",
        "PEXPIREAT tallystick 1",
        "PERSIST tallystick",
        "MOVE tallystick 1",
        "SORT x STORE tallystick",
        "BITOP NOT tallystick x",
        "MIGRATE host 1 tallystick 0 1",
        "HSET meta shard x",
        "XADD ledger * a b",
        "XTRIM ledger MAXLEN 0",
        "XDEL ledger 1-1",
        "XSETID ledger 1-1",
        "XGROUP CREATE ledger g $",
        "SWAPDB 0 1",
        "FLUSHALL",
        "FLUSHDB",
        "DEBUG RELOAD",
        "MODULE UNLOAD tallystick",
        "MODULE LOAD x",
        "SCRIPT LOAD x",
        "EVAL x 0",
        "EVAL_RO x 0",
        "FCALL x 0",
        "FUNCTION LOAD x",
    ],
)
async def test_only_the_engine_changes_a_shard(redis: Any, command: str) -> None:
    """Whoever connects may not write past it, end it or replace it."""
    said = await redis.execute_command("ACL DRYRUN", "default", *command.split())
    assert b"no permissions to run" in said


@pytest.mark.parametrize(
    "command",
    [
        "CONFIG GET dir",
        "CONFIG SET maxmemory 0",
        "BGREWRITEAOF",
        "REPLICAOF NO ONE",
        "ACL SETUSER default",
        "ACL WHOAMI",
        "FUNCTION LIST",
        "MODULE LIST",
        "TYPE meta",
        "INFO",
        "PING",
        "ROLE",
        "WAIT 0 1",
        "PSYNC ? -1",
        "REPLCONF ACK 1",
        "CLIENT KILL TYPE replica",
        "SHUTDOWN",
        "XRANGE ledger - +",
        "XLEN ledger",
        "MEMORY USAGE tallystick",
    ],
)
async def test_agents_and_replicas_may_do_their_work(redis: Any, command: str) -> None:
    """Looking after the server, replication, and reading are open."""
    assert await redis.execute_command("ACL DRYRUN", "default", *command.split()) == b"OK"


async def test_every_command_of_the_engine_is_open(redis: Any) -> None:
    """All that the engine has, those included that an access list written by hand would forget."""
    names = await redis.link.call("COMMAND", "LIST", "FILTERBY", "MODULE", "tallystick")
    assert len(names) > 25
    for name, arity, *_ in await redis.link.call("COMMAND", "INFO", *names):
        arguments = ["x"] * (abs(arity) - 1)
        assert await redis.link.call("ACL", "DRYRUN", "default", name, *arguments) == b"OK", name


# ------------------------------------------------------------------ what does not fit together


def stand_in(folder: Path, version: str, otherwise: str = "exit 1") -> None:
    """A program in the place of redis-server that says a version; started, it does ``otherwise``."""
    folder.mkdir()
    program = folder / "redis-server"
    program.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{version}"; else {otherwise}; fi\n')
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("Redis server v=6.2.14 sha=0:0", "has version 6.2, which is too old for the shard engine: install"),
        ("dragonfly v1.20", "is neither Redis nor Valkey"),
    ],
)
async def test_server_that_cannot_run_the_engine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, says: str
) -> None:
    """Before anything is started, and the sentence says what to install."""
    stand_in(tmp_path / "bin", version)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    error = await refusal(process_on(tmp_path / "data"))
    assert isinstance(error, IncompatibleError)
    assert says in str(error)
    assert "Redis 7.0 or newer" in str(error)
    with pytest.raises(IncompatibleError, match=says):
        require_parts()


async def test_server_that_does_not_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of another machine, say."""
    stand_in(tmp_path / "bin", "")
    (tmp_path / "bin" / "redis-server").write_text("no program")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert "redis-server does not run" in str(await refusal(process_on(tmp_path / "data")))


async def test_server_without_modules_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not know the setting by which the engine is loaded."""
    stand_in(
        tmp_path / "bin",
        "Redis server v=7.0.0 sha=0:0",
        "printf '%s\\n' \">>> 'loadmodule \\\"x\\\"'\" 'Bad directive or wrong number of arguments'; exit 1",
    )
    monkeypatch.setenv("TALLYSTICK_ENGINE", str(engine_path()))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    error = await refusal(process_on(tmp_path / "data"))
    assert "the server cannot load modules" in str(error)


async def test_no_server_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be there in a moment: its package may be being replaced."""
    monkeypatch.setenv("PATH", str(tmp_path))
    error = await refusal(process_on(tmp_path / "data"))
    assert isinstance(error, ShardUnavailableError)
    assert "no redis-server on PATH: install Redis 7.0 or newer" in str(error)


async def test_missing_engine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started without it; the same sentence is there to ask for before any part starts."""
    monkeypatch.setenv("TALLYSTICK_ENGINE", str(tmp_path / "none.so"))
    error = await refusal(process_on(tmp_path / "data"))
    assert isinstance(error, IncompatibleError)
    assert "TALLYSTICK_ENGINE names" in str(error)
    with pytest.raises(IncompatibleError, match="TALLYSTICK_ENGINE names"):
        require_parts()
    monkeypatch.delenv("TALLYSTICK_ENGINE")
    require_parts()


async def test_engine_that_cannot_be_loaded_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of another machine, say; the server's own reason is in the sentence."""
    engine = tmp_path / "engine.so"
    engine.write_bytes(b"no library")
    monkeypatch.setenv("TALLYSTICK_ENGINE", str(engine))
    error = await refusal(process_on(tmp_path / "data"))
    assert isinstance(error, IncompatibleError)
    assert "the server cannot load the shard engine" in str(error)
    assert "execute permissions" in str(error)


def of_a_newer_snapshot(data: Path) -> None:
    """Raises the version of the engine's data in the append-only file's snapshot by one."""
    (file,) = (data / "appendonlydir").glob("*.base.rdb")
    content = bytearray(file.read_bytes())
    # Behind the key: a byte that says that eight follow, which name the type; the last bits are its version.
    kind_at = content.index(b"\x0atallystick") + 11
    content[kind_at + 8] += 1
    # No checksum.
    content[-8:] = bytes(8)
    file.write_bytes(content)


def of_a_newer_log(data: Path) -> None:
    """Renames the commands in the append-only file's log to some that this engine does not have."""
    (file,) = (data / "appendonlydir").glob("*.incr.aof")
    content = file.read_bytes()
    assert b"tallystick.open" in content
    file.write_bytes(content.replace(b"tallystick.open", b"tallystick.nope"))


@pytest.mark.parametrize("age", [of_a_newer_snapshot, of_a_newer_log])
async def test_data_of_a_newer_engine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: Callable[[Path], None]
) -> None:
    """An engine reads what older ones wrote, and never what it does not know."""
    async with running(tmp_path) as (_, redis):
        await binding.claim(redis, TOPOLOGY, "shard-0")
        await binding.bind(redis, TOPOLOGY, "shard-0", WINDOW_MS)
        await rewritten(redis)
        shard = Shard("shard-0", "test/shard-0/1", redis)
        await shard.open([AccountTerms("alice", 1, "EUR")])
    age(tmp_path)
    error = await refusal(process_on(tmp_path))
    assert isinstance(error, IncompatibleError)
    assert "was written by a newer shard engine than this one" in str(error)
    # What ended an earlier start says nothing about the next one.
    (tmp_path / "engine.so").write_bytes(b"no library")
    monkeypatch.setenv("TALLYSTICK_ENGINE", str(tmp_path / "engine.so"))
    assert "cannot load the shard engine" in str(await refusal(process_on(tmp_path)))


async def rewritten(redis: Redis) -> None:
    """Rewrites the append-only file."""
    await redis.bgrewriteaof()
    while True:
        info = await redis.info("persistence")
        if not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]:
            assert info["aof_last_bgrewrite_status"] == "ok"
            return


async def test_data_of_the_lua_library_is_refused_and_stays(tmp_path: Path) -> None:
    """Neither read wrongly nor overwritten: the release that wrote it goes on with it."""
    async with running(tmp_path, with_engine=False) as (_, redis):
        await agent.load_library(redis)
        await agent.bind(redis, TOPOLOGY, "shard-0", WINDOW_MS)
        running_on = process_on(tmp_path)
        assert "holds data of an older release" in str(await refusal(running_on))
        assert running_on.adopted
        assert await redis.ping()
    refused = process_on(tmp_path)
    error = await refusal(refused)
    assert isinstance(error, IncompatibleError)
    assert f"{tmp_path} holds data of an older release" in str(error)
    async with running(tmp_path, with_engine=False) as (process, redis):
        assert process.pid != refused.pid
        assert await redis.hget("meta", "shard") == b"test/shard-0"


@pytest.mark.parametrize("what", ["library", "meta", "accounts"])
async def test_a_part_of_the_lua_librarys_data_is_enough(tmp_path: Path, what: str) -> None:
    """A shard of an older release that never served, or whose functions were lost."""
    async with running(tmp_path, with_engine=False) as (_, redis):
        if what == "library":
            await agent.load_library(redis)
        else:
            await redis.hset(what, "any", "thing")
    assert "holds data of an older release" in str(await refusal(process_on(tmp_path)))


async def test_running_redis_without_the_engine_is_not_adopted(tmp_path: Path) -> None:
    """It is not ours to end; the sentence says how to."""
    async with running(tmp_path, with_engine=False) as (process, redis):
        error = await refusal(process_on(tmp_path))
        assert f"process {process.pid}, runs without the shard engine: end it (kill {process.pid})" in str(
            error
        )
        assert await redis.ping()


def test_unknown_end_is_told_by_the_last_lines(tmp_path: Path) -> None:
    """And it may be tried again: a port may be taken, a disk full. What the engine says comes first."""
    log = "\n".join(f"line {number}" for number in range(9))
    error = why_ended(log, tmp_path)
    assert isinstance(error, ShardUnavailableError)
    assert str(error) == "redis ended while starting: line 4 | line 5 | line 6 | line 7 | line 8"
    error = why_ended(f"{log}\n1:M # <tallystick> the shard cannot be loaded: no memory\n{log}", tmp_path)
    assert str(error).endswith(": the shard cannot be loaded: no memory")


# ------------------------------------------------------------------ binding


async def test_empty_redis_is_claimed_for_a_shard_without_a_primary(redis: Any) -> None:
    """It has then begun, and has not served; claimed again it stays so."""
    for _ in range(2):
        found = await binding.claim(redis, TOPOLOGY, "shard-0")
        assert found == binding.Holding("test/shard-0", served=False)
    # No caller can have the fence of a claim.
    with pytest.raises(StaleEpochError):
        await Shard("shard-0", "test/shard-0/1", redis).info()


async def test_empty_redis_is_not_claimed_in_anothers_place(redis: Any) -> None:
    """The shard has a primary: an empty Redis would be the loss of all its money."""
    named = TOPOLOGY.with_primary("shard-0", "127.0.0.1:1")
    found = await binding.claim(redis, named, "shard-0")
    assert found == binding.Holding(None, served=False)
    with pytest.raises(WrongShardError, match="is empty"):
        found.may_be_named(named, "shard-0", "127.0.0.1:2")


async def test_bound_redis_serves_its_epoch_and_keeps_its_shard(tmp_path: Path) -> None:
    """Also after a restart; it is neither another shard's nor at an older epoch."""
    named = TOPOLOGY.with_primary("shard-0", "127.0.0.1:1")
    async with running(tmp_path) as (_, redis):
        await binding.claim(redis, TOPOLOGY, "shard-0")
        await binding.bind(redis, named, "shard-0", WINDOW_MS, 7)
    async with running(tmp_path) as (_, redis):
        assert await binding.claim(redis, named, "shard-0") == binding.Holding("test/shard-0", served=True)
        status = await Shard("shard-0", "test/shard-0/2", redis).info()
        assert (status.epoch, status.window_ms, status.backlog_limit) == (2, WINDOW_MS, 7)
        with pytest.raises(StaleEpochError):
            await binding.bind(redis, TOPOLOGY, "shard-0", WINDOW_MS)
        with pytest.raises(WrongShardError, match="holds test/shard-0"):
            await binding.bind(redis, Topology.initial("other", ["shard-0"]), "shard-0", WINDOW_MS)
