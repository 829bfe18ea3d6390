"""When a shard may forget its older generation of outcomes and ended attempts. Plain code, no clock.

Where a commit is still unsettled somewhere, its participants must not have forgotten that they finished it: a
late finish would look like a lost leg. So every shard is asked first, and nobody forgets while one of them is
silent or has been in doubt about something for long: no matter whose fault that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum


class Peer(Enum):
    """What a shard, this one included, says of its attempts and commits."""

    SETTLED = "none has been in doubt for long"
    LAGGING = "one has been in doubt for long"
    SILENT = "no answer"


def long_in_doubt_ms(window_seconds: float) -> int:
    """From which age on an attempt or commit in doubt is in the way.

    What a rotation forgets was applied at least one window ago, and committed before that. Half a
    window leaves the other half as margin for clocks that run at different speeds; settling takes
    seconds.
    """
    return int(window_seconds * 500)


def may_rotate(elapsed_seconds: float, window_seconds: float, peers: Sequence[Peer]) -> bool:
    """Whether to forget, ``elapsed_seconds`` after the last time. ``peers`` are all shards."""
    return elapsed_seconds >= window_seconds and all(peer is Peer.SETTLED for peer in peers)
