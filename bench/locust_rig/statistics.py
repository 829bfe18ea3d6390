"""Counts a whole batch in Locust's statistics: every transfer is one request there.

Locust's `request` event counts one request, and costs microseconds: fired for each transfer of a batch it
would be the generator's bottleneck. Here a batch becomes one `StatsEntry` that is merged with
`StatsEntry.extend`, the way in which a master merges what its workers report. So percentiles, rates, charts
and CSV all see transfers, and workers report them to their master as they report anything else.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from locust import stats as locust_stats
from locust.stats import RequestStats, StatsEntry, StatsError

from bench.locust_rig.answers import COMMITTED

METHOD = "gRPC"


def count_transfers(
    stats: RequestStats,
    name: str,
    latency_ms: float,
    outcomes: Mapping[str, int],
    expected: Collection[str] = (),
    answer_bytes: int = 0,
) -> None:
    """Counts the transfers of one call, all with its latency.

    Args:
        stats: Locust's, of this process.
        name: the entry they are counted under.
        latency_ms: from when the call was due to when its answer was read.
        outcomes: how many transfers had which outcome, by name.
        expected: outcomes that are no failure. They are entries of their own, so that they show apart.
        answer_bytes: the length of the answer.
    """
    failed = 0
    for outcome, count in outcomes.items():
        if outcome in expected:
            _extend(stats, f"{name} {outcome}", latency_ms, count, 0, 0)
        elif outcome != COMMITTED:
            failed += count
            _count_error(stats, name, outcome, count)
    here = sum(count for outcome, count in outcomes.items() if outcome not in expected)
    if here:
        _extend(stats, name, latency_ms, here, failed, answer_bytes)


def _extend(
    stats: RequestStats, name: str, latency_ms: float, count: int, failed: int, answer_bytes: int
) -> None:
    now = time.time()
    second = int(now)
    addition = StatsEntry(stats, name, METHOD)
    addition.num_requests = count
    addition.num_failures = failed
    # Locust declares these int, and adds floats to them itself.
    addition.total_response_time = latency_ms * count  # type: ignore[assignment]
    addition.min_response_time = latency_ms  # type: ignore[assignment]
    addition.max_response_time = latency_ms  # type: ignore[assignment]
    addition.last_request_timestamp = now
    addition.total_content_length = answer_bytes
    # Looked up there, not imported: Locust lets it be replaced.
    addition.response_times[locust_stats.bucket_response_time(latency_ms)] = count
    addition.num_reqs_per_sec[second] = count
    if failed:
        addition.num_fail_per_sec[second] = failed
    stats.total.extend(addition)
    stats.entries[(name, METHOD)].extend(addition)


def _count_error(stats: RequestStats, name: str, outcome: str, count: int) -> None:
    key = StatsError.create_key(METHOD, name, outcome)
    error = stats.errors.get(key)
    if error is None:
        error = stats.errors[key] = StatsError(METHOD, name, outcome)
    error.occurred()
    error.occurrences += count - 1
