"""A cluster whose ledger is in PostgreSQL: the same commands, and a password that is seen nowhere."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from deploy.cli.main import app
from deploy.demo.ledger import wait_until_archived
from deploy.errors import DataError, StartError
from deploy.local.launcher import ClusterSpec, LocalCluster
from deploy.local.ledger_url import FILE_NAME
from shard_node.ledger.store.schema import open_ledger
from tallystick import SyncClient
from tests.postgresql import PostgresqlServer, postgresql_server

pytestmark = pytest.mark.cluster


def test_the_ledger_of_a_cluster_in_postgresql(tmp_path: Path) -> None:
    """Named once, it is found again by every command; its password is in no output and no log."""
    data = tmp_path / "data"
    with postgresql_server() as server:
        # The server trusts everybody, so any password will do.
        url = server.create_database("ledger").replace("tallystick@", "tallystick:s3cret@")
        for problem, wrong in {
            'database "nowhere" does not exist': url.replace("/ledger", "/nowhere"),
            'role "nobody" does not exist': url.replace("//tallystick:", "//nobody:"),
        }.items():
            with pytest.raises(StartError, match=problem) as caught:
                LocalCluster(data, ClusterSpec(shards=1, ledger=wrong)).start()
            assert "s3cret" not in str(caught.value)
        spec = ClusterSpec(shards=1, ledger=url.replace("+psycopg", ""))
        with LocalCluster(data, spec) as cluster:
            with SyncClient(cluster.router_addresses) as client:
                client.open_account("ann", "EUR")
                client.open_account("bob", "EUR")
                client.deposit("ann", "100.00", "EUR")
                client.transfer("ann", "bob", "12.50", "EUR")
            wait_until_archived(cluster.router_addresses)
            said = []
            for command in (
                ("audit", "--json"),
                ("check",),
                ("replay",),
                ("statement", "bob"),
                ("up", "--detach"),
                ("status",),
            ):
                result = CliRunner().invoke(app, [*command, "--data", str(data)], catch_exceptions=False)
                assert result.exit_code == 0, result.output
                said.append(result.output)
            assert json.loads(said[0])["entries"] == 6
            assert "12.50" in said[3]
            assert "postgresql://tallystick:hidden@127.0.0.1" in said[4]
            server.stop()
            # It says so itself once it has something to store.
            with SyncClient(cluster.router_addresses) as client:
                client.transfer("ann", "bob", "1.00", "EUR")
            failing = _failing_archiver(data)
            assert "127.0.0.1" in failing
            server.start()
            wait_until_archived(cluster.router_addresses)
            logs = [log.read_text() for log in (data / "logs").iterdir()]
            assert not any("s3cret" in text for text in (*said, failing, *logs))
        assert not (data / FILE_NAME).exists()
        _adopt_copy(data, server, url)


def _failing_archiver(data: Path) -> str:
    """What `status` says of the archiver, once it says that it fails."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        result = CliRunner().invoke(app, ["status", "--json", "--data", str(data)], catch_exceptions=False)
        for part in json.loads(result.stdout)["parts"]:
            if part["state"] == "failing":
                assert (result.exit_code, part["name"]) == (1, "archiver-0")
                return str(part["how"])
    raise AssertionError("the archiver never said that it fails")


def _adopt_copy(data: Path, server: PostgresqlServer, url: str) -> None:
    """A copy of the folder gets a copy of the database, never the original's, nor an empty one."""
    copy = LocalCluster(data.with_name("copy"))
    shutil.copytree(data, copy.data, symlinks=True)
    with pytest.raises(DataError, match="belongs to the original") as caught:
        copy.adopt()
    assert "s3cret" not in str(caught.value)
    # By another name and user, too.
    with pytest.raises(DataError, match="it is the original's ledger"):
        copy.adopt(ledger=url.replace("tallystick:s3cret@127.0.0.1", "tallystick@localhost"))
    with pytest.raises(StartError, match="lacks batch"):
        copy.adopt("copied", server.create_database("empty"))
    with pytest.raises(DataError, match="was not finished"):
        copy.start()
    engine = open_ledger(server.create_database("other"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE copied TEMPLATE ledger"))
    engine.dispose()
    assert copy.adopt(ledger=url.replace("/ledger", "/copied")) == []
    assert copy.record.cluster_id == "copied"
    assert copy.ledger_url.endswith("/copied")
