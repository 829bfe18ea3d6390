"""Tests of the coordinator over shards with the engine."""
