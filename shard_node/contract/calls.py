"""The calls a shard answers about transfers, as data.

A call is one value, made by code that decides and carried out elsewhere: over Redis by
:class:`shard_node.client.shard.Shard`, or by the plain model of the tests. Transfers come in bundles, one a
pair of shards; ``library/transfers.lua`` says what each function does with them.

Codes are :class:`~shard_node.contract.outcomes.Outcome` numbers, on refusals of the payee's account with
``PAYEE`` added: a byte a row, or one byte when all rows of a bundle have the same. Balances are minor units
after the change, q a row, ``NO_BALANCE`` where unknown; ``b""`` when they were not asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from shard_node.contract.bundles import Bundle, id_times_ms
from shard_node.contract.packing import pack, unpack

ATTEMPT_BYTES = 16
COMMIT_BYTES = 6


@dataclass(frozen=True, slots=True)
class Reply:
    """What a shard answered: a value a bundle, or for Resolve a value a row.

    ``commits`` are the names of what a Decide left unsettled, ``b""`` for a bundle of which nothing was
    committed. ``elsewhere`` are, bundle by bundle, the names of other attempts' commits that hold rows of it.
    """

    codes: Sequence[bytes]
    payer_balances: Sequence[bytes] = ()
    payee_balances: Sequence[bytes] = ()
    commits: Sequence[bytes] = ()
    elsewhere: Sequence[Sequence[bytes]] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to carry out a bundle across two shards. ``attempt_id`` is its own, and never used again."""

    attempt_id: bytes
    bundle: Bundle


@dataclass(frozen=True, slots=True)
class Post:
    """Carries out transfers whose two accounts are on this shard."""

    FUNCTION: ClassVar[str] = "post"
    bundle: Bundle
    with_balances: bool = True

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        b = self.bundle
        return [
            b.oldest_ms,
            b.newest_ms,
            int(self.with_balances),
            b.decisions,
            b.terms,
            b.payers,
            b.payees,
            b.amounts,
            b.currencies,
            b.bodies,
        ]

    @staticmethod
    def reply(packed: bytes) -> Reply:
        """Codes (OUTCOME_UNKNOWN for a commit of old that is not finished yet) and both balances."""
        codes, payer_balances, payee_balances = unpack(packed)
        return Reply((codes,), (payer_balances,), (payee_balances,))


@dataclass(frozen=True, slots=True)
class Prepare:
    """Step 1, on the payees' shard: check the credits and keep them, under their attempt."""

    FUNCTION: ClassVar[str] = "prepare"
    attempts: Sequence[Attempt]

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        arguments: list[bytes | int] = []
        for attempt in self.attempts:
            b = attempt.bundle
            arguments += (
                attempt.attempt_id,
                b.decisions,
                b.terms,
                b.payees,
                b.amounts,
                b.currencies,
                b.bodies,
            )
        return arguments

    @staticmethod
    def reply(packed: bytes) -> Reply:
        """Codes: PREPARED or a refusal; ENDED for all rows of an attempt that has ended here before."""
        return Reply(unpack(packed))


@dataclass(frozen=True, slots=True)
class Decide:
    """Step 2, on the payers' shard: the commit point.

    ``peers`` are the ids of the payees' shards. ``verdicts`` are, bundle by bundle, 0 to commit or the
    payee's refusal to record as the outcome, a byte a row; ``b""`` to commit all. ``settled`` are names of
    commits that are finished (step 5), of any earlier batch.
    """

    FUNCTION: ClassVar[str] = "decide"
    attempts: Sequence[Attempt]
    peers: Sequence[str]
    verdicts: Sequence[bytes]
    settled: Sequence[bytes] = field(default_factory=tuple)
    with_balances: bool = True

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        bundles = [attempt.bundle for attempt in self.attempts]
        arguments: list[bytes | int] = [
            min(b.oldest_ms for b in bundles),
            max(b.newest_ms for b in bundles),
            int(self.with_balances),
            b"".join(self.settled),
        ]
        for attempt, peer, verdicts in zip(self.attempts, self.peers, self.verdicts, strict=True):
            b = attempt.bundle
            arguments += (
                attempt.attempt_id,
                peer.encode(),
                verdicts,
                b.decisions,
                b.terms,
                b.payers,
                b.amounts,
                b.currencies,
                b.bodies,
            )
        return arguments

    @staticmethod
    def reply(packed: bytes) -> Reply:
        """Codes (COMMITTED, SETTLED, ELSEWHERE or a refusal), payer balances, and the names of commits."""
        codes, balances, commits, elsewhere = unpack(packed)
        return Reply(codes, balances, (), commits, elsewhere)


@dataclass(frozen=True, slots=True)
class Finish:
    """Steps 3 and 4, on the payees' shard: COMMITTED applies a leg, any other verdict drops it.

    ``verdicts`` are codes as Decide gives them.
    """

    FUNCTION: ClassVar[str] = "finish"
    attempt_ids: Sequence[bytes]
    verdicts: Sequence[bytes]
    with_balances: bool = True

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        arguments: list[bytes | int] = [int(self.with_balances)]
        for attempt_id, verdicts in zip(self.attempt_ids, self.verdicts, strict=True):
            arguments += (attempt_id, verdicts)
        return arguments

    @staticmethod
    def reply(packed: bytes) -> Reply:
        """Codes (FINISHED, DROPPED or MISSING_LEG) and payee balances."""
        codes, balances = unpack(packed)
        return Reply(codes, (), balances)


@dataclass(frozen=True, slots=True)
class SettleCommits:
    """Step 5 by itself, on the payers' shard: these commits are finished."""

    FUNCTION: ClassVar[str] = "settle_commits"
    commits: Sequence[bytes]

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        return [b"".join(self.commits)]

    @staticmethod
    def reply(packed: bytes) -> Reply:
        """Nothing but that it was done."""
        unpack(packed)
        return Reply(())


@dataclass(frozen=True, slots=True)
class ResolveAttempts:
    """Asks a payers' shard what became of transfers; one with no outcome is ABORTED by it.

    Columns of equal length, a row a transfer.
    """

    FUNCTION: ClassVar[str] = "resolve_attempts"
    attempt_ids: Sequence[bytes]
    decisions: Sequence[bytes]
    terms: Sequence[bytes]

    def arguments(self) -> list[bytes | int]:
        """What the function takes after the fence."""
        return [*id_times_ms(self.decisions), pack(self.decisions, self.attempt_ids, self.terms)]

    @staticmethod
    def reply(packed: bytes) -> Reply:
        """One string of codes: COMMITTED, SETTLED, ELSEWHERE or a refusal, a byte a row."""
        return Reply(unpack(packed))


Call = Post | Prepare | Decide | Finish | SettleCommits | ResolveAttempts
