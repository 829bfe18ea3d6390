"""The commands of the shard engine that carry transactions, as data.

A command is one value, made by code that decides and carried out elsewhere: by the engine, or by the plain
model of the tests. ``arguments`` are what follows the fence; ``answer`` reads what the engine replied.

Codes are :class:`~shard_node.contract.outcomes.Outcome` numbers: a byte a transaction, or one byte when all
transactions of a bundle have the same. ``legs`` say which leg of its transaction a refusal concerns, a byte a
transaction, ``b""`` when all are 0. ``balances`` are minor units available after, i64 for each leg that the
shard owns, in the bundle's order of legs, ``NO_BALANCE`` where nothing was carried out; ``b""`` when they
were not asked for. ``others`` are the attempts that stand in the way: those that BUSY and ELSEWHERE are
about, each once.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from shard_node.contract.layout import ATTEMPT_BYTES

Argument = bytes | int
_START_BYTES = 6


class Other(NamedTuple):
    """An attempt in the way of another, and the id of its deciding shard: "" for the one that answers.

    Slots may have moved since it was prepared, so only the shard that keeps it knows whom to ask about it.
    """

    attempt_id: bytes
    decider: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a shard answered: a value a bundle in each column."""

    codes: Sequence[bytes] = ()
    legs: Sequence[bytes] = ()
    balances: Sequence[bytes] = ()
    others: Sequence[Sequence[Other]] = ()
    # Of Abandon: the participants, by number, that have not finished what the attempt committed.
    unfinished: Sequence[dict[int, str]] = ()


def new_attempt_id(now_ms: int) -> bytes:
    """An id that no other attempt has. It begins with the time of its start, 6 bytes, big-endian."""
    return now_ms.to_bytes(_START_BYTES) + secrets.token_bytes(ATTEMPT_BYTES - _START_BYTES)


def start_ms(attempt_id: bytes) -> int:
    """When an attempt started, ms since 1970, by the clock of who made it."""
    return int.from_bytes(attempt_id[:_START_BYTES])


@dataclass(frozen=True, slots=True)
class Post:
    """Carries out transactions whose accounts are all on this shard."""

    COMMAND: ClassVar[str] = "tallystick.post"
    bundle: bytes
    with_balances: bool = True

    def arguments(self) -> list[Argument]:
        """Whether balances are wanted, and the bundle."""
        return [int(self.with_balances), self.bundle]

    @staticmethod
    def answer(reply: Any) -> Answer:
        """COMMITTED, a refusal, or BUSY: an earlier try is not finished, and nothing was recorded."""
        codes, legs, balances, others = reply
        return Answer((codes,), (legs,), (balances,), (_others(others),))


@dataclass(frozen=True, slots=True)
class Prepared:
    """One attempt as a participant gets it. ``decider`` is the id of the deciding shard.

    ``owner`` is the participant's number in the attempt, 1 or more.
    """

    attempt_id: bytes
    decider: str
    owner: int
    bundle: bytes


@dataclass(frozen=True, slots=True)
class Prepare:
    """Step 1, on a participant: check its legs and keep them."""

    COMMAND: ClassVar[str] = "tallystick.prepare"
    attempts: Sequence[Prepared]

    def arguments(self) -> list[Argument]:
        """Four for each attempt: id, decider, owner, bundle."""
        return [
            argument
            for one in self.attempts
            for argument in (one.attempt_id, one.decider.encode(), one.owner, one.bundle)
        ]

    @staticmethod
    def answer(reply: Any) -> Answer:
        """PREPARED, a refusal, or no verdict: BUSY, or of the whole attempt ENDED or ATTEMPT_EXPIRED."""
        codes, legs, others = reply
        return Answer(codes, legs, (), [_others(one) for one in others])


@dataclass(frozen=True, slots=True)
class Decided:
    """One attempt as the deciding shard gets it.

    ``participants`` are the ids of the shards with the numbers 1, 2, ... in the bundle. ``verdicts`` are 0 to
    commit, SKIPPED to leave a transaction alone, or one of PARTICIPANT_REFUSALS to record, which concerns the
    leg in ``legs``: a byte a transaction; ``b""`` for both when all may commit.
    """

    attempt_id: bytes
    participants: Sequence[str]
    verdicts: bytes
    legs: bytes
    bundle: bytes


@dataclass(frozen=True, slots=True)
class Decide:
    """Step 2, on the deciding shard: the commit point.

    ``settled`` are settlements (step 4) of any earlier attempts: the attempt's id and a participant's number.
    """

    COMMAND: ClassVar[str] = "tallystick.decide"
    attempts: Sequence[Decided]
    settled: Sequence[tuple[bytes, int]] = ()
    with_balances: bool = True

    def arguments(self) -> list[Argument]:
        """Whether balances are wanted, settlements; then five for each attempt."""
        arguments: list[Argument] = [int(self.with_balances), _settlements(self.settled)]
        for one in self.attempts:
            participants = b"".join(bytes((len(name),)) + name.encode() for name in one.participants)
            arguments += (one.attempt_id, participants, one.verdicts, one.legs, one.bundle)
        return arguments

    @staticmethod
    def answer(reply: Any) -> Answer:
        """COMMITTED, SETTLED, ELSEWHERE, a refusal.

        Or nothing was decided: BUSY, SKIPPED, ABANDONED, ATTEMPT_EXPIRED.
        """
        codes, legs, balances, others = reply
        return Answer(codes, legs, balances, [_others(one) for one in others])


@dataclass(frozen=True, slots=True)
class Finish:
    """Step 3, on a participant: COMMITTED applies the legs of a transaction, any other code drops them.

    ``codes`` are, attempt by attempt, those that Decide or Abandon answered.
    """

    COMMAND: ClassVar[str] = "tallystick.finish"
    attempt_ids: Sequence[bytes]
    codes: Sequence[bytes]
    with_balances: bool = True

    def arguments(self) -> list[Argument]:
        """Whether balances are wanted; then two for each attempt: id, codes."""
        arguments: list[Argument] = [int(self.with_balances)]
        for attempt_id, codes in zip(self.attempt_ids, self.codes, strict=True):
            arguments += (attempt_id, codes)
        return arguments

    @staticmethod
    def answer(reply: Any) -> Answer:
        """FINISHED or DROPPED, which acknowledge; MISSING_LEG or ATTEMPT_EXPIRED, which do not."""
        codes, balances = reply
        return Answer(codes, (), balances)


@dataclass(frozen=True, slots=True)
class Settle:
    """Step 4 by itself, on the deciding shard: these participants have finished these attempts."""

    COMMAND: ClassVar[str] = "tallystick.settle"
    settled: Sequence[tuple[bytes, int]]

    def arguments(self) -> list[Argument]:
        """The settlements as one block."""
        return [_settlements(self.settled)]

    @staticmethod
    def answer(reply: Any) -> Answer:
        """Nothing but that it was done."""
        del reply
        return Answer()


@dataclass(frozen=True, slots=True)
class Abandon:
    """Recovery, on the deciding shard: what became of attempts; what was not decided never will be."""

    COMMAND: ClassVar[str] = "tallystick.abandon"
    attempt_ids: Sequence[bytes]

    def arguments(self) -> list[Argument]:
        """The ids."""
        return list(self.attempt_ids)

    @staticmethod
    def answer(reply: Any) -> Answer:
        """The codes of a commit that is not settled, and who has not finished it; else ABANDONED."""
        codes, unfinished = reply
        return Answer(codes, unfinished=[_numbered(one) for one in unfinished])


Command = Post | Prepare | Decide | Finish | Settle | Abandon


def _settlements(settled: Sequence[tuple[bytes, int]]) -> bytes:
    return b"".join(attempt_id + bytes((number,)) for attempt_id, number in settled)


def _others(packed: bytes) -> list[Other]:
    """Ids with their deciders: 16 bytes, a byte with the length, the name."""
    others, at = [], 0
    while at < len(packed):
        name_at = at + ATTEMPT_BYTES + 1
        end = name_at + packed[name_at - 1]
        others.append(Other(packed[at : name_at - 1], packed[name_at:end].decode()))
        at = end
    return others


def _numbered(packed: bytes) -> dict[int, str]:
    """Numbers and names: a byte, a byte with the length, the name."""
    names, at = {}, 0
    while at < len(packed):
        end = at + 2 + packed[at + 1]
        names[packed[at]] = packed[at + 2 : end].decode()
        at = end
    return names
