"""An exhaustive search over every order of events around a few attempts.

The world is small: a few accounts, each in a slot of its own; two or three shards, which are the plain model
that the engine is compared with; a few tries of payloads, each by a coordinator of its own; a resolver; a
network. What decides is the product's own code: :mod:`coordinator.attempts` and
:mod:`coordinator.attempt_steps`.

The network keeps every message ever sent, and may deliver any of them at any time, any number of times, or
never: loss, duplication, reordering and delay without bound in one, also past the time after which shards
forget. A reply reaches the sender at once or never: a late reply is the same as a late next message. A
coordinator may give up or die at any point. Slots move once they are drained, and raise the epochs of both
shards. Shards forget one generation at a time, in any order. A coordinator or resolver that sees one shard
forget twice was stopped for too long, and stops for good. A shard that crashes loses what is not on its disk;
an answer is given only when it is.

Here are the values; :mod:`tests.coordinator.attempt_search` searches,
:mod:`tests.coordinator.attempt_explorer` knows transactions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coordinator.attempt_steps import Batch
from coordinator.attempts import Commit, Recovery
from shard_node.client import NoReply
from shard_node.contract import Answer, Command
from tests.model import EngineModel, Faults

# By transaction: its name and what its caller was answered.
Answered = tuple[tuple[str, int], ...]
# Yields calls by shard, is sent their answers; returns what callers are answered and what is sent at the end.
Run = Generator[Mapping[int, Command], Mapping[int, Answer | NoReply], tuple[Answered, Mapping[int, Command]]]


class ViolationError(AssertionError):
    """A state that must not be; ``trace`` are the events that lead to it."""

    def __init__(self, what: str, trace: list[str]) -> None:
        super().__init__(what + "\n  " + "\n  ".join(trace))
        self.what = what
        self.trace = trace


def nothing_unsettled(shards: Sequence[EngineModel], index: int) -> bool:
    """R10: whether a shard may forget: no commit anywhere is unsettled."""
    del index
    return not any(shard.commits for shard in shards)


def nothing_long_unsettled(shards: Sequence[EngineModel], index: int) -> bool:
    """R10, to the full: no commit anywhere is from before the last time that the shard forgot.

    What is forgotten next is older than that.
    """
    since = shards[index].rotated_ms
    return all(commit.since_ms >= since for shard in shards for commit in shard.commits.values())


def nothing_in_doubt(shards: Sequence[EngineModel], index: int) -> bool:
    """R10 for ids that do not expire: whether nothing anywhere is prepared or unsettled."""
    del index
    return not any(shard.commits or shard.attempts for shard in shards)


@dataclass(frozen=True, slots=True)
class Setting:
    """One instance to search.

    ``tries`` are payloads, one a try. ``start`` is the shard of each slot. ``moves`` bounds the slots moved,
    ``may_move`` says where they may go, as pairs of slot and shard, () for anywhere. ``rotations`` bounds how
    often shards forget a generation, ``crashes`` how often one crashes. ``environment`` are events from
    outside, each at any moment, once. ``must_commit``: no transaction may be refused.
    """

    tries: tuple[str, ...]
    start: tuple[int, ...]
    shards: int = 2
    moves: int = 0
    may_move: tuple[tuple[int, int], ...] = ()
    rotations: int = 0
    crashes: int = 0
    environment: tuple[str, ...] = ()
    must_commit: bool = False
    # Whether messages that can do nothing any more are left out.
    prunes: bool = True
    # Whether each payload is tried once more after recovery: not where an id that was forgotten is new again.
    tries_again: bool = True
    # Whether tries begin after a shard has forgotten.
    late_tries: bool = True
    # How much later each try begins than the one before, by the clock of its coordinator.
    clock_step_ms: int = 1
    # Whether what a shard is told before it forgets is on the disks of those who say it.
    marks: bool = True
    # Whether time goes on with each rotation, for nothing_long_unsettled.
    timed: bool = False
    may_rotate: Callable[[Sequence[EngineModel], int], bool] = nothing_unsettled
    faults: Faults = field(default_factory=Faults)
    commit: type[Commit] = Commit
    recovery: type[Recovery] = Recovery
    batch: type[Batch] = Batch


class Message(NamedTuple):
    """A call on its way: to which shard, at which epoch; ``call`` indexes the explorer's calls."""

    shard: int
    epoch: int
    call: int


class Step(NamedTuple):
    """What a coordinator or resolver does next: wait for the first of ``calls``, or answer and send ``last``.

    Calls are (shard, call).
    """

    calls: tuple[tuple[int, int], ...]
    answered: Answered = ()
    last: tuple[tuple[int, int], ...] = ()


class Try(NamedTuple):
    """A coordinator at work on a payload, or the resolver on what it found.

    ``number`` tells tries apart. ``answers`` are numbers of those it has got, a call a step. ``aged`` has a
    bit for each shard that has forgotten since it began.
    """

    payload: str
    number: int
    found: tuple[bytes, int, int] | None
    placement: tuple[int, ...]
    epochs: tuple[int, ...]
    answers: tuple[int, ...] = ()
    aged: int = 0


class Ground(NamedTuple):
    """What seldom changes of a world."""

    placement: tuple[int, ...]
    epochs: tuple[int, ...]
    waiting: tuple[str, ...]
    moves: int
    rotations: int
    crashes: int
    environment: tuple[str, ...]


class World(NamedTuple):
    """One state. Shards, what of them is on disk, tries and the scan are numbers.

    ``told`` are the definite outcomes that callers were given. ``durable`` is () where no shard can crash.
    """

    shards: tuple[int, ...]
    tries: tuple[int, ...]
    scan: int
    network: frozenset[Message]
    told: frozenset[tuple[str, int]]
    durable: tuple[int, ...]
    ground: Ground
