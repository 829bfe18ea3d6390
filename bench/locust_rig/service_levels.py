"""Pass or fail: what a test measured against the service levels that it was given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServiceLevels:
    """What must be kept. 0 of ``p99_ms`` and of ``min_rate`` is no level; ``max_failures`` is a share."""

    p99_ms: float = 0.0
    min_rate: float = 0.0
    max_failures: float = 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Transfers done a second and p99 at the knee, or of the whole test when it has none; counts of all."""

    rate: float
    p99_ms: float
    transfers: int
    failures: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether all levels were kept, and each of them in one line."""

    passed: bool
    text: str


def judge(levels: ServiceLevels, measured: Measured) -> Verdict:
    """Every level by itself; a test that sent nothing has failed."""
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
    told = [
        f"{what}{f' ({level})' if level else ''}{'' if kept else ' NOT KEPT'}" for kept, what, level in parts
    ]
    passed = all(kept for kept, _, _ in parts)
    return Verdict(passed, f"{'PASS' if passed else 'FAIL'}: {', '.join(told)}")
