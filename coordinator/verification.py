"""Adds up all the money of a cluster: per currency, accounts and what is in flight sum to zero.

Shards are read one after the other, so the sums of a moving cluster prove nothing. Every command that
changes something raises its shard's counter: when no counter rose from the first read to the last, the sums
are those of one moment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coordinator.in_doubt import legs_in_flight
from shard_node.contract import PreparedAttempt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from shard_node.client import Shard

# Commits whose codes one verification keeps, a byte a transaction; more are unsettled only in an outage.
MAX_COMMITS = 1_000_000


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
class Verification:
    """The result. ``prepared`` and ``unsettled`` count transactions, a prepared one once a participant.

    ``busy`` says that commands were carried out during the reading, or that too much is in doubt to say.
    """

    currencies: dict[str, CurrencyTotal] = field(default_factory=dict)
    accounts: int = 0
    prepared: int = 0
    unsettled: int = 0
    alarms: int = 0
    busy: bool = False

    def currency(self, code: str) -> CurrencyTotal:
        """The sums of one currency, begun at zero."""
        return self.currencies.setdefault(code, CurrencyTotal())


async def verify_by_page(
    shards: Sequence[Shard], verification: Verification
) -> AsyncIterator[tuple[int, int]]:
    """Fills ``verification``, and yields (accounts read, accounts in all) now and then.

    Raises the errors of :mod:`shard_node.errors` when a shard does not answer.
    """
    before = [await shard.info() for shard in shards]
    total = sum(status.accounts for status in before)
    for shard in shards:
        async for page in shard.accounts_by_page():
            for name, account in page:
                sums = verification.currency(account.currency)
                balance = account.available_minor + account.held_minor
                if name.startswith("@"):
                    sums.system_minor += balance
                else:
                    sums.customers_minor += balance
                    sums.accounts += 1
            verification.accounts += len(page)
            yield verification.accounts, total
    await _add_in_doubt(shards, verification)
    after = [await shard.info() for shard in shards]
    if [status.calls for status in before] != [status.calls for status in after]:
        verification.busy = True
    verification.alarms = sum(status.alarms for status in after)


async def _add_in_doubt(shards: Sequence[Shard], verification: Verification) -> None:
    """In flight is what its deciding shard has committed and a participant still only keeps prepared.

    Looked through twice: bundles may be large, and are not kept.
    """
    committed: dict[bytes, bytes] = {}
    for shard in shards:
        async for doubt in shard.all_in_doubt():
            if not isinstance(doubt, PreparedAttempt):
                verification.unsettled += len(doubt.committed_rows)
                committed[doubt.attempt_id] = doubt.codes
            if len(committed) > MAX_COMMITS:
                verification.busy = True
                return
    for shard in shards:
        async for doubt in shard.all_in_doubt():
            if isinstance(doubt, PreparedAttempt):
                verification.prepared += len(doubt.prepared_rows)
                for leg, moves_minor in legs_in_flight(doubt, committed.get(doubt.attempt_id, b"")):
                    verification.currency(leg.currency).in_flight_minor += moves_minor
