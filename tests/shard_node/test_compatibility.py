"""A shard is not started where server, engine and data do not fit together, and one sentence says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from shard_node.agent import redis_process
from shard_node.agent.binding import bind, claim
from shard_node.agent.compatibility import require_parts, why_ended
from shard_node.agent.redis_process import RedisProcess
from shard_node.client.shard import Shard
from shard_node.cluster.topology import Topology
from shard_node.contract.accounts import AccountTerms
from shard_node.engine import engine_path
from shard_node.errors import IncompatibleError, ShardNodeError, ShardUnavailableError
from tests.shard_node.redis_on import plain_server, process_on, running

if TYPE_CHECKING:
    from shard_node.client.connection import ShardRedis

pytestmark = pytest.mark.servers

WINDOW_MS = 3_600_000
TOPOLOGY = Topology.initial("test", ["shard-0"])


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
        await claim(redis, TOPOLOGY, "shard-0")
        await bind(redis, TOPOLOGY, "shard-0", WINDOW_MS)
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


async def rewritten(redis: ShardRedis) -> None:
    """Rewrites the append-only file."""
    await redis.bgrewriteaof()
    while True:
        info = await redis.info("persistence")
        if not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]:
            assert info["aof_last_bgrewrite_status"] == "ok"
            return


def an_old_function(redis: Redis) -> None:
    """What releases before the engine loaded."""
    redis.function_load("#!lua name=tallystick\nredis.register_function('setup', function() end)")


async def test_data_from_before_the_engine_is_refused_and_stays(tmp_path: Path) -> None:
    """Neither read wrongly nor overwritten: the release that wrote it goes on with it."""
    with plain_server(tmp_path) as (_, redis):
        an_old_function(redis)
        redis.hset("meta", "shard", "test/shard-0")
        running_on = process_on(tmp_path)
        assert "holds data of an older release" in str(await refusal(running_on))
        assert running_on.adopted
        assert redis.ping()
    error = await refusal(process_on(tmp_path))
    assert isinstance(error, IncompatibleError)
    assert f"{tmp_path} holds data of an older release" in str(error)
    with plain_server(tmp_path) as (_, redis):
        assert redis.hget("meta", "shard") == b"test/shard-0"


@pytest.mark.parametrize("what", ["functions", "meta", "accounts"])
async def test_a_part_of_the_older_data_is_enough(tmp_path: Path, what: str) -> None:
    """A shard of an older release that never served, or whose functions were lost."""
    with plain_server(tmp_path) as (_, redis):
        if what == "functions":
            an_old_function(redis)
        else:
            redis.hset(what, "any", "thing")
    assert "holds data of an older release" in str(await refusal(process_on(tmp_path)))


async def test_running_redis_without_the_engine_is_not_adopted(tmp_path: Path) -> None:
    """It is not ours to end; the sentence says how to."""
    with plain_server(tmp_path) as (pid, redis):
        error = await refusal(process_on(tmp_path))
        assert f"process {pid}, runs without the shard engine: end it (kill {pid})" in str(error)
        assert redis.ping()


def test_unknown_end_is_told_by_the_last_lines(tmp_path: Path) -> None:
    """And it may be tried again: a port may be taken, a disk full. What the engine says comes first."""
    log = "\n".join(f"line {number}" for number in range(9))
    error = why_ended(log, tmp_path)
    assert isinstance(error, ShardUnavailableError)
    assert str(error) == "redis ended while starting: line 4 | line 5 | line 6 | line 7 | line 8"
    error = why_ended(f"{log}\n1:M # <tallystick> the shard cannot be loaded: no memory\n{log}", tmp_path)
    assert str(error).endswith(": the shard cannot be loaded: no memory")
