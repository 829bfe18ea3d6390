"""When a shard may forget its older generation of outcomes. Plain code, no clock.

A rotation makes a shard forget the legs it applied at least one window ago. Another shard that is
away may still hold such a transfer as unsettled, and will ask to finish it when it is back; the
answer must then still be known. So a window counts only while every shard is present, and starts
anew after each absence: recovery has one whole window to settle what waited.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class RotationClock:
    """Says when to rotate. Times are seconds of one monotonic clock."""

    window_seconds: float
    _since: float | None = field(default=None)

    def due(self, now_seconds: float, *, all_present: bool) -> bool:
        """Whether a whole window with every shard present has passed since the last rotation."""
        if not all_present:
            self._since = None
            return False
        if self._since is None:
            self._since = now_seconds
            return False
        if now_seconds - self._since < self.window_seconds:
            return False
        self._since = now_seconds
        return True
