"""What a fork does to clients, and what is done about it.

A child has the memory of its parent, and of its threads only the one that forked. A client's event loop and
grpc.aio's poller are threads, so in the child nobody answers a call of an inherited client, and a channel
made there hands its work to a poller that is gone: the call hangs, or the process ends with SIGSEGV. Nothing
in the child can repair that. So it is prevented in the parent: before a fork no call begins, those under way
have a second to end, and then all clients disconnect. The last channel takes the poller with it, and the next
call connects again. In the child

- an inherited client raises ForkedClient,
- a new one works, unless a poller was alive at the fork all the same: because of a call that took longer, or
  of other code that uses grpc.aio. Then it raises ForkedClient too.

grpcio's own fork support (GRPC_ENABLE_FORK_SUPPORT, on unless it is set to 0) covers channels without asyncio
and does not help here; it is left as it is.
"""

import contextlib
import os
import threading
import time
import weakref
from pathlib import Path
from typing import Protocol

from tallystick.errors import ForkedClient

# grpc.aio names its thread by this function of its own.
_POLLER = "_poll_wrapper"
_GRPC_THREADS = (b"event_engine", b"grpc_", b"lifeguard", b"timer_manager")
# They end within milliseconds once there is no channel, and later on a busy machine.
_LONGEST_END_S = 2.0
_POLL_S = 0.001
_UNSAFE = (
    "this process was forked while gRPC was at work in its parent, and cannot use it; nothing was sent. "
    "Fork while no call is under way, or start the process by spawn"
)


class Resting(Protocol):
    """What can disconnect for the time of a fork."""

    def rest(self) -> None:
        """Disconnect, unless a call is under way that does not end soon. Called by the thread that forks."""


class _State:
    """Of this process. ``gate`` is held while it forks, and while a client connects."""

    def __init__(self) -> None:
        # Reentrant: a signal's handler may fork while its thread forks or connects.
        self.gate = threading.RLock()
        # Forks under way: those of handlers are within others.
        self.forks = 0
        self.connections: weakref.WeakSet[Resting] = weakref.WeakSet()
        # Whether one was made since the last fork.
        self.connected = False
        # Inherited ones: their end would wait for threads that this process does not have.
        self.kept: list[object] = []
        # Whether gRPC cannot be used here; and, from before a fork until after it, in the child.
        self.unsafe = False
        self.unsafe_in_child: bool | None = None


_state = _State()


def under_way() -> bool:
    """Whether this process forks at the moment: then no call may begin."""
    return _state.forks > 0


def begin_connecting(connection: Resting) -> bool:
    """Whether this may connect now; then no fork begins until `end_connecting`. It rests before each fork."""
    if not _state.gate.acquire(blocking=False):
        return False
    if _state.forks:
        # In a signal's handler, of the thread that forks.
        _state.gate.release()
        return False
    _state.connections.add(connection)
    _state.connected = True
    return True


def end_connecting() -> None:
    """See `begin_connecting`."""
    _state.gate.release()


def require_usable() -> None:
    """Let nobody use gRPC where that would hang, or end the process.

    Raises:
        ForkedClient: gRPC cannot be used in this process.
    """
    if _state.unsafe:
        raise ForkedClient(_UNSAFE)


def require_same_process(process_id: int) -> None:
    """Let only clients of this process pass.

    Raises:
        ForkedClient: the client was made in another.
    """
    if process_id != os.getpid():
        raise ForkedClient


def _before() -> None:
    _state.gate.acquire()
    _state.forks += 1
    for connection in list(_state.connections):
        connection.rest()
    # Channels without asyncio, of other code, keep gRPC's threads for good; fork support takes care of those.
    give_up_at_s = time.monotonic() + (_LONGEST_END_S if _state.connected else 0.0)
    while (_poller_alive() or _grpc_thread_alive()) and time.monotonic() < give_up_at_s:
        time.sleep(_POLL_S)
    _state.connected = False
    _state.unsafe_in_child = _state.unsafe or _poller_alive()


def _after_in_parent() -> None:
    _state.unsafe_in_child = None
    _leave()


def _after_in_child() -> None:
    if _state.unsafe_in_child is None:
        # Forked by code that does not run Python's hooks before it: another thread may hold the gate.
        _state.gate, _state.forks = threading.RLock(), 0
        _state.unsafe_in_child = _state.unsafe or bool(_state.connections)
    else:
        _leave()
    _state.unsafe, _state.unsafe_in_child = _state.unsafe_in_child, None
    _state.kept += _state.connections


def _leave() -> None:
    _state.forks -= 1
    _state.gate.release()


def _poller_alive() -> bool:
    return any(_POLLER in thread.name for thread in threading.enumerate())


def _grpc_thread_alive() -> bool:
    """Whether gRPC has threads of its own, which Python does not know; False where that cannot be seen."""
    for name in Path("/proc/self/task").glob("*/comm"):
        # A thread may end while it is looked at.
        with contextlib.suppress(OSError):
            if name.read_bytes().startswith(_GRPC_THREADS):
                return True
    return False


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
