"""Forks, each scenario in a process of its own: `python -m tests.client.forks SCENARIO ADDRESS`.

A scenario prints what its children made of it, a line each.
"""

# ruff: noqa: T201 - what it prints is what it is for

from __future__ import annotations

import asyncio
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import grpc.aio

from tallystick import Client, ForkedClient, LedgerClient, SyncClient, SyncLedgerClient, forking

# Far above what a call takes, far below what a hanging one would.
PATIENCE_S = 20.0
AT_ONCE_S = 1.0


def child(work: Callable[[], object]) -> str:
    """What this returned or raised in a child, or how the child ended instead."""
    reading, writing = os.pipe()
    process_id = os.fork()
    if not process_id:
        try:
            said = str(work())
        except BaseException as error:  # noqa: BLE001 - it is reported
            said = type(error).__name__
        os.write(writing, said.encode())
        # Not os._exit: the interpreter ends as in a worker that has served its time.
        sys.exit(0)
    os.close(writing)
    said = "hung"
    if select.select([reading], [], [], PATIENCE_S)[0]:
        said = os.read(reading, 1000).decode()
    else:
        os.kill(process_id, signal.SIGKILL)
    os.close(reading)
    status = os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1])
    return said if status == 0 else f"{said or 'nothing'}, exit {status}"


def fresh(address: str) -> Callable[[], object]:
    """A call by a client that the child makes."""

    def work() -> object:
        with SyncClient(address) as client:
            return client.get_account("alice").account_id

    return work


def timed(work: Callable[[], object]) -> Callable[[], object]:
    """The same, which must raise ForkedClient, and at once."""

    def refused() -> object:
        begun_s = time.monotonic()
        try:
            work()
        except ForkedClient:
            took_s = time.monotonic() - begun_s
            return "refused" if took_s < AT_ONCE_S else f"refused after {took_s:.1f} s"
        return "not refused"

    return refused


def run(call: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], object]:
    """A call in an event loop of the child's own."""
    return lambda: asyncio.run(call())


def inherited(address: str) -> None:
    """Clients of all kinds, used and not, are refused in the child; those of the parent go on."""
    used, unused, ledger = SyncClient(address), SyncClient(address), SyncLedgerClient(address)
    used.get_account("alice")
    wallet, entries = Client(address), LedgerClient(address)
    asyncio.run(one_call(wallet))
    for work in (
        lambda: used.get_account("alice"),
        lambda: unused.get_account("alice"),
        lambda: ledger.page("alice"),
        lambda: next(ledger.entries("alice")),
        run(lambda: wallet.get_account("alice")),
        run(lambda: wallet.transfer("alice", "bob", 1, "EUR")),
        run(lambda: entries.page("alice")),
    ):
        print(child(timed(work)))
    print(child(used.close))
    print(used.get_account("alice").account_id)


async def one_call(client: Client) -> None:
    """A client's first call; it stays connected."""
    await client.get_account("alice")


def unused(address: str) -> None:
    """The parent has a client that it never used."""
    kept = SyncClient(address)
    print(child(fresh(address)))
    kept.close()


def used(address: str) -> None:
    """The parent has used its client, and goes on to: as with `gunicorn --preload`, which forks again."""
    with SyncClient(address) as client:
        for _ in range(4):
            print(client.get_account("alice").account_id, child(fresh(address)))


def closed(address: str) -> None:
    """The parent has closed its clients, one a moment ago."""
    for _ in range(3):
        fresh(address)()
        print(child(fresh(address)))


def busy(address: str) -> None:
    """Threads of the parent are at it all the time, synchronous and asyncio: none of their calls is lost."""
    stop, done = threading.Event(), [0, 0, 0]

    def use() -> None:
        with SyncClient(address) as client:
            while not stop.is_set():
                client.transfer("alice", "bob", "0.01", "EUR")
                done[0] += 1

    async def use_also() -> None:
        async with Client(address) as client:
            while not stop.is_set():
                await client.get_account("alice")
                done[1] += 1

    threads = [threading.Thread(target=use), threading.Thread(target=lambda: asyncio.run(use_also()))]
    for thread in threads:
        thread.start()
    while not all(done[:2]):
        time.sleep(0.001)
    for _ in range(5):
        print(child(fresh(address)))
    stop.set()
    for thread in threads:
        thread.join()


def in_a_loop(address: str) -> None:
    """The event loop's own thread forks; the parent's client goes on."""

    async def main() -> None:
        async with Client(address) as client:
            await one_call(client)
            print(child(fresh(address)))
            await one_call(client)

    asyncio.run(main())


def pool(address: str) -> None:
    """Processes of multiprocessing, each with a client that its initializer makes: as in Celery's prefork."""
    with SyncClient(address) as client:
        print(client.get_account("alice").account_id)
        with multiprocessing.get_context("fork").Pool(2, _initialize, (address,)) as workers:
            for said in workers.map(_use, range(4)):
                print(said)


_client: SyncClient | None = None
_kept: list[object] = []


def _initialize(address: str) -> None:
    global _client  # noqa: PLW0603 - as the recipe has it
    _client = SyncClient(address)


def _use(_: int) -> str:
    assert _client is not None
    return _client.get_account("alice").account_id


def foreign(address: str) -> None:
    """Other code of the parent has a grpc.aio channel open: a new client neither hangs nor dies."""

    async def connect() -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(address)

    loop = asyncio.new_event_loop()
    channel = loop.run_until_complete(connect())
    # For good: a channel's end would hang in the child, which is not what this is about.
    _kept.append(channel)
    print(child(timed(lambda: SyncClient(address))))
    print(child(timed(lambda: Client(address))))
    loop.run_until_complete(channel.close())


class _Interrupted:
    """A connection whose thread gets a signal when it has to rest."""

    def rest(self) -> None:
        """Gets the signal."""
        signal.raise_signal(signal.SIGUSR1)


def in_a_handler(address: str) -> None:
    """A signal's handler forks while its thread connects, or forks itself."""

    def handler(*_: object) -> None:
        # What follows would fork for ever.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        process_id = os.fork()
        if not process_id:
            os._exit(3)
        print(os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1]))

    connection = _Interrupted()
    signal.signal(signal.SIGUSR1, handler)
    assert forking.begin_connecting(connection)
    try:
        connection.rest()
    finally:
        forking.end_connecting()
    signal.signal(signal.SIGUSR1, handler)
    print(child(fresh(address)))
    print(child(fresh(address)))
    with SyncClient(address) as client:
        print(client.get_account("alice").account_id)


def main() -> NoReturn:
    """Run one scenario."""
    globals()[sys.argv[1]](sys.argv[2])
    sys.exit(0)


if __name__ == "__main__":
    main()
