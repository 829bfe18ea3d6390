"""The ports of a cluster: chosen where no outgoing connection takes them, and kept."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from deploy.errors import StartError
from deploy.local import ports


def test_a_chosen_port_is_nobody_elses_until_its_server_listens() -> None:
    """Two clusters that start at the same moment do not choose the same; a server may listen meanwhile."""
    lowest_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with ports.chosen(["zookeeper", "router-0"]) as found:
        assert len(set(found.values())) == 2
        assert lowest_outgoing < 11_000 or max(found.values()) < lowest_outgoing
        port = found["router-0"]
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((ports.HOST, port))
        with socket.create_server((ports.HOST, port)):
            assert not ports.is_free(port)
    assert ports.is_free(port)


def test_a_port_that_is_held_is_named_with_who_holds_it() -> None:
    """As far as that can be known: a process of ours."""
    with ports.chosen(["free"]) as found, socket.create_server((ports.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            StartError, match=rf"router-0 keeps port {port}, .*pid {os.getpid()}\).*--new-ports"
        ):
            ports.require_free({**found, "router-0": port})
        ports.require_free(found)
