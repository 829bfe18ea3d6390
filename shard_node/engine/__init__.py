"""The shard engine, in C: a module that Redis or Valkey loads. Python builds it and finds it."""
