"""What an audit finds: one broken rule a finding, and only so many of them kept.

A finding names the exact rows, in words that an auditor can look up: an entry by its id, its account
and its version, a batch by its shard and its number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from uuid import UUID

# One broken batch may break a million entries; a person reads the first ones.
MAX_FINDINGS: Final = 1000


class Rule(StrEnum):
    """Which rule is broken."""

    # A batch's hash, numbers or rows are not what was chained.
    CHAIN = "chain"
    # The newest batch is not the one whose hash the shard keeps: the end was cut off or exchanged.
    HEAD = "head"
    # An account's versions do not follow each other.
    GAP = "gap"
    # A balance is not the one before it plus the change, or less than nothing is held.
    BALANCE = "balance"
    # A transaction's legs do not sum to zero, or a leg is there twice.
    SUM = "sum"
    # A leg is missing and nothing is on its way; or an account is on one side only.
    MISSING = "missing"
    # A live account differs from the ledger.
    LIVE = "live"
    # An account was opened twice, or moved after it was closed, or froze when it was not open.
    STATE = "state"
    # How many decimals a currency has is not in the ledger, or is not what the cluster has stored.
    CURRENCY = "currency"


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule. Texts that do not apply are empty; ``message`` says what was found and expected."""

    rule: Rule
    message: str
    shard_id: str = ""
    account_id: str = ""
    # As text, 8-4-4-4-12.
    transaction_id: str = ""

    def __str__(self) -> str:
        places = (self.shard_id, self.account_id, self.transaction_id)
        place = ", ".join(place for place in places if place)
        return f"{self.rule}: {self.message}" + (f" ({place})" if place else "")


@dataclass(slots=True)
class Findings:
    """The first findings, and how many there are in all."""

    limit: int = MAX_FINDINGS
    kept: list[Finding] = field(default_factory=list)
    total: int = 0

    def add(
        self,
        rule: Rule,
        message: str,
        *,
        shard_id: str = "",
        account_id: str = "",
        transaction_id: bytes | None = None,
    ) -> None:
        """Counts a finding, and keeps it if there is room. ``transaction_id`` is the 16 bytes."""
        self.total += 1
        if len(self.kept) < self.limit:
            named = id_text(transaction_id)
            self.kept.append(Finding(rule, message, shard_id, account_id, named))


def id_text(transaction_id: bytes | None) -> str:
    """A transaction id as text; empty for none. Bytes that are no UUID are shown in hexadecimal."""
    if not transaction_id:
        return ""
    return str(UUID(bytes=transaction_id)) if len(transaction_id) == 16 else transaction_id.hex()
