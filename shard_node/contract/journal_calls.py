"""The calls of :mod:`shard_node.contract.calls` for journals: transactions of any number of legs.

A journal whose legs are all on one shard is one call, :class:`PostJournals`. One that crosses shards is
prepared leg by leg (:class:`PrepareLegs`), decided by its first leg (:class:`DecideJournals`) and
finished leg by leg (:class:`FinishLegs`); it is settled like a transfer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from shard_node.contract.bundles import id_times_ms
from shard_node.contract.journals import Effect, Journal, Leg, journal_key, leg_key
from shard_node.contract.packing import pack, unpack
from shard_node.contract.transfers import decision_key, terms_key


@dataclass(frozen=True, slots=True)
class JournalReply:
    """What a shard answered about journals or legs.

    ``codes`` are :class:`~shard_node.contract.outcomes.Outcome` numbers, one a row. ``legs`` are the numbers
    of the legs that refusals concern, where rows are journals. ``balances`` are available balances after, in
    minor units, one for each leg of the call; ``NO_BALANCE`` where unknown.
    """

    codes: Sequence[int]
    legs: Sequence[int] = ()
    balances: Sequence[int] = ()


@dataclass(slots=True)
class Journals:
    """A batch of journals: columns of equal length. Keys are those of :func:`journal_key`."""

    keys: list[bytes]
    bodies: list[bytes]
    journals: list[Journal]

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def of(cls, rows: Sequence[tuple[bytes, Journal]]) -> Journals:
        """A batch from transaction ids (16 bytes) and journals."""
        bodies = [journal.pack() for _, journal in rows]
        keys = [journal_key(row[0], body) for row, body in zip(rows, bodies, strict=True)]
        return cls(keys, bodies, [journal for _, journal in rows])

    @classmethod
    def unpack(cls, transaction_ids: Sequence[bytes], bodies: Sequence[bytes]) -> Journals:
        """A batch from transaction ids (16 bytes) and packed journals."""
        keys = [journal_key(i, body) for i, body in zip(transaction_ids, bodies, strict=True)]
        return cls(keys, list(bodies), [Journal.unpack(body) for body in bodies])

    def select(self, rows: Sequence[int]) -> Journals:
        """The given rows as a batch of their own."""
        return Journals(
            [self.keys[row] for row in rows],
            [self.bodies[row] for row in rows],
            [self.journals[row] for row in rows],
        )


@dataclass(frozen=True, slots=True)
class LegRef:
    """One leg of a journal, as a participant gets it. ``body`` is that of ``Journal.leg_bodies``."""

    journal_key: bytes
    number: int
    journal: Journal
    body: bytes

    @property
    def leg(self) -> Leg:
        """The leg itself."""
        return self.journal.legs[self.number]

    @property
    def key(self) -> bytes:
        """The 26 bytes that name it."""
        return leg_key(self.journal_key, self.number)


@dataclass(frozen=True, slots=True)
class LegCheck:
    """A leg to be checked, and not to be carried out. ``related_key`` is that of :func:`related_key`."""

    account: str
    effect: Effect
    amount_minor: int
    currency: str
    related_key: bytes = b""
    bound: int = 0


def related_key(journal: Journal, leg: Leg, transaction_id: bytes) -> bytes:
    """The 18 bytes of the hold or purchase that a leg depends on: an id and the leg's own slot.

    The slot makes it move along with the account. Empty for plain debits and credits.
    """
    if leg.effect in (Effect.DEBIT, Effect.CREDIT):
        return b""
    related = transaction_id if leg.effect is Effect.HOLD else journal.related_id
    return related + leg.slot.to_bytes(2, "little")


# accounts, effects, amounts, currencies, related keys, bounds, bodies
_LegColumns = tuple[list[str], list[int], list[int], list[str], list[bytes], list[int], list[bytes]]


def _leg_columns(refs: Sequence[LegRef]) -> _LegColumns:
    legs = [ref.leg for ref in refs]
    return (
        [leg.account for leg in legs],
        [int(leg.effect) for leg in legs],
        [leg.amount_minor for leg in legs],
        [leg.currency for leg in legs],
        [related_key(ref.journal, leg, ref.journal_key[:16]) for ref, leg in zip(refs, legs, strict=True)],
        [ref.journal.bound for ref in refs],
        [ref.body for ref in refs],
    )


def leg_refs(batch: Journals, row: int) -> list[LegRef]:
    """All legs of one journal of a batch, the deciding one first."""
    key, journal = batch.keys[row], batch.journals[row]
    bodies = journal.leg_bodies(terms_key(key, batch.bodies[row]))
    return [LegRef(key, number, journal, body) for number, body in enumerate(bodies)]


def _decisions(batch: Journals) -> tuple[list[bytes], list[bytes]]:
    """Decision keys and terms."""
    pairs = list(zip(batch.keys, batch.bodies, strict=True))
    return [decision_key(k, b) for k, b in pairs], [terms_key(k, b) for k, b in pairs]


@dataclass(frozen=True, slots=True)
class PostJournals:
    """Carries out journals whose legs are all on this shard."""

    FUNCTION: ClassVar[str] = "post_journals"
    batch: Journals

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        batch = self.batch
        decisions, terms = _decisions(batch)
        refs = [ref for row in range(len(batch)) for ref in leg_refs(batch, row)]
        counts = [len(journal.legs) for journal in batch.journals]
        return [
            *id_times_ms(batch.keys),
            pack(decisions, batch.keys, terms, counts, *_leg_columns(refs)),
        ]

    @staticmethod
    def reply(packed: bytes) -> JournalReply:
        """Codes, refused legs, and a balance for each leg of each journal.

        OUTCOME_UNKNOWN for one that was committed across shards and is not finished yet.
        """
        return JournalReply(*unpack(packed))


@dataclass(frozen=True, slots=True)
class PrepareLegs:
    """Step 1: check legs and keep them; credits are not spendable, debits no longer."""

    FUNCTION: ClassVar[str] = "prepare_legs"
    legs: Sequence[LegRef]

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        return [pack([ref.key for ref in self.legs], *_leg_columns(self.legs))]

    @staticmethod
    def reply(packed: bytes) -> JournalReply:
        """Codes, one a leg: PREPARED, APPLIED or a refusal."""
        return JournalReply(*unpack(packed))


@dataclass(frozen=True, slots=True)
class DecideJournals:
    """Step 2, on the shard of the first leg: the commit point.

    ``verdicts`` are 0 to commit, or a participant's refusal to record, which concerns the leg in
    ``refused_legs``. ``settled`` are keys of what is finished everywhere (step 5).
    """

    FUNCTION: ClassVar[str] = "decide_journals"
    batch: Journals
    verdicts: Sequence[int]
    refused_legs: Sequence[int]
    settled: Sequence[bytes] = field(default_factory=tuple)

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        batch = self.batch
        decisions, terms = _decisions(batch)
        refs = [leg_refs(batch, row)[0] for row in range(len(batch))]
        return [
            *id_times_ms(batch.keys),
            pack(
                decisions,
                batch.keys,
                terms,
                self.verdicts,
                self.refused_legs,
                batch.bodies,
                self.settled,
                *_leg_columns(refs),
            ),
        ]

    @staticmethod
    def reply(packed: bytes) -> JournalReply:
        """Codes (COMMITTED, SETTLED or a refusal), refused legs, and the first legs' balances."""
        return JournalReply(*unpack(packed))


@dataclass(frozen=True, slots=True)
class FinishLegs:
    """Steps 3 and 4: COMMITTED applies a leg, any other verdict drops it."""

    FUNCTION: ClassVar[str] = "finish_legs"
    keys: Sequence[bytes]
    verdicts: Sequence[int]

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        return [pack(self.keys, self.verdicts)]

    @staticmethod
    def reply(packed: bytes) -> JournalReply:
        """Codes, one a leg (FINISHED, DROPPED or MISSING_LEG), and balances."""
        codes, balances = unpack(packed)
        return JournalReply(codes, (), balances)


@dataclass(frozen=True, slots=True)
class ResolveJournals:
    """Asks the deciding shard what became of journals; one with no outcome is ABORTED by it.

    All a participant knows is in a leg: the journal's key, the deciding slot and the terms.
    """

    FUNCTION: ClassVar[str] = "resolve"
    keys: Sequence[bytes]
    deciding_slots: Sequence[int]
    terms: Sequence[bytes]

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        slots = zip(self.keys, self.deciding_slots, strict=True)
        decisions = [key[:16] + slot.to_bytes(2, "little") for key, slot in slots]
        return [*id_times_ms(self.keys), pack(decisions, self.keys, self.terms)]

    @staticmethod
    def reply(packed: bytes) -> JournalReply:
        """Codes: COMMITTED, SETTLED or a refusal."""
        return JournalReply(*unpack(packed))


@dataclass(frozen=True, slots=True)
class Settle:
    """Step 5 by itself, on the deciding shard: these journals are finished everywhere."""

    FUNCTION: ClassVar[str] = "settle"
    keys: Sequence[bytes]

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        return [pack(self.keys)]

    @staticmethod
    def reply(packed: bytes) -> JournalReply:
        """Nothing but that it was done."""
        unpack(packed)
        return JournalReply(())


JournalCall = PostJournals | PrepareLegs | DecideJournals | FinishLegs | ResolveJournals | Settle
