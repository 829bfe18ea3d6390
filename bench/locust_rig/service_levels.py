"""Pass or fail: what a test measured against the service levels that it was given."""

from __future__ import annotations

from dataclasses import dataclass

from bench.locust_rig.knee import ServiceLevels


@dataclass(frozen=True, slots=True)
class Measured:
    """Transfers done a second and p99 at the knee, or of the whole test when it has none; counts of all.

    ``done`` are those that Locust was told of as committed, ``doubtful`` those whose outcome it does not
    know; ``moved`` is how many the cluster's shards counted, None when they did not say.
    """

    rate: float
    p99_ms: float
    transfers: int
    failures: int
    done: int = 0
    doubtful: int = 0
    moved: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether all levels were kept, and each of them in one line."""

    passed: bool
    text: str


def judge(levels: ServiceLevels, measured: Measured) -> Verdict:
    """Every level by itself, and whether the shards count as Locust does. A test that sent nothing failed."""
    if not measured.transfers:
        return Verdict(passed=False, text="FAIL: no transfer was sent")
    share = measured.failures / measured.transfers
    parts = [
        (
            measured.rate >= levels.min_rate,
            f"{measured.rate:,.0f} transfers/s",
            f"at least {levels.min_rate:,.0f}" if levels.min_rate else "",
        ),
        (
            not levels.p99_ms or measured.p99_ms <= levels.p99_ms,
            f"p99 {measured.p99_ms:,.0f} ms",
            f"at most {levels.p99_ms:,.0f}" if levels.p99_ms else "",
        ),
        (
            share <= levels.max_failures,
            f"{measured.failures:,} of {measured.transfers:,} failed ({share:.4%})",
            f"at most {levels.max_failures:.4%}",
        ),
    ]
    if measured.moved is not None:
        told = f"Locust was told of {measured.done:,}"
        if measured.doubtful:
            told += f", and {measured.doubtful:,} are in doubt"
        kept = measured.done <= measured.moved <= measured.done + measured.doubtful
        parts.append((kept, f"the shards moved {measured.moved:,}", told))
    lines = [
        f"{what}{f' ({level})' if level else ''}{'' if kept else ' NOT KEPT'}" for kept, what, level in parts
    ]
    passed = all(kept for kept, _, _ in parts)
    return Verdict(passed, f"{'PASS' if passed else 'FAIL'}: {', '.join(lines)}")
