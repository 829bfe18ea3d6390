"""Transaction ids: UUIDv7 as text (RFC 9562, section 5.7), each greater than the one before.

A v7 id carries its time, which is what makes a transfer exactly-once for ever: the
service refuses an id that is older than what it remembers. The invariant: within a
process no id repeats and ids only grow, also when the clock stands still or steps back;
and no two processes make the same one, also when one is a fork of the other.
"""

import os
import threading
import time
from collections.abc import Callable

_COUNTER_LIMIT = 1 << 12
# The counter starts in its lower half, which leaves at least 2048 ids in any millisecond.
_COUNTER_START_MASK = (1 << 11) - 1
# The variant, binary 10, in place of the upper half of a random hex digit.
_VARIANTS = {digit: f"{0b1000 | int(digit, 16) & 0b0011:x}" for digit in "0123456789abcdef"}
# A system call costs as much as all the rest of an id, so one serves for many.
_TAILS_AT_ONCE = 256


class TransactionIds:
    """Makes ids of 48 bits of milliseconds, a 12-bit counter and 62 random bits.

    The counter is RFC 9562's "fixed bit-length dedicated counter" (section 6.2,
    method 1), started at random in every new millisecond. When it overflows, or the
    clock steps back, the ids run ahead of the clock rather than repeat.

    Args:
        clock_ns: Unix time in nanoseconds.
        random_bytes: that many unpredictable bytes.
    """

    __slots__ = ("_clock_ns", "_counter", "_last_ms", "_lock", "_prefix", "_random_bytes", "_tails")

    def __init__(
        self,
        clock_ns: Callable[[], int] = time.time_ns,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._clock_ns = clock_ns
        self._random_bytes = random_bytes
        self._last_ms = -1
        self._counter = 0
        self._prefix = ""
        self.forget_randomness()

    def new(self) -> str:
        """The next id, as 8-4-4-4-12 lower-case text. Any thread may call it."""
        with self._lock:
            now_ms = self._clock_ns() // 1_000_000
            if now_ms > self._last_ms:
                self._begin_millisecond(now_ms)
            else:
                self._counter += 1
                if self._counter == _COUNTER_LIMIT:
                    self._begin_millisecond(self._last_ms + 1)
            if not self._tails:
                self._draw_tails()
            return f"{self._prefix}{self._counter:03x}{self._tails.pop()}"

    def forget_randomness(self) -> None:
        """Use no random bits that another process may hold too. For the child of a fork, at once."""
        # Another thread may have held the lock when the process forked.
        self._lock = threading.Lock()
        self._tails: list[str] = []

    def _begin_millisecond(self, now_ms: int) -> None:
        self._last_ms = now_ms
        self._counter = int.from_bytes(self._random_bytes(2), "big") & _COUNTER_START_MASK
        # Formatted once a millisecond, not once an id.
        stamp = f"{now_ms & (1 << 48) - 1:012x}"
        self._prefix = f"{stamp[:8]}-{stamp[8:]}-7"

    def _draw_tails(self) -> None:
        drawn = self._random_bytes(8 * _TAILS_AT_ONCE).hex()
        self._tails = [
            f"-{_VARIANTS[drawn[at]]}{drawn[at + 1 : at + 4]}-{drawn[at + 4 : at + 16]}"
            for at in range(0, len(drawn), 16)
        ]


_process_ids = TransactionIds()
os.register_at_fork(after_in_child=_process_ids.forget_randomness)

new_transaction_id = _process_ids.new
"""Makes a UUIDv7 that is greater than every one this process made before."""
