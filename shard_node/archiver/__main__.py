"""``python -m shard_node.archiver``: moves the ledger of the shards into its database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import structlog
from sqlalchemy import Engine

from shard_node.archiver.service import Archiver
from shard_node.archiver.shard_archiver import BATCH_ENTRIES
from shard_node.client import Directory
from shard_node.cluster import MemberKind, Registry
from shard_node.errors import LedgerUnavailableError, RegistryError
from shard_node.ledger.store import LEDGER_VARIABLE, SQLITE, Archive, open_ledger, shown
from shard_node.ledger.store.migrations import upgrade
from shard_node.process import configure_logs, member_parser, run

# SQLite lets one write at a time; on PostgreSQL commits of several shards wait for the disk together.
_THREADS, _SQLITE_THREADS = 4, 1
_RETRY_SECONDS = 2.0
# Draining takes five; `tallystick down` waits 15 before it uses force.
_END_SECONDS = 12.0
# A transaction holds the one write lock of SQLite, and memory in proportion.
_MAX_BATCH_ENTRIES = 200_000

log = structlog.get_logger(__name__)


def archive_all(
    zookeeper: str, name: str, ledger: str, batch_entries: int
) -> Callable[[asyncio.Event], Awaitable[None]]:
    """An archiver, to be run until its event is set."""

    async def serve(stopping: asyncio.Event) -> None:
        async with contextlib.AsyncExitStack() as ending:
            # Called off last of all, when the threads have ended.
            ending.enter_context(_end_in_time(stopping))
            engine = open_ledger(ledger)
            ending.callback(engine.dispose)
            registry = Registry(zookeeper)
            await registry.start()
            ending.push_async_callback(registry.stop)
            directory = Directory(registry)
            ending.push_async_callback(directory.close)
            # Registered also while the database is away, and then says so: transfers go on meanwhile.
            await registry.register(
                MemberKind.ARCHIVER, name, "", os.getpid(), problem="it connects to the ledger"
            )
            threads = _SQLITE_THREADS if engine.dialect.name == SQLITE else _THREADS
            executor = ending.enter_context(ThreadPoolExecutor(threads, "ledger"))
            if await _prepare(engine, executor, stopping, registry):
                registry.tell_problem("")
                log.info("serving", ledger=shown(engine))
                archiver = Archiver(
                    name, registry, directory, Archive(engine), executor, batch_entries=batch_entries
                )
                await archiver.run(stopping)
            with contextlib.suppress(RegistryError):
                await registry.deregister()
        log.info("stopped")

    return serve


@contextlib.contextmanager
def _end_in_time(stopping: asyncio.Event) -> Iterator[None]:
    """Ends the process some time after ``stopping`` is set, unless the block has ended.

    A thread that waits for the database can be ended in no other way. It is as safe as being killed: no
    shard is told of what is not committed.
    """

    def give_up() -> None:
        log.error("ended by force: the ledger's database gave no answer", seconds=_END_SECONDS)
        os._exit(1)

    async def watch() -> None:
        await stopping.wait()
        timer.start()

    timer = threading.Timer(_END_SECONDS, give_up)
    timer.daemon = True
    watching = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        watching.cancel()
        timer.cancel()


async def _prepare(
    engine: Engine, executor: ThreadPoolExecutor, stopping: asyncio.Event, registry: Registry
) -> bool:
    """Brings the database to the newest schema, as soon as it answers; whether it did before the stop.

    Raises LedgerError when it is not a ledger, or newer than this code.
    """
    while not stopping.is_set():
        try:
            await asyncio.get_running_loop().run_in_executor(executor, upgrade, engine)
        except LedgerUnavailableError as error:
            log.warning("no ledger database yet", error=str(error))
            registry.tell_problem(str(error))
        else:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RETRY_SECONDS):
                await stopping.wait()
    return False


def main() -> int:
    """Reads the command line and archives until SIGTERM."""
    parser = member_parser("shard_node.archiver", "Moves the ledger of the shards into its database.")
    parser.add_argument(
        "--ledger",
        default=os.environ.get(LEDGER_VARIABLE, ""),
        metavar="URL",
        help="the database, for SQLAlchemy: sqlite:////srv/ledger.db "
        f"(default: the variable {LEDGER_VARIABLE})",
    )
    parser.add_argument(
        "--limit",
        type=int,
        default=BATCH_ENTRIES,
        metavar="ENTRIES",
        help="the most in one transaction, unless one call to a shard made more (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if not 1 <= arguments.limit <= _MAX_BATCH_ENTRIES:
        parser.error(f"--limit must be 1 to {_MAX_BATCH_ENTRIES}, is {arguments.limit}")
    configure_logs(process="archiver", name=arguments.name)
    return run(archive_all(arguments.zookeeper, arguments.name, arguments.ledger, arguments.limit))


if __name__ == "__main__":
    sys.exit(main())
