"""Builds the fuzzer from the engine's sources."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from shard_node.engine.loading import BUILD, SOURCES

HERE: Final = Path(__file__).parent
FOLDER: Final = BUILD.parent / "fuzz"
_SANITIZED: Final = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# A few slots, so that the digest of all of them is had after each call.
_FLAGS: Final = (
    "-std=c11",
    "-g",
    "-O1",
    "-Wall",
    "-Wextra",
    "-DSLOTS=8u",
    "-fno-omit-frame-pointer",
    f"-I{SOURCES}",
    f"-I{HERE}",
)
# Of the engine alone: its places are what inputs are to reach.
_TRACED: Final = "-fsanitize-coverage=trace-pc"


def build() -> Path:
    """The fuzzer's program, built anew where needed. Raises RuntimeError with the compiler's words."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    program = FOLDER / "fuzz"
    sources = [*sorted(SOURCES.glob("*.c")), *sorted(HERE.glob("*.c"))]
    headers = max(header.stat().st_mtime for one in (SOURCES, HERE) for header in one.glob("*.h"))
    # One at a time: tests that run side by side ask at once.
    with (FOLDER / "lock").open("w") as lock, ThreadPoolExecutor(2) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        objects = list(pool.map(lambda source: _object(source, headers), sources))
        _compile([*_SANITIZED, *map(str, objects), "-o", str(program)])
    return program


def _object(source: Path, headers: float) -> Path:
    made = FOLDER / f"{source.parent.name}-{source.stem}.o"
    if not made.is_file() or made.stat().st_mtime < max(headers, source.stat().st_mtime):
        traced = [_TRACED] if source.parent == SOURCES else []
        _compile([*_FLAGS, *_SANITIZED, *traced, "-c", str(source), "-o", str(made)])
    return made


def _compile(arguments: Sequence[str]) -> None:
    done = subprocess.run(["gcc", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the fuzzer does not compile: {done.stderr}")
