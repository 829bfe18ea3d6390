"""What all who call one Redis share: how many may do so at once, and whether it is silent.

A Redis that is stopped, or behind a network that swallows, refuses nothing: each call waits out its
time-out, and with it whatever else waits for the same place. So once a call has timed out, further
calls fail at once. That is safe, for a failed call already means "not known". After a moment one
call is let through to see; any answer ends the silence.

Only a time-out counts as silence. A connection that is refused or breaks fails at once by itself, and
holding back calls would only delay the return of a Redis that restarts.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Calls under way at once from one process. A shard runs them one by one, so more only queue there.
MAX_CONNECTIONS = 16
# From one time-out to the next call that may find out: short beside a restart, long beside a call.
SILENCE_SECONDS = 1.0


class Line:
    """The line to one Redis. ``clock`` gives seconds that only rise.

    Who calls looks at ``silent`` first, and when it is set goes on only if :meth:`probe` says so.
    """

    __slots__ = ("_clock", "_probe_at", "_probing", "room", "silent")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.room = asyncio.Semaphore(MAX_CONNECTIONS)
        # A plain attribute: it is read at every call.
        self.silent = False
        self._clock = clock
        self._probe_at = 0.0
        self._probing = False

    def __repr__(self) -> str:
        return f"Line(silent={self.silent}, probing={self._probing})"

    def probe(self) -> bool:
        """Whether the caller is the one that may try a silent line; it must call :meth:`probed`."""
        if self._probing or self._clock() < self._probe_at:
            return False
        self._probing = True
        return True

    def probed(self) -> None:
        """The one that tried has ended, however it did."""
        self._probing = False

    def timed_out(self) -> None:
        """A call got no answer in time."""
        self.silent = True
        self._probe_at = self._clock() + SILENCE_SECONDS

    def answered(self) -> None:
        """Something came back, if only an error."""
        self.silent = False
