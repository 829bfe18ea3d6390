"""A copied data folder is never taken for its original; adopted, it is a cluster of its own beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.cli.main import app
from deploy.errors import DataError, NoClusterError
from deploy.local import cluster_file
from deploy.local.cluster_file import FILE_NAME, ClusterRecord, Kind, ProcessRecord
from deploy.local.home import Home
from deploy.local.launcher import ClusterSpec, LocalCluster
from deploy.local.processes import identify
from deploy.local.zookeeper import write_configuration
from tallystick import SyncClient

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two shards, with money on both and a transfer between them."""
    with LocalCluster(tmp_path_factory.mktemp("copies") / "data", ClusterSpec(shards=2)) as started:
        with SyncClient(started.router_addresses) as client:
            for account in ("ann", "bob", "eve"):
                client.open_account(account, "EUR")
            client.deposit("ann", "100.00", "EUR")
            for payee in ("bob", "eve"):
                client.transfer("ann", payee, "10.00", "EUR")
        yield started


def _copied(data: Path, copy: Path) -> Path:
    """As an engineer makes one."""
    subprocess.run(["cp", "-a", data, copy], check=True)
    return copy


def _run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, " ".join(result.output.split())


def _ok(*arguments: str) -> str:
    exit_code, said = _run(*arguments)
    assert exit_code == 0, said
    return said


def _pids(cluster: LocalCluster) -> dict[str, int]:
    return {name: cluster.pid(name) for name in cluster.names}


@pytest.mark.parametrize(
    "command",
    [
        "up --detach",
        "down",
        "status",
        "verify",
        "in-doubt",
        "import payments.csv",
        "account show ann",
        "transfer ann bob 1 EUR",
        "history ann",
        "audit",
        "check",
        "replay",
    ],
)
def test_every_command_refuses_a_copy(command: str, original: LocalCluster, tmp_path: Path) -> None:
    """It says of what it is a copy and how to make it a cluster of its own; nobody is touched."""
    (tmp_path / "payments.csv").write_text(
        "transaction_id,from_account,to_account,amount,currency,reference\n"
    )
    before = _pids(original)
    copy = _copied(original.data, tmp_path / "backup")
    record = (copy / FILE_NAME).read_bytes()
    words = command.replace("payments.csv", str(tmp_path / "payments.csv")).split()
    exit_code, said = _run(*words, "--data", str(copy))
    assert exit_code != 0
    assert f"is a copy of the data of cluster {original.record.cluster_id}, whose place is" in said
    assert f"tallystick adopt --data {copy}" in said
    assert _pids(original) == before
    assert (copy / FILE_NAME).read_bytes() == record


def test_copies_are_adopted_and_run_beside_their_original(original: LocalCluster, tmp_path: Path) -> None:
    """One that was copied while it ran, and one of a stopped cluster, which is moved before it starts."""
    live = LocalCluster(_copied(original.data, tmp_path / "live"))
    before = _pids(original)
    assert "copied while the original ran" in _ok("adopt", "--data", str(live.data))
    with live:
        assert _pids(original) == before
        assert not set(_pids(live).values()) & set(before.values())
        assert not set(live.record.ports.values()) & set(original.record.ports.values())
        with SyncClient(live.router_addresses) as client:
            client.deposit("bob", "5.00", "EUR")
        for cluster, customers in ((live, "105.00"), (original, "100.00")):
            document = json.loads(_ok("verify", "--json", "--data", str(cluster.data)))
            assert document["verdict"] == "balanced"
            assert document["currencies"][0]["customers"] == customers
        assert "consistent" in _ok("audit", "--data", str(live.data))
    assert _pids(original) == before

    ports = original.record.ports
    original.stop()
    stopped = _copied(original.data, tmp_path / "stopped")
    exit_code, said = _run("up", "--detach", "--data", str(stopped))
    assert (exit_code, "is a copy" in said) == (1, True)
    assert "cluster staging now" in _ok("adopt", "--cluster-id", "staging", "--data", str(stopped))
    record = LocalCluster(stopped).record
    cluster_file.write(stopped, replace(record, cluster_id=original.record.cluster_id))
    with pytest.raises(DataError, match="topology of cluster staging, but its"):
        LocalCluster(stopped).start()
    cluster_file.write(stopped, record)
    given = record.ports
    moved = LocalCluster(stopped.rename(tmp_path / "moved"), ClusterSpec(new_ports=True))
    with moved:
        assert not set(given.values()) & set(moved.record.ports.values())
        assert original.start()
        assert original.record.ports == ports
        assert moved.record.cluster_id == "staging"
        assert moved.record.home == Home.of(moved.data)
        for cluster in (moved, original):
            assert "balanced" in _ok("verify", "--data", str(cluster.data))
            with SyncClient(cluster.router_addresses) as client:
                assert client.get_account("ann").available == Decimal("80.00")


def _renamed(content: dict[str, Any], copy: Path) -> None:
    content["home"]["path"] = str(copy)


def _forgotten(content: dict[str, Any], _: Path) -> None:
    del content["home"]


def _forged(content: dict[str, Any], copy: Path) -> None:
    found = copy.stat()
    content["home"] = {"path": str(copy), "device": found.st_dev, "inode": found.st_ino}


@pytest.mark.parametrize("edit", [_renamed, _forgotten, _forged])
def test_a_copy_whose_file_was_edited_is_recognised(
    edit: Callable[[dict[str, Any], Path], None], original: LocalCluster, tmp_path: Path
) -> None:
    """Its place, its inode or all of it: neither the original's processes nor its identity can be had so."""
    copy = _copied(original.data, tmp_path / "backup")
    content = json.loads((copy / FILE_NAME).read_text())
    edit(content, copy)
    (copy / FILE_NAME).write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"is a copy .* whose place is {original.data}"):
        cluster_file.read(copy)
    # Not even if ZooKeeper's configuration is edited to fit.
    before = _pids(original)
    configuration = copy / "zookeeper" / "zoo.cfg"
    configuration.write_text(configuration.read_text().replace(str(original.data), str(copy)))
    if edit is _forged:
        assert LocalCluster(copy).stop() == []
    assert _pids(original) == before


def test_a_copy_without_its_file_is_recognised(original: LocalCluster, tmp_path: Path) -> None:
    """Else `up` would take the cluster's id, money and ports from what is left."""
    copy = _copied(original.data, tmp_path / "backup")
    (copy / FILE_NAME).unlink()
    with pytest.raises(DataError, match="is a copy"):
        LocalCluster(copy).start()
    with pytest.raises(NoClusterError, match=FILE_NAME):
        LocalCluster(copy).adopt()


def test_what_cannot_be_adopted_is_said(original: LocalCluster, tmp_path: Path) -> None:
    """The original itself, a copy as the original, a malformed cluster id, and the original's own."""
    with pytest.raises(DataError, match="nothing to adopt"):
        original.adopt()
    copy = LocalCluster(_copied(original.data, tmp_path / "backup"))
    record = (copy.data / FILE_NAME).read_bytes()
    with pytest.raises(DataError, match="of the original still runs"):
        copy.adopt_moved()
    for cluster_id, problem in (
        ("a/b", "lower-case"),
        ("", "lower-case"),
        (original.record.cluster_id, "of the original"),
    ):
        with pytest.raises(DataError, match=problem):
            copy.adopt(cluster_id)
    exit_code, said = _run("adopt", "--moved", "--ledger", "", "--data", str(copy.data))
    assert (exit_code, "keeps the cluster's id and ledger" in said) == (2, True)
    (tmp_path / "same.db").hardlink_to(original.data / "ledger.db")
    with pytest.raises(DataError, match=r"same.db: it is the original's ledger"):
        copy.adopt("staging", f"sqlite:///{tmp_path / 'same.db'}")
    assert (copy.data / FILE_NAME).read_bytes() == record
    with pytest.raises(NoClusterError, match="no folder"):
        LocalCluster(tmp_path / "none").adopt()


@pytest.mark.parametrize("link", ["hard", "symbolic"])
def test_a_copy_that_shares_files_is_not_adopted(link: str, original: LocalCluster, tmp_path: Path) -> None:
    """By hard links, as snapshots have them, or a shard's folder by a link: both would be changed."""
    data = tmp_path / "snapshot"
    if link == "symbolic":
        _copied(original.data, data)
        shutil.rmtree(data / "shard-1")
        (data / "shard-1").symlink_to(original.data / "shard-1")
    else:
        subprocess.run(["cp", "-al", original.data, data], check=True)
    before = sorted(original.data.rglob("redis*"))
    exit_code, said = _run("adopt", "--data", str(data))
    assert (exit_code, "is shared with another folder: copy the original whole (cp -aL" in said) == (1, True)
    assert sorted(original.data.rglob("redis*")) == before
    subprocess.run(["cp", "-aL", data, tmp_path / "whole"], check=True)
    assert LocalCluster(tmp_path / "whole").adopt("whole") is not None


def test_a_cluster_that_was_moved_elsewhere_keeps_its_identity(tmp_path: Path) -> None:
    """Once the original is gone; its ledger's file comes along when it was in the folder."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    ledger = f"sqlite:///{old}/books.db"
    gone = ProcessRecord("router-0", Kind.ROUTER, "127.0.0.1:9", 1, "another boot:1")
    record = ClusterRecord(
        1, ledger=ledger, ports={"zookeeper": 1}, processes=(gone,), home=Home.of(old), cluster_id="c"
    )
    cluster_file.write(old, record)
    _copied(old, new)
    with pytest.raises(DataError, match="the original is still in"):
        LocalCluster(new).adopt_moved()
    shutil.rmtree(old)
    with pytest.raises(DataError, match="adopt --moved"):
        cluster_file.read(new)
    LocalCluster(new).adopt_moved()
    kept = LocalCluster(new).record
    assert (kept.cluster_id, kept.home, kept.ports) == ("c", Home.of(new), {"zookeeper": 1})
    assert kept.ledger == f"sqlite:///{new}/books.db"
    # Within one file system it is the same folder still.
    assert cluster_file.read(new.rename(tmp_path / "newer")) == kept


def test_processes_of_a_folder_that_was_replaced_are_not_the_new_ones(tmp_path: Path) -> None:
    """A backup that is restored over a folder, by whatever inode, may name processes that still run."""
    old = tmp_path / "data"
    old.mkdir()
    with subprocess.Popen(["sleep", "600"], cwd=old) as running:
        try:
            identity = identify(running.pid)
            assert identity is not None
            process = ProcessRecord("router-0", Kind.ROUTER, "", identity.pid, identity.started)
            record = ClusterRecord(1, ports={"zookeeper": 1}, processes=(process,), home=Home.of(old))
            assert cluster_file.living(old, record) == [process]
            old.rename(tmp_path / "aside")
            old.mkdir()
            cluster_file.write(old, replace(record, home=Home.of(old)))
            assert LocalCluster(old).stop() == []
            assert running.poll() is None
            assert cluster_file.living(tmp_path / "aside", record) == [process]
        finally:
            running.kill()


def test_processes_of_a_record_without_a_place_are_not_stopped_unasked(tmp_path: Path) -> None:
    """Of before folders knew their place: only ZooKeeper's configuration tells whether it is a copy."""
    data = tmp_path / "data"
    data.mkdir()
    with subprocess.Popen(["sleep", "600"]) as running:
        try:
            identity = identify(running.pid)
            assert identity is not None
            process = ProcessRecord("router-0", Kind.ROUTER, "", identity.pid, identity.started)
            cluster_file.write(data, ClusterRecord(1, ports={"zookeeper": 1}, processes=(process,)))
            with pytest.raises(DataError, match=f"process {running.pid}.* may be of another folder"):
                LocalCluster(data).stop()
            assert running.poll() is None
            write_configuration(data / "zookeeper", 1)
            assert LocalCluster(data).stop() == ["router-0"]
        finally:
            running.kill()
