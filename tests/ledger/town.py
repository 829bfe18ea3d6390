"""Accounts on three real shards, with a real archive: for audits of what really happened."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import Engine

from coordinator.attempts import Attempt
from coordinator.driver import now_ms
from shard_node.archiver.shard_archiver import ShardArchiver
from shard_node.cluster.currencies import Exponents
from shard_node.cluster.slots import slot
from shard_node.contract.kinds import NO_ID, Effect, Kind
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transactions import Transaction
from shard_node.ledger.proof.audit import Audit, AuditReport
from shard_node.ledger.proof.quick_check import QuickCheck
from shard_node.ledger.questions.history import History
from shard_node.ledger.store.archive import Archive
from shard_node.ledger.store.rows import ArchivedShard
from tests.coordinator.bank import Ground, name_on
from tests.coordinator.payloads import WORLD, timed_id, transaction, transfer
from tests.exponents import EXPONENTS
from tests.real_shards import RealShards

HOLD_MS = 60_000


@dataclass(slots=True)
class Town(Ground):
    """Everybody who can pay. ``names[i]`` are the accounts on shard i."""

    engine: Engine
    threads: ThreadPoolExecutor
    names: list[list[str]]
    batch_entries: int = 5
    # What an audit holds the ledger's against.
    exponents: Exponents | None = None

    async def deposit(self, name: str, amount: int) -> None:
        """Money from outside."""
        row = transfer(WORLD, name, amount, Kind.DEPOSIT, timed_id(now_ms()))
        assert await self.post([row], self.cluster.owner[slot(name)]) == [Outcome.COMMITTED]

    def transfer(self, payer: str, payee: str, amount: int) -> Transaction:
        """A transfer with a UUIDv7 of now."""
        return transfer(payer, payee, amount, Kind.TRANSFER, timed_id(now_ms()), b"\0\0rent")

    async def pay(self, payer: str, payee: str, amount: int) -> None:
        """A whole transfer, settled."""
        row = self.transfer(payer, payee, amount)
        if self.shard_of(payer) is self.shard_of(payee):
            assert await self.post([row], self.cluster.owner[slot(payer)]) == [Outcome.COMMITTED]
        else:
            assert await self.run(row) is Outcome.COMMITTED

    async def pay_half(self, payer: str, payee: str, amount: int, steps: int = 2) -> Attempt:
        """A transfer between shards whose coordinator dies after so many of prepare, decide and finish."""
        attempt = self.attempt(self.transfer(payer, payee, amount))
        await self.start(attempt, steps)
        return attempt

    async def journal(
        self, kind: Kind, legs: Sequence[tuple[str, Effect, int]], related: bytes = NO_ID
    ) -> bytes:
        """A transaction under conditions, settled; its id."""
        row = transaction(kind, legs, timed_id(now_ms()), related, HOLD_MS if kind is Kind.HOLD else 0)
        if len({self.shard_of(name).shard_id for name, _, _ in legs}) == 1:
            assert await self.post([row], self.cluster.owner[row.deciding_slot]) == [Outcome.COMMITTED]
        else:
            assert await self.run(row) is Outcome.COMMITTED
        return row.transaction_id

    # ------------------------------------------------------------------ the ledger

    def archiver(self, index: int) -> ShardArchiver:
        """A shard's archiver that begins, with small batches."""
        shard_id = self.cluster.shards[index].shard_id
        return ShardArchiver(
            shard_id,
            Archive(self.engine),
            self.threads,
            lambda: int(time.time() * 1000),
            EXPONENTS,
            self.batch_entries,
        )

    async def archive(self, *indexes: int) -> None:
        """Archives all that waits on these shards, on all when none is named."""
        for index in indexes or range(len(self.cluster.shards)):
            archiver = self.archiver(index)
            while (await archiver.step(self.cluster.shards[index])).entries:
                pass

    def archived(self, index: int) -> ArchivedShard:
        """A shard as the archive knows it."""
        wanted = self.cluster.shards[index].shard_id
        (found,) = [one for one in Archive(self.engine).shards() if one.shard_id == wanted]
        return found

    async def audit(self) -> AuditReport:
        """A full audit."""
        audit = Audit(History(self.engine, self.exponents), self.cluster.shards)
        steps = [step async for step in audit.run()]
        assert {step.phase for step in steps} == {"replay", "repetitions", "accounts", "in flight"}
        return audit.report

    async def quick_check(self) -> QuickCheck:
        """A quick check."""
        check = QuickCheck(History(self.engine, self.exponents), self.cluster.shards)
        steps = [step async for step in check.run()]
        assert steps[-1] == (check.accounts_checked, check.accounts_checked)
        return check


@asynccontextmanager
async def town_on(shards: RealShards, engine: Engine) -> AsyncIterator[Town]:
    """Three accounts on each shard, each with 1000 minor units; nothing archived yet."""
    names = [[name_on(shards, index, f"{who}{index}") for who in "abc"] for index in range(3)]
    with ThreadPoolExecutor(2) as threads:
        town = Town(shards, shards.cluster(), engine, threads, names)
        try:
            for name in (name for some in names for name in some):
                await town.open_account(name, 1000)
            yield town
        finally:
            await town.close()
