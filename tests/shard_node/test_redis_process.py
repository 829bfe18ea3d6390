"""One data folder never has two Redis servers, whatever becomes of their agents."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shard_node.agent import redis_process
from shard_node.agent.redis_process import RedisProcess, free_port
from shard_node.errors import ShardUnavailableError
from tests.shard_node import redis_on
from tests.shard_node.redis_on import client_of, process_on

pytestmark = pytest.mark.servers


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[RedisProcess]:
    """A Redis in ``tmp_path``, stopped after the test."""
    async with redis_on.running(tmp_path) as (process, _):
        yield process


async def test_a_redis_that_does_not_answer_gets_no_second_beside_it(
    running: RedisProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers on one append-only file would be the loss of acknowledged writes."""
    monkeypatch.setattr(redis_process, "FOLDER_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(redis_process, "ADOPT_TIMEOUT_SECONDS", 0.1)
    other = process_on(tmp_path)
    os.kill(running.pid, signal.SIGSTOP)
    try:
        with pytest.raises(ShardUnavailableError, match="a Redis that does not answer still uses"):
            await other.start()
    finally:
        os.kill(running.pid, signal.SIGCONT)
    assert other.pid == 0
    monkeypatch.undo()
    await other.start()
    assert (other.pid, other.address, other.adopted) == (running.pid, running.address, True)


async def test_two_agents_that_start_at_once_share_one_redis(tmp_path: Path) -> None:
    """One launches; the other waits for it and adopts it."""
    processes = [process_on(tmp_path) for _ in range(3)]
    await asyncio.gather(*(process.start() for process in processes))
    try:
        assert len({process.pid for process in processes}) == 1
        assert len({process.address for process in processes}) == 1
        assert sorted(process.adopted for process in processes) == [False, True, True]
    finally:
        await processes[0].stop()


async def test_a_redis_whose_agent_died_before_it_noted_the_process_is_adopted(
    running: RedisProcess, tmp_path: Path
) -> None:
    """The port in the settings finds it, and the note is made good."""
    (tmp_path / "redis.pid").unlink()
    other = process_on(tmp_path, free_port("127.0.0.1"))
    await other.start()
    assert (other.pid, other.address) == (running.pid, running.address)
    assert (tmp_path / "redis.pid").read_text().split()[0] == str(running.pid)


async def test_the_folder_of_a_killed_redis_is_waited_for(tmp_path: Path) -> None:
    """Its rewrite of the append-only file may go on for a moment, and holds the inherited lock."""
    with (tmp_path / "lock").open("w") as rewrite:
        fcntl.flock(rewrite, fcntl.LOCK_EX)
        process = process_on(tmp_path)
        start = asyncio.ensure_future(process.start())
        done, _ = await asyncio.wait([start], timeout=0.3)
        assert not done
        assert not (tmp_path / "redis.conf").exists()
    await start
    assert not process.adopted
    await process.stop()


async def test_the_lock_ends_with_redis_and_not_with_its_agent(running: RedisProcess, tmp_path: Path) -> None:
    """Redis alone holds it: nothing to clear away after a crash."""
    with (tmp_path / "lock").open() as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(running.pid, signal.SIGKILL)
        await running.wait()
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_a_new_redis_comes_up_where_it_is_told_to(tmp_path: Path) -> None:
    """The port of the last start is remembered, and yields to one that is asked for."""
    first = process_on(tmp_path)
    await first.start()
    await first.stop()
    again = process_on(tmp_path)
    await again.start()
    await again.stop()
    assert again.address == first.address
    port = free_port("127.0.0.1")
    told = process_on(tmp_path, port)
    await told.start()
    async with client_of(f"127.0.0.1:{port}") as client:
        assert await client.ping()
    await told.stop()
    assert told.address == f"127.0.0.1:{port}"


async def test_the_redis_of_another_folder_is_not_adopted(running: RedisProcess, tmp_path: Path) -> None:
    """A copied folder remembers the port of the original, and is not served from another one in silence."""
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "redis.conf").write_text((tmp_path / "redis.conf").read_text())
    with pytest.raises(ShardUnavailableError, match=f"port {running.address.rpartition(':')[2]} .* is held"):
        await process_on(copy).start()
    other = process_on(copy, free_port("127.0.0.1"))
    await other.start()
    await other.stop()
    assert other.pid != running.pid
    assert other.address != running.address
