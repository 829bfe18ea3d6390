"""Fixtures of the ledger's tests."""

from tests.ledger.databases import empty_url, engine, ledger_url, postgresql
from tests.real_shards import redis_servers, shards

__all__ = ["empty_url", "engine", "ledger_url", "postgresql", "redis_servers", "shards"]
