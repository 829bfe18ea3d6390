"""A silent Redis is tried by one call at a time; the others fail at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shard_node.client import Shard
from shard_node.client.line import MAX_CONNECTIONS, SILENCE_SECONDS, Line
from shard_node.errors import ShardDefectError, ShardUnavailableError

if TYPE_CHECKING:
    from shard_node.client import ShardRedis


class Bench:
    """A shard over a Redis whose calls end when the test says so, and a clock that it turns."""

    def __init__(self) -> None:
        self.now = 0.0
        self.line = Line(lambda: self.now)
        self.shard = Shard("shard-0", "test/shard-0/1", cast("ShardRedis", self), self.line)
        self.calls: list[asyncio.Future[int]] = []

    @property
    def link(self) -> Bench:
        """What calls go over."""
        return self

    async def call(self, *_: object) -> int:
        """Redis's part."""
        self.calls.append(asyncio.get_running_loop().create_future())
        return await self.calls[-1]

    async def begin(self) -> asyncio.Task[None]:
        """A call that is made once, as far as it gets."""
        task = asyncio.ensure_future(self.shard.rename("copy", 2))
        await turns()
        return task

    async def end(self, result: int | Exception) -> None:
        """Ends the newest call that Redis was given."""
        if isinstance(result, Exception):
            self.calls[-1].set_exception(result)
        else:
            self.calls[-1].set_result(result)
        await turns()

    async def fall_silent(self) -> None:
        """One call times out."""
        call = await self.begin()
        await self.end(RedisTimeoutError("Timeout reading"))
        with pytest.raises(ShardUnavailableError):
            await call


async def turns() -> None:
    """Lets the loop do all that is ready."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def bench() -> Bench:
    """A line on which everything is well."""
    return Bench()


async def fails_at_once(bench: Bench) -> bool:
    """Whether a call fails without having reached Redis."""
    reached = len(bench.calls)
    call = await bench.begin()
    return call.done() and isinstance(call.exception(), ShardUnavailableError) and len(bench.calls) == reached


async def test_after_a_time_out_calls_fail_at_once(bench: Bench) -> None:
    """Nobody waits for a silent Redis until its moment is over."""
    await bench.fall_silent()
    bench.now += SILENCE_SECONDS - 0.01
    assert await fails_at_once(bench)


async def test_one_call_probes_and_its_answer_opens_the_line(bench: Bench) -> None:
    """After the moment one call goes through while others still fail; its answer ends the silence."""
    await bench.fall_silent()
    bench.now += SILENCE_SECONDS
    probe = await bench.begin()
    assert not probe.done()
    assert await fails_at_once(bench)
    await bench.end(7)
    await probe
    calls = [await bench.begin() for _ in range(2)]
    assert not any(call.done() for call in calls)
    assert len(bench.calls) == 4


async def test_a_probe_without_an_answer(bench: Bench) -> None:
    """The silence goes on for another moment, and then the next call probes."""
    await bench.fall_silent()
    bench.now += SILENCE_SECONDS
    await bench.fall_silent()
    assert await fails_at_once(bench)
    bench.now += SILENCE_SECONDS
    assert not (await bench.begin()).done()


async def test_a_cancelled_probe_makes_place_for_another(bench: Bench) -> None:
    """A probe that is cancelled does not leave the line closed for ever."""
    await bench.fall_silent()
    bench.now += SILENCE_SECONDS
    (await bench.begin()).cancel()
    await turns()
    assert not (await bench.begin()).done()


async def test_a_time_out_during_a_probe_makes_no_second_one(bench: Bench) -> None:
    """A call begun before the silence may time out late; still only one call probes."""
    late = await bench.begin()
    await bench.fall_silent()
    bench.now += SILENCE_SECONDS
    await bench.begin()
    bench.calls[0].set_exception(RedisTimeoutError("Timeout reading"))
    with pytest.raises(ShardUnavailableError):
        await late
    bench.now += SILENCE_SECONDS
    assert await fails_at_once(bench)


async def test_who_waits_for_room_is_told_too(bench: Bench) -> None:
    """Calls that queued behind silent ones fail as soon as the silence is known, not one by one."""
    calls = [await bench.begin() for _ in range(MAX_CONNECTIONS + 3)]
    assert len(bench.calls) == MAX_CONNECTIONS
    await bench.end(RedisTimeoutError("Timeout reading"))
    assert len(bench.calls) == MAX_CONNECTIONS
    assert [call.done() for call in calls[MAX_CONNECTIONS:]] == [True] * 3
    for call in calls[MAX_CONNECTIONS - 1 :]:
        with pytest.raises(ShardUnavailableError):
            await call


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RedisConnectionError("refused"), ShardUnavailableError),
        (ResponseError("an error of no known kind"), ShardDefectError),
    ],
)
async def test_an_error_that_comes_at_once_is_no_silence(bench: Bench, error: Exception, raised: Any) -> None:
    """A refused connection or an error reply costs nobody time, so nobody is held back."""
    await bench.fall_silent()
    bench.now += SILENCE_SECONDS
    probe = await bench.begin()
    await bench.end(error)
    with pytest.raises(raised):
        await probe
    assert not (await bench.begin()).done()
    assert not bench.line.silent
