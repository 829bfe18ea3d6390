"""Adds up all the money of a cluster: per currency, accounts and what is in flight sum to zero.

Shards are read one after the other, so the sums of a moving cluster prove nothing. Every call that
writes raises its shard's counter: when no counter rose from the first read to the last, the sums
are those of one moment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from shard_node.client import Shard
    from shard_node.contract import PendingTransfer

# Entries in doubt that one audit takes in. More than this are in doubt only in an outage.
MAX_PENDING = 1_000_000


@dataclass(slots=True)
class CurrencyTotal:
    """Sums of one currency, in minor units (Python integers: these may pass 2^53)."""

    customers_minor: int = 0
    system_minor: int = 0
    in_flight_minor: int = 0
    accounts: int = 0

    @property
    def total_minor(self) -> int:
        """Zero, unless money was made or lost."""
        return self.customers_minor + self.system_minor + self.in_flight_minor


@dataclass(slots=True)
class Audit:
    """The result. ``busy`` says that calls were carried out during the reading."""

    currencies: dict[str, CurrencyTotal] = field(default_factory=dict)
    accounts: int = 0
    prepared: int = 0
    unsettled: int = 0
    alarms: int = 0
    busy: bool = False

    def currency(self, code: str) -> CurrencyTotal:
        """The sums of one currency, begun at zero."""
        return self.currencies.setdefault(code, CurrencyTotal())


async def audit_pages(shards: Sequence[Shard], audit: Audit) -> AsyncIterator[tuple[int, int]]:
    """Fills ``audit``, and yields (accounts read, accounts in all) now and then.

    Raises the errors of :mod:`shard_node.errors` when a shard does not answer.
    """
    before = [await shard.counters() for shard in shards]
    total = sum(counters.accounts for counters in before)
    for shard in shards:
        # A scan may give an account twice while the hash grows.
        seen: set[bytes] = set()
        async for page in shard.accounts_by_page():
            for name, account in page:
                if name in seen:
                    continue
                seen.add(name)
                sums = audit.currency(account.currency)
                balance = account.available_minor + account.held_minor
                if name.startswith(b"@"):
                    sums.system_minor += balance
                else:
                    sums.customers_minor += balance
                    sums.accounts += 1
                audit.accounts += 1
            yield audit.accounts, total
    await _add_pending(shards, audit)
    after = [await shard.counters() for shard in shards]
    audit.busy = [c.calls for c in before] != [c.calls for c in after]
    audit.alarms = sum(c.alarms for c in after)


async def _add_pending(shards: Sequence[Shard], audit: Audit) -> None:
    """In flight is what its deciding shard has committed and its participant still only prepared."""
    prepared: dict[bytes, PendingTransfer] = {}
    unsettled = set()
    for shard in shards:
        prepared.update({entry.key: entry for entry in await shard.pending("prepared", 0, MAX_PENDING)})
        unsettled |= {entry.key for entry in await shard.pending("unsettled", 0, MAX_PENDING)}
    for entry in prepared.values():
        # Of a journal's debit the amount is negative: it still is in its account, as held.
        if entry.commit_key in unsettled:
            audit.currency(entry.currency).in_flight_minor += entry.amount_minor
    audit.prepared = len(prepared)
    audit.unsettled = len(unsettled)
