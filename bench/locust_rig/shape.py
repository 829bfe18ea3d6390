"""The load shape: climbs to the target rate in steps, measures each, stops at the knee.

Runs on the master, or in the one process. A step lasts so many whole seconds after its users have settled.
Its throughput is read from Locust's counts by the second, its p99 from the growth of Locust's histogram; on a
master both wait until the workers' reports of those seconds are in. After a step that was strained all users
end, and new ones try it again: the late calls of the old ones would be added to what is offered.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from locust import LoadTestShape, User
from locust import runners as locust_runners
from locust.runners import MasterRunner, Runner
from locust.stats import RequestStats, calculate_response_time_percentile, diff_response_time_dicts

from bench.locust_rig.knee import Step, next_rung, rungs, strain
from bench.locust_rig.settings import RigSettings
from bench.locust_rig.users import TransferUser

_P99 = 0.99
# The last second of a step is over, and its calls are counted.
_LOCAL_LAG_SECONDS = 1
# A worker that was busy reports a little late.
_REPORT_MARGIN_SECONDS = 1
# A step waits for so many times the usual lag for a report with its latencies.
_LATE_REPORTS = 3
# Users a second: Locust warns of more.
_SPAWN_RATE = 100
# Users start, or end with their last answers, in much less, also after a million accounts were opened.
_USERS_WITHIN_SECONDS = 300.0

_log = logging.getLogger(__name__)


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
        # None before the first step; 0 while those of a strained one end. Locust resets the shape once more
        # while it starts the first ones.
        self._users: int | None = None
        self._spawn_rate = 1.0
        self._offered = 0.0
        self._users_wanted_at = math.inf
        self._window: _Window | None = None

    def tick(self) -> tuple[int, float] | None:
        """How many users there must be now, and how many to start a second; None at the end."""
        self._settings = self._settings or self.read_settings()
        if self.runner is None or self._settings is None:
            return None
        if self._users is None or self.runner.user_count == self._users:
            self._users_wanted_at = time.monotonic()
            ended = not self._users or self._measured(self.runner, self._settings)
            if ended and not self._begin_next(self.runner, self._settings):
                return None
        elif time.monotonic() > self._users_wanted_at + _USERS_WITHIN_SECONDS:
            _log.error("a step's users did not come to be %d in time: the climb ends here", self._users)
            return None
        return self._users or 0, self._spawn_rate

    def _begin_next(self, runner: Runner, settings: RigSettings) -> bool:
        """Decides on the users of the next step, none at first after a strained one; false at the end."""
        quantum = offered_by_one_of_each(runner.user_classes, settings)
        ladder = rungs(settings.step, settings.target_rate, quantum)
        rate = next_rung(self.steps, ladder, settings.levels)
        if rate is None:
            return False
        if self._users and strain(self.steps[-1], settings.levels):
            # All at once.
            self._users, self._spawn_rate = 0, float(self._users)
        else:
            self._offered = rate
            self._users = round(rate / quantum) * len(runner.user_classes)
            self._spawn_rate = float(min(self._users, _SPAWN_RATE))
        return True

    def _measured(self, runner: Runner, settings: RigSettings) -> bool:
        """Opens, reads and closes the window of the step that runs; whether that has ended."""
        now, lag = time.time(), _lag_seconds(runner)
        if self._window is None:
            first = math.ceil(now + settings.settle_seconds)
            self._window = _Window(first, first + math.ceil(settings.step_seconds))
        window, total = self._window, runner.stats.total
        if window.latencies_before is None:
            # Even if this tick comes late: the window ends with a later one, or it would hold no latencies.
            if now >= window.first + lag:
                window.latencies_before = dict(total.response_times)
            return False
        if now < window.end + lag:
            return False
        latencies = diff_response_time_dicts(total.response_times, window.latencies_before)
        achieved, calls = _done_a_second(runner.stats, window), sum(latencies.values())
        if achieved and not calls and now < window.end + _LATE_REPORTS * lag:
            # No worker has reported since the window began: without latencies its p99 is not known, not 0.
            return False
        p99_ms = calculate_response_time_percentile(latencies, calls, _P99)
        self.steps.append(Step(offered=self._offered, achieved=achieved, p99_ms=p99_ms))
        self._window = None
        return True


def offered_by_one_of_each(user_classes: Iterable[type[User]], settings: RigSettings) -> float:
    """The transfers a second of one user of each class: the climb's rates are multiples of it."""
    classes = cast("Iterable[type[TransferUser]]", user_classes)
    return sum(user_class.transfers_per_second(settings) for user_class in classes)


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
