"""The shard engine, in C: a module that Redis or Valkey loads. Python builds it and finds it."""

from shard_node.engine.loading import EngineMissingError, engine_path

__all__ = ["EngineMissingError", "engine_path"]
