"""Fixtures of the shard node's tests."""

from tests.real_shards import redis_servers, shards

__all__ = ["redis_servers", "shards"]
