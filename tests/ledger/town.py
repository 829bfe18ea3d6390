"""Accounts on three real shards, with a real archive: for audits of what really happened."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from coordinator.protocol import Commit, Part
from shard_node.contract.calls import ATTEMPT_BYTES, Attempt, Call, Post
from shard_node.contract.journal_calls import Journals
from shard_node.contract.journals import NO_ID, Effect, Journal, Leg
from shard_node.contract.transfers import Details, Kind, Terms, Transfers, pack_details
from sqlalchemy import Engine

from coordinator.driver import Driver
from shard_node.archiver.shard_archiver import ShardArchiver
from shard_node.client.asking import ask_all
from shard_node.client.directory import Cluster
from shard_node.client.shard import Shard
from shard_node.cluster.currencies import Exponents
from shard_node.cluster.slots import slot
from shard_node.contract.outcomes import Outcome, without_side
from shard_node.ledger.proof.audit import Audit, AuditReport
from shard_node.ledger.proof.quick_check import QuickCheck
from shard_node.ledger.questions.history import History
from shard_node.ledger.store.archive import Archive
from shard_node.ledger.store.rows import ArchivedShard
from tests.coordinator.bank import name_on
from tests.exponents import EXPONENTS
from tests.real_shards import RealShards

NO_DETAILS = pack_details(Details())
ALL_COMMITTED = bytes((Outcome.COMMITTED,))


def new_id() -> bytes:
    """A UUIDv7 of now."""
    raw = bytearray(int(time.time() * 1000).to_bytes(6) + os.urandom(10))
    raw[6], raw[8] = 0x70 | raw[6] & 0x0F, 0x80 | raw[8] & 0x3F
    return bytes(raw)


@dataclass(slots=True)
class Town:
    """Everybody who can pay. ``names[i]`` are the accounts on shard i."""

    cluster: Cluster
    engine: Engine
    threads: ThreadPoolExecutor
    names: list[list[str]]
    batch_entries: int = 5
    # What an audit holds the ledger's against.
    exponents: Exponents | None = None
    _driver: Driver = field(init=False)

    def __post_init__(self) -> None:
        self._driver = Driver(self)  # type: ignore[arg-type]  # of a directory it needs the cluster only

    @property
    def current(self) -> Cluster:
        """What a directory would hand out."""
        return self.cluster

    @property
    def shards(self) -> Sequence[Shard]:
        """The live shards."""
        return self.cluster.shards

    def shard_of(self, name: str) -> Shard:
        """The shard that an account is on."""
        return self.cluster.shards[self.cluster.owner[slot(name)]]

    async def open(self, name: str, floor: int = 0, maximum: int = 0) -> None:
        """Opens an account."""
        await self.shard_of(name).open([name], [slot(name)], ["EUR"], [floor], [maximum], [0])

    async def deposit(self, name: str, amount: int) -> None:
        """Money from outside."""
        terms = Terms(amount, "EUR", slot(name), slot(name), Kind.DEPOSIT, "@world:EUR", name, NO_DETAILS)
        reply = await self.shard_of(name).call(Post(Transfers.of([(new_id(), terms)]).bundle()))
        assert reply.codes == (ALL_COMMITTED,)

    def transfers(self, payer: str, payee: str, amount: int) -> Transfers:
        """One transfer."""
        terms = Terms(amount, "EUR", slot(payer), slot(payee), Kind.TRANSFER, payer, payee, b"rent")
        return Transfers.of([(new_id(), terms)])

    async def pay(self, payer: str, payee: str, amount: int) -> None:
        """A whole transfer, settled."""
        batch = self.transfers(payer, payee, amount)
        if self.shard_of(payer) is self.shard_of(payee):
            (codes,) = (await self.shard_of(payer).call(Post(batch.bundle()))).codes
        else:
            machine = await self._driver.commit([self.part(payer, payee, batch)], self.cluster)
            codes = machine.parts[0].outcomes
        assert codes == ALL_COMMITTED

    def part(self, payer: str, payee: str, batch: Transfers) -> Part:
        """Transfers between two accounts of different shards, as an attempt of their own."""
        owner = self.cluster.owner
        attempt = Attempt(os.urandom(ATTEMPT_BYTES), batch.bundle())
        return Part(owner[slot(payer)], owner[slot(payee)], attempt)

    def commit(self, part: Part) -> Commit:
        """The machine of a coordinator that begins an attempt."""
        return Commit([part], self.cluster.shard_ids)

    async def pay_half(self, payer: str, payee: str, amount: int, steps: int = 2) -> bytes:
        """A coordinator dies after so many of prepare, decide and finish; the transfer's key."""
        batch = self.transfers(payer, payee, amount)
        await self.begin(self.part(payer, payee, batch), steps)
        return batch.keys[0]

    async def begin(self, part: Part, steps: int) -> None:
        """So many of prepare, decide and finish of an attempt."""
        machine = self.commit(part)
        calls: dict[int, Call] = dict(machine.prepare())
        for step in (machine.decide, machine.finish, machine.conclude)[:steps]:
            answers = await ask_all(self.cluster, calls)
            calls = dict(step(answers) or {})

    async def journal(
        self, kind: Kind, legs: Sequence[tuple[str, Effect, int]], related: bytes = NO_ID
    ) -> bytes:
        """A journal, settled; its transaction id."""
        journal = Journal(
            kind,
            tuple(Leg(name, slot(name), effect, amount, "EUR") for name, effect, amount in legs),
            NO_DETAILS,
            related,
            60_000 if kind is Kind.HOLD else 0,
        )
        used = new_id()
        done = await self._driver.commit_journals(Journals.of([(used, journal)]), self.cluster)
        assert [without_side(code) for code in done.outcomes] == [Outcome.COMMITTED]
        return used

    async def settle(self) -> None:
        """Tells deciding shards what is finished everywhere."""
        await self._driver.settle_now()

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
    topology = shards.topology
    cluster = Cluster(topology, tuple(shards.shard(index) for index in range(len(topology.shards))))
    names = [[name_on(shards, index, f"{who}{index}") for who in "abc"] for index in range(3)]
    with ThreadPoolExecutor(2) as threads:
        town = Town(cluster, engine, threads, names)
        try:
            for name in (name for some in names for name in some):
                await town.open(name)
                await town.deposit(name, 1000)
            yield town
        finally:
            for shard in cluster.shards:
                await shard.close()
