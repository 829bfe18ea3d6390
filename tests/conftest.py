"""Fixtures that several folders of tests share; and which tests are pure, see `make check`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Iterator
from typing import Any, Final

import pytest

from deploy.local.launcher import ClusterSpec, LocalCluster

# A test that uses one of these is no pure one.
_SERVER_FIXTURES: Final = {
    "cluster",
    "redis_servers",
    "own_redis",
    "own_shards",
    "cluster_port",
    "postgresql",
    "start_server",
    "module_server",
}
_PROCESS_STARTS: Final = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}

# Tests stop ZooKeeper on purpose; kazoo's threads would report it on a stream that pytest has closed.
logging.getLogger("kazoo").setLevel(logging.CRITICAL)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what starts servers by the fixtures it uses; before tests are chosen by their marks."""
    for item in items:
        if item.get_closest_marker("cluster") or _SERVER_FIXTURES.intersection(
            getattr(item, "fixturenames", ())
        ):
            item.add_marker("servers")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that starts a process has the mark: `make check` stays fast, and its tests run anywhere."""
    _pure[:] = [] if item.get_closest_marker("servers") else [item.nodeid]
    try:
        return (yield)
    finally:
        _pure.clear()


def _watch(event: str, _: tuple[Any, ...]) -> None:
    if _pure and event in _PROCESS_STARTS:
        pytest.fail(f"{_pure[0]} starts a process: mark it with pytest.mark.servers")


# The test that runs, if it is a pure one.
_pure: list[str] = []
sys.addaudithook(_watch)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A local cluster of three shards for the whole session. A test that breaks a part restarts it.

    Tests use accounts of their own, so that they do not see each other's. For a cluster of its own, a test
    writes ``with LocalCluster(tmp_path / "data", ClusterSpec(shards=1)) as own: ...``.
    """
    with LocalCluster(tmp_path_factory.mktemp("cluster") / "data", ClusterSpec(shards=3)) as started:
        yield started
