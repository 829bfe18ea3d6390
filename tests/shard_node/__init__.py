"""Tests of the shard node."""
