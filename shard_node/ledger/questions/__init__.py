"""What is asked of the ledger: history, balances at a moment, what is new, how far it is complete."""

from shard_node.ledger.questions.following import Follower, checked
from shard_node.ledger.questions.history import (
    DEFAULT_PAGE,
    MAX_PAGE,
    BalanceAt,
    Head,
    History,
    Purchase,
    is_well_formed,
    moves_held,
)
from shard_node.ledger.questions.positions import BadTokenError, Cursor, HistoryQuery, decoded
from shard_node.ledger.questions.reach import Completeness, Reach, completeness

__all__ = [
    "DEFAULT_PAGE",
    "MAX_PAGE",
    "BadTokenError",
    "BalanceAt",
    "Completeness",
    "Cursor",
    "Follower",
    "Head",
    "History",
    "HistoryQuery",
    "Purchase",
    "Reach",
    "checked",
    "completeness",
    "decoded",
    "is_well_formed",
    "moves_held",
]
