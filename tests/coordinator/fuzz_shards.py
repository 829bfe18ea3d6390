"""Shards of the fuzzer: the engine and the plain model side by side, or the model alone with a fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shard_node.client import Shard
from shard_node.cluster.topology import Topology
from shard_node.contract import AccountTerms, Answer, Command, Doubt, Kind, PreparedAttempt, ShardStatus
from shard_node.contract.lookups import UnsettledCommit
from shard_node.errors import StaleEpochError
from shard_node.limits import MAX_MINOR
from tests.engine.comparison import Comparison
from tests.engine.server import EngineServer
from tests.engine.shard import EngineShard
from tests.model import EngineModel, Faults


class BrokenError(AssertionError):
    """A promise that is not kept."""


def require(kept: bool, promise: str, *details: object) -> None:  # noqa: FBT001  # reads like assert
    """Raises BrokenError unless the promise is kept."""
    if not kept:
        raise BrokenError(": ".join((promise, *(str(detail) for detail in details))))


class Twin(Comparison):
    """One empty shard of a topology on a server with a manual clock, and the model beside it."""

    def __init__(self, server: EngineServer, name: str, epoch: int, now_ms: int) -> None:
        self.server, self.shard = server, EngineShard(server, name, epoch)
        self.model = EngineModel(now_ms=now_ms, faults=Faults(horizon_left_behind=True))
        self.trimmed = 0
        server.redis.flushall()
        server.set_clock(now_ms)
        self.bind(MAX_MINOR, MAX_MINOR)


class Place:
    """A shard with what the fuzzer does to it beside transactions. Without a server it is the model alone."""

    def __init__(
        self, topology: Topology, index: int, twin: Twin | None, faults: Faults, now_ms: int
    ) -> None:
        self.index = index
        self.twin = twin
        self.model = twin.model if twin else EngineModel(now_ms=now_ms, faults=faults)
        self.fence = topology.fence(topology.shards[index])
        # Of the model's attempts and commits, in the order in which somebody looked.
        self._serials: dict[Any, int] = {}

    def bind(self, topology: Topology) -> None:
        """The shard is at that topology's epoch from now on."""
        self.fence = topology.fence(topology.shards[self.index])
        if self.twin:
            name, _, epoch = self.fence.rpartition("/")
            self.twin.shard = EngineShard(self.twin.server, name, int(epoch))
            self.twin.shard.bind(window_ms=MAX_MINOR, backlog_limit=MAX_MINOR)

    def open(self, terms: AccountTerms) -> None:
        """Opens an account."""
        if self.twin:
            self.twin.open(terms)
        else:
            self.model.open(
                terms.account,
                terms.currency,
                terms.slot,
                terms.minimum_minor,
                terms.maximum_balance_minor,
                terms.maximum_transfer_minor,
            )

    def set_state(self, names: Sequence[str], change: Kind) -> None:
        """Freezes or unfreezes accounts."""
        if self.twin:
            self.twin.set_state([(name, change) for name in names], dry=False)
        else:
            for name in names:
                self.model.set_state(name, change)

    def wait_until(self, now_ms: int) -> None:
        """Time goes on."""
        self.model.now_ms = now_ms
        if self.twin:
            self.twin.server.set_clock(now_ms)

    def expire(self, limit: int) -> None:
        """Ends holds whose time is over."""
        if self.twin:
            self.twin.expire(limit)
        else:
            self.model.expire(limit)

    def rotate(self) -> None:
        """Forgets the older generation."""
        if self.twin:
            self.twin.rotate(0, once_archived=False, rotated_ms=None)
        else:
            self.model.rotate(0)

    def in_doubt(self) -> list[Doubt]:
        """What the model has in doubt."""
        found: list[Doubt] = [
            PreparedAttempt(
                self._serial("attempt", name),
                name,
                one.since_ms,
                one.decider,
                one.owner,
                one.codes,
                one.bundle,
            )
            for name, one in self.model.attempts.items()
        ]
        found += [
            UnsettledCommit(
                self._serial("commit", name), name, one.since_ms, one.participants, one.codes, one.bundle
            )
            for name, one in self.model.commits.items()
        ]
        return sorted(found, key=lambda one: one.serial)

    def _serial(self, *name: Any) -> int:
        return self._serials.setdefault(name, 1 + len(self._serials))

    def compare(self) -> None:
        """The engine has what the model has; what it wrote into the ledger is compared, and trimmed."""
        if self.twin:
            self.twin.archived(10)
            self.twin.compare()


@dataclass(slots=True)
class FuzzShard:
    """A shard at one epoch, as coordinators and recovery call it."""

    shard_id: str
    fence: str
    place: Place
    real: Shard | None

    async def call(self, command: Command) -> Answer:
        """Carries out one command, on both; raises BrokenError where they answer differently."""
        if self.fence != self.place.fence:
            if self.real:
                await self.real.call(command)
                raise BrokenError(f"an old epoch is refused: {self.fence}")
            raise StaleEpochError(self.fence)
        answer = await self.real.call(command) if self.real else None
        expected = self.place.model.call(command)
        if answer:
            require(_listed(answer) == _listed(expected), "the engine answers as the model", answer, expected)
        return expected

    async def info(self) -> ShardStatus:
        """How the shard is, as far as recovery looks at it."""
        if self.real:
            return await self.real.info()
        model = self.place.model
        since = [one.since_ms for one in model.attempts.values()]
        since += [one.since_ms for one in model.commits.values()]
        found = dict.fromkeys(ShardStatus.__slots__, 0)
        found |= {
            "now_ms": model.now_ms,
            "oldest_in_doubt_ms": model.now_ms - min(since, default=model.now_ms),
        }
        return ShardStatus(**found)  # type: ignore[arg-type]

    async def in_doubt(self, after: int, count: int) -> list[Doubt]:
        """What is in doubt."""
        if self.real:
            return await self.real.in_doubt(after, count)
        return [one for one in self.place.in_doubt() if one.serial > after][:count]


def _listed(answer: Answer) -> list[object]:
    """The columns of an answer; one that is empty throughout may be left out."""
    columns = [[*map(bytes, column)] for column in (answer.codes, answer.legs, answer.balances)]
    filled = [column if any(column) else [] for column in columns]
    others = [sorted(one) for one in answer.others] if any(answer.others) else []
    return [*filled, others, [*answer.unfinished]]
