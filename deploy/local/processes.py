"""Starts, recognises and stops operating-system processes.

Invariant: nothing is ever signalled but the process that was meant. A process id alone is not enough, for
the kernel hands ids out again; together with the moment the process started, and the boot it started in,
it is. Signals go through a pidfd, which is bound to the process rather than to its number.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

# Field 22 of /proc/PID/stat, counted from the state, which follows the name in brackets (proc(5)).
_STATE, _START_TICKS = 0, 19
# What a log's last lines may take on a screen, and the bytes they are looked for in.
TAIL_LINES = 12
_TAIL_BYTES = 16 * 1024
# A process that ignores SIGKILL sits in the kernel; waiting longer does not help.
_KILL_WAIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process of one boot. ``started`` is opaque: boot id and start time in clock ticks."""

    pid: int
    started: str


def identify(pid: int) -> ProcessIdentity | None:
    """The process that has this id now; None when there is none, or only a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[_STATE] in {"Z", "X"}:
        return None
    return ProcessIdentity(pid, f"{_boot_id()}:{fields[_START_TICKS]}")


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process still runs."""
    return identify(identity.pid) == identity


def works_in(pid: int, folder: Path) -> bool:
    """Whether the process has ``folder`` as its working folder, by whatever path."""
    try:
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    except OSError:
        # It is gone, or another user's.
        return False


def spawn(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a process in a session of its own, so that a terminal's Ctrl-C does not reach it.

    Its output is appended to ``log``; ``environment`` is added to this process' own. It works in ``folder``,
    this process' own when None.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=folder,
            env={**os.environ, **(environment or {})},
        )


def stop(identities: Iterable[ProcessIdentity], *, grace_seconds: float) -> list[ProcessIdentity]:
    """Asks the processes to end (SIGTERM), and ends by force (SIGKILL) those that have not after the grace.

    Returns those that needed force. Processes that are gone already count as stopped.
    """
    with ExitStack() as stack:
        running = {fd: identity for identity in identities if (fd := _open(identity, stack)) is not None}
        for fd in running:
            _send(fd, signal.SIGTERM)
        forced = _wait(running, grace_seconds)
        for fd in forced:
            _send(fd, signal.SIGKILL)
        _wait(forced, _KILL_WAIT_SECONDS)
        return list(forced.values())


def kill(identity: ProcessIdentity) -> None:
    """Ends the process at once (SIGKILL) and waits until it is gone."""
    with ExitStack() as stack:
        fd = _open(identity, stack)
        if fd is not None:
            _send(fd, signal.SIGKILL)
            _wait({fd: identity}, _KILL_WAIT_SECONDS)


def tail(log: Path, *, since: int = 0, lines: int = TAIL_LINES) -> str:
    """The last lines of what a log has from byte ``since`` on; empty when there is nothing."""
    try:
        with log.open("rb") as source:
            size = source.seek(0, os.SEEK_END)
            # A log that had grown too large begins anew.
            source.seek(max(since if since <= size else 0, size - _TAIL_BYTES))
            text = source.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _open(identity: ProcessIdentity, stack: ExitStack) -> int | None:
    """A pidfd of that very process. Identified after opening: from then on the number cannot pass on."""
    try:
        fd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    stack.callback(os.close, fd)
    return fd if is_alive(identity) else None


def _send(fd: int, what: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(fd, what)
    except ProcessLookupError:
        return


def _wait(running: Mapping[int, ProcessIdentity], seconds: float) -> dict[int, ProcessIdentity]:
    """Waits for processes to end; those that have not when the time is over."""
    waiting = dict(running)
    poller = select.poll()
    for fd in waiting:
        # A pidfd is readable once its process has ended.
        poller.register(fd, select.POLLIN)
    deadline = time.monotonic() + seconds
    while waiting and (left := deadline - time.monotonic()) > 0:
        for fd, _ in poller.poll(left * 1000):
            poller.unregister(fd)
            del waiting[fd]
    return waiting
