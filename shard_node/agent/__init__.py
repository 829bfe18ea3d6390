"""The shard node: who looks after one Redis."""

from shard_node.agent.agent import Agent, AgentSettings
from shard_node.agent.binding import DEFAULT_MAX_BACKLOG
from shard_node.agent.compatibility import require_parts
from shard_node.agent.redis_process import RedisProcess

__all__ = [
    "DEFAULT_MAX_BACKLOG",
    "Agent",
    "AgentSettings",
    "RedisProcess",
    "require_parts",
]
