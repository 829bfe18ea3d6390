"""The local cluster: it comes up whole or not at all, survives crashes, and leaves nothing running."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli.main import app
from deploy.errors import DataError, NoClusterError, StartError
from deploy.local import cluster_file, processes, starter
from deploy.local.cluster_file import ClusterRecord, Kind, ProcessRecord, missing_parts
from deploy.local.cluster_survey import Part, State, Survey
from deploy.local.connection import cluster_service, find_routers
from deploy.local.home import Home
from deploy.local.launcher import ClusterSpec, LocalCluster
from deploy.local.processes import ProcessIdentity, identify, is_alive
from deploy.local.stopper import redis_servers
from tallystick import SyncClient
from tallystick.v1 import cluster_pb2
from tests.shard_node.redis_on import plain_server

_SMALL = ClusterSpec(shards=1)
_TALLYSTICK = [sys.executable, "-m", "deploy.cli"]


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A data folder; whatever a test left running there is stopped."""
    folder = tmp_path / "data"
    yield folder
    LocalCluster(folder).stop()


def _identities(cluster: LocalCluster) -> list[ProcessIdentity]:
    found = [identify(cluster.pid(name)) for name in cluster.names]
    assert None not in found
    return [identity for identity in found if identity is not None]


def _alive(identities: Sequence[ProcessIdentity]) -> list[ProcessIdentity]:
    return [identity for identity in identities if is_alive(identity)]


def _cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*_TALLYSTICK, *arguments], capture_output=True, text=True, timeout=90, check=False)


@pytest.mark.servers
def test_up_crash_up_down(data: Path) -> None:
    """`up --detach`, the death of everything at once, `up` again with the data and ports, `down`."""
    up = ("up", "--shards", "1", "--data", str(data), "--detach")
    first = _cli(*up)
    assert first.returncode == 0, first.stderr
    assert first.stdout.rstrip().endswith("ready")
    cluster = LocalCluster(data)
    assert cluster.names == [
        "zookeeper",
        "shard-0",
        "redis:shard-0",
        "archiver-0",
        "coordinator-0",
        "router-0",
    ]
    assert f"sqlite:///{data}/ledger.db" in "".join(first.stdout.split())
    with SyncClient(cluster.router_addresses) as client:
        client.open_account("alice", "EUR")
        client.deposit("alice", "12.50", "EUR")
    ports, everything = cluster.record.ports, _identities(cluster)
    assert "already up" in _cli(*up).stdout
    assert _alive(everything) == everything
    with pytest.raises(DataError, match="tallystick down"):
        LocalCluster(data, ClusterSpec(routers=2)).start()

    for identity in everything:
        processes.kill(identity)
    with pytest.raises(NoClusterError, match="no cluster runs"):
        find_routers(None, data)
    with pytest.raises(DataError, match="holds a cluster of 1 shards, not 2"):
        LocalCluster(data, ClusterSpec(shards=2)).start()
    with socket.create_server(("127.0.0.1", ports["router-0"])):
        taken = _cli(*up)
        assert taken.returncode == 1
        assert f"router-0 keeps port {ports['router-0']}, which is held by" in taken.stderr
        assert f"(pid {os.getpid()})" in taken.stderr
        assert not redis_servers(data)

    again = _cli(*up)
    assert again.returncode == 0, again.stderr
    assert cluster.record.ports == ports
    with SyncClient(cluster.router_addresses) as client:
        assert client.get_account("alice").available == Decimal("12.50")
    everything = _identities(cluster)
    down = _cli("down", "--data", str(data))
    assert down.returncode == 0, down.stderr
    assert _alive(everything) == []
    assert cluster.names == []


@pytest.mark.servers
def test_the_foreground_stops_everything_when_asked(data: Path) -> None:
    """SIGTERM, as Ctrl-C, ends the whole cluster, not the launcher alone."""
    command = [*_TALLYSTICK, "up", "--shards", "1", "--data", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as foreground:
        assert foreground.stdout is not None
        for line in foreground.stdout:
            if line.strip() == "ready":
                break
        everything = _identities(LocalCluster(data))
        assert len(everything) == 6
        foreground.terminate()
        assert "stopped" in foreground.stdout.read()
    assert foreground.returncode == 0
    assert _alive(everything) == []


@pytest.mark.servers
def test_a_part_that_cannot_start_is_named_with_its_log(data: Path) -> None:
    """And nothing of the cluster is left running."""
    data.mkdir()
    (data / "shard-0").write_text("in the way")
    cluster = LocalCluster(data, _SMALL)
    with pytest.raises(StartError, match="shard-0 exited with status") as caught:
        cluster.start()
    assert "shard-0.log" in str(caught.value)
    # The shard node's own words.
    assert len(str(caught.value).splitlines()) > 1
    assert cluster.names == []
    assert not redis_servers(data)


@pytest.mark.servers
def test_a_machine_without_the_engine_starts_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a shard is made of is looked for first, and one sentence says what is missing."""
    monkeypatch.setenv("TALLYSTICK_ENGINE", str(data / "none.so"))
    cluster = LocalCluster(data, _SMALL)
    with pytest.raises(StartError, match=r"^no shard can start: TALLYSTICK_ENGINE names .*none.so.*$"):
        cluster.start()
    assert not (data / "logs").exists()
    assert not (data / "zookeeper").exists()


@pytest.mark.servers
def test_data_of_an_older_release_is_refused(data: Path) -> None:
    """The sentence says what to do, and the data stays as it was."""
    shard = data / "shard-0"
    shard.mkdir(parents=True)
    with plain_server(shard) as (_, redis):
        redis.hset("accounts", "alice", "7 EUR")
    with pytest.raises(
        StartError, match="holds data of an older release, which this release cannot read: go"
    ):
        LocalCluster(data, _SMALL).start()
    assert not redis_servers(data)
    with plain_server(shard) as (_, redis):
        assert redis.hgetall("accounts") == {b"alice": b"7 EUR"}


@pytest.mark.servers
def test_a_part_that_is_not_ready_in_time_is_named(data: Path) -> None:
    """Rather than waited for without end."""
    cluster = LocalCluster(data, _SMALL, ready_timeout_seconds=0.0)
    with pytest.raises(StartError, match="not ready within 0 s: zookeeper"):
        cluster.start()
    assert cluster.names == []


@pytest.mark.servers
def test_a_part_that_fails_to_start_does_not_stop_those_that_run(data: Path) -> None:
    """`up` on a cluster that lacks a part may bring it back; it must not make things worse."""
    cluster = LocalCluster(data, _SMALL)
    cluster.start()
    others = [name for name in cluster.names if name not in {"shard-0", "redis:shard-0"}]
    cluster.kill("shard-0")
    processes.stop(redis_servers(data), grace_seconds=10)
    (data / "shard-0").rename(data / "aside")
    (data / "shard-0").write_text("in the way")
    before = {name: cluster.pid(name) for name in others}
    with pytest.raises(StartError, match="shard-0 exited"):
        cluster.start()
    assert {name: cluster.pid(name) for name in others} == before
    (data / "shard-0").unlink()
    (data / "aside").rename(data / "shard-0")
    assert cluster.start()
    assert {name: cluster.pid(name) for name in others} == before
    assert not cluster.start()


@pytest.mark.servers
def test_what_a_killed_launcher_left_half_started_is_swept_away_first(data: Path) -> None:
    """The record says that it was never ready: nobody knows how far it got."""
    data.mkdir()
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    left = processes.spawn(command, data / "left.log", folder=data)
    identity = identify(left.pid)
    assert identity is not None
    record = ProcessRecord("router-0", Kind.ROUTER, "", identity.pid, identity.started)
    left_behind = ClusterRecord(1, ports={"zookeeper": 1}, processes=(record,), home=Home.of(data))
    cluster_file.write(data, left_behind)
    with pytest.raises(StartError, match="not ready"):
        LocalCluster(data, ready_timeout_seconds=0.0).start()
    assert left.wait(timeout=10) == -signal.SIGTERM


@pytest.mark.cluster
def test_killed_parts_come_back(cluster: LocalCluster) -> None:
    """Each process can be killed by name and started again, as the same cluster."""
    for name in ("router-0", "coordinator-0", "archiver-0", "redis:shard-1", "shard-1", "zookeeper"):
        old = cluster.pid(name)
        cluster.kill(name)
        assert identify(old) is None
        cluster.restart(name)
        assert cluster.pid(name) != old
    assert len(cluster.names) == 10
    assert _alive(_identities(cluster)) == _identities(cluster)
    with SyncClient(cluster.router_addresses) as client:
        assert client.open_account("launcher-alice", "EUR").account_id == "launcher-alice"


@pytest.mark.servers
def test_a_redis_whose_shard_node_was_killed_is_stopped_too(data: Path) -> None:
    """It has nobody else who would stop it."""
    cluster = LocalCluster(data, _SMALL)
    cluster.start()
    redis = identify(cluster.pid("redis:shard-0"))
    cluster.kill("shard-0")
    assert redis is not None
    assert is_alive(redis)
    # Nor does it help that the record does not know it.
    cluster_file.write(data, cluster.record.without(["redis:shard-0"]))
    assert "redis:shard-0" in cluster.stop()
    assert not is_alive(redis)


def test_a_pid_file_of_another_boot_names_nobody(tmp_path: Path) -> None:
    """The number in it may be anyone's by now: only a Redis that works in that folder is meant."""
    (tmp_path / "shard-0").mkdir()
    (tmp_path / "shard-0" / "redis.pid").write_text(f"{os.getpid()} 6379\n")
    (tmp_path / "shard-1").mkdir()
    (tmp_path / "shard-1" / "redis.pid").write_text("12")
    assert redis_servers(tmp_path) == {}


@pytest.mark.servers
def test_down_leaves_a_stranger_with_a_recycled_pid_alone(tmp_path: Path) -> None:
    """After a reboot the recorded numbers belong to others."""
    log = tmp_path / "stranger.log"
    stranger = processes.spawn([sys.executable, "-c", "import time; time.sleep(600)"], log)
    try:
        record = ProcessRecord("router-0", Kind.ROUTER, "h:1", stranger.pid, "another boot:1")
        cluster_file.write(tmp_path, ClusterRecord(1, ports={"zookeeper": 1}, processes=(record,)))
        assert LocalCluster(tmp_path).stop() == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize(
    "spec",
    [
        ClusterSpec(shards=65),
        ClusterSpec(routers=65),
        ClusterSpec(coordinators=99),
        ClusterSpec(archivers=65),
    ],
)
def test_a_cluster_too_large_for_one_machine_is_refused(data: Path, spec: ClusterSpec) -> None:
    """Before anything starts."""
    with pytest.raises(DataError, match="to 64"):
        LocalCluster(data, spec).start()


def test_a_ledger_elsewhere_is_remembered_and_its_password_is_not_shown(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In cluster.json, for the next start and for `replay`; what is printed is masked."""
    url = "postgresql+psycopg://ann:s3cret@127.0.0.1:1/ledger"
    data.mkdir()
    cluster_file.write(data, ClusterRecord(1, ledger=url, ports={"zookeeper": 1}))
    assert LocalCluster(data).ledger_url == url
    # Of the cluster that would run: what `up` prints.
    monkeypatch.setattr(LocalCluster, "start", lambda _self: True)
    shown = CliRunner().invoke(app, ["up", "--data", str(data), "--detach"]).output
    assert "ann" in shown
    assert "s3cret" not in shown


def test_a_ledger_that_nobody_answers_for_is_found_out_at_once(data: Path) -> None:
    """Before anything starts or is remembered; its place is named, its password is not."""
    url = "postgresql://ann:s3cret@127.0.0.1:1/ledger"
    with pytest.raises(StartError, match=r"ann:.*@127\.0\.0\.1:1/ledger.*refused.*--archivers 0") as caught:
        LocalCluster(data, ClusterSpec(shards=1, ledger=url)).start()
    assert "s3cret" not in str(caught.value)
    assert not (data / cluster_file.FILE_NAME).exists()


@pytest.mark.servers
def test_an_archiver_that_cannot_work_is_no_ready_cluster(data: Path) -> None:
    """It is named with the end of its log, and nothing is left running."""
    data.mkdir()
    (data / "ledger.db").write_text("no database at all")
    with pytest.raises(StartError, match="archiver-0 exited with status") as caught:
        LocalCluster(data, _SMALL).start()
    assert "file is not a database" in str(caught.value)
    assert LocalCluster(data).names == []


def test_what_is_not_well_keeps_a_whole_cluster_from_being_ready(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In time or not at all; a part that comes back to a running cluster need not wait for a database."""
    part = Part("archiver-0", Kind.ARCHIVER, State.FAILING, how="no ledger answers")
    monkeypatch.setattr(starter, "survey", lambda *_: Survey("c", (part,)))
    waiting = starter.Starter(data, 0.0)
    with pytest.raises(StartError, match=r"not ready within 0 s: archiver-0 \(failing: no ledger answers\)"):
        waiting.await_ready(ClusterRecord(1), [], whole=True)
    waiting.await_ready(ClusterRecord(1), [], whole=False)


def test_an_archiver_is_started_with_the_ledger_that_routers_read(cluster: LocalCluster) -> None:
    """Both are told its URL; without archivers nobody is."""
    for name in ("archiver-0", "router-0"):
        environment = Path(f"/proc/{cluster.pid(name)}/environ").read_text().split("\0")
        assert f"TALLYSTICK_LEDGER={cluster.ledger_url}" in environment
        # Arguments are for all users to see, and the URL may hold a password.
        assert cluster.ledger_url not in Path(f"/proc/{cluster.pid(name)}/cmdline").read_text()
    none = replace(cluster.record, archivers=0, processes=())
    assert Kind.ARCHIVER not in {kind for _, kind in missing_parts(none)}


@pytest.mark.servers
def test_archivers_give_way_and_shards_keep_more_when_asked_to(data: Path) -> None:
    """Also after a restart; the process that was started is the archiver itself, not what made it nice."""
    spec = ClusterSpec(shards=1, max_backlog=4711, archiver_niceness=10)
    # The tests themselves may be nice.
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    with LocalCluster(data, spec) as cluster:
        for _ in range(2):
            assert os.getpriority(os.PRIO_PROCESS, cluster.pid("archiver-0")) == min(ours + 10, 19)
            assert os.getpriority(os.PRIO_PROCESS, cluster.pid("router-0")) == ours
            cluster.restart("archiver-0")
        with cluster_service(cluster.router_addresses) as service:
            answer = service.ListBacklogs(cluster_pb2.ListBacklogsRequest(), timeout=10)
        assert [backlog.entries_limit for backlog in answer.backlogs] == [4711]


def test_a_niceness_that_is_none_is_refused(data: Path) -> None:
    """Below zero it would need the rights of root, above 19 the kernel knows none."""
    for niceness in (-1, 20):
        with pytest.raises(DataError, match="0 to 19"):
            LocalCluster(data, ClusterSpec(archiver_niceness=niceness)).start()


def test_names_and_addresses_of_the_session_cluster(cluster: LocalCluster) -> None:
    """What other tests rely on."""
    assert len(cluster.router_addresses) == 1
    assert len(cluster.coordinator_addresses) == 1
    assert list(cluster.shard_addresses) == ["shard-0", "shard-1", "shard-2"]
    assert cluster.zookeeper_address.startswith("127.0.0.1:")
    with pytest.raises(NoClusterError, match="router-7"):
        cluster.pid("router-7")


@pytest.mark.parametrize("spec", [ClusterSpec(shards=0), ClusterSpec(routers=0), ClusterSpec(coordinators=0)])
def test_none_of_a_part_is_not_the_default_number(data: Path, spec: ClusterSpec) -> None:
    """Zero is refused, with nothing started."""
    with pytest.raises(DataError, match="1 to 64 shards, routers and coordinators each"):
        LocalCluster(data, spec).start()
    assert not cluster_file.read(data)
