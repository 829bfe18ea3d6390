"""Where to climb next, and where the knee is: decisions from the steps measured so far, without a clock.

The knee is the highest rate that was held: throughput followed what was offered, and p99 kept its limit. A
step that is strained is tried once more before it counts, since one long fsync may spoil any step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What a step must keep. ``p99_ms`` of 0 is none; ``follow_share`` is of the offered rate, 0 to 1."""

    p99_ms: float = 0.0
    follow_share: float = 0.95


@dataclass(frozen=True, slots=True)
class Step:
    """One rate, measured: transfers a second that were offered, and that were done."""

    offered: float
    achieved: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Knee:
    """The highest step that was held, None when none was, and why the climb went no further."""

    step: Step | None
    reason: str


def strain(step: Step, limits: Limits) -> str:
    """Why a step was not held; empty when it was."""
    if step.achieved < limits.follow_share * step.offered:
        return f"throughput no longer follows: {step.achieved:,.0f} of {step.offered:,.0f} transfers/s"
    if limits.p99_ms and step.p99_ms > limits.p99_ms:
        return (
            f"p99 of {step.p99_ms:,.0f} ms is above {limits.p99_ms:,.0f} ms "
            f"at {step.offered:,.0f} transfers/s"
        )
    return ""


def next_rate(steps: Sequence[Step], rise: float, target: float, limits: Limits) -> float | None:
    """The transfers a second to offer next, None when the climb is over.

    Steps offer multiples of ``rise``, the last one the target; how near they come is for the caller to
    say in :attr:`Step.offered`, which alone is judged.
    """
    held = [step for step in steps if not strain(step, limits)]
    level = len(held)
    if steps and strain(steps[-1], limits):
        tried_before = len(steps) >= 2 and steps[-2].offered == steps[-1].offered
        if tried_before:
            return None
    elif level and level * rise >= target:
        return None
    return min((level + 1) * rise, target)


def find_knee(steps: Sequence[Step], limits: Limits) -> Knee:
    """The knee of a climb that has ended, by `next_rate` or by whoever stopped it."""
    held = [step for step in steps if not strain(step, limits)]
    reason = strain(steps[-1], limits) if steps else "no step was measured"
    return Knee(held[-1] if held else None, reason or "no higher rate was tried")
