"""A quick check of the ledger while everything runs: what can be told without reading all of it.

The newest batch of every shard is the one whose hash the shard keeps; the last batches are what was sealed;
every live account is what the ledger says of it at its version. What lies further back, and accounts that
only the ledger knows, are for the full audit (:mod:`shard_node.ledger.proof.audit`).

Accounts move while they are compared. So the ledger's newest version is read before the live account, and
the ledger's entry of that very version after it: neither can be right by having moved on. An account that
is ahead of the archive is compared with what waits on its shard.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from shard_node.contract import AccountState, Kind
from shard_node.errors import LedgerUnavailableError
from shard_node.ledger.proof.chain_reader import ChainReader, Place
from shard_node.ledger.proof.comparison import (
    ArchivedBalance,
    Opening,
    balances,
    openings,
    place_after,
    state_at,
    state_changes,
)
from shard_node.ledger.proof.exponents import judge_exponents
from shard_node.ledger.proof.findings import Findings, Rule
from shard_node.ledger.proof.fold import (
    ACCOUNT_ID,
    ATTRIBUTES,
    BALANCE,
    CURRENCY,
    DELTA,
    ENTRY_ID,
    HELD_DELTA,
    KIND,
    STATES,
    VERSION,
)
from shard_node.ledger.proof.live import (
    ForgottenError,
    LiveAccount,
    Tail,
    ledger_name,
    limits_of,
    live_accounts,
)
from shard_node.ledger.proof.vouching import check_end
from shard_node.ledger.store import SEQUENCE_MASK, ArchivedShard, Ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from shard_node.client import Shard
    from shard_node.ledger.questions import History
    from shard_node.ledger.store import Row

T = TypeVar("T")

# Batches of each shard whose hash is computed anew.
LAST_BATCHES: Final = 20
# Accounts that are ahead of the archive are compared when there are so many, or at the end of their shard.
MAX_AHEAD: Final = 20_000
# Each try finds more of it archived; a shard that never lets itself be caught up with is not to be judged.
TRIES: Final = 10


class QuickCheck:
    """One check. What it found is in its fields once :meth:`run` has ended."""

    def __init__(self, history: History, shards: Sequence[Shard], ask: Ask = asyncio.to_thread) -> None:
        self._history = history
        self._shards = shards
        self._ask = ask
        self.findings = Findings()
        self.accounts_checked = 0
        self.entries_archived = 0
        # Ledger entries on the shards, when the check began.
        self.entries_waiting = 0
        # Commits that were not settled when the check began.
        self.in_flight = 0
        # State changes that were archived when the accounts' turn came.
        self._changes: dict[str, list[tuple[int, AccountState]]] = {}

    def __repr__(self) -> str:
        return f"QuickCheck({self.accounts_checked} accounts, {self.findings.total} findings)"

    async def run(self) -> AsyncIterator[tuple[int, int]]:
        """Yields (accounts checked, accounts in all) now and then.

        Raises the errors of :mod:`shard_node.errors` when a shard or the ledger does not answer.
        """
        found = [await shard.info() for shard in self._shards]
        total = sum(status.accounts for status in found)
        self.in_flight = sum(status.unsettled_commits for status in found)
        yield 0, total
        await self._ask(partial(judge_exponents, self._history, self.findings))
        for shard in self._shards:
            await self._check_chain(shard)
        self._changes = await self._ask(partial(state_changes, self._history))
        for shard in self._shards:
            ahead: dict[str, LiveAccount] = {}
            async for names in shard.names_by_page():
                await self._check_accounts(shard, names, ahead)
                if len(ahead) > MAX_AHEAD:
                    await self._catch_up(shard, ahead)
                yield self.accounts_checked, max(total, self.accounts_checked)
            await self._catch_up(shard, ahead)
        yield self.accounts_checked, self.accounts_checked

    # ------------------------------------------------------------------ the chain

    async def _check_chain(self, shard: Shard) -> None:
        state = await check_end(self.findings, self._history, shard, self._ask)
        self.entries_waiting += state.backlog
        await self._ask(partial(self._check_batches, shard.shard_id))

    def _check_batches(self, shard_id: str) -> None:
        """Reads the last batches. Blocks."""
        archived = self._history.head_of(shard_id)
        if archived is None:
            return
        number, head = archived
        self.entries_archived += head.sequence
        reader = ChainReader(self._history, self.findings)
        shard = ArchivedShard(number, shard_id)
        place: Place | None = Place(shard)
        last = head.number + head.damaged
        if last > LAST_BATCHES:
            place = place_after(self._history, shard, last - LAST_BATCHES)
        if place is None:
            self.findings.add(
                Rule.CHAIN, f"batch {last - LAST_BATCHES} is missing or damaged", shard_id=shard_id
            )
            return
        while place.number < last and not place.ended:
            reader.read(place)

    # ------------------------------------------------------------------ accounts

    async def _check_accounts(
        self, shard: Shard, names: Sequence[str], ahead: dict[str, LiveAccount]
    ) -> None:
        """Compares some accounts; those whose version is not archived yet go to ``ahead``."""
        known = [ledger_name(name, shard.shard_id) for name in names]
        begun = await self._ask(partial(openings, self._history, known))
        live = await live_accounts(shard, names)
        stored = await self._ask(
            partial(balances, self._history, [(one.account_id, one.version) for one in live])
        )
        for account in live:
            self._compare_opening(account, begun.get(account.account_id))
            entry = stored.get(account.account_id)
            if entry is None:
                ahead[account.account_id] = account
            else:
                await self._compare(account, entry)
        self.accounts_checked += len(live)

    def _compare_opening(self, live: LiveAccount, opening: Opening | None) -> None:
        if opening is None:
            return
        if live.version < opening.newest_version:
            self._find(live, f"is at version {live.version}, behind the ledger's {opening.newest_version}")
        if not live.is_system and live.limits != limits_of(opening.attributes):
            self._find(
                live,
                f"has the limits {live.limits} (minimum balance, maximum balance, maximum transfer); "
                f"it was opened with {opening.attributes}",
            )

    async def _compare(self, live: LiveAccount, entry: ArchivedBalance, waiting: Sequence[Row] = ()) -> None:
        """Compares with the ledger at the same version; ``waiting`` is of it what is not archived yet."""
        if (live.balance_minor, live.held_minor, live.currency) != (
            entry.balance_minor,
            entry.held_minor,
            entry.currency,
        ):
            self._find(
                live,
                f"has {live.balance_minor} {live.currency} with {live.held_minor} held at version "
                f"{live.version}; entry {entry.entry_id} (number {entry.entry_id & SEQUENCE_MASK}) says "
                f"{entry.balance_minor} {entry.currency} with {entry.held_minor} held",
            )
        state = await self._state(live, waiting)
        if live.state is not state:
            self._find(live, f"is {live.state.name} at version {live.version}; the ledger has {state.name}")

    async def _state(self, live: LiveAccount, waiting: Sequence[Row]) -> AccountState:
        """What the ledger says that the account is at its version."""
        changed = [STATES[Kind(row[KIND])] for row in waiting if row[KIND] in STATES]
        if changed:
            return changed[-1]
        known = [
            state for version, state in self._changes.get(live.account_id, ()) if version <= live.version
        ]
        state = known[-1] if known else AccountState.OPEN
        if live.state is state:
            return state
        # It may have changed since the changes were read.
        return await self._ask(partial(state_at, self._history, live.account_id, live.version))

    # ------------------------------------------------------------------ ahead of the archive

    async def _catch_up(self, shard: Shard, ahead: dict[str, LiveAccount]) -> None:
        """Compares accounts whose versions were not archived, and empties ``ahead``."""
        for _ in range(TRIES):
            await self._compare_archived(ahead)
            if not ahead:
                return
            waiting = await self._waiting(shard, ahead)
            if waiting is None:
                # Some of it was archived meanwhile: the archive has it now.
                continue
            await self._compare_waiting(ahead, waiting)
            # Archived after the first look and before the shard's stream was read.
            await self._compare_archived(ahead)
            for account in ahead.values():
                self._find(
                    account,
                    f"is at version {account.version}, of which neither the ledger nor what waits on the "
                    "shard knows",
                )
            ahead.clear()
            return
        raise LedgerUnavailableError(f"{shard.shard_id}: its ledger moves on faster than it can be read")

    async def _compare_archived(self, ahead: dict[str, LiveAccount]) -> None:
        versions = [(account.account_id, account.version) for account in ahead.values()]
        stored = await self._ask(partial(balances, self._history, versions))
        for account_id, entry in stored.items():
            await self._compare(ahead.pop(account_id), entry)

    async def _waiting(self, shard: Shard, ahead: dict[str, LiveAccount]) -> dict[str, list[Row]] | None:
        """By account, what waits on the shard up to its version; None when some was archived meanwhile."""
        found = await self._ask(partial(self._history.head_of, shard.shard_id))
        tail = Tail(shard, ArchivedShard(found[0] if found else 0, shard.shard_id))
        if found:
            tail.stream_id, tail.next_sequence = found[1].stream_id, found[1].sequence + 1
        waiting: dict[str, list[Row]] = {}
        reached: set[str] = set()
        while len(reached) < len(ahead):
            try:
                rows = await tail.read()
            except ForgottenError as forgotten:
                found = await self._ask(partial(self._history.head_of, shard.shard_id))
                if not forgotten.is_lost(found[1] if found else None):
                    return None
                # The archive's end was cut off, which its head has told. What is left is compared.
                tail.stream_id = forgotten.stream_id
                continue
            if not rows:
                break
            for row in rows:
                account = ahead.get(row[ACCOUNT_ID])
                if account is not None and row[VERSION] <= account.version:
                    waiting.setdefault(account.account_id, []).append(row)
                    if row[VERSION] == account.version:
                        reached.add(account.account_id)
        return waiting

    async def _compare_waiting(self, ahead: dict[str, LiveAccount], waiting: dict[str, list[Row]]) -> None:
        """Compares accounts with what waits, upon what is archived of them; takes them out of ``ahead``."""
        before = {name: rows[0][VERSION] - 1 for name, rows in waiting.items()}
        stored = await self._ask(partial(balances, self._history, list(before.items())))
        for name, rows in waiting.items():
            account = ahead[name]
            if rows[-1][VERSION] != account.version:
                continue
            entry = stored.get(name)
            # An OPEN entry has version 0, a system account's first one version 1.
            if entry is None and before[name] >= account.is_system:
                self._find(account, f"has version {before[name] + 1} waiting, and {before[name]} is missing")
            else:
                if before[name] < 0:
                    self._compare_opening(account, Opening(0, rows[0][ATTRIBUTES]))
                await self._compare(account, _upon(entry, rows, account), rows)
            del ahead[name]

    def _find(self, live: LiveAccount, message: str) -> None:
        self.findings.add(Rule.LIVE, message, shard_id=live.shard_id, account_id=live.account_id)


def _upon(entry: ArchivedBalance | None, rows: Sequence[Row], live: LiveAccount) -> ArchivedBalance:
    """What the waiting entries make of what is archived."""
    balance, held = (entry.balance_minor, entry.held_minor) if entry else (0, 0)
    for row in rows:
        balance += row[DELTA]
        held += row[HELD_DELTA]
    # When the entries contradict themselves, the live account cannot agree with both.
    balance = rows[-1][BALANCE] if live.balance_minor == balance else balance
    return ArchivedBalance(balance, held, rows[-1][CURRENCY], rows[-1][ENTRY_ID])
