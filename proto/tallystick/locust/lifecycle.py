"""What a process of Locust has of its own: its client, and an end at which every call that was made counts.

Locust forks its workers once it has read the file with their users, so clients are made when a user first
needs one. A master that ends a test stops its workers at once and waits half a second for their last
counts; a call that is on its way for longer would be missing in them, though its money moved. So it first
asks them to stop, and waits until their users have ended: each tells it in one message that it has none any
more, and what they counted.
"""

import time
from typing import Any

import gevent
import locust
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from tallystick.addresses import router_addresses
from tallystick.locust.greenlets import GreenletClient
from tallystick.settings import ClientSettings

_STOP = "tallystick-stop"
# As long as Locust itself waits for its workers, which is longer than a call may take.
_STOPPED_WITHIN_SECONDS = 60.0
_POLL_SECONDS = 0.05

_clients: dict[tuple[str, ClientSettings | None], GreenletClient] = {}


def shared_client(host: str, settings: ClientSettings | None) -> GreenletClient:
    """This process' client of these routers, made at the first call."""
    client = _clients.get((host, settings))
    if client is None:
        client = _clients[host, settings] = GreenletClient(addresses_of(host), settings=settings)
    return client


def addresses_of(host: str) -> list[str]:
    """The routers in a user's host. Raises InvalidArgument."""
    return router_addresses(address.strip() for address in host.split(",") if address.strip())


def watch(environment: Environment, **_: Any) -> None:
    """Hangs on the events of an environment's end; Locust's command line calls it once it has made one."""
    runner = environment.runner
    environment.events.quitting.add_listener(_end)
    if isinstance(runner, MasterRunner):
        master = _Master(runner)
        environment.events.test_stopping.add_listener(master.on_test_stopping)
        environment.events.test_stop.add_listener(master.on_test_stop)
    elif isinstance(runner, WorkerRunner):
        environment.events.test_stop.add_listener(lambda **_: _send_counts(runner))
        # Its master's word to stop follows, and finds that it has.
        runner.register_message(_STOP, lambda **_: runner.stop())


class _Master:
    def __init__(self, runner: MasterRunner) -> None:
        self._runner = runner
        self._users: dict[str, int] = {}

    def on_test_stopping(self, **_: Any) -> None:
        """Has the workers end their users, and waits for their last counts."""
        runner = self._runner
        self._users = dict(runner.reported_user_classes_count)
        runner.send_message(_STOP)
        longest_seconds = (runner.environment.stop_timeout or 0) + _STOPPED_WITHIN_SECONDS
        deadline = time.monotonic() + longest_seconds
        while runner.user_count and time.monotonic() < deadline:
            gevent.sleep(_POLL_SECONDS)

    def on_test_stop(self, **_: Any) -> None:
        """Locust's report says how the users were shared among their classes; here they have gone already."""
        self._runner.final_user_classes_count = self._users


def _send_counts(runner: WorkerRunner) -> None:
    """Reports what was counted since the last time, and that there are no users."""
    report: dict[str, Any] = {}
    runner.environment.events.report_to_master.fire(client_id=runner.client_id, data=report)
    runner.send_message("stats", report)


def _end(environment: Environment, **_: Any) -> None:
    """Ends what still runs when Locust itself ends, as after Ctrl-C, before what it needs is closed."""
    if environment.runner is not None:
        environment.runner.stop()
    while _clients:
        _clients.popitem()[1].close()


locust.events.init.add_listener(watch)
