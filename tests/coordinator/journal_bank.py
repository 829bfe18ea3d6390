"""Three accounts on three real shards, for tests that walk through journals step by step."""

from __future__ import annotations

from dataclasses import dataclass

from shard_node.cluster.slots import slot
from shard_node.contract import Effect, Kind, Outcome, Transaction
from tests.coordinator.bank import Ground, name_on
from tests.coordinator.payloads import posted_bundle, transaction, transfer
from tests.real_shards import RealShards

HAS = 100
PURCHASE = bytes([7] * 16)
REFUNDABLE = 50
LONG_MS = 3_600_000


@dataclass(slots=True)
class JournalBank(Ground):
    """Three accounts, each on the shard of its index, with HAS each."""

    first: str
    second: str
    third: str

    @classmethod
    async def open(cls, shards: RealShards) -> JournalBank:
        """Three accounts with money, on as many of three shards as there are."""
        count = len(shards.servers)
        names = [name_on(shards, i % count, prefix) for i, prefix in enumerate(("one", "two", "three"))]
        bank = cls(shards, shards.cluster(), *names)
        for name in names:
            await bank.open_account(name, HAS)
        return bank

    # ------------------------------------------------------------------ transactions

    def split(
        self, amount: int = 10, *, second: int | None = None, transaction_id: bytes | None = None
    ) -> Transaction:
        """``first``, who decides, and ``second`` pay ``third``: the same amount, when no other is given."""
        other = amount if second is None else second
        legs = [
            (self.first, Effect.DEBIT, amount),
            (self.second, Effect.DEBIT, other),
            (self.third, Effect.CREDIT, amount + other),
        ]
        return transaction(Kind.JOURNAL, legs, transaction_id)

    def refund(self, amount: int = 30) -> Transaction:
        """``first`` pays back to ``second``, of a purchase of REFUNDABLE."""
        legs = [(self.first, Effect.DEBIT, amount), (self.second, Effect.REFUND, amount)]
        return transaction(Kind.REFUND, legs, None, PURCHASE, REFUNDABLE)

    def hold(self, amount: int = 40, *, life_ms: int = LONG_MS) -> Transaction:
        """So much of ``first`` is held."""
        return transaction(Kind.HOLD, [(self.first, Effect.HOLD, amount)], bound=life_ms)

    def capture(self, hold_id: bytes, amount: int = 25) -> Transaction:
        """``second`` is paid out of the hold, whose shard decides."""
        legs = [(self.first, Effect.CAPTURE, amount), (self.second, Effect.CREDIT, amount)]
        return transaction(Kind.CAPTURE, legs, None, hold_id)

    def void(self, hold_id: bytes) -> Transaction:
        """The hold ends."""
        return transaction(Kind.VOID, [(self.first, Effect.VOID, 0)], None, hold_id)

    def capture_elsewhere(self, hold_id: bytes, amount: int = 25) -> Transaction:
        """``second`` pays ``third`` with what is held of ``first``: the hold's shard only takes part."""
        legs = [
            (self.second, Effect.DEBIT, 1),
            (self.first, Effect.CAPTURE, amount),
            (self.third, Effect.CREDIT, amount + 1),
        ]
        return transaction(Kind.JOURNAL, legs, None, hold_id)

    async def held(self, amount: int, *, life_ms: int = LONG_MS) -> bytes:
        """The id of a new hold of ``first``."""
        row = self.hold(amount, life_ms=life_ms)
        assert await self.post([row], self.cluster.owner[slot(self.first)]) == [Outcome.COMMITTED]
        return row.transaction_id

    async def pay(self, payer: str, payee: str, amount: int) -> Outcome:
        """A transfer."""
        return await self.run(transfer(payer, payee, amount))

    # ------------------------------------------------------------------ what is there

    async def balances(self) -> tuple[int, int, int]:
        """What each of the three has, held money included."""
        found = [await self.account(name) for name in (self.first, self.second, self.third)]
        first, second, third = (one.available_minor + one.held_minor for one in found)
        return first, second, third

    async def held_minor(self) -> tuple[int, int, int]:
        """What is held of each of the three, by holds and by prepared debits."""
        found = [await self.account(name) for name in (self.first, self.second, self.third)]
        first, second, third = (one.held_minor for one in found)
        return first, second, third

    async def reserved_minor(self) -> tuple[int, int, int]:
        """What prepared debits hold back of each of the three."""
        found = [await self.account(name) for name in (self.first, self.second, self.third)]
        first, second, third = (one.reserved_minor for one in found)
        return first, second, third

    async def refunded_minor(self) -> int:
        """What was refunded of the purchase, prepared refunds included: the least that a check refuses."""
        shard = self.shard_of(self.second)
        low, high = 0, REFUNDABLE
        while low < high:
            amount = (low + high + 1) // 2
            checked = await shard.check(posted_bundle([self.refund(amount)]))
            low, high = (low, amount - 1) if checked[1] else (amount, high)
        return REFUNDABLE - low
