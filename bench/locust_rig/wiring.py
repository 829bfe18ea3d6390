"""Hangs the rig on Locust's events: options, cluster check, accounts, what was found, the exit code."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import gevent
import gevent.event
from flask import Response, request
from locust import runners as locust_runners
from locust.env import Environment
from locust.event import Events
from locust.runners import STATE_STOPPED, MasterRunner, WorkerRunner
from locust.stats import calculate_response_time_percentile

from bench.errors import BenchError
from bench.locust_rig.cluster_side import ClusterSide, Watch, check_cluster, open_all
from bench.locust_rig.knee import find_knee
from bench.locust_rig.report import Findings
from bench.locust_rig.service_levels import Measured, judge
from bench.locust_rig.settings import Mode, RigSettings, add_options, read_settings, refuse_what_does_nothing
from bench.locust_rig.shape import ClimbShape, offered_by_one_of_each
from bench.locust_rig.users import BatchTransferUser, Rig, TransferUser, UnaryTransferUser, counted
from deploy.errors import DeployError
from tallystick import TallystickError
from tallystick.locust import GreenletClient

_REFUSALS = (BenchError, DeployError, TallystickError)
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

# Looks at the cluster, until no more counts arrive during one.
_READS = 5
# How long a report waits for what is just being found: Locust calls a test stopped before its listeners ran.
_FOUND_WITHIN_SECONDS = 30.0

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
        self._client: GreenletClient | None = None
        self._watch: Watch | None = None
        # Of the last test that ended.
        self._findings: Findings | None = None
        # Unset from a test's start until its findings are there, or cannot be.
        self._found = gevent.event.Event()
        self._found.set()

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
            refuse_what_does_nothing(options)
            settings = _settings_of(environment)
            check_cluster(settings)
        except _REFUSALS as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(EXIT_NOT_STARTED)
        if isinstance(environment.shape_class, ClimbShape):
            environment.shape_class.read_settings = lambda: _settings_or_none(environment)
        # The page shows it, and workers, which may be elsewhere, get it.
        environment.host = options.routers = ",".join(settings.routers)
        if environment.web_ui is not None and environment.web_ui.app is not None:
            environment.web_ui.app.after_request(lambda response: self._add_findings(environment, response))

    def on_test_start(self, environment: Environment, **_: Any) -> None:
        """Makes what the users share; opens the accounts, once, where the test is led."""
        self._findings = self._watch = None
        self._found.clear()
        try:
            settings = self._settings = _settings_of(environment)
            if not isinstance(environment.runner, WorkerRunner):
                self._lead(settings)
            if not isinstance(environment.runner, MasterRunner):
                if hasattr(TransferUser, "rig"):
                    TransferUser.rig.routers.close()
                TransferUser.rig = Rig(settings)
            # Of a test before, from the web page.
            environment.process_exit_code = None
        except _REFUSALS as error:
            _log.error("error: %s", error)
            environment.process_exit_code = EXIT_NOT_STARTED
            _stop(environment)

    def on_test_stop(self, environment: Environment, **_: Any) -> None:
        """Says what was found, where the test was led: its users have ended, all that they did is counted."""
        if self._watch is None or self._settings is None:
            self._found.set()
            return
        try:
            self._findings = _findings(environment, self._settings, self._watch)
        finally:
            self._found.set()
        # Locust's own --json has standard output to itself.
        out = sys.stderr if _options(environment).json else sys.stdout
        out.write(self._findings.text())
        out.flush()

    def on_quitting(self, environment: Environment, **_: Any) -> None:
        """Adds what was found to Locust's report, and sets the exit code."""
        if self._client is not None:
            self._client.close()
        options = _options(environment)
        if environment.runner is None or isinstance(environment.runner, WorkerRunner):
            return
        if self._findings is None:
            # From a web page nobody need have started a test.
            if options.headless:
                environment.process_exit_code = EXIT_NOT_STARTED
            return
        # Not written when Locust was told to end by a signal other than Ctrl-C's.
        if options.html_file and (report := Path(options.html_file)).exists():
            page = self._findings.within(report.read_text(encoding="utf-8"))
            report.write_text(page, encoding="utf-8")
        if environment.process_exit_code is None:
            passed = self._findings.verdict.passed
            environment.process_exit_code = EXIT_PASSED if passed else EXIT_FAILED

    def _lead(self, settings: RigSettings) -> None:
        """Opens the accounts, unless the test before did, and begins to watch the cluster."""
        if self._client is not None:
            self._client.close()
        self._client = GreenletClient(settings.routers)
        wanted = (settings.routers, settings.accounts, bool(settings.reject_share))
        if self._opened != wanted:
            open_all(self._client, settings)
            self._opened = wanted
        self._watch = Watch(settings, self._client)

    def _add_findings(self, environment: Environment, response: Response) -> Response:
        """Puts the findings into the report that the web page hands out, once they are there."""
        if not request.path.endswith("/stats/report"):
            return response
        if environment.runner is not None and environment.runner.state == STATE_STOPPED:
            self._found.wait(_FOUND_WITHIN_SECONDS)
        if self._findings is not None:
            response.set_data(self._findings.within(response.get_data(as_text=True)))
        return response


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
        raise BenchError("the rig runs under Locust's command line only")
    return options


def _settings_of(environment: Environment) -> RigSettings:
    settings = read_settings(_options(environment), environment.host or "")
    if not isinstance(environment.runner, WorkerRunner):
        least = offered_by_one_of_each(environment.user_classes, settings)
        users = " and one ".join(user_class.__name__ for user_class in environment.user_classes)
        for option, rate in (("--step", settings.step), ("--target-rate", settings.target_rate)):
            if rate < least:
                raise BenchError(
                    f"{option} must be at least what one {users} sends, {least:,.0f} transfers/s, not "
                    f"{rate:,.0f}: a larger one, or a smaller --batch, --batch-user-rate or --unary-user-rate"
                )
    return settings


def _settings_or_none(environment: Environment) -> RigSettings | None:
    try:
        return _settings_of(environment)
    except _REFUSALS as error:
        _log.error("error: %s", error)
        return None


def _findings(environment: Environment, settings: RigSettings, watch: Watch) -> Findings:
    cluster: ClusterSide | None = None
    unknown = ""
    try:
        for _ in range(_READS):
            before = counted(environment.stats)
            if isinstance(environment.runner, MasterRunner):
                # A worker reports once in that time: what its users did last may still be on its way.
                gevent.sleep(_REPORT_SECONDS)
            cluster = watch.seen()
            # The last counts of a slow worker may arrive during the look: then it was too early.
            if counted(environment.stats) == before:
                break
    except _REFUSALS as error:
        unknown = str(error)
    shape, total = environment.shape_class, environment.stats.total
    steps = tuple(shape.steps) if isinstance(shape, ClimbShape) else ()
    rate = total.total_rps - total.total_fail_per_sec
    p99_ms: float = calculate_response_time_percentile(total.response_times, total.num_requests, 0.99)
    if steps:
        # When none was held, the first one is the mildest that can be said.
        step = find_knee(steps, settings.levels).step or steps[0]
        rate, p99_ms = step.rate, step.p99_ms
    done, doubtful = counted(environment.stats)
    moved = None if cluster is None else cluster.moved
    measured = Measured(rate, p99_ms, total.num_requests, total.num_failures, done, doubtful, moved)
    return Findings(steps, settings.levels, judge(settings.levels, measured), cluster, unknown)


def _stop(environment: Environment) -> None:
    """Stops the test that is about to start, from inside its start."""
    runner = environment.runner
    if runner is not None:
        headless = bool(_options(environment).headless)
        gevent.spawn(runner.quit if headless else runner.stop)
        gevent.sleep(_STOPPED_WITHIN_SECONDS)
