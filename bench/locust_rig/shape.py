"""The load shape: climbs to the target rate in steps, measures each, stops at the knee.

Runs on the master, or in the one process. A step lasts so many whole seconds after its users have settled.
Its throughput is read from Locust's counts by the second, its p99 from the growth of Locust's histogram; on a
master both wait until the workers' reports of those seconds are in.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import cast

from locust import LoadTestShape
from locust import runners as locust_runners
from locust.runners import MasterRunner, Runner
from locust.stats import RequestStats, calculate_response_time_percentile, diff_response_time_dicts

from bench.locust_rig.knee import Step, next_rate
from bench.locust_rig.settings import RigSettings
from bench.locust_rig.users import TransferUser

_P99 = 0.99
# The last second of a step is over, and its calls are counted.
_LOCAL_LAG_SECONDS = 1
# A worker that was busy reports a little late.
_REPORT_MARGIN_SECONDS = 1
# Users a second: Locust warns of more. The last ones to go may all go at once.
_SPAWN_RATE = 100
# Users start, or end with their last answers, in much less, also after a million accounts were opened.
_USERS_WITHIN_SECONDS = 300.0

_log = logging.getLogger(__name__)


class _Phase(Enum):
    CLIMBING = "climbing"
    # No users any more; the last answers and reports come in.
    DRAINING = "draining"


@dataclass(slots=True)
class _Window:
    """The seconds of a step that count, as Unix time, and the histogram when they began."""

    first: int
    end: int
    latencies_before: dict[int, int] | None = None


class ClimbShape(LoadTestShape):
    """Climbs as `bench.locust_rig.knee` decides.

    ``steps`` are those measured so far. ``read_settings`` is asked when a test starts, for the web page may
    have changed them; None ends the test before it begins.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self.read_settings: Callable[[], RigSettings | None] = lambda: None
        self._restart()

    def reset_time(self) -> None:
        """Locust calls this when a test starts."""
        super().reset_time()  # type: ignore[no-untyped-call]
        self._restart()

    def _restart(self) -> None:
        self.steps = []
        self._settings: RigSettings | None = None
        self._phase = _Phase.CLIMBING
        # 0 between two steps.
        self._users = 0
        self._most_users = 1
        self._users_wanted_at = math.inf
        self._window: _Window | None = None
        self._drained_at: float | None = None
        self._drain_until: float | None = None

    def tick(self) -> tuple[int, float] | None:
        """How many users there must be now, and how many to start a second; None at the end."""
        self._settings = self._settings or self.read_settings()
        if self.runner is None or self._settings is None:
            return None
        if self._phase is _Phase.DRAINING:
            return self._drain(self.runner)
        if self._users and self.runner.user_count == self._users:
            self._users_wanted_at = time.monotonic()
            self._measure(self.runner, self._settings)
        elif time.monotonic() > self._users_wanted_at + _USERS_WITHIN_SECONDS:
            _log.error("the %d users of a step did not start: the climb ends here", self._users)
            self._phase = _Phase.DRAINING
            return self._drain(self.runner)
        if not self._users:
            settings = self._settings
            rate = next_rate(self.steps, settings.step, settings.target_rate, settings.limits)
            if rate is None:
                self._phase = _Phase.DRAINING
                return self._drain(self.runner)
            self._users = self._most_users = users_for(rate, self.runner, settings)
            self._users_wanted_at = time.monotonic()
        return self._users, float(min(self._users, _SPAWN_RATE))

    def _measure(self, runner: Runner, settings: RigSettings) -> None:
        """Opens, reads and closes the window of the step that runs."""
        now, lag = time.time(), _lag_seconds(runner)
        if self._window is None:
            first = math.ceil(now + settings.settle_seconds)
            self._window = _Window(first, first + math.ceil(settings.step_seconds))
        window, total = self._window, runner.stats.total
        if window.latencies_before is None:
            # Even if this tick comes late: the window ends with a later one, or it would hold no latencies.
            if now >= window.first + lag:
                window.latencies_before = dict(total.response_times)
            return
        if now < window.end + lag:
            return
        latencies = diff_response_time_dicts(total.response_times, window.latencies_before)
        self.steps.append(
            Step(
                offered=self._users * _rate_of_a_user(runner, settings),
                achieved=_done_a_second(runner.stats, window),
                p99_ms=calculate_response_time_percentile(latencies, sum(latencies.values()), _P99),
            )
        )
        self._users, self._window = 0, None

    def _drain(self, runner: Runner) -> tuple[int, float] | None:
        """Ends the users first: a master that stops all at once loses what its workers did not yet report."""
        now = time.monotonic()
        self._drain_until = self._drain_until or now + _USERS_WITHIN_SECONDS
        if not runner.user_count and self._drained_at is None:
            self._drained_at = now
        if now > self._drain_until or (self._drained_at and now > self._drained_at + _lag_seconds(runner)):
            return None
        return 0, float(self._most_users)


def users_for(rate: float, runner: Runner, settings: RigSettings) -> int:
    """The users that come nearest to a rate, as many of each class."""
    classes = len(runner.user_classes)
    return max(1, round(rate / _rate_of_a_user(runner, settings) / classes)) * classes


def _rate_of_a_user(runner: Runner, settings: RigSettings) -> float:
    """Transfers a second, the mean over the classes."""
    classes = [cast("type[TransferUser]", user_class) for user_class in runner.user_classes]
    return sum(user_class.transfers_per_second(settings) for user_class in classes) / len(classes)


def _lag_seconds(runner: Runner) -> float:
    """How long after a second its counts are complete."""
    if isinstance(runner, MasterRunner):
        return locust_runners.WORKER_REPORT_INTERVAL + _REPORT_MARGIN_SECONDS
    return _LOCAL_LAG_SECONDS


def _done_a_second(stats: RequestStats, window: _Window) -> float:
    sent, failed = stats.total.num_reqs_per_sec, stats.total.num_fail_per_sec
    # Not by subscript: these are defaultdicts.
    done = sum(sent.get(second, 0) - failed.get(second, 0) for second in range(window.first, window.end))
    return done / (window.end - window.first)
