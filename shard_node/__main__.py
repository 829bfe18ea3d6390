"""``python -m shard_node``: the agent beside one Redis."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shard_node.agent import DEFAULT_MAX_BACKLOG, Agent, AgentSettings
from shard_node.limits import MIN_WINDOW_SECONDS
from shard_node.process import configure_logs, run

_MAX_PORT = 65_535


def main() -> int:
    """Reads the command line and serves until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m shard_node", description="Looks after the Redis of one shard."
    )
    parser.add_argument(
        "--zookeeper", required=True, metavar="HOST:PORT[,...]", help="where ZooKeeper answers"
    )
    parser.add_argument("--shard", required=True, help="id of the shard, as the topology has it")
    parser.add_argument("--data", required=True, type=Path, help="folder of this shard's data")
    parser.add_argument("--host", default="127.0.0.1", help="address Redis listens on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, help="port Redis listens on (default: that of the last start, or a free one)"
    )
    parser.add_argument(
        "--dedupe-window-seconds",
        type=float,
        default=3600.0,
        help="how long outcomes are remembered at least (default: %(default)s)",
    )
    parser.add_argument(
        "--max-memory-bytes",
        type=int,
        help="past this the shard refuses writes (default: no limit)",
    )
    parser.add_argument(
        "--max-backlog",
        type=int,
        default=DEFAULT_MAX_BACKLOG,
        help="past so many ledger entries that wait to be archived the shard refuses new transfers, "
        "rather than lose history (default: %(default)s)",
    )
    parser.add_argument(
        "--logs",
        type=Path,
        metavar="DIR",
        help="keep the *.log files in this folder small, whosever they are",
    )
    arguments = parser.parse_args()
    if arguments.max_backlog < 1:
        parser.error(f"--max-backlog must be at least 1, is {arguments.max_backlog}")
    # Written so that NaN is refused too.
    if not arguments.dedupe_window_seconds >= MIN_WINDOW_SECONDS:
        parser.error(
            f"--dedupe-window-seconds must be at least {MIN_WINDOW_SECONDS}, is "
            f"{arguments.dedupe_window_seconds:g}"
        )
    if arguments.port is not None and not 1 <= arguments.port <= _MAX_PORT:
        parser.error(f"--port must be 1 to {_MAX_PORT}, is {arguments.port}")
    if arguments.max_memory_bytes is not None and arguments.max_memory_bytes < 1:
        parser.error(f"--max-memory-bytes must be at least 1, is {arguments.max_memory_bytes}")
    configure_logs(process="shard_node", shard=arguments.shard)
    agent = Agent(
        AgentSettings(
            arguments.zookeeper,
            arguments.shard,
            arguments.data,
            arguments.host,
            arguments.port,
            arguments.dedupe_window_seconds,
            # To Redis 0 is no limit.
            arguments.max_memory_bytes or 0,
            arguments.max_backlog,
            arguments.logs,
        )
    )
    return run(agent.run)


if __name__ == "__main__":
    sys.exit(main())
