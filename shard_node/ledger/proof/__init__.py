"""Whether the ledger holds: its chain, its entries added up, and the live shards against it."""

from shard_node.ledger.proof.audit import Audit, AuditProgress, AuditReport, InFlight
from shard_node.ledger.proof.exponents import judge_exponents
from shard_node.ledger.proof.findings import Finding, Findings, Rule, id_text
from shard_node.ledger.proof.fold import CurrencyTotals, Fold
from shard_node.ledger.proof.quick_check import QuickCheck
from shard_node.ledger.proof.replay import Replay

__all__ = [
    "Audit",
    "AuditProgress",
    "AuditReport",
    "CurrencyTotals",
    "Finding",
    "Findings",
    "Fold",
    "InFlight",
    "QuickCheck",
    "Replay",
    "Rule",
    "id_text",
    "judge_exponents",
]
