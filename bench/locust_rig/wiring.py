"""Hangs the rig on Locust's events: options, cluster check, accounts, the knee's report, the exit code."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from typing import Any

import gevent
from locust import runners as locust_runners
from locust.env import Environment
from locust.event import Events
from locust.runners import MasterRunner, WorkerRunner
from locust.stats import calculate_response_time_percentile

from bench.locust_rig.accounts import check_cluster, open_accounts
from bench.locust_rig.errors import RigError
from bench.locust_rig.knee import find_knee
from bench.locust_rig.service_levels import Measured, Verdict, judge
from bench.locust_rig.settings import Mode, RigSettings, add_options, read_settings
from bench.locust_rig.shape import ClimbShape
from bench.locust_rig.users import BatchTransferUser, Rig, TransferUser, UnaryTransferUser
from deploy.errors import DeployError

EXIT_PASSED, EXIT_FAILED, EXIT_NOT_STARTED = 0, 1, 2
_CLASSES: dict[str, list[type[TransferUser]]] = {
    Mode.BATCH: [BatchTransferUser],
    Mode.UNARY: [UnaryTransferUser],
    Mode.BOTH: [BatchTransferUser, UnaryTransferUser],
}
# A test that cannot start is stopped by another greenlet; this one must not go on meanwhile.
_STOPPED_WITHIN_SECONDS = 30.0
# Every step of a climb waits for the workers' reports, which Locust would have sent every three seconds.
_REPORT_SECONDS = 1.0

_log = logging.getLogger(__name__)


def install(events: Events) -> None:
    """Adds the rig's listeners. Once a process, before Locust reads its command line."""
    locust_runners.WORKER_REPORT_INTERVAL = _REPORT_SECONDS
    wiring = _Wiring()
    events.init_command_line_parser.add_listener(lambda parser, **_: add_options(parser))
    events.init.add_listener(wiring.on_init)
    events.test_start.add_listener(wiring.on_test_start)
    events.test_stop.add_listener(wiring.on_test_stop)
    events.quitting.add_listener(wiring.on_quitting)


class _Wiring:
    def __init__(self) -> None:
        self._settings: RigSettings | None = None
        # What was opened, so that a second test from the web page need not.
        self._opened: tuple[tuple[str, ...], int, bool] | None = None

    def on_init(self, environment: Environment, **_: Any) -> None:
        """Refuses, before anything starts, what cannot run."""
        _end_once_on_ctrl_c()
        if isinstance(environment.runner, WorkerRunner):
            # It learns from its master what to do, and must know every class.
            return
        options = _options(environment)
        if not options.user_classes:
            environment.user_classes = list(_CLASSES[options.mode])
        try:
            settings = _settings_of(environment)
            check_cluster(settings)
        except (RigError, DeployError) as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(EXIT_NOT_STARTED)
        if isinstance(environment.shape_class, ClimbShape):
            environment.shape_class.read_settings = lambda: _settings_or_none(environment)
        # Workers, which may be elsewhere, get the routers that were found here.
        options.routers = ",".join(settings.routers)
        environment.host = environment.host or options.routers

    def on_test_start(self, environment: Environment, **_: Any) -> None:
        """Makes what the users share; opens the accounts, once, where the test is led."""
        try:
            settings = self._settings = _settings_of(environment)
            if not isinstance(environment.runner, WorkerRunner):
                self._open_once(settings)
            if not isinstance(environment.runner, MasterRunner):
                if hasattr(TransferUser, "rig"):
                    TransferUser.rig.routers.close()
                TransferUser.rig = Rig(settings)
            # Of a test before, from the web page.
            environment.process_exit_code = None
        except (RigError, DeployError) as error:
            _log.error("error: %s", error)
            environment.process_exit_code = EXIT_NOT_STARTED
            _stop(environment)

    def on_test_stop(self, environment: Environment, **_: Any) -> None:
        """Reports to who leads the test from a web page."""
        if isinstance(environment.runner, WorkerRunner):
            return
        if self._settings is not None and not _options(environment).headless:
            self._report(environment, self._settings)

    def on_quitting(self, environment: Environment, **_: Any) -> None:
        """Reports a headless run, once all workers' last counts are in, and sets the exit code."""
        runner = environment.runner
        if runner is None or isinstance(runner, WorkerRunner):
            return
        headless = bool(_options(environment).headless)
        if self._settings is None:
            # From a web page nobody need have started a test.
            if headless:
                environment.process_exit_code = EXIT_NOT_STARTED
            return
        if headless:
            self._report(environment, self._settings)
        if environment.process_exit_code is None:
            passed = _verdict(environment, self._settings).passed
            environment.process_exit_code = EXIT_PASSED if passed else EXIT_FAILED

    def _open_once(self, settings: RigSettings) -> None:
        wanted = (settings.routers, settings.accounts, bool(settings.reject_share))
        if self._opened != wanted:
            open_accounts(settings)
            self._opened = wanted

    def _report(self, environment: Environment, settings: RigSettings) -> None:
        shape = environment.shape_class
        # Locust's own --json has standard output to itself.
        out = sys.stderr if _options(environment).json else sys.stdout
        if isinstance(shape, ClimbShape) and shape.steps:
            out.write(f"{'offered/s':>12} {'done/s':>12} {'p99 ms':>8}\n")
            for step in shape.steps:
                out.write(f"{step.offered:>12,.0f} {step.achieved:>12,.0f} {step.p99_ms:>8,.0f}\n")
            knee = find_knee(shape.steps, settings.limits)
            held = "no step was held" if knee.step is None else f"{knee.step.achieved:,.0f} transfers/s"
            out.write(f"knee: {held} ({knee.reason})\n")
        out.write(_verdict(environment, settings).text + "\n")
        out.flush()


def _end_once_on_ctrl_c() -> None:
    """Has Ctrl-C end Locust's main greenlet, once.

    Python would raise KeyboardInterrupt in whichever user runs at that moment, and again in who waits for it;
    the second one cuts Locust's orderly end short, and with it the counts of what is on its way.
    """
    told = False

    def interrupt() -> None:
        nonlocal told
        if not told:
            told = True
            gevent.get_hub().handle_system_error(KeyboardInterrupt, KeyboardInterrupt())

    gevent.signal_handler(signal.SIGINT, interrupt)


def _options(environment: Environment) -> argparse.Namespace:
    options: argparse.Namespace | None = environment.parsed_options
    if options is None:
        raise RigError("the rig runs under Locust's command line only")
    return options


def _settings_of(environment: Environment) -> RigSettings:
    settings = read_settings(_options(environment))
    for user_class in environment.user_classes:
        if not isinstance(environment.runner, WorkerRunner) and issubclass(user_class, TransferUser):
            rate = user_class.transfers_per_second(settings)
            if settings.step < rate:
                raise RigError(
                    f"--step must be at least what one {user_class.__name__} sends, {rate:,.0f} transfers/s, "
                    f"not {settings.step:,.0f}: a larger step, or a smaller --batch or --batch-user-rate"
                )
    return settings


def _settings_or_none(environment: Environment) -> RigSettings | None:
    try:
        return _settings_of(environment)
    except (RigError, DeployError) as error:
        _log.error("error: %s", error)
        return None


def _verdict(environment: Environment, settings: RigSettings) -> Verdict:
    total, shape = environment.stats.total, environment.shape_class
    rate = total.total_rps - total.total_fail_per_sec
    p99_ms: float = calculate_response_time_percentile(total.response_times, total.num_requests, 0.99)
    if isinstance(shape, ClimbShape) and shape.steps:
        step = find_knee(shape.steps, settings.limits).step
        # When none was held, the first one is the mildest that can be said.
        rate, p99_ms = (
            (step.achieved, step.p99_ms) if step else (shape.steps[0].achieved, shape.steps[0].p99_ms)
        )
    return judge(settings.levels, Measured(rate, p99_ms, total.num_requests, total.num_failures))


def _stop(environment: Environment) -> None:
    """Stops the test that is about to start, from inside its start."""
    runner = environment.runner
    if runner is not None:
        headless = bool(_options(environment).headless)
        gevent.spawn(runner.quit if headless else runner.stop)
        gevent.sleep(_STOPPED_WITHIN_SECONDS)
