"""ZooKeeper is started from what is installed, or the engineer is told what to install."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from deploy.errors import StartError
from deploy.local import zookeeper


def test_the_configuration_is_for_this_machine_only(tmp_path: Path) -> None:
    """Bound to the loopback address, no admin server, and only the two short commands."""
    lines = zookeeper.write_configuration(tmp_path / "zookeeper", 2345).read_text().splitlines()
    assert "clientPortAddress=127.0.0.1" in lines
    assert "clientPort=2345" in lines
    assert "admin.enableServer=false" in lines
    assert "4lw.commands.whitelist=ruok,srvr" in lines
    assert f"dataDir={tmp_path / 'zookeeper'}" in lines


def test_missing_java_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message says which package brings it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartError, match="default-jre-headless"):
        zookeeper.command(tmp_path / "zoo.cfg")


def test_missing_jars_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message says which package brings them, and which variable names them elsewhere."""
    monkeypatch.setenv(zookeeper.CLASSPATH_VARIABLE, str(tmp_path / "none.jar"))
    with pytest.raises(StartError, match=r"apt-get install zookeeper.*TALLYSTICK_ZOOKEEPER_CLASSPATH"):
        zookeeper.command(tmp_path / "zoo.cfg")


def test_a_port_that_answers_something_else_is_not_zookeeper() -> None:
    """Readiness needs ZooKeeper's own words."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.settimeout(0.01)
        assert not zookeeper.is_serving(port)
    assert not zookeeper.is_serving(port)
