"""The same history in both forms: through shards of the Lua library, and as the engine's frames.

Whatever both can say gives the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest

from coordinator.driver import Driver
from coordinator.protocol import Part
from shard_node.client.directory import Cluster
from shard_node.client.shard import Shard
from shard_node.cluster.slots import slot
from shard_node.contract import journals as library
from shard_node.contract.calls import Attempt, Post
from shard_node.contract.journal_calls import Journals, PostJournals
from shard_node.contract.journals import NO_ID, Effect
from shard_node.contract.layout import FrameKind
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transactions import Bundle, Leg, Transaction
from shard_node.contract.transfers import Details, Kind, Terms, Transfers, pack_details, unpack_details
from shard_node.ledger.store import frames, library_entries
from shard_node.ledger.store.rows import ArchivedShard, Entry
from tests.ledger.scribe import DONE, Opened, Scribe
from tests.ledger.town import NO_DETAILS, new_id
from tests.real_shards import RealShards

_TRANSFERS = (Kind.TRANSFER, Kind.DEPOSIT, Kind.WITHDRAWAL, Kind.PURCHASE)
_KIND = Entry._fields.index("kind")
# The library hashes another body, and finishes what a deciding shard has besides a journal's first leg later.
_DIFFERENT = {"fingerprint", "at_ms"}
DETAILS = pack_details(Details(b"order-7", b"till 4", b"thanks"))
REFERENCE = pack_details(Details(reference=b"thanks"))


@dataclass(slots=True)
class Both:
    """Three shards of the library, and a scribe for each."""

    cluster: Cluster
    driver: Driver = field(init=False)
    scribes: list[Scribe] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.driver = Driver(self)  # type: ignore[arg-type]  # of a directory it needs the cluster only
        self.scribes = [Scribe(ArchivedShard(i + 1, shard.shard_id)) for i, shard in enumerate(self.shards)]

    @property
    def current(self) -> Cluster:
        """What a directory would hand out."""
        return self.cluster

    @property
    def shards(self) -> Sequence[Shard]:
        """The shards of the library."""
        return self.cluster.shards

    async def open(self, home: int, *opened: Opened) -> None:
        """Opens accounts on a shard."""
        _, currencies, *limits = zip(*opened, strict=True)
        names = [one.name for one in opened]
        await self.shards[home].open(names, [slot(name) for name in names], currencies, *limits)
        self.scribes[home].open(*opened)

    async def state(self, home: int, *changes: tuple[str, Kind]) -> None:
        """Freezes, unfreezes, closes."""
        names, kinds = zip(*changes, strict=True)
        outcomes, _ = await self.shards[home].set_state(names, kinds)
        assert set(outcomes) == {Outcome.COMMITTED}
        self.scribes[home].state(*changes)

    async def post(self, home: int, *transactions: Transaction) -> bytes:
        """Carries transactions out on one shard; the codes."""
        shard = self.shards[home]
        if transactions[0].kind in _TRANSFERS:
            (codes,) = (await shard.call(Post(_transfers(transactions).bundle()))).codes
        else:
            codes = bytes((await shard.call(PostJournals(_journals(transactions)))).codes)
        self.scribes[home].post(*transactions, codes=codes)
        return codes

    async def across(self, home: int, *transactions: Transaction) -> None:
        """Carries transactions out on several shards; ``home`` decides, owners count from it on."""
        if transactions[0].kind in _TRANSFERS:
            attempt = Attempt(new_id(), _transfers(transactions).bundle())
            await self.driver.commit([Part(home, self._shard(home, 1), attempt)], self.cluster)
        else:
            done = await self.driver.commit_journals(_journals(transactions), self.cluster)
            assert set(done.outcomes) == {Outcome.COMMITTED}
        bundle = Bundle(transactions)
        owners = {leg.owner for row in transactions for leg in row.legs}
        for owner in sorted(owners):
            kind = FrameKind.FINISH if owner else FrameKind.DECIDE
            self.scribes[self._shard(home, owner)].bundles(kind, (bundle, owner, DONE))

    async def expire(self, home: int, hold: Transaction) -> None:
        """Has a hold end by itself, whose time is all but over."""
        while not await self.shards[home].expire_holds(10):
            pass
        self.scribes[home].expire(hold)

    async def require_same_rows(self) -> set[int]:
        """Compares the ledgers of all shards; the kinds that there are."""
        kinds: set[int] = set()
        for scribe, shard in zip(self.scribes, self.shards, strict=True):
            stream = await shard.ledger_after("0", 1000)
            theirs = library_entries.decode(scribe.shard, stream, 7)
            ours = frames.decode(scribe.shard, scribe.frames, 7)
            assert [_compared(row) for row in ours] == [_compared(row) for row in theirs]
            kinds |= {row[_KIND] for row in ours}
        return kinds

    def name_on(self, home: int, who: str) -> str:
        """An account id whose slot is on that shard."""
        return next(name for n in count() if self.cluster.owner[slot(name := f"{who}-{n}")] == home)

    def _shard(self, home: int, owner: int) -> int:
        return (home + owner) % len(self.shards)


def _compared(row: Sequence[object]) -> list[object]:
    return [value for name, value in zip(Entry._fields, row, strict=True) if name not in _DIFFERENT]


def _transfers(transactions: Sequence[Transaction]) -> Transfers:
    """As the library takes them: of a TRANSFER the details are the reference itself."""
    rows: list[tuple[bytes, Terms]] = []
    for row in transactions:
        payer, payee = row.legs
        # `@world` is on the customer's shard, which also decides.
        slots = [slot(leg.account) for leg in row.legs if not leg.account.startswith("@")]
        details = unpack_details(row.details).reference if row.kind == Kind.TRANSFER else row.details
        terms = Terms(
            payer.amount_minor, payer.currency, slots[0], slots[-1], row.kind, payer.account, payee.account,
            details,
        )  # fmt: skip
        rows.append((row.transaction_id, terms))
    return Transfers.of(rows)


def _journals(transactions: Sequence[Transaction]) -> Journals:
    rows: list[tuple[bytes, library.Journal]] = []
    for row in transactions:
        legs = [
            library.Leg(leg.account, slot(leg.account), leg.effect, leg.amount_minor, leg.currency)
            for leg in row.legs
        ]
        journal = library.Journal(row.kind, tuple(legs), row.details, row.related_id, row.bound)
        rows.append((row.transaction_id, journal))
    return Journals.of(rows)


def made(
    kind: Kind, *legs: Leg, details: bytes = DETAILS, related_id: bytes = NO_ID, bound: int = 0
) -> Transaction:
    """A transaction of a new id."""
    first = next(leg.account for leg in legs if not leg.account.startswith("@"))
    return Transaction(new_id(), kind, slot(first), legs, details, related_id, bound)


def sent(kind: Kind, payer: str, payee: str, amount: int, *, owner: int = 0) -> Transaction:
    """A transfer; the payee's shard has that number. The library has one text for a TRANSFER."""
    legs = Leg(payer, Effect.DEBIT, amount, "EUR"), Leg(payee, Effect.CREDIT, amount, "EUR", owner)
    return made(kind, *legs, details=REFERENCE if kind is Kind.TRANSFER else DETAILS)


@pytest.mark.servers
async def test_the_same_history_gives_the_same_rows(shards: RealShards) -> None:
    """Every kind of entry, within a shard and across, batches with refusals, journals of many legs."""
    topology = shards.topology
    both = Both(Cluster(topology, tuple(shards.shard(index) for index in range(3))))
    try:
        assert await _history(both) == set(Kind)
    finally:
        for shard in both.shards:
            await shard.close()


async def _history(both: Both) -> set[int]:
    ann, bob, shop, gus = (both.name_on(0, who) for who in ("ann", "bob", "shop", "gus"))
    cid, dot = (both.name_on(1, who) for who in ("cid", "dot"))
    eve = both.name_on(2, "eve")
    await both.open(0, Opened(ann, "EUR", -50, 10_000, 5_000), Opened(bob), Opened(shop), Opened(gus, "USD"))
    await both.open(1, Opened(cid), Opened(dot))
    await both.open(2, Opened(eve))

    deposits = [sent(Kind.DEPOSIT, "@world:EUR", name, 1000) for name in (ann, bob)]
    purchase = sent(Kind.PURCHASE, ann, shop, 300)
    too_much = sent(Kind.TRANSFER, bob, shop, 99_999)
    await both.post(0, *deposits)
    await both.post(0, purchase, sent(Kind.WITHDRAWAL, bob, "@world:EUR", 70))
    codes = await both.post(0, sent(Kind.TRANSFER, ann, bob, 5), too_much, sent(Kind.TRANSFER, bob, ann, 6))
    assert codes == bytes((Outcome.COMMITTED, Outcome.INSUFFICIENT_FUNDS, Outcome.COMMITTED))
    await both.across(
        0, sent(Kind.TRANSFER, ann, cid, 40, owner=1), sent(Kind.PURCHASE, bob, dot, 50, owner=1)
    )

    back = Leg(shop, Effect.DEBIT, 100, "EUR"), Leg(ann, Effect.REFUND, 100, "EUR")
    await both.post(0, made(Kind.REFUND, *back, related_id=purchase.transaction_id, bound=300))
    holds = [
        made(Kind.HOLD, Leg(ann, Effect.HOLD, 60, "EUR"), bound=bound)
        for bound in (60_000, 60_000, 60_000, 1)
    ]
    await both.post(0, *holds[:3])
    taken = Leg(ann, Effect.CAPTURE, 25, "EUR"), Leg(shop, Effect.CREDIT, 25, "EUR")
    await both.post(0, made(Kind.CAPTURE, *taken, related_id=holds[0].transaction_id))
    far = Leg(ann, Effect.CAPTURE, 60, "EUR"), Leg(cid, Effect.CREDIT, 60, "EUR", 1)
    await both.across(0, made(Kind.CAPTURE, *far, related_id=holds[1].transaction_id))
    await both.post(0, made(Kind.VOID, Leg(ann, Effect.VOID, 0, "EUR"), related_id=holds[2].transaction_id))
    await both.post(0, holds[3])
    await both.expire(0, holds[3])

    split = (
        Leg(ann, Effect.DEBIT, 90, "EUR"),
        Leg(cid, Effect.CREDIT, 30, "EUR", 1),
        Leg(bob, Effect.CREDIT, 20, "EUR"),
        Leg(eve, Effect.CREDIT, 15, "EUR", 2),
        Leg(dot, Effect.CREDIT, 25, "EUR", 1),
    )
    await both.across(0, made(Kind.JOURNAL, *split))
    here = (
        Leg(ann, Effect.DEBIT, 9, "EUR"),
        Leg(bob, Effect.CREDIT, 4, "EUR"),
        Leg(shop, Effect.CREDIT, 5, "EUR"),
    )
    await both.post(0, made(Kind.JOURNAL, *here), made(Kind.JOURNAL, *here, details=NO_DETAILS))
    await both.state(0, (bob, Kind.FREEZE), (gus, Kind.CLOSE))
    await both.state(0, (bob, Kind.UNFREEZE))
    return await both.require_same_rows()
