"""``python -m shard_node.engine [--sanitized]``: builds the engine where that is needed; prints its path."""

import sys

from shard_node.engine.loading import EngineMissingError, engine_path

try:
    print(engine_path(sanitized="--sanitized" in sys.argv[1:]))  # noqa: T201
except EngineMissingError as error:
    sys.exit(f"engine: {error}")
