"""The scribe against a real shard, which is asked the same: equal frames, and the same rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from shard_node.cluster.slots import slot
from shard_node.contract.accounts import AccountTerms
from shard_node.contract.commands import Decide, Decided, Finish, Post, Prepare, Prepared, new_attempt_id
from shard_node.contract.details import Details, pack_details
from shard_node.contract.kinds import NO_ID, Effect, Kind
from shard_node.contract.layout import FrameKind
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transactions import Bundle, Leg, Transaction
from shard_node.ledger.store.frames import decode
from shard_node.ledger.store.rows import ArchivedShard, Entry
from tests.engine.server import EngineServer
from tests.engine.shard import EngineShard
from tests.ledger.scribe import DONE, Opened, Scribe

NOW_MS = 1_800_000_000_000
DETAILS = pack_details(Details(b"order-7", b"", "Gruß".encode()))
OTHER = "test/shard-1"


class Both:
    """A shard of the engine, and a scribe who is told the same. The caller is always `till`."""

    def __init__(self, server: EngineServer) -> None:
        self.server = server
        self.engine = EngineShard(server)
        self.scribe = Scribe(ArchivedShard(1, "shard-0"), NOW_MS)
        self._made = 0
        server.set_clock(NOW_MS)
        self.engine.bind()

    def make(
        self, kind: Kind, *legs: Leg, details: bytes = DETAILS, related_id: bytes = NO_ID, bound: int = 0
    ) -> Transaction:
        """A transaction of a new id."""
        self._made += 1
        identity = NOW_MS.to_bytes(6) + b"\x70\x00\x80" + self._made.to_bytes(7)
        return Transaction(identity, kind, slot(legs[0].account), legs, details, related_id, bound)

    def transfer(self, payer: str, payee: str, amount: int, *, owner: int = 0) -> Transaction:
        """A plain one."""
        legs = Leg(payer, Effect.DEBIT, amount, "EUR"), Leg(payee, Effect.CREDIT, amount, "EUR", owner)
        return self.make(Kind.TRANSFER, *legs)

    def open(self, *opened: Opened) -> None:
        """Opens accounts."""
        self.engine.open(*(AccountTerms(one.name, slot(one.name), *one[1:]) for one in opened))
        self.scribe.open(*opened)

    def post(self, *transactions: Transaction) -> None:
        """Transactions whose legs are all here."""
        (codes,) = self.engine.call(Post(Bundle(transactions, "till").pack())).codes
        self.scribe.post(*transactions, codes=codes, principal="till")

    def decide(self, *bundles: tuple[Transaction, ...]) -> None:
        """Attempts, all in one call, that others take part in."""
        packed = [Bundle(one, "till") for one in bundles]
        decided = [Decided(new_attempt_id(NOW_MS), [OTHER], b"", b"", one.pack()) for one in packed]
        codes = self.engine.call(Decide(decided)).codes
        self.scribe.bundles(
            FrameKind.DECIDE, *((one, 0, code) for one, code in zip(packed, codes, strict=True))
        )

    def finish(self, owner: int, *bundles: tuple[Transaction, ...], codes: bytes = DONE) -> None:
        """Attempts that another shard decided so, all in one call."""
        packed, ids = [Bundle(one, "till") for one in bundles], [new_attempt_id(NOW_MS) for _ in bundles]
        attempts = zip(ids, packed, strict=True)
        self.engine.call(Prepare([Prepared(name, OTHER, owner, one.pack()) for name, one in attempts]))
        self.engine.call(Finish(ids, [codes] * len(ids)))
        # A frame does not say why something was dropped.
        kept = bytes(code if code == Outcome.COMMITTED else 0 for code in codes)
        self.scribe.bundles(FrameKind.FINISH, *((one, owner, kept) for one in packed))

    def require_same(self) -> set[int]:
        """Compares fields and rows; the kinds of rows that there are."""
        stream = [(name.decode(), fields) for name, fields in self.engine.frames()]
        for (_, fields), (_, told) in zip(stream, self.scribe.frames, strict=True):
            # Of a state's rows some bytes say nothing.
            if fields[b"h"][1] != FrameKind.STATE:
                assert fields == told
        rows = [Entry._make(row)._replace(at_ms=0) for row in decode(self.scribe.shard, stream, 1)]
        assert rows == [row._replace(at_ms=0) for row in self.scribe.rows]
        return {row.kind for row in rows}


@pytest.mark.servers
def test_a_shard_makes_the_frames_that_the_scribe_does(tmp_path: Path) -> None:
    """Every kind of frame, plain bundles and others, several attempts a call, some refused."""
    server = EngineServer(tmp_path / "server", manual_clock=True)
    server.start()
    try:
        assert _history(Both(server)) == set(Kind) - {Kind.WITHDRAWAL, Kind.PURCHASE}
    finally:
        server.stop()


def _history(both: Both) -> set[int]:
    both.open(Opened("ann", "EUR", -50, 10_000, 5_000), Opened("bob"), Opened("shop"), Opened("gus", "USD"))
    deposits = [
        both.make(
            Kind.DEPOSIT, Leg("@world:EUR", Effect.DEBIT, 1000, "EUR"), Leg(name, Effect.CREDIT, 1000, "EUR")
        )
        for name in ("ann", "bob", "shop")
    ]
    both.post(*deposits)
    both.post(
        both.transfer("ann", "bob", 5), both.transfer("bob", "ann", 4000), both.transfer("bob", "ann", 6)
    )
    back = Leg("shop", Effect.DEBIT, 100, "EUR"), Leg("ann", Effect.REFUND, 100, "EUR")
    holds = [
        both.make(Kind.HOLD, Leg("ann", Effect.HOLD, 60, "EUR"), bound=bound)
        for bound in (9000, 9000, 9000, 1)
    ]
    both.post(both.make(Kind.REFUND, *back, related_id=deposits[0].transaction_id, bound=300), *holds)
    taken = Leg("ann", Effect.CAPTURE, 25, "EUR"), Leg("shop", Effect.CREDIT, 25, "EUR")
    far = Leg("ann", Effect.CAPTURE, 60, "EUR"), Leg("cid", Effect.CREDIT, 60, "EUR", 1)
    both.post(
        both.make(Kind.CAPTURE, *taken, related_id=holds[0].transaction_id),
        both.make(
            Kind.VOID, Leg("ann", Effect.VOID, 0, "EUR"), details=b"", related_id=holds[2].transaction_id
        ),
    )
    split = (
        Leg("ann", Effect.DEBIT, 90, "EUR"),
        Leg("cid", Effect.CREDIT, 70, "EUR", 1),
        Leg("bob", Effect.CREDIT, 20, "EUR"),
    )
    both.decide(
        (both.transfer("ann", "cid", 7, owner=1), both.transfer("gus", "cid", 8, owner=1)),
        (both.make(Kind.CAPTURE, *far, related_id=holds[1].transaction_id), both.make(Kind.JOURNAL, *split)),
    )
    there = Leg("cid", Effect.DEBIT, 9, "EUR"), Leg("bob", Effect.CREDIT, 9, "EUR", 1)
    further = Leg("dot", Effect.CREDIT, 1, "EUR"), Leg("eve", Effect.DEBIT, 1, "EUR")
    both.finish(
        1,
        (both.transfer("cid", "ann", 3, owner=1), both.transfer("cid", "bob", 4, owner=1)),
        (
            both.make(Kind.JOURNAL, *there),
            both.make(Kind.JOURNAL, *there, *further),
        ),
    )
    one = both.transfer("cid", "ann", 3, owner=1), both.transfer("cid", "bob", 4, owner=1)
    both.finish(1, one, codes=bytes((Outcome.INSUFFICIENT_FUNDS,)) + DONE)
    both.server.set_clock(NOW_MS + 100)
    assert both.engine.fenced("expire", 10) == 1
    both.scribe.expire(holds[3])
    changes = [("bob", Kind.FREEZE), ("bob", Kind.UNFREEZE), ("gus", Kind.CLOSE)]
    assert set(both.engine.set_state(*changes)) == {Outcome.COMMITTED}
    both.scribe.state(*changes)
    return both.require_same()
