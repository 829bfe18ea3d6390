"""Whether the ledger has its currencies' exponents, and the same ones as the cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from shard_node.cluster import Exponents
from shard_node.errors import LedgerError
from shard_node.ledger.proof.findings import Findings, Rule

if TYPE_CHECKING:
    from shard_node.ledger.questions import History


def judge_exponents(history: History, findings: Findings, used: Iterable[str] = ()) -> Exponents:
    """Those of the ledger; findings where the cluster contradicts it, or it lacks ``used`` ones. Blocks."""
    try:
        found = history.exponents()
    except LedgerError as error:
        findings.add(Rule.CURRENCY, str(error))
        return Exponents()
    for currency in sorted(set(used) - found.keys()):
        findings.add(
            Rule.CURRENCY,
            f"the ledger has entries in {currency}, but not how many decimals {currency} has: an archiver of "
            "its cluster copies that",
        )
    return found
