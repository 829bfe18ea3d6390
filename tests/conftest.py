"""Fixtures that several folders of tests share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from deploy.local.launcher import ClusterSpec, LocalCluster

# Tests stop ZooKeeper on purpose; kazoo's threads would report it on a stream that pytest has closed.
logging.getLogger("kazoo").setLevel(logging.CRITICAL)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A local cluster of three shards for the whole session. A test that breaks a part restarts it.

    Tests use accounts of their own, so that they do not see each other's. For a cluster of its own, a test
    writes ``with LocalCluster(tmp_path / "data", ClusterSpec(shards=1)) as own: ...``.
    """
    with LocalCluster(tmp_path_factory.mktemp("cluster") / "data", ClusterSpec(shards=3)) as started:
        yield started
