"""A cluster whose ledger is in PostgreSQL: the same commands, and a password that is seen nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from deploy.demo_ledger import wait_until_archived
from deploy.launcher import ClusterSpec, LocalCluster
from deploy.ledger_url import FILE_NAME
from tallystick import SyncClient
from tests.postgresql import postgresql_server

pytestmark = pytest.mark.cluster


def test_the_ledger_of_a_cluster_in_postgresql(tmp_path: Path) -> None:
    """Named once, it is found again by every command; its password is in no output and no log."""
    data = tmp_path / "data"
    with postgresql_server() as server:
        # The server trusts everybody, so any password will do.
        url = server.create_database("ledger").replace("tallystick@", "tallystick:s3cret@")
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
            logs = [log.read_text() for log in (data / "logs").iterdir()]
            assert not any("s3cret" in text for text in (*said, *logs))
        assert not (data / FILE_NAME).exists()
