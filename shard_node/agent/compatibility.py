"""Whether server, engine and data fit together.

What does not is refused, by one sentence that says what to do.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from shard_node.client import as_shard_error, status_of
from shard_node.engine import EngineMissingError, engine_path
from shard_node.errors import IncompatibleError, ShardDefectError, ShardNodeError, ShardUnavailableError

if TYPE_CHECKING:
    from shard_node.client import ShardRedis

# The first one with all that the engine asks of a server.
_OLDEST: Final = (7, 0)
_INSTALL: Final = "install Redis 7.0 or newer (apt-get install redis-server), or Valkey"
_VERSION_SECONDS: Final = 10.0
_VERSION: Final = re.compile(r"(?:Redis|Valkey) server v=(\d+)\.(\d+)\.")

# What a server that ends while it starts has in its log.
_NEWER_DATA: Final = re.compile(
    r"<tallystick> .*(?:a newer engine wrote it|it is of another version|that this engine does not log)"
)
_ENGINE_SAYS: Final = re.compile(r"<tallystick> (.+)")
_NOT_LOADED: Final = re.compile(r"Module (.+ failed to load: .+)")
_NO_MODULES: Final = re.compile(r"'loadmodule .*\n(?:Bad directive|Unknown)")
_LAST_LINES: Final = 5

# Releases before the engine kept a shard in these hashes, with functions of this name.
_OLD_HASHES: Final = ("meta", "accounts")
_OLD_FUNCTIONS: Final = "tallystick"


def require_parts() -> None:
    """Raises a ShardNodeError when this machine lacks what a shard is made of: the server, the engine."""
    server_program()
    shard_engine()


def server_program() -> str:
    """The path of the server.

    Raises ShardUnavailableError when there is none, as while a package is replaced; IncompatibleError when it
    is too old or another program.
    """
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise ShardUnavailableError(f"no redis-server on PATH: {_INSTALL}")
    try:
        told = subprocess.run(  # noqa: S603
            [program, "--version"], capture_output=True, text=True, timeout=_VERSION_SECONDS, check=False
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise IncompatibleError(f"{program} does not run ({error}): {_INSTALL}") from error
    found = _VERSION.match(told)
    if found is None:
        raise IncompatibleError(
            f"{program} is neither Redis nor Valkey (it says {told!r}), and no other server runs the shard "
            f"engine: {_INSTALL}"
        )
    version = (int(found[1]), int(found[2]))
    if version < _OLDEST:
        raise IncompatibleError(
            f"{program} has version {version[0]}.{version[1]}, which is too old for the shard engine: "
            f"{_INSTALL}"
        )
    return program


def shard_engine() -> Path:
    """The path of the engine, built first where that is needed. Raises IncompatibleError without one."""
    try:
        return engine_path()
    except EngineMissingError as error:
        raise IncompatibleError(str(error)) from error


def why_ended(log: str, data: Path) -> ShardNodeError:
    """Why a server ended while it started, by what it logged meanwhile, as an error to raise."""
    if _NEWER_DATA.search(log):
        return IncompatibleError(
            f"the data in {data} was written by a newer shard engine than this one: start the shard with the "
            "release that wrote it, or a newer one"
        )
    if _NO_MODULES.search(log):
        return IncompatibleError(f"the server cannot load modules, and so not the shard engine: {_INSTALL}")
    if said := _ENGINE_SAYS.search(log):
        return IncompatibleError(f"the shard engine ended the server on the data in {data}: {said[1]}")
    if failed := _NOT_LOADED.search(log):
        return IncompatibleError(
            f"the server cannot load the shard engine ({failed[1]}): build it on this machine, and keep it "
            "executable"
        )
    return ShardUnavailableError("redis ended while starting: " + " | ".join(log.splitlines()[-_LAST_LINES:]))


async def require_engine_on(redis: ShardRedis, data: Path, process_id: int) -> None:
    """Raises IncompatibleError unless the server has the engine, and no data of a release before the engine.

    Also of one that was there already: it may have been started by another release.
    """
    try:
        kinds = [await redis.type(key) for key in _OLD_HASHES]
        functions: list[Any] = await redis.function_list(library=_OLD_FUNCTIONS)
    except (RedisError, OSError) as error:
        raise as_shard_error(str(data), error) from error
    if b"hash" in kinds or functions:
        raise IncompatibleError(
            f"{data} holds data of an older release, which this release cannot read: go on there with the "
            "release that wrote it, or name another folder for the data"
        )
    try:
        await status_of(redis, str(data))
    except ShardDefectError as error:
        if "unknown command" not in str(error):
            raise
        raise IncompatibleError(
            f"the Redis on {data}, process {process_id}, runs without the shard engine: end it "
            f"(kill {process_id}), and start the shard node again"
        ) from error
