"""What every process of the cluster does alike: its event loop, its logs, its end.

Logs are one JSON object a line on standard error, with transaction and shard ids and never with
balances.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import sys
from typing import TYPE_CHECKING

import structlog
import uvloop

from shard_node.errors import ShardNodeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# New containers between two collections. A batch makes tens of thousands, all of which go by themselves:
# with Python's 700 it would be searched for cycles dozens of times.
COLLECT_AFTER = 50_000


def member_parser(module: str, description: str, *, listens: bool = False) -> argparse.ArgumentParser:
    """What reads the options that members of a cluster share: --zookeeper, --name, --listen if it listens."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument(
        "--zookeeper", required=True, metavar="HOST:PORT[,...]", help="where ZooKeeper answers"
    )
    parser.add_argument("--name", required=True, help="name among the members, unique in the cluster")
    if listens:
        parser.add_argument(
            "--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="default: %(default)s, a free port"
        )
    return parser


def configure_logs(**fields: str) -> None:
    """Sends structured logs to standard error, each line with ``fields``."""

    def add_fields(
        _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        return {**fields, **event}

    named: list[structlog.typing.Processor] = [
        add_fields,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # In ASCII: an account's id or a reference in an error cannot act on the terminal that shows a log.
    rendered: list[structlog.typing.Processor] = [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=[*named, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries log in the same form. kazoo tells every retry; only what it gives up on is news.
    libraries = logging.StreamHandler(sys.stderr)
    without_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=named, processors=[without_meta, *rendered])
    )
    logging.basicConfig(handlers=[libraries], level=logging.ERROR)


def run(main: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Runs ``main`` until it returns, and returns the exit code.

    ``main`` is given an event that SIGTERM and SIGINT set; it then ends in order. A refusal to
    start is one logged line and exit code 1.
    """

    async def guarded() -> int:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        # What is imported by now lives as long as the process: no collection need look at it again.
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER)
        try:
            await main(stopping)
        except ShardNodeError as error:
            structlog.get_logger(__name__).error("cannot go on", error=str(error), kind=type(error).__name__)
            return 1
        return 0

    return uvloop.run(guarded())
