"""A shard's Redis keeps what it acknowledged, and lets nobody but the engine change it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.shard_node.redis_on import process_on, running

pytestmark = pytest.mark.servers


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Any]:
    """A client of an empty Redis."""
    async with running(tmp_path / "data") as (_, client):
        yield client


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
        assert Path(str((await client.config_get("dir"))["dir"])) == data.resolve()
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
