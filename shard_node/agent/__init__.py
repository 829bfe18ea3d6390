"""The shard node: who looks after one Redis."""

from shard_node.agent.agent import Agent, AgentSettings, bind, load_library
from shard_node.agent.binding import DEFAULT_MAX_BACKLOG
from shard_node.agent.redis_process import RedisProcess

__all__ = [
    "DEFAULT_MAX_BACKLOG",
    "Agent",
    "AgentSettings",
    "RedisProcess",
    "bind",
    "load_library",
]
