"""Where to climb next, and where the knee is: decisions from the steps measured so far, without a clock.

The knee is the highest rate that was held: throughput followed what was offered, and p99 kept its limit. A
step that is strained is tried once more before it counts, since one long fsync may spoil any step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServiceLevels:
    """What must be kept: by each step its p99 and its share of what is offered, the others by the test.

    0 of ``p99_ms`` and of ``min_rate`` is no level; shares are 0 to 1.
    """

    p99_ms: float = 0.0
    follow_share: float = 0.95
    min_rate: float = 0.0
    max_failures: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """One rate, measured: transfers a second that were offered, and that were done."""

    offered: float
    achieved: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """What it shows of the cluster: more than was offered is done when it catches up with late calls."""
        return min(self.offered, self.achieved)


@dataclass(frozen=True, slots=True)
class Knee:
    """The highest step that was held, None when none was, and why the climb went no further."""

    step: Step | None
    reason: str


def rungs(rise: float, target: float, quantum: float) -> list[float]:
    """The rates to offer one after the other: multiples of ``rise`` up to ``target``, each only once.

    Only multiples of ``quantum``, what one user of each class sends, can be offered: the nearest ones are.
    """
    count = int(target // rise)
    wanted = [rise * number for number in range(1, count + 1)]
    if not wanted or wanted[-1] < target:
        wanted.append(target)
    return sorted({max(1, int(rate / quantum + 0.5)) * quantum for rate in wanted})


def strain(step: Step, levels: ServiceLevels) -> str:
    """Why a step was not held; empty when it was."""
    if step.achieved < levels.follow_share * step.offered:
        return f"throughput no longer follows: {step.achieved:,.0f} of {step.offered:,.0f} transfers/s"
    if levels.p99_ms and step.p99_ms > levels.p99_ms:
        return (
            f"p99 of {step.p99_ms:,.0f} ms is above {levels.p99_ms:,.0f} ms "
            f"at {step.offered:,.0f} transfers/s"
        )
    return ""


def next_rung(steps: Sequence[Step], ladder: Sequence[float], levels: ServiceLevels) -> float | None:
    """The transfers a second to offer next, None when the climb is over.

    Args:
        steps: measured so far, as this function had them.
        ladder: from `rungs`.
        levels: what a step must keep.
    """
    strained = [bool(strain(step, levels)) for step in steps]
    if strained[-2:] == [True, True]:
        return None
    level = strained.count(False)
    return ladder[level] if level < len(ladder) else None


def find_knee(steps: Sequence[Step], levels: ServiceLevels) -> Knee:
    """The knee of a climb that has ended, by `next_rung` or by whoever stopped it."""
    held = [step for step in steps if not strain(step, levels)]
    reason = strain(steps[-1], levels) if steps else "no step was measured"
    return Knee(held[-1] if held else None, reason or "no higher rate was tried")
