"""The link gives each call its own answer, or the error that says what is not known; on both event loops."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shard_node.agent.redis_process import RedisProcess
from shard_node.client.link import Link

# For answers that must come: never waited out.
PATIENCE_SECONDS = 20.0
# For answers that must not come.
# Long enough for a machine with much else to do: what is healthy must connect and answer within it.
IMPATIENCE_SECONDS = 1.0
# A Redis answers this only when the test ends.
FOREVER = (b"XREAD", b"BLOCK", 0, b"STREAMS", b"nothing:is:ever:added:here", b"$")

# A server's side of one connection.
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a test's coroutine on either loop; nothing may fail where no call is told of it."""
    unseen: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=request.param) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: unseen.append(context))

        async def in_time(test: Callable[[], Awaitable[None]]) -> None:
            async with asyncio.timeout(2 * PATIENCE_SECONDS):
                await test()

        yield lambda test: runner.run(in_time(test))
        # Before the loop ends: that cuts short the stand-ins' tasks.
        assert not unseen


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """A Redis that tests may stop for a while."""
    process = RedisProcess(Path(tmp_path_factory.mktemp("link")), "127.0.0.1", None, 0)
    with asyncio.Runner() as runner:
        runner.run(process.start())
        try:
            yield process
        finally:
            runner.run(process.stop())


@contextmanager
def link_to(address: str, timeout_seconds: float = PATIENCE_SECONDS) -> Iterator[Link]:
    """A link, closed in the end."""
    host, _, port = address.rpartition(":")
    link = Link(host, int(port), timeout_seconds)
    try:
        yield link
    finally:
        link.close()


@asynccontextmanager
async def answering(serve: Serve) -> AsyncIterator[str]:
    """A stand-in for a Redis that answers what the test says; its address."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
    finally:
        server.close()


async def pings(reader: asyncio.StreamReader, count: int) -> None:
    """Returns when that many calls have come."""
    await reader.readexactly(count * len(b"*1\r\n$4\r\nPING\r\n"))


@contextmanager
def stopped(process: RedisProcess) -> Iterator[None]:
    """A Redis that is there and says nothing."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Asks until it holds, which the test's time bounds."""
    while not await holds():  # noqa: ASYNC110 -- Redis tells nobody when a call has begun to wait
        await asyncio.sleep(0)


async def clients_that_wait(link: Link) -> int:
    """How many connections wait in an XREAD at that Redis."""
    listed: bytes = await link.call(b"CLIENT", b"LIST")
    return listed.count(b"cmd=xread")


async def outcomes(*calls: Awaitable[Any]) -> list[Any]:
    """What each gave or raised."""
    return await asyncio.gather(*calls, return_exceptions=True)


def test_answers_in_order(run: Run, own_redis: RedisProcess) -> None:
    """A hundred calls at once, with answers of any length, each get their own; one connection carries all."""

    async def test() -> None:
        with link_to(own_redis.address) as link:
            texts = [b"%d" % n * (1 + n % 7 * 3000) for n in range(100)]
            ids, *told = await asyncio.gather(
                link.call(b"CLIENT", b"ID"), *[link.call("ECHO", text) for text in texts]
            )
            assert told == texts
            assert await link.call(b"CLIENT", b"ID") == ids

    run(test)


def test_kinds_of_arguments_and_answers(run: Run, own_redis: RedisProcess) -> None:
    """Text, bytes and numbers go out; bytes, numbers, lists and nothing come back, none mistaken for none."""

    async def test() -> None:
        with link_to(own_redis.address) as link:
            assert await link.call("ECHO", b"\x00\r\n\xff") == b"\x00\r\n\xff"
            assert await link.call("ECHO", "é") == "é".encode()
            assert await link.call("ECHO", 7) == b"7"
            assert await link.call("MGET", "link:never:set", "link:neither") == [None, None]
            assert await link.call("KEYS", "link:never:*") == []
            assert await link.call("GET", "link:never:set") is None
            assert await link.call("EXISTS", "link:never:set") == 0

    run(test)


def test_errors_are_answers(run: Run, own_redis: RedisProcess) -> None:
    """An error that Redis answers is raised by its call alone; those beside it, and the link, go on."""

    async def test() -> None:
        with link_to(own_redis.address) as link:
            first = await link.call(b"CLIENT", b"ID")
            told = await outcomes(
                *(link.call("ECHO", b"%d" % n) if n % 2 else link.call(f"NO-SUCH-{n}") for n in range(20))
            )
            for n, one in enumerate(told):
                if n % 2:
                    assert one == b"%d" % n
                else:
                    assert isinstance(one, ResponseError)
                    assert f"NO-SUCH-{n}" in str(one)
            with pytest.raises(ResponseError, match="wrong number of arguments"):
                await link.call("ECHO")
            assert await link.call(b"CLIENT", b"ID") == first

    run(test)


@pytest.mark.servers
def test_a_killed_redis(run: Run, tmp_path: Path) -> None:
    """Calls under way and calls meanwhile fail with ConnectionError; when it is back, calls work."""

    async def test() -> None:
        process = RedisProcess(tmp_path, "127.0.0.1", None, 0)
        await process.start()
        try:
            with link_to(process.address) as link, link_to(process.address) as other:
                waiting = [asyncio.ensure_future(link.call(*FOREVER)) for _ in range(5)]
                await until(lambda: _one_waits(other))
                os.kill(process.pid, signal.SIGKILL)
                await process.wait()
                for error in await outcomes(*waiting, link.call("PING")):
                    assert type(error) is RedisConnectionError
                for error in await outcomes(*[link.call("PING") for _ in range(5)]):
                    assert type(error) is RedisConnectionError
                address = process.address
                await process.start()
                assert process.address == address
                assert await asyncio.gather(*[link.call("ECHO", n) for n in range(5)]) == [
                    b"%d" % n for n in range(5)
                ]
        finally:
            await process.stop()

    run(test)


async def _one_waits(other: Link) -> bool:
    return await clients_that_wait(other) == 1


def test_a_stopped_redis(run: Run, own_redis: RedisProcess) -> None:
    """After the time-out all that wait fail with TimeoutError; late answers are given to nobody."""

    async def test() -> None:
        with link_to(own_redis.address, IMPATIENCE_SECONDS) as link:
            first = await link.call(b"CLIENT", b"ID")
            with stopped(own_redis):
                late = await outcomes(*[link.call("ECHO", f"late {n}") for n in range(10)])
                assert [type(error) for error in late] == [RedisTimeoutError] * 10
                # The kernel still takes connections for it.
                (again,) = await outcomes(link.call("ECHO", "later"))
                assert type(again) is RedisTimeoutError
            texts = [b"%d" % n for n in range(100)]
            assert await asyncio.gather(*[link.call("ECHO", text) for text in texts]) == texts
            assert await link.call(b"CLIENT", b"ID") != first

    run(test)


def test_a_call_behind_one_without_an_answer(run: Run, own_redis: RedisProcess) -> None:
    """A time-out ends what came later too, and the next call has a connection of its own."""

    async def test() -> None:
        with link_to(own_redis.address, IMPATIENCE_SECONDS) as link:
            # Redis looks at a connection's later calls only when it has answered the earlier one.
            stuck, *behind = await outcomes(link.call(*FOREVER), *[link.call("PING") for _ in range(3)])
            assert {type(error) for error in (stuck, *behind)} == {RedisTimeoutError}
            assert await link.call("PING") == b"PONG"

    run(test)


def test_answers_in_time_do_not_time_out(run: Run, own_redis: RedisProcess) -> None:
    """The timer is for the oldest call that waits, not for the first there ever was."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        with link_to(own_redis.address, IMPATIENCE_SECONDS) as link:
            first, end = await link.call(b"CLIENT", b"ID"), loop.time() + 2 * IMPATIENCE_SECONDS
            while loop.time() < end:
                assert await link.call("PING") == b"PONG"
            assert await link.call(b"CLIENT", b"ID") == first

    run(test)


@pytest.mark.parametrize(
    "garbage",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\xff\r\n", b"$-7\r\n", b"*-9\r\n", b":x\r\n"],
    ids=ascii,
)
def test_garbage(run: Run, garbage: bytes) -> None:
    """What is no answer closes the link: nothing behind it can be trusted. The next call begins anew."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await pings(reader, 4 if connections == 1 else 1)
        writer.write(b"+fine\r\n" + garbage + b"+not for you\r\n" if connections == 1 else b"+new\r\n")
        await reader.read()
        writer.close()

    async def test() -> None:
        async with answering(serve) as address:
            with link_to(address) as link:
                first, *others = await outcomes(*[link.call("PING") for _ in range(4)])
                assert first == b"fine"
                assert [type(error) for error in others] == [RedisConnectionError] * 3
                assert await link.call("PING") == b"new"

    run(test)
    assert connections == 2


def test_an_answer_to_nothing(run: Run) -> None:
    """An answer that nobody asked for closes the link, before it is taken for that of the next call."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await pings(reader, 1)
        writer.write(b"+one\r\n+two\r\n")
        # Ends when the link has closed.
        await reader.read()
        writer.close()
        ended.set()

    ended: asyncio.Event

    async def test() -> None:
        nonlocal ended
        ended = asyncio.Event()
        async with answering(serve) as address:
            with link_to(address) as link:
                assert await link.call("PING") == b"one"
                await ended.wait()
                assert await link.call("PING") == b"one"

    run(test)


def test_an_answer_that_is_false(run: Run) -> None:
    """Even the false of the newer protocol, which nobody asks for, is the answer of one call."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await pings(reader, 2)
        writer.write(b"#f\r\n+two\r\n")
        await reader.read()
        writer.close()

    async def test() -> None:
        async with answering(serve) as address:
            with link_to(address) as link:
                assert await outcomes(link.call("PING"), link.call("PING")) == [False, b"two"]

    run(test)


def test_answers_in_small_pieces(run: Run) -> None:
    """An answer may come byte by byte, and several at once."""
    answers = b"+one\r\n$5\r\nt\r\nwo\r\n-ERR three\r\n*2\r\n:4\r\n$-1\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await pings(reader, 4)
        for at in range(len(answers)):
            writer.write(answers[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()
        writer.close()

    async def test() -> None:
        async with answering(serve) as address:
            with link_to(address) as link:
                *good, error, last = await outcomes(*[link.call("PING") for _ in range(4)])
                assert good == [b"one", b"t\r\nwo"]
                assert isinstance(error, ResponseError)
                assert last == [4, None]

    run(test)


def test_close(run: Run, own_redis: RedisProcess) -> None:
    """Closing fails what is under way; a later call connects anew, and closing twice does no harm."""

    async def test() -> None:
        with link_to(own_redis.address) as link, link_to(own_redis.address) as other:
            link.close()
            waiting = [asyncio.ensure_future(link.call(*FOREVER)) for _ in range(3)]
            await until(lambda: _one_waits(other))
            link.close()
            for error in await outcomes(*waiting):
                assert type(error) is RedisConnectionError
            link.close()
            await until(lambda: _none_waits(other))
            assert await link.call("PING") == b"PONG"

    run(test)


async def _none_waits(other: Link) -> bool:
    return await clients_that_wait(other) == 0


def test_a_cancelled_call_keeps_its_place(run: Run, own_redis: RedisProcess) -> None:
    """Nobody should, but if a call is cancelled, its answer is not given to the one behind it."""

    async def test() -> None:
        with link_to(own_redis.address) as link:
            await link.call("PING")
            calls = [asyncio.ensure_future(link.call("ECHO", n)) for n in range(6)]
            await asyncio.sleep(0)
            for call in calls[::2]:
                call.cancel()
            told = await outcomes(*calls)
            assert told[1::2] == [b"1", b"3", b"5"]
            assert [type(one) for one in told[::2]] == [asyncio.CancelledError] * 3

    run(test)


def test_nobody_there(run: Run) -> None:
    """A refused connection, and a name that is none, are ConnectionErrors."""

    async def test() -> None:
        with socket.socket() as reserved:
            # Bound, not listening: nobody else gets the port either.
            reserved.bind(("127.0.0.1", 0))
            for address in (f"127.0.0.1:{reserved.getsockname()[1]}", "no-such-host.invalid:1"):
                with link_to(address) as link:
                    for error in await outcomes(*[link.call("PING") for _ in range(3)]):
                        assert type(error) is RedisConnectionError

    run(test)


def test_a_connection_that_is_never_made(run: Run) -> None:
    """Calls that wait for the same connection time out together, not one after the other."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        with full_server() as address, link_to(address, IMPATIENCE_SECONDS) as link:
            begin = loop.time()
            errors = await outcomes(*[link.call("PING") for _ in range(40)])
            assert [type(error) for error in errors] == [RedisTimeoutError] * 40
            # One after the other would take 40 times as long as one.
            assert loop.time() - begin < 20 * IMPATIENCE_SECONDS

    run(test)


@contextmanager
def full_server() -> Iterator[str]:
    """An address at which connections are neither made nor refused: its queue is full."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        queued: list[socket.socket] = []
        try:
            while True:
                queued.append(one := socket.socket())
                one.settimeout(IMPATIENCE_SECONDS)
                one.connect(server.getsockname())
        except TimeoutError:
            host, port = server.getsockname()
            yield f"{host}:{port}"
        finally:
            for one in queued:
                one.close()


def test_a_later_call_outlives_a_failed_connection(run: Run) -> None:
    """All calls that began while there was nobody fail; the first after somebody came succeeds."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await pings(reader, 1)
        writer.write(b"+here\r\n")
        await reader.read()
        writer.close()

    async def test() -> None:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            with link_to(f"127.0.0.1:{server.getsockname()[1]}") as link:
                for error in await outcomes(*[link.call("PING") for _ in range(3)]):
                    assert isinstance(error, RedisError)
                listening = await asyncio.start_server(serve, sock=server)
                assert await link.call("PING") == b"here"
                listening.close()

    run(test)
