"""Slots are those of Redis Cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard_node.agent.redis_process import free_port
from shard_node.cluster.slots import SLOT_COUNT, slot

SAMPLES = [
    "123456789",
    "alice",
    "{alice}:usd",
    "{}x",
    "a{}b",
    "{",
    "}{",
    "x{y",
    "{{a}}",
    "a{b}{c}",
    "@world:EUR",
]


@pytest.fixture(scope="module")
def cluster_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis in cluster mode: only such a one answers CLUSTER KEYSLOT."""
    folder: Path = tmp_path_factory.mktemp("redis-cluster")
    port = str(free_port("127.0.0.1"))
    # The bus would listen on port + 10000, which may be no port at all.
    arguments = ["--port", port, "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    arguments += ["--cluster-enabled", "yes", "--cluster-port", str(free_port("127.0.0.1"))]
    server = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
    try:
        answer = ""
        while "PONG" not in answer and server.poll() is None:
            answer = subprocess.run(
                ["redis-cli", "-p", port, "PING"], check=False, capture_output=True, text=True
            ).stdout
        assert server.poll() is None
        yield port
    finally:
        server.terminate()
        server.wait()


def test_ids_with_one_hash_tag_share_a_slot() -> None:
    """What stands in braces alone decides."""
    assert slot("{alice}:usd") == slot("{alice}:savings") == slot("alice")
    assert slot("{alice}:usd") != slot("{bob}:usd")


def test_known_value() -> None:
    """CRC16-XMODEM of "123456789" is 0x31C3 (Redis Cluster specification, appendix A)."""
    assert slot("123456789") == 0x31C3


@given(st.text("abc{}:@.", max_size=64))
def test_every_id_has_a_slot(account_id: str) -> None:
    """Whatever the braces."""
    assert 0 <= slot(account_id) < SLOT_COUNT


@pytest.mark.parametrize("account_id", SAMPLES)
def test_redis_agrees(cluster_port: str, account_id: str) -> None:
    """CLUSTER KEYSLOT of a real Redis gives the same, whatever the braces."""
    command = ["redis-cli", "-p", cluster_port, "CLUSTER", "KEYSLOT", account_id]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert int(answer) == slot(account_id)
