"""Fixtures of the coordinator's tests."""

from tests.engine_shards import redis_servers, shards

__all__ = ["redis_servers", "shards"]
