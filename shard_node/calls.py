"""The calls a shard answers, as data.

A call is one value, made by code that decides and carried out elsewhere: over Redis by
:class:`shard_node.shard.Shard`, or by the plain model of the tests. Columns of one call have equal
length; ``library.lua`` says what each function does with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from shard_node.packing import id_times_ms, pack, unpack
from shard_node.transfers import Transfers, decision_key, terms_key


@dataclass(frozen=True, slots=True)
class Reply:
    """What a shard answered, a value per row.

    ``codes`` are :class:`~shard_node.outcomes.Outcome` numbers, on refusals of the payee's account
    with ``PAYEE`` added. Balances are minor units after the change, ``NO_BALANCE`` where unknown.
    """

    codes: Sequence[int]
    payer_balances: Sequence[int] = ()
    payee_balances: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Post:
    """Carries out transfers whose two accounts are on this shard."""

    FUNCTION: ClassVar[str] = "post"
    transfers: Transfers

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        t = self.transfers
        decisions = [decision_key(k, b) for k, b in zip(t.keys, t.bodies, strict=True)]
        terms = [terms_key(k, b) for k, b in zip(t.keys, t.bodies, strict=True)]
        return [
            *id_times_ms(t.keys),
            pack(decisions, t.keys, terms, t.payers, t.payees, t.amounts_minor, t.currencies, t.bodies),
        ]

    @staticmethod
    def reply(packed: bytes) -> Reply:
        """Codes (OUTCOME_UNKNOWN for a commit of old that is not finished yet) and both balances."""
        return Reply(*unpack(packed))


@dataclass(frozen=True, slots=True)
class Prepare:
    """Step 1, on the payee's shard: check the credit and keep it."""

    FUNCTION: ClassVar[str] = "prepare"
    transfers: Transfers

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        t = self.transfers
        return [pack(t.keys, t.payees, t.amounts_minor, t.currencies, t.bodies)]

    @staticmethod
    def reply(packed: bytes) -> Reply:
        """Codes: PREPARED, APPLIED or a refusal."""
        return Reply(*unpack(packed))


@dataclass(frozen=True, slots=True)
class Decide:
    """Step 2, on the payer's shard: the commit point.

    ``verdicts`` are 0 to commit, or the payee's refusal to record as the outcome. ``settled`` are
    keys of transfers that are finished everywhere (step 5), of any earlier batch.
    """

    FUNCTION: ClassVar[str] = "decide"
    transfers: Transfers
    verdicts: Sequence[int]
    settled: Sequence[bytes] = field(default_factory=tuple)

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        t = self.transfers
        decisions = [decision_key(k, b) for k, b in zip(t.keys, t.bodies, strict=True)]
        terms = [terms_key(k, b) for k, b in zip(t.keys, t.bodies, strict=True)]
        return [
            *id_times_ms(t.keys),
            pack(
                decisions,
                t.keys,
                terms,
                t.payers,
                t.amounts_minor,
                t.currencies,
                t.bodies,
                self.verdicts,
                self.settled,
            ),
        ]

    @staticmethod
    def reply(packed: bytes) -> Reply:
        """Codes (COMMITTED, SETTLED or a refusal) and payer balances."""
        return Reply(*unpack(packed))


@dataclass(frozen=True, slots=True)
class Finish:
    """Steps 3 and 4, on the payee's shard: COMMITTED applies the leg, any other verdict drops it."""

    FUNCTION: ClassVar[str] = "finish"
    keys: Sequence[bytes]
    verdicts: Sequence[int]

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        return [pack(self.keys, self.verdicts)]

    @staticmethod
    def reply(packed: bytes) -> Reply:
        """Codes (FINISHED, DROPPED or MISSING_LEG) and payee balances."""
        codes, balances = unpack(packed)
        return Reply(codes, (), balances)


@dataclass(frozen=True, slots=True)
class Settle:
    """Step 5 by itself, on the payer's shard: these are finished everywhere."""

    FUNCTION: ClassVar[str] = "settle"
    keys: Sequence[bytes]

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        return [pack(self.keys)]

    @staticmethod
    def reply(packed: bytes) -> Reply:
        """Nothing but that it was done."""
        unpack(packed)
        return Reply(())


@dataclass(frozen=True, slots=True)
class Resolve:
    """Asks the payer's shard what became of transfers; one with no outcome is ABORTED by it."""

    FUNCTION: ClassVar[str] = "resolve"
    keys: Sequence[bytes]
    bodies: Sequence[bytes]

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        decisions = [decision_key(k, b) for k, b in zip(self.keys, self.bodies, strict=True)]
        terms = [terms_key(k, b) for k, b in zip(self.keys, self.bodies, strict=True)]
        return [*id_times_ms(self.keys), pack(decisions, self.keys, terms)]

    @staticmethod
    def reply(packed: bytes) -> Reply:
        """Codes: COMMITTED, SETTLED or a refusal."""
        return Reply(*unpack(packed))


Call = Post | Prepare | Decide | Finish | Settle | Resolve
