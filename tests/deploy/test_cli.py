"""The command line without a cluster: what it answers when things are not as they should be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner, Result

from deploy.cli.main import app
from deploy.errors import NoClusterError
from deploy.local import connection
from deploy.local.cluster_file import ClusterRecord, Kind, ProcessRecord, write
from deploy.local.connection import find_routers
from deploy.terminal import verification
from tallystick.v1 import cluster_pb2
from tests.deploy.fake_router import FakeClusterService, serving


def _tallystick(*arguments: str) -> Result:
    """Runs a command; it must never end in a traceback."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


@pytest.fixture
def service() -> FakeClusterService:
    """What the stand-in answers."""
    return FakeClusterService()


@pytest.fixture
def router(service: FakeClusterService) -> Iterator[str]:
    """A stand-in's address."""
    with serving(service) as address:
        yield address


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(verification, "BUSY_WAIT_SECONDS", 0.0)
    monkeypatch.delenv(connection.ROUTER_VARIABLE, raising=False)


_COMMANDS = [
    ["status"],
    ["verify"],
    ["in-doubt"],
    ["account", "show", "alice"],
    ["account", "open", "alice", "EUR"],
    ["account", "deposit", "alice", "1", "EUR"],
    ["account", "withdraw", "alice", "1", "EUR"],
    ["account", "freeze", "alice"],
    ["account", "unfreeze", "alice"],
    ["account", "close", "alice"],
    ["transfer", "alice", "bob", "1", "EUR"],
    ["purchase", "alice", "shop", "1", "EUR"],
    ["refund", "0192e4a6-7c5e-4d3a-8f1b-2c3d4e5f6a7b", "alice", "1", "EUR"],
    ["hold", "alice", "1", "EUR"],
    ["capture", "0192e4a6-7c5e-4d3a-8f1b-2c3d4e5f6a7b", "alice", "shop", "1", "EUR"],
    ["void", "0192e4a6-7c5e-4d3a-8f1b-2c3d4e5f6a7b", "alice"],
    ["journal", "alice=-1:EUR", "bob=1:EUR"],
]


@pytest.mark.parametrize("command", _COMMANDS, ids=" ".join)
def test_without_a_cluster_every_command_says_how_to_start_one(command: list[str], tmp_path: Path) -> None:
    """The folder is named, and what to type."""
    result = _tallystick(*command, "--data", str(tmp_path))
    assert result.exit_code == (2 if command == ["verify"] else 1)
    assert f"tallystick up --data {tmp_path}" in result.stderr


@pytest.mark.parametrize("command", _COMMANDS, ids=" ".join)
def test_a_router_that_does_not_answer_is_named(command: list[str]) -> None:
    """Quickly, and without a traceback."""
    result = _tallystick(*command, "--router", "127.0.0.1:1")
    assert result.exit_code == (2 if command in (["verify"], ["status"]) else 1)
    assert "no router answers at 127.0.0.1:1" in result.stderr


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_becomes_a_sentence(
    code: grpc.StatusCode, service: FakeClusterService, router: str
) -> None:
    """Whatever a server answers: the status, its details, and an exit code that is not 0."""
    service.failure = code
    result = _tallystick("in-doubt", "--router", router)
    assert result.exit_code == 1
    assert code.name in result.stderr
    result = _tallystick("status", "--router", router)
    assert result.exit_code == 2
    assert "tallystick status" not in result.stderr
    assert code.name in result.stderr
    assert "for a reason" in result.stderr


@pytest.mark.parametrize(
    ("verdict", "word", "exit_code"),
    [
        (cluster_pb2.VERDICT_BALANCED, "balanced", 0),
        (cluster_pb2.VERDICT_BROKEN, "broken", 1),
        (cluster_pb2.VERDICT_BUSY, "busy", 2),
    ],
)
def test_verify_answers_with_its_exit_code(
    verdict: cluster_pb2.Verdict, word: str, exit_code: int, service: FakeClusterService, router: str
) -> None:
    """Scripts need no parsing; --json carries the sums."""
    service.verdicts = [verdict]
    result = _tallystick("verify", "--router", router)
    assert result.exit_code == exit_code
    assert word in result.stdout
    result = _tallystick("verify", "--router", router, "--json")
    assert result.exit_code == exit_code
    answer = json.loads(result.stdout)
    assert answer["verdict"] == word
    assert answer["alarms"] == 3
    assert answer["currencies"][0]["total"] == "1.00"


def test_verify_asks_again_while_the_cluster_is_busy(service: FakeClusterService, router: str) -> None:
    """A moment without transfers is enough."""
    service.verdicts = [
        cluster_pb2.VERDICT_BUSY,
        cluster_pb2.VERDICT_BUSY,
        cluster_pb2.VERDICT_BALANCED,
    ]
    assert _tallystick("verify", "--router", router).exit_code == 0
    assert service.verifications == 3


def test_verify_that_fails_is_neither_balanced_nor_broken(service: FakeClusterService, router: str) -> None:
    """Exit code 2, also in JSON."""
    service.failure = grpc.StatusCode.UNAVAILABLE
    result = _tallystick("verify", "--router", router, "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["verdict"] == "unknown"


def test_status_shows_the_rest_when_a_shard_is_away(service: FakeClusterService, router: str) -> None:
    """That is when an operator needs it; what is in doubt is not known then."""
    service.in_doubt_failure = grpc.StatusCode.UNAVAILABLE
    service.backlogs[0].unknown = True
    result = _tallystick("status", "--router", router)
    assert result.exit_code == 1
    assert "in doubt: unknown" in result.stdout
    assert "redis:shard-0: does not answer" in result.stderr
    assert json.loads(_tallystick("status", "--router", router, "--json").stdout)["in_doubt"] is None


def test_status_of_a_cluster_elsewhere_says_what_it_cannot_know(
    service: FakeClusterService, router: str
) -> None:
    """The topology names shards; how many others there should be is not guessed. Exit code 0: all is well."""
    result = _tallystick("status", "--router", router)
    assert result.exit_code == 0, result.output
    assert "should be is not known from here" in result.stderr
    # A shard node that is not registered.
    del service.members[1]
    document = _status(router, exit_code=1)
    assert [p["name"] for p in document["parts"] if p["state"] == "missing"] == ["shard-0"]


def test_status_tells_what_a_part_says_of_itself(service: FakeClusterService, router: str) -> None:
    """An archiver whose database does not answer is there, and does not do its work."""
    kind = cluster_pb2.MEMBER_KIND_ARCHIVER
    service.members.append(cluster_pb2.Member(name="archiver-0", kind=kind, problem="no ledger"))
    part = _status(router, exit_code=1)["parts"][-2]
    assert (part["name"], part["state"], part["how"]) == ("archiver-0", "failing", "no ledger")


def test_status_without_zookeeper_is_told_by_a_router(service: FakeClusterService, router: str) -> None:
    """It names ZooKeeper, and what is not known without it."""
    service.members_failure = grpc.StatusCode.UNAVAILABLE
    states = {part["name"]: part["state"] for part in _status(router, exit_code=1)["parts"]}
    assert states == {"zookeeper": "does not answer", "shard-0": "unknown", "redis:shard-0": "present"}
    # Nothing is known to be wrong, but not all is known.
    service.members_failure = grpc.StatusCode.INTERNAL
    assert _status(router, exit_code=2)["verdict"] == "unknown"


def _status(router: str, exit_code: int) -> Any:
    result = _tallystick("status", "--router", router, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def test_status_shows_what_waits_to_be_archived(service: FakeClusterService, router: str) -> None:
    """Per shard, with a word when it refuses transfers for it; unknown when the shard does not say."""
    service.backlogs = [cluster_pb2.Backlog(shard_id="shard-0", entries_waiting=1234, entries_limit=2000)]
    assert "1,234" in _tallystick("status", "--router", router).stdout
    document = json.loads(_tallystick("status", "--router", router, "--json").stdout)
    assert document["shards"][0]["backlog"] == {
        "entries_waiting": 1234,
        "entries_limit": 2000,
        "archived_batch": 0,
    }
    service.backlogs[0].entries_waiting = 2000
    full = _tallystick("status", "--router", router)
    assert (full.exit_code, "2,000, full" in full.stdout) == (1, True)
    assert "shard-0: full, 2,000 ledger entries wait; it refuses every transfer" in full.stderr
    assert _status(router, exit_code=1)["verdict"] == "impaired"
    service.backlogs[0].unknown = True
    assert "unknown" in _tallystick("status", "--router", router).stdout
    document = json.loads(_tallystick("status", "--router", router, "--json").stdout)
    assert document["shards"][0]["backlog"] is None


def test_in_doubt_lists_what_the_cluster_answers(service: FakeClusterService, router: str) -> None:
    """Each with its shard and age; in JSON with everything."""
    entry = cluster_pb2.InDoubtTransfer(
        transaction_id="t-1",
        state=cluster_pb2.IN_DOUBT_STATE_PREPARED,
        shard_id="shard-1",
        from_account="alice",
        to_account="bob",
        amount="1.00",
        currency="EUR",
        age_ms=5200,
    )
    service.in_doubt = cluster_pb2.ListInDoubtResponse(transfers=[entry], truncated=True)
    result = _tallystick("in-doubt", "--router", router, "--limit", "1")
    assert "shard-1" in result.stdout
    assert "more than 1 are in doubt" in result.stdout
    document = json.loads(_tallystick("in-doubt", "--router", router, "--json").stdout)
    assert document["truncated"] is True
    assert document["transfers"][0]["age_ms"] == 5200
    assert document["transfers"][0]["state"] == "prepared"


def test_the_second_router_serves_when_the_first_is_away(service: FakeClusterService, router: str) -> None:
    """Several may be named, with commas between."""
    assert _tallystick("status", "--router", f"127.0.0.1:1, {router}").exit_code == 0


def test_where_routers_are_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is typed counts before the folder that is typed, and that before the environment."""
    monkeypatch.setenv(connection.ROUTER_VARIABLE, "env:1")
    assert find_routers("typed:1,typed:2", tmp_path) == ["typed:1", "typed:2"]
    assert find_routers(None, None) == ["env:1"]
    with pytest.raises(NoClusterError, match="no router is named"):
        find_routers(" , ", None)
    with pytest.raises(NoClusterError):
        find_routers(None, tmp_path)


def test_a_record_of_processes_that_are_gone_is_no_cluster(tmp_path: Path) -> None:
    """After a crash of the machine the file is still there."""
    gone = ProcessRecord("router-0", Kind.ROUTER, "127.0.0.1:9", 1, "another boot:1")
    write(tmp_path, ClusterRecord(1, ready=True, ports={"zookeeper": 1}, processes=(gone,)))
    with pytest.raises(NoClusterError, match="no cluster runs"):
        find_routers(None, tmp_path)


def test_down_without_a_cluster_is_no_error(tmp_path: Path) -> None:
    """It may be repeated."""
    result = _tallystick("down", "--data", str(tmp_path / "none"))
    assert result.exit_code == 0
    assert "no cluster runs" in result.stdout
    assert not (tmp_path / "none").exists()


def test_a_damaged_cluster_file_is_named(tmp_path: Path) -> None:
    """Rather than taken for an empty folder."""
    (tmp_path / "cluster.json").write_text("{")
    for command in ("up", "down", "status"):
        result = _tallystick(command, "--data", str(tmp_path))
        assert result.exit_code == (2 if command == "status" else 1)
        assert "cluster.json" in result.stderr


@pytest.mark.parametrize(
    "command",
    [[], ["--help"], ["up", "--help"], ["import", "--help"], ["account", "--help"], ["--version"]],
)
def test_help_and_version_are_there(command: list[str]) -> None:
    """Also for somebody who types nothing but the name."""
    result = _tallystick(*command)
    assert result.exit_code == (0 if command else 2)
    assert "tallystick" in (result.stdout + result.stderr).lower()
    assert "error" not in result.stderr
