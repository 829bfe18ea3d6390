"""When calls are sent: as answers come (a closed loop), or at times fixed in advance (an open loop).

A closed loop waits with a service that stalls, and so does not see most of what its users would have waited.
In an open loop the times do not depend on any answer, and every wait counts from the time that was fixed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.settings import Arrivals

# So many intervals are drawn at once.
_DRAWN = 1024


def due_times(
    calls_a_second: float, arrivals: Arrivals, seed: str, process: int = 0, processes: int = 1
) -> Iterator[float]:
    """The seconds, from the start of a run, at which one of several load processes sends; without end.

    All processes together make ``calls_a_second``: independent of each other, or evenly spaced in turn.
    """
    interval = processes / calls_a_second
    if arrivals is Arrivals.EVEN:
        number = 0
        while True:
            # Multiplied, not added up: no rounding error grows.
            yield (number + process / processes) * interval
            number += 1
    rng = np.random.Generator(np.random.SFC64(list(f"{seed}/arrivals".encode())))
    due = 0.0
    while True:
        for wait in rng.exponential(interval, _DRAWN).tolist():
            due += wait
            yield due
