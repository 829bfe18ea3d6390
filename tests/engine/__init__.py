"""Tests of the shard engine, inside a real Redis or Valkey."""
