"""cluster.json says what runs, and what the next start must remember."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from deploy.errors import DataError, NoClusterError
from deploy.local.cluster_file import (
    DEFAULT_ARCHIVERS,
    FILE_NAME,
    ClusterRecord,
    Kind,
    ProcessRecord,
    read,
    write,
)
from deploy.local.home import Home
from deploy.local.processes import identify


def _process(name: str, kind: Kind, pid: int = 1) -> ProcessRecord:
    return ProcessRecord(name, kind, "127.0.0.1:7", pid, "boot:1")


RECORD = ClusterRecord(
    shards=2,
    routers=11,
    coordinators=1,
    dedupe_window_seconds=60,
    archivers=2,
    ledger="postgresql://ann:s3cret@db/ledger",
    max_backlog=1_000_000,
    archiver_niceness=10,
    ports={"zookeeper": 2181, "router-0": 7000},
    ready=True,
    processes=(
        _process("router-10", Kind.ROUTER),
        _process("router-2", Kind.ROUTER),
        _process("zookeeper", Kind.ZOOKEEPER),
    ),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """The record survives the file."""
    write(tmp_path, RECORD)
    assert read(tmp_path) == RECORD
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_the_file_names_every_address_for_other_programs(tmp_path: Path) -> None:
    """Scripts find ZooKeeper, routers and process ids without knowing this code."""
    write(tmp_path, RECORD)
    content = json.loads((tmp_path / FILE_NAME).read_text())
    assert content["zookeeper"] == "127.0.0.1:2181"
    assert content["router_addresses"] == ["127.0.0.1:7", "127.0.0.1:7"]
    assert {p["name"]: p["pid"] for p in content["processes"]} == {
        "router-2": 1,
        "router-10": 1,
        "zookeeper": 1,
    }


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """The ledger's URL may hold a password."""
    write(tmp_path, RECORD)
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o077 == 0


def test_a_file_of_before_there_were_archivers_is_read(tmp_path: Path) -> None:
    """A cluster made then goes on, with the ledger where the default is."""
    write(tmp_path, RECORD)
    content = json.loads((tmp_path / FILE_NAME).read_text())
    for later in (
        "archivers",
        "ledger",
        "max_backlog",
        "archiver_niceness",
        "home",
        "cluster_id",
        "adopting",
    ):
        del content[later]
    (tmp_path / FILE_NAME).write_text(json.dumps(content))
    record = read(tmp_path)
    assert record is not None
    assert (record.archivers, record.ledger) == (DEFAULT_ARCHIVERS, "")
    assert (record.max_backlog, record.archiver_niceness) == (None, 0)
    assert (record.home, record.cluster_id, record.adopting) == (None, "", "")


def test_a_folder_is_known_by_its_inode(tmp_path: Path) -> None:
    """By another path, as through a link or a bind mount, and after a boot, which numbers devices anew."""
    folder, link = tmp_path / "data", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    home = Home.of(folder)
    assert home.is_at(link)
    assert replace(home, path="/seen/elsewhere").is_at(folder)
    assert replace(home, device=home.device + 1).is_at(folder)
    # On another machine, or another disk, the same number is another folder's.
    assert not replace(home, path="/seen/elsewhere", device=home.device + 1).is_at(folder)
    assert not replace(home, inode=home.inode + 1).is_at(folder)


def test_a_folder_without_the_file_has_no_cluster(tmp_path: Path) -> None:
    """None, not an error: `up` may be about to make one."""
    assert read(tmp_path) is None


def _edited(field: str, value: object) -> str:
    return json.dumps({"format": 1, **asdict(RECORD), field: value})


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "{}", '{"format": 99}'),
        *(_edited("shards", "x"), _edited("ports", None), _edited("processes", [1]), _edited("home", [])),
    ],
)
def test_a_file_that_cannot_be_understood_is_said_to_be_so(tmp_path: Path, content: str) -> None:
    """It is not taken for an empty folder: processes may run that only it names."""
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(DataError, match=FILE_NAME):
        read(tmp_path)


def test_processes_are_listed_in_the_order_of_their_numbers() -> None:
    """router-2 comes before router-10."""
    assert [p.name for p in RECORD.of_kind(Kind.ROUTER)] == ["router-2", "router-10"]


def test_a_process_replaces_the_one_of_its_name() -> None:
    """A restart leaves one entry, the new one."""
    changed = RECORD.with_processes([_process("router-2", Kind.ROUTER, pid=9)])
    assert changed.process("router-2").pid == 9
    assert len(changed.processes) == len(RECORD.processes)
    assert [p.name for p in changed.without(["router-2", "zookeeper"]).processes] == ["router-10"]
    with pytest.raises(NoClusterError, match="router-9"):
        changed.process("router-9")


def test_only_the_process_that_was_meant_is_alive() -> None:
    """Number and start must both fit."""
    me = identify(os.getpid())
    assert me is not None
    assert ProcessRecord("me", Kind.ROUTER, "", me.pid, me.started).is_alive()
    assert not ProcessRecord("me", Kind.ROUTER, "", me.pid, "boot:1").is_alive()
