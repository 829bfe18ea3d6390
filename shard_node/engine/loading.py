"""Builds the engine where that is needed, and says where it is.

A wheel has the engine, and not its sources. In a checkout a fingerprint of the sources lies beside the
build: whoever asks for the engine gets one of the present sources, and the first to ask builds it.

``TALLYSTICK_ENGINE`` names an engine that was built elsewhere; it is taken as it is. ``CC`` names the
compiler.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parent
# Where a wheel has it; never there in a checkout.
INSTALLED: Final = SOURCES / "tallystick.so"
# Ignored by git.
BUILD: Final = SOURCES.parent.parent / "build" / "engine"

_FLAGS: Final = (
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Werror",
    "-fPIC",
    "-fvisibility=hidden",
    "-shared",
)
_OPTIMISED: Final = ("-O2",)
# For tests: reading or writing where nothing is, and what C leaves undefined, end the process; memory can be
# made to fail.
_SANITIZED: Final = (
    "-O1",
    "-DTALLYSTICK_FAULTS",
    "-g",
    "-fsanitize=address,undefined",
    "-fno-omit-frame-pointer",
    "-fno-sanitize-recover=all",
)


class EngineMissingError(Exception):
    """There is no engine, and none can be built."""


def engine_path(*, sanitized: bool = False) -> Path:
    """Where the engine is, built anew when its sources have changed.

    Raises EngineMissingError, which says what to do.
    """
    given = os.environ.get("TALLYSTICK_ENGINE")
    if given and not sanitized:
        if not Path(given).is_file():
            raise EngineMissingError(f"TALLYSTICK_ENGINE names {given}, and there is no such file")
        return Path(given).resolve()
    if INSTALLED.is_file() and not sanitized:
        return INSTALLED
    if not _sources():
        raise EngineMissingError(f"this installation lacks {INSTALLED}: install tallystick again")
    flags = (*_FLAGS, *(_SANITIZED if sanitized else _OPTIMISED))
    wanted = _fingerprint(flags)
    engine = BUILD / ("tallystick-sanitized.so" if sanitized else "tallystick.so")
    made_of = engine.with_suffix(".fingerprint")
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        # One at a time: tests that run side by side ask at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not engine.is_file() or not made_of.is_file() or made_of.read_text() != wanted:
            _build(_compiler(), flags, engine)
            made_of.write_text(wanted)
    return engine


def _sources() -> list[Path]:
    return sorted(SOURCES.glob("*.c"))


def _fingerprint(flags: tuple[str, ...]) -> str:
    digest = hashlib.sha256("\0".join(flags).encode())
    for source in (*_sources(), *sorted(SOURCES.glob("*.h"))):
        digest.update(f"\0{source.name}\0".encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _compiler() -> str:
    for name in (os.environ.get("CC"), "gcc", "clang"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise EngineMissingError(
        "no C compiler to build the shard engine with: install gcc, or name an engine in TALLYSTICK_ENGINE"
    )


def _build(compiler: str, flags: tuple[str, ...], engine: Path) -> None:
    # A Redis that runs has the old one mapped: never write into it, put the new one in its place.
    fresh = engine.with_suffix(".new")
    command = [compiler, *flags, *map(str, _sources()), "-o", str(fresh)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise EngineMissingError(f"the shard engine does not compile: {' '.join(command)}\n{done.stderr}")
    fresh.replace(engine)
