"""Three accounts on three real shards, for tests that walk through journals step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coordinator.driver import Driver
from coordinator.journal_protocol import JournalCommit
from shard_node.client.asking import ask_all
from shard_node.cluster.slots import slot
from shard_node.contract.journal_calls import JournalReply, Journals, PostJournals
from shard_node.contract.journals import NO_ID, Effect, Journal, Leg
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transfers import Kind
from tests.coordinator.bank import Ground, cluster_of, name_on, random_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shard_node.contract.records import Account
    from tests.real_shards import RealShards

HAS = 100
PURCHASE = bytes([7] * 16)
REFUNDABLE = 50
LONG_MS = 3_600_000


def codes(answer: object) -> list[int]:
    """The codes of a reply that must be there."""
    assert isinstance(answer, JournalReply)
    return list(answer.codes)


@dataclass(slots=True)
class JournalBank(Ground):
    """``names`` are three accounts, each on the shard of its index, with HAS each."""

    first: str
    second: str
    third: str

    @property
    def names(self) -> Sequence[str]:
        """All three."""
        return self.first, self.second, self.third

    @classmethod
    async def open(cls, shards: RealShards) -> JournalBank:
        """Three accounts with money, on as many of three shards as there are."""
        count = len(shards.addresses)
        names = [name_on(shards, i % count, prefix) for i, prefix in enumerate(("one", "two", "three"))]
        bank = cls(shards, cluster_of(shards), *names)
        for name in names:
            await bank.open_account(name, HAS)
        return bank

    # ------------------------------------------------------------------ journals

    def split(
        self, amount: int = 10, *, second: int | None = None, transaction_id: bytes | None = None
    ) -> Journals:
        """``first``, who decides, and ``second`` pay ``third``: the same amount, when no other is given."""
        other = amount if second is None else second
        return self._batch(
            Kind.JOURNAL,
            [
                (self.first, Effect.DEBIT, amount),
                (self.second, Effect.DEBIT, other),
                (self.third, Effect.CREDIT, amount + other),
            ],
            transaction_id,
        )

    def refund(self, amount: int = 30, *, transaction_id: bytes | None = None) -> Journals:
        """``first`` pays back to ``second``, of a purchase of REFUNDABLE."""
        legs = [(self.first, Effect.DEBIT, amount), (self.second, Effect.REFUND, amount)]
        return self._batch(Kind.REFUND, legs, transaction_id, PURCHASE, REFUNDABLE)

    def hold(self, amount: int = 40, *, life_ms: int = LONG_MS) -> Journals:
        """So much of ``first`` is held."""
        return self._batch(Kind.HOLD, [(self.first, Effect.HOLD, amount)], None, NO_ID, life_ms)

    def capture(self, hold_id: bytes, amount: int = 25) -> Journals:
        """``second`` is paid out of the hold."""
        legs = [(self.first, Effect.CAPTURE, amount), (self.second, Effect.CREDIT, amount)]
        return self._batch(Kind.CAPTURE, legs, None, hold_id)

    def void(self, hold_id: bytes) -> Journals:
        """The hold ends."""
        return self._batch(Kind.VOID, [(self.first, Effect.VOID, 0)], None, hold_id)

    @staticmethod
    def _batch(
        kind: Kind,
        legs: Sequence[tuple[str, Effect, int]],
        transaction_id: bytes | None,
        related_id: bytes = NO_ID,
        bound: int = 0,
    ) -> Journals:
        made = tuple(Leg(name, slot(name), effect, amount, "EUR") for name, effect, amount in legs)
        journal = Journal(kind, made, b"\0\0", related_id, bound)
        return Journals.of([(transaction_id or random_id(), journal)])

    # ------------------------------------------------------------------ coordinators

    async def commit(self, batch: Journals) -> JournalCommit:
        """A whole commit by a coordinator of its own, which then settles."""
        driver = Driver(self)  # type: ignore[arg-type]  # of a directory it needs the cluster only
        machine = await driver.commit_journals(batch, self.cluster)
        await driver.settle_now()
        return machine

    async def run(self, batch: Journals) -> Outcome:
        """The same; the first row's outcome."""
        return Outcome((await self.commit(batch)).outcomes[0])

    async def start(self, batch: Journals, steps: int) -> tuple[JournalCommit, dict[int, Any]]:
        """A coordinator that carries out ``steps`` of prepare, decide and finish; its next calls."""
        machine = JournalCommit(batch, self.cluster.owner)
        calls: Mapping[int, Any] = machine.prepare()
        for step in (machine.decide, machine.finish, machine.conclude)[:steps]:
            calls = step(await ask_all(self.cluster, calls)) or {}
        return machine, dict(calls)

    async def post(self, batch: Journals) -> int:
        """One journal in one call, on the shard of its first account."""
        index = self.cluster.owner[batch.journals[0].legs[0].slot]
        (code,) = codes(await self.ask(index, PostJournals(batch)))
        return code

    async def held(self, amount: int = 40, *, life_ms: int = LONG_MS) -> bytes:
        """The id of a new hold."""
        batch = self.hold(amount, life_ms=life_ms)
        assert await self.post(batch) == Outcome.COMMITTED
        return batch.keys[0][:16]

    # ------------------------------------------------------------------ what is

    async def accounts(self) -> list[Account]:
        """The three as they are."""
        found = [(await self.shard_of(name).accounts([name]))[0] for name in self.names]
        return [account for account in found if account is not None]

    async def balances(self) -> tuple[int, ...]:
        """What each has available."""
        return tuple(account.available_minor for account in await self.accounts())

    async def reserved(self) -> tuple[int, ...]:
        """What is held of each."""
        return tuple(account.held_minor for account in await self.accounts())

    async def refunded(self) -> int:
        """What was refunded of the purchase, by the shard that keeps it."""
        redis = self.shard_of(self.second).redis
        field = PURCHASE + slot(self.second).to_bytes(2, "little")
        return int(await redis.hget("refunds", field) or 0)
