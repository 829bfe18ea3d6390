"""``python -m shard_node.ledger``: the schema of a ledger's database, by hand.

An archiver brings the database to the newest schema by itself; this is for those who let only an
administrator change tables.
"""

from __future__ import annotations

import argparse
import os
import sys

from shard_node.errors import ShardNodeError
from shard_node.ledger.store import LEDGER_VARIABLE, open_ledger
from shard_node.ledger.store.migrations import current, newest, upgrade


def main() -> int:
    """Carries out one command; 1 when the database refused."""
    parser = argparse.ArgumentParser(prog="python -m shard_node.ledger", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, told in (
        ("upgrade", "bring the database to the newest schema"),
        ("current", "say which version of the schema it has"),
    ):
        command = commands.add_parser(name, help=told, description=told)
        command.add_argument(
            "--ledger",
            metavar="URL",
            default=os.environ.get(LEDGER_VARIABLE, ""),
            help=f"the database, for SQLAlchemy (default: the variable {LEDGER_VARIABLE})",
        )
    arguments = parser.parse_args()
    try:
        engine = open_ledger(arguments.ledger)
        try:
            version = upgrade(engine) if arguments.command == "upgrade" else current(engine)
        finally:
            engine.dispose()
    except ShardNodeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{version or 'none'} (newest: {newest()})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
