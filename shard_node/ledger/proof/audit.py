"""The full audit: replays the archive, and compares what comes out with the live shards.

It works while transfers run, because it never compares two moments. The archive is read first. Then every
live account is looked at; one that is ahead of what was read is put aside, and compared at exactly that
version when the reading reaches it, in the archive or in what waits on its shard. A transaction of which
legs are missing is under way if the shards say so (prepared on one, committed and not settled on another) and
its missing legs do not turn up in what was written before they said it; otherwise it is broken.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from shard_node.cluster import Exponents
from shard_node.contract import ID_BYTES, Kind, Outcome, PreparedAttempt
from shard_node.ledger.proof.chain_reader import CHUNK_ROWS
from shard_node.ledger.proof.comparison import repeated_transactions
from shard_node.ledger.proof.exponents import judge_exponents
from shard_node.ledger.proof.findings import Findings, Rule, id_text
from shard_node.ledger.proof.fold import (
    ACCOUNT_ID,
    AT_MS,
    COUNTERPARTY,
    VERSION,
    CurrencyTotals,
    OpenTransaction,
    Replayed,
)
from shard_node.ledger.proof.live import (
    ForgottenError,
    LiveAccount,
    Tail,
    last_written_ms,
    limits_of,
    live_accounts,
)
from shard_node.ledger.proof.replay import Replay
from shard_node.ledger.proof.vouching import check_end
from shard_node.ledger.store import SEQUENCE_MASK, ArchivedShard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Container, Sequence

    from shard_node.client import Shard
    from shard_node.ledger.questions import Head, History
    from shard_node.ledger.store import Ask, Row

# Transactions under way that the report names.
MAX_NAMED: Final = 1000
# Accounts in one look at a shard: a few milliseconds of its time.
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class AuditProgress:
    """What is being done, and how far: entries while replaying, accounts while comparing."""

    phase: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class InFlight:
    """A transaction under way. ``sums_minor`` by currency is what was taken and not yet given."""

    transaction_id: str
    kind: int
    sums_minor: dict[str, int]
    since_ms: int
    # The accounts that wait, as far as the legs that have come name them.
    accounts: tuple[str, ...]


@dataclass(slots=True)
class AuditReport:
    """What an audit found. Consistent when ``findings.total`` is 0."""

    findings: Findings = field(default_factory=Findings)
    entries: int = 0
    # Of these, what was not archived yet.
    entries_waiting: int = 0
    # All that shards made up to then was looked at, by the clock of each; None before it was.
    complete_until_ms: int | None = None
    batches: int = 0
    accounts: int = 0
    live_accounts: int = 0
    currencies: dict[str, CurrencyTotals] = field(default_factory=dict)
    # How many decimals each has, by the ledger.
    exponents: Exponents = field(default_factory=Exponents)
    # The first thousand, and how many there are.
    in_flight: list[InFlight] = field(default_factory=list)
    in_flight_total: int = 0
    # Why the audit ended before its end; empty when it did not.
    ended_by: str = ""

    @property
    def consistent(self) -> bool:
        """Whether no rule was found broken."""
        return self.findings.total == 0


class Audit:
    """One audit of the archive and all shards of one topology. Its result is ``report``."""

    def __init__(self, history: History, shards: Sequence[Shard], ask: Ask = asyncio.to_thread) -> None:
        self._history = history
        self._shards = shards
        self._ask = ask
        self.report = AuditReport()
        self._findings = self.report.findings
        self._replay = Replay(history, self._findings)
        self._fold = self._replay.fold
        # How far each shard was folded. A shard that the archive has not met has a number below its numbers.
        self._tails = [Tail(shard, ArchivedShard(-n, shard.shard_id)) for n, shard in enumerate(shards, 1)]
        # Live accounts that are ahead of what was folded, until it reaches them.
        self._ahead: dict[str, LiveAccount] = {}

    def __repr__(self) -> str:
        return f"Audit({self._fold!r}, {self._findings.total} findings)"

    async def run(self) -> AsyncIterator[AuditProgress]:
        """Yields progress now and then; the report is complete when it ends.

        Raises the errors of :mod:`shard_node.errors` when a shard or the ledger does not answer: then
        nothing is proven, either way.
        """
        for shard in self._shards:
            await check_end(self._findings, self._history, shard, self._ask)
        steps = self._replay.run()
        while (step := await self._ask(partial(next, steps, None))) is not None:
            yield AuditProgress("replay", *step)
        await self._ask(self._replay.reader.unsealed)
        yield AuditProgress("repetitions", self._fold.entries, self._fold.entries)
        await self._find_repeated()
        await self._find_strangers()
        archived = self._begin_tails()
        used = self._fold.totals()
        self.report.exponents = await self._ask(partial(judge_exponents, self._history, self._findings, used))
        total = sum([(await shard.info()).accounts for shard in self._shards])
        before = list(self._fold.accounts)
        for shard in self._shards:
            async for names in shard.names_by_page():
                for at in range(0, len(names), _PAGE):
                    await self._compare_live(shard, names[at : at + _PAGE])
                yield AuditProgress(
                    "accounts", self.report.live_accounts, max(total, self.report.live_accounts)
                )
        await self._find_vanished(before)
        yield AuditProgress("in flight", self._fold.open_count, self._fold.open_count)
        now_ms = min([await shard.clock_ms() for shard in self._shards])
        await self._catch_up()
        self.report.complete_until_ms = now_ms - 1
        # Those that only what was not archived yet tells of.
        await self._find_vanished([name for name in self._fold.accounts if name not in self._ahead])
        if self._ahead:
            await self._catch_up()
        self._find_unreached()
        await self._judge_open()
        self._fold.finish()
        self._conclude(archived)

    # ------------------------------------------------------------------ the archive

    async def _head(self, shard: Shard) -> tuple[int, Head] | None:
        return await self._ask(partial(self._history.head_of, shard.shard_id))

    async def _find_repeated(self) -> None:
        for transaction_id in await self._ask(partial(repeated_transactions, self._history)):
            self._findings.add(
                Rule.SUM, "the transaction was carried out more than once", transaction_id=transaction_id
            )

    async def _find_strangers(self) -> None:
        """Shards that are in the archive by name alone: an archiver adds only those that are there."""
        live = {shard.shard_id for shard in self._shards}
        for number, head in (await self._ask(self._history.heads)).items():
            if head.shard_id not in live and not head.number and not head.damaged:
                self._findings.add(
                    Rule.CHAIN,
                    f"shard number {number} has no batch, and no shard has that name",
                    shard_id=head.shard_id,
                )

    def _begin_tails(self) -> int:
        """From where the replay ended, each shard is read on; how many entries were archived till there."""
        places = {place.shard.shard_id: place for place in self._replay.reader.places.values()}
        self.report.batches = sum(place.number for place in places.values())
        for tail in self._tails:
            place = places.get(tail.shard.shard_id)
            if place is not None:
                tail.stream_id, tail.next_sequence = place.stream_id, place.next_sequence
        return self._fold.entries

    # ------------------------------------------------------------------ live accounts

    async def _compare_live(self, shard: Shard, names: Sequence[str]) -> None:
        for live in await live_accounts(shard, names):
            account = self._fold.accounts.get(live.account_id)
            if account is None:
                self._ahead[live.account_id] = live
            else:
                if account.seen:
                    # A page may name an account again.
                    continue
                account.seen = True
                if live.version > account.version:
                    self._ahead[live.account_id] = live
                elif live.version < account.version:
                    self._find_live(
                        live,
                        f"is at version {live.version}, behind the ledger, which has version "
                        f"{account.version}: entry {account.entry_id} "
                        f"(number {account.entry_id & SEQUENCE_MASK})",
                    )
                else:
                    self._compare(live, account)
            self.report.live_accounts += 1

    def _compare(self, live: LiveAccount, account: Replayed) -> None:
        """Compares a live account with the ledger's at the same version."""
        differences = []
        for what, on_shard, in_ledger in (
            ("balance", live.balance_minor, account.balance_minor),
            ("held", live.held_minor, account.held_minor),
            ("currency", live.currency, account.currency),
            ("state", live.state.name, account.state.name),
        ):
            if on_shard != in_ledger:
                differences.append(f"{what} {on_shard}, the ledger has {in_ledger}")
        if not live.is_system and live.limits != limits_of(account.attributes):
            differences.append(
                f"limits {live.limits} (minimum balance, maximum balance, maximum transfer), the ledger has "
                f"{account.attributes}"
            )
        if differences:
            self._find_live(
                live,
                f"at version {live.version} (entry {account.entry_id}, number "
                f"{account.entry_id & SEQUENCE_MASK}) is live with {'; '.join(differences)}",
            )

    async def _find_vanished(self, before: Sequence[str]) -> None:
        """Which of these, which the ledger has by now, are on no shard: asks for those not met yet."""
        vanished = [name for name in before if not self._fold.accounts[name].seen]
        for shard in self._shards:
            for at in range(0, len(vanished), _PAGE):
                # It may have moved to a shard that had been read already.
                await self._compare_live(shard, [_live_name(n, shard) for n in vanished[at : at + _PAGE]])
        for name in vanished:
            account = self._fold.accounts[name]
            if not account.seen:
                # Told once.
                account.seen = True
                self._findings.add(
                    Rule.MISSING,
                    f"the ledger has the account at version {account.version} with a balance of "
                    f"{account.balance_minor} (entry {account.entry_id}); no shard has it",
                    account_id=name,
                )

    def _find_unreached(self) -> None:
        for live in self._ahead.values():
            account = self._fold.accounts.get(live.account_id)
            if account is None:
                self._findings.add(
                    Rule.MISSING,
                    f"is live at version {live.version}, and the ledger has no entry of it",
                    shard_id=live.shard_id,
                    account_id=live.account_id,
                )
            else:
                self._find_live(
                    live,
                    f"is live at version {live.version}; the ledger and what waits on the shard end with "
                    f"version {account.version} (entry {account.entry_id})",
                )

    def _find_live(self, live: LiveAccount, message: str) -> None:
        self._findings.add(Rule.LIVE, message, shard_id=live.shard_id, account_id=live.account_id)

    # ------------------------------------------------------------------ what came meanwhile

    async def _catch_up(self) -> None:
        """Folds all that was written before this call, from the archive and from what waits on the shards."""
        shard_ids = self._replay.reader.shard_ids
        for tail in self._tails:
            target_ms = await last_written_ms(tail.shard)
            while True:
                found = await self._head(tail.shard)
                if found is not None:
                    tail.archived = ArchivedShard(found[0], tail.shard.shard_id)
                    if found[1].sequence >= tail.next_sequence:
                        self._take_in(await self._archived(tail, found[1]))
                        continue
                shard_ids.setdefault(tail.archived.number, tail.shard.shard_id)
                try:
                    rows = await tail.read()
                except ForgottenError as forgotten:
                    await self._pass_over(tail, forgotten)
                    continue
                self._take_in(rows)
                if not rows or rows[-1][AT_MS] > target_ms:
                    break

    async def _archived(self, tail: Tail, head: Head) -> list[Row]:
        """The next entries of a shard from the archive."""
        first, last = tail.next_sequence, min(head.sequence, tail.next_sequence + CHUNK_ROWS)
        rows = await self._ask(partial(self._replay.reader.rows, tail.archived.number, first, last))
        tail.next_sequence = last + 1
        if last == head.sequence:
            tail.stream_id = head.stream_id
        return rows

    async def _pass_over(self, tail: Tail, forgotten: ForgottenError) -> None:
        """Goes on where the shard's stream begins, if the archive has lost what comes before."""
        found = await self._head(tail.shard)
        if not forgotten.is_lost(found[1] if found else None):
            return
        self._findings.add(
            Rule.HEAD,
            f"the shard has forgotten its entries up to {forgotten.stream_id}, and the archive has them only "
            f"up to {tail.stream_id}",
            shard_id=tail.shard.shard_id,
        )
        tail.stream_id = forgotten.stream_id

    def _take_in(self, rows: Sequence[Row]) -> None:
        fold, ahead = self._fold, self._ahead
        if not ahead:
            fold.apply(rows)
            return
        for row in rows:
            fold.apply((row,))
            live = ahead.get(row[ACCOUNT_ID])
            if live is not None and live.version == row[VERSION]:
                account = fold.accounts.get(live.account_id)
                if account is not None and account.version == live.version:
                    account.seen = True
                    self._compare(live, account)
                    del ahead[live.account_id]

    # ------------------------------------------------------------------ transactions under way

    async def _judge_open(self) -> None:
        """Tells transactions that are under way from those that miss a leg for good."""
        open_keys = [transaction.key for transaction in self._fold.open_transactions()]
        if not open_keys:
            return
        on_their_way = await self._on_their_way(open_keys)
        # A leg that was not prepared any more was finished before: then its entry is written.
        await self._catch_up()
        for key in open_keys:
            transaction = self._fold.open_transaction(key)
            if transaction is not None and not _is_under_way(transaction, on_their_way):
                self._find_half(transaction)

    async def _on_their_way(self, open_keys: Sequence[bytes]) -> set[bytes]:
        """The names of those legs of these transactions that are prepared, and whose attempt is committed.

        What other attempts at the same transactions have prepared will be dropped.
        """
        open_ids = {key[:ID_BYTES] for key in open_keys}
        # By attempt: places in its bundle, with names of legs.
        prepared: dict[bytes, list[tuple[int, bytes]]] = {}
        on_their_way: set[bytes] = set()
        # Prepared first: what was settled between the two looks is complete by the second reading.
        for shard in self._shards:
            async for doubt in shard.all_in_doubt():
                if isinstance(doubt, PreparedAttempt):
                    legs = await asyncio.to_thread(_prepared_legs, doubt, open_ids)
                    prepared.setdefault(doubt.attempt_id, []).extend(legs)
        for shard in self._shards:
            async for doubt in shard.all_in_doubt():
                if not isinstance(doubt, PreparedAttempt):
                    legs = prepared.get(doubt.attempt_id, [])
                    on_their_way |= {name for row, name in legs if doubt.codes[row] == Outcome.COMMITTED}
        return on_their_way

    def _find_half(self, transaction: OpenTransaction) -> None:
        there = ", ".join(self._fold.show(row) for _, row in sorted(transaction.rows.items()))
        missing = ", ".join(str(leg) for leg in transaction.missing)
        row = next(iter(transaction.rows.values()))
        self._findings.add(
            Rule.MISSING,
            f"a {_kind_name(transaction.kind)} of {transaction.leg_count} legs has {there}; of leg {missing} "
            "there is no entry, and it is not on its way",
            shard_id=self._fold.shard_id(row),
            account_id=row[COUNTERPARTY],
            transaction_id=transaction.key[:16],
        )

    # ------------------------------------------------------------------ the report

    def _conclude(self, archived: int) -> None:
        report = self.report
        report.entries = self._fold.entries
        report.entries_waiting = self._fold.entries - archived
        report.accounts = len(self._fold.accounts)
        report.currencies = self._fold.totals()
        for code, totals in sorted(report.currencies.items()):
            if not totals.balanced:
                self._findings.add(
                    Rule.SUM,
                    f"{code}: customers have {totals.customers_minor} and {totals.in_flight_minor} is in "
                    f"flight; deposits less withdrawals are "
                    f"{totals.deposits_minor - totals.withdrawals_minor}, and the system accounts' balances "
                    f"{totals.system_minor}",
                )
        under_way = self._fold.open_transactions()
        report.in_flight_total = len(under_way)
        report.in_flight = [_in_flight(transaction) for transaction in under_way[:MAX_NAMED]]


def _live_name(name: str, shard: Shard) -> str:
    """The name on a shard of an account of the ledger."""
    return name.removesuffix(f":{shard.shard_id}") if name.startswith("@") else name


def _prepared_legs(attempt: PreparedAttempt, ids: Container[bytes]) -> list[tuple[int, bytes]]:
    """What an attempt keeps prepared of the transactions with these ids: place in the bundle, leg's name."""
    return [
        (row, _leg_name(transaction.transaction_id + transaction.fingerprint, number))
        for row, transaction, number in attempt.legs(attempt.prepared_rows)
        if transaction.transaction_id in ids
    ]


def _leg_name(key: bytes, number: int) -> bytes:
    """As the ledger can name a leg, which knows nothing of attempts; ``key`` is that of OpenTransaction."""
    return key + bytes((number,))


def _is_under_way(transaction: OpenTransaction, on_their_way: set[bytes]) -> bool:
    """Whether every leg that is missing is on its way."""
    return all(_leg_name(transaction.key, leg) in on_their_way for leg in transaction.missing)


def _in_flight(transaction: OpenTransaction) -> InFlight:
    rows = list(transaction.rows.values())
    return InFlight(
        id_text(transaction.key[:16]),
        transaction.kind,
        {currency: -total for currency, total in transaction.sums().items() if total},
        min(row[AT_MS] for row in rows),
        tuple(sorted({row[COUNTERPARTY] for row in rows if row[COUNTERPARTY]})),
    )


def _kind_name(kind: int) -> str:
    return Kind(kind).name if kind in Kind.__members__.values() else f"transaction of kind {kind}"
