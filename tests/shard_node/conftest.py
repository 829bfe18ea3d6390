"""Fixtures of the shard node's tests."""

from tests.engine.conftest import module_server, shard

__all__ = ["module_server", "shard"]
