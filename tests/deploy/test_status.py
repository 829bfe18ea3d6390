"""`status` of a cluster that loses its parts, one after another: what is left names what is missing."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from deploy.cli.main import app
from deploy.local.cluster_file import Kind
from deploy.local.cluster_survey import Part, State, Survey, Verdict
from deploy.local.launcher import ClusterSpec, LocalCluster
from tallystick import SyncClient
from tallystick.v1 import cluster_pb2

pytestmark = pytest.mark.cluster

WAIT_SECONDS = 30.0


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two shards, and an account."""
    with LocalCluster(tmp_path_factory.mktemp("status") / "data", ClusterSpec(shards=2)) as started:
        with SyncClient(started.router_addresses) as client:
            client.open_account("ann", "EUR")
        yield started


def test_a_wrong_address_says_nothing_of_a_cluster() -> None:
    """Commands whose exit code 1 is a verdict end with 2, and quote what is no HOST:PORT."""
    for command, undecided in (("status", "unknown"), ("verify", "unknown"), ("check", None)):
        result = CliRunner().invoke(app, [command, "--json", "--router", "router-1:7000,nonsense"])
        assert result.exit_code == 2, command
        answer = json.loads(result.stdout)
        assert answer.get("verdict", answer.get("consistent")) == undecided
        assert "HOST:PORT" in answer["error"]
        assert "'nonsense'" in answer["error"]


def _run(cluster: LocalCluster, *arguments: str) -> Result:
    result = CliRunner().invoke(app, [*arguments, "--data", str(cluster.data)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def _status(cluster: LocalCluster, exit_code: int) -> Any:
    result = _run(cluster, "status", "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def _states(cluster: LocalCluster, exit_code: int = 1) -> dict[str, str]:
    """Of those that are not present."""
    parts = _status(cluster, exit_code)["parts"]
    return {part["name"]: part["state"] for part in parts if part["state"] != "present"}


def _until_well(cluster: LocalCluster) -> None:
    """Whoever was frozen may have to register again."""
    deadline = time.monotonic() + WAIT_SECONDS
    while _run(cluster, "status").exit_code:
        assert time.monotonic() < deadline


@contextmanager
def _frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_cluster_that_loses_its_parts(own: LocalCluster) -> None:
    """First coordinator and archiver, then the router, then ZooKeeper; then `up` brings them all back."""
    pids = {name: own.pid(name) for name in own.names}
    assert _status(own, 0)["verdict"] == "well"

    own.kill("coordinator-0")
    own.kill("archiver-0")
    assert _states(own) == {"archiver-0": "missing", "coordinator-0": "missing"}
    shown = _run(own, "status")
    assert (
        f"coordinator-0: missing, process {pids['coordinator-0']} is gone; it was last heard at"
        in shown.stderr
    )
    assert f"'tallystick up --detach --data {own.data}' starts what is missing" in shown.stderr

    own.kill("router-0")
    document = _status(own, 1)
    assert {part["name"] for part in document["parts"] if part["state"] == "missing"} == {
        "archiver-0",
        "coordinator-0",
        "router-0",
    }
    # ZooKeeper and the shards themselves still tell.
    assert [shard["backlog"]["archived_batch"] >= 0 for shard in document["shards"]] == [True, True]
    assert document["in_doubt"] is None
    for command in (("verify",), ("in-doubt",), ("account", "show", "ann"), ("history", "ann")):
        said = _run(own, *command)
        assert said.exit_code != 0
        assert "of the cluster in" in said.stderr
        assert "runs, only zookeeper, shard-0" in said.stderr
        assert "'tallystick up --detach" in said.stderr

    own.kill("zookeeper")
    assert _states(own) == {
        "zookeeper": "missing",
        "shard-0": "unknown",
        "redis:shard-0": "unknown",
        "shard-1": "unknown",
        "redis:shard-1": "unknown",
        "archiver-0": "missing",
        "coordinator-0": "missing",
        "router-0": "missing",
    }
    assert "tallystick status" not in _run(own, "status").output

    up = _run(own, "up", "--detach")
    assert (up.exit_code, up.stdout.rstrip().endswith("ready")) == (0, True), up.output
    assert _states(own, 0) == {}
    assert {name: own.pid(name) for name in ("shard-0", "redis:shard-1")} == {
        name: pids[name] for name in ("shard-0", "redis:shard-1")
    }


def test_operators_are_answered_by_a_coordinator(own: LocalCluster) -> None:
    """Of which it takes no router; whoever moves money is told which part is missing."""
    own.kill("router-0")
    try:
        assert _states(own) == {"router-0": "missing"}
        assert _run(own, "verify").exit_code == 0
        assert "nothing is in doubt" in _run(own, "in-doubt").stdout
        said = _run(own, "account", "show", "ann")
        assert said.exit_code == 1
        assert "no router of the cluster in" in said.stderr
        assert "coordinator-0" in said.stderr
    finally:
        own.restart("router-0")


def test_money_moves_and_books_are_verified_while_zookeeper_is_down(own: LocalCluster) -> None:
    """Only `status` says that it is missing, and that what registers there is not known."""
    own.kill("zookeeper")
    try:
        assert _states(own) == {
            "zookeeper": "missing",
            "shard-0": "unknown",
            "shard-1": "unknown",
            "archiver-0": "unknown",
        }
        assert _run(own, "account", "show", "ann").exit_code == 0
        assert _run(own, "verify").exit_code == 0
        assert _run(own, "in-doubt").exit_code == 0
    finally:
        own.restart("zookeeper")


def test_a_router_that_hangs_does_not_answer(own: LocalCluster) -> None:
    """Its process is there all the same; `up` does not call that ready either."""
    with _frozen(own.pid("router-0")):
        assert _states(own) == {"router-0": "does not answer"}
        up = _run(own, "up", "--detach")
    assert up.exit_code == 1
    assert "already up" in up.stdout
    assert not up.stdout.rstrip().endswith("\nready")
    assert "router-0: does not answer" in up.stderr
    _until_well(own)


def test_a_redis_that_its_shard_node_brings_back_is_restarting(own: LocalCluster) -> None:
    """Not missing: nothing has to be done, if it lasts a moment only."""
    with _frozen(own.pid("shard-0")):
        own.kill("redis:shard-0")
        assert _states(own)["redis:shard-0"] == "restarting"
    _until_well(own)
    own.restart("redis:shard-0")


def test_what_is_not_known_is_neither_well_nor_missing() -> None:
    """A part that could not be asked, or a whole of which nobody told."""
    topology = cluster_pb2.Topology()
    present, unknown, missing = (
        Part(state, Kind.ROUTER, state) for state in (State.PRESENT, State.UNKNOWN, State.MISSING)
    )
    assert Survey("c", (present,), topology, in_doubt=0).verdict is Verdict.WELL
    assert Survey("c", (present, unknown), topology, in_doubt=0).verdict is Verdict.UNKNOWN
    assert Survey("c", (present,), topology).verdict is Verdict.UNKNOWN
    assert Survey("c", (present,), in_doubt=0).verdict is Verdict.UNKNOWN
    assert Survey("c", (unknown, missing)).verdict is Verdict.IMPAIRED
