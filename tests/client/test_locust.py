"""Locustfiles of users' own: the README's runs as it is printed, and no greenlet waits for another."""

from __future__ import annotations

import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from deploy.local.launcher import LocalCluster
from tallystick import ForkedClient, SyncClient
from tests.bench.locust_runs import Summary, local_master, run_headless

pytestmark = pytest.mark.servers

README = Path(__file__).parents[2] / "README.md"


def run_users(folder: Path, locustfile: str, *options: str) -> Summary:
    """What Locust says of users that a test wrote."""
    path = folder / "users_of_a_test.py"
    path.write_text(locustfile)
    return run_headless(*options, locustfile=path)


def succeeded(ran: Summary, name: str) -> int:
    """How many operations of that name Locust counted as done."""
    return ran.requests[name] - ran.failures[name]


@pytest.mark.cluster
def test_the_readme_example_counts_what_the_cluster_moved(tmp_path: Path, cluster: LocalCluster) -> None:
    """As printed, in two workers: each transfer that Locust counts as done changed the shop's account."""
    (example,) = re.findall(r"```python\n([^`]*TallystickUser[^`]*)```", README.read_text())
    assert len(example.splitlines()) <= 26
    with SyncClient(cluster.router_addresses) as client:
        ran = run_users(
            tmp_path,
            example,
            f"--host={','.join(cluster.router_addresses)}",
            *("--users=6", "--spawn-rate=6", "--run-time=3s", "--processes=2", *local_master()),
        )
        shop = client.get_account("locust-shop")
    assert succeeded(ran, "deposit") == 6
    assert shop.version == succeeded(ran, "transfer") + succeeded(ran, "transfers") > 60
    paid = succeeded(ran, "transfer") * Decimal("0.75") + succeeded(ran, "transfers") * Decimal("0.10")
    assert shop.available == paid
    # Nobody has more than 5 EUR: that is expected, and no failure.
    assert ran.requests["transfers INSUFFICIENT_FUNDS"] > 0
    assert (ran.errors, ran.exit_code) == ({}, 0)


REFUSED = """
from locust import SequentialTaskSet, constant, task
from tallystick import AccountNotFound, Transfer
from tallystick.locust import TallystickUser


class Refused(SequentialTaskSet):
    @task
    def pay_nobody(self):
        self.user.wallet.transfer("nobody-1", "nobody-2", "1.00", "EUR")
        print("GOES ON AFTER AN ERROR", flush=True)

    @task
    def pay_many_nobodies(self):
        for result in self.user.wallet.transfers([Transfer("nobody-1", "nobody-2", "1.00", "EUR")] * 3):
            assert isinstance(result.error, AccountNotFound)

    @task
    def look(self):
        try:
            self.user.wallet.get_account("nobody-1")
        except AccountNotFound as error:
            print("CAUGHT", error)
            self.user.environment.runner.quit()


class Payer(TallystickUser):
    wait_time = constant(0.1)
    host = "{host}"
    tasks = [Refused]
"""


@pytest.mark.cluster
def test_failures_are_told_by_outcome_and_end_the_round(tmp_path: Path, cluster: LocalCluster) -> None:
    """One row an operation and outcome; who catches the error gets a typed one, others no traceback."""
    locustfile = REFUSED.format(host=",".join(cluster.router_addresses))
    ran = run_users(tmp_path, locustfile)
    assert ran.requests == {"transfer": 1, "transfers": 3, "get_account": 1}
    assert ran.errors == {f"{name}: ACCOUNT_NOT_FOUND": count for name, count in ran.requests.items()}
    assert "CAUGHT account_id: account not found" in ran.output
    assert "GOES ON" not in ran.output
    assert "Traceback" not in ran.output
    assert ran.exit_code == 1


def test_a_user_without_routers_is_told_what_it_needs(tmp_path: Path) -> None:
    """In a sentence that names the option."""
    ran = run_users(tmp_path, REFUSED.replace('host = "{host}"', ""), "--run-time=1s")
    assert "Payer needs the routers: --host HOST:PORT,..., or `host` in the class" in ran.output
    ran = run_users(tmp_path, REFUSED.format(host="http://router-1"), "--run-time=1s")
    assert "Payer: addresses: a router's address is HOST:PORT" in ran.output


SILENT_ROUTER = """
import os, socket, time
from tallystick.locust import GreenletClient, Wallet
from tallystick import ClientClosed, ClientSettings, ForkedClient, SyncClient, Unavailable
import gevent

methods = [{name for name in dir(kind) if name[0] != "_"} for kind in (Wallet, SyncClient)]
assert methods[0] == methods[1] - {"close"}, methods

silent = socket.create_server(("127.0.0.1", 0))
slow = GreenletClient(f"127.0.0.1:{silent.getsockname()[1]}", settings=ClientSettings(timeout_s=3))
unanswered = [gevent.spawn(lambda: slow.get_account("a")) for _ in range(12)]
gevent.sleep(0.1)
with GreenletClient("ADDRESS") as client:
    began = time.monotonic()
    client.open_account("greenlets-1", "EUR", "-100")
    client.open_account("greenlets-2", "EUR")
    payers = [gevent.spawn(client.transfer, "greenlets-1", "greenlets-2", 1, "EUR") for _ in range(50)]
    ticks = 0
    while not all(payer.ready() for payer in payers):
        gevent.sleep(0.001)
        ticks += 1
    assert all(payer.get().committed for payer in payers)
    assert ticks > 1, ticks
    assert not any(greenlet.ready() for greenlet in unanswered), time.monotonic() - began
    print(*(account.available for account in client.accounts("greenlets-")), flush=True)
if os.fork() == 0:
    try:
        slow.get_account("a")
    except ForkedClient as error:
        print(error, flush=True)
    slow.close()
    os._exit(0)
os.wait()
try:
    client.get_account("greenlets-1")
except ClientClosed as error:
    print(error, flush=True)
for greenlet in unanswered:
    greenlet.join()
    assert isinstance(greenlet.exception, Unavailable)
slow.close()
"""


@pytest.mark.cluster
def test_no_greenlet_waits_for_anothers_answer(cluster: LocalCluster) -> None:
    """More calls than gevent has threads wait for a silent router; others go on, and all come to an end.

    A client that is closed, or was inherited over a fork, says so. A user's wallet has all methods.
    """
    program = SILENT_ROUTER.replace("ADDRESS", cluster.router_addresses[0])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == [
        "50.00 -50.00",
        str(ForkedClient()),
        "the client is closed, nothing was sent",
    ], done.stderr
    assert done.returncode == 0, done.stderr
