"""What stands in for the cluster behind a router, so that a test decides what it answers and when."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2

from router.requests import Part
from shard_node.client import Cluster, LedgerState, NoReply, Shard
from shard_node.cluster.slots import SLOT_COUNT
from shard_node.cluster.topology import ShardInfo, SlotRange, Topology
from shard_node.contract import (
    ALL_OWNERS,
    NO_VERSION,
    AccountRecord,
    AccountTerms,
    Answer,
    Bundle,
    BundleFlag,
    Effect,
    Leg,
    Outcome,
    Post,
    RememberedOutcome,
    Transaction,
)
from shard_node.errors import ShardUnavailableError
from tallystick.v1 import coordinator_pb2

if TYPE_CHECKING:
    from shard_node.client import ShardRedis

COMMITTED = int(Outcome.COMMITTED)

M = TypeVar("M", bound=Message)

# None answers as without being told anything.
ShardAnswer = Exception | None | Callable[[Post], Answer]
CommitAnswer = NoReply | coordinator_pb2.CommitAttemptsResponse


class NoShards:
    """Maps whose shards do not answer, for tests of the archive alone."""

    def __init__(self) -> None:
        away = [_Away(shard_id) for shard_id in ("shard-0", "shard-1")]
        self.current = cluster_cut_at(1, SLOT_COUNT // 2, *away)

    async def newer_than(self, version: int, timeout_seconds: float) -> bool:
        """There never is one."""
        return False


class Clock:
    """Stands in for the module ``time``; time passes only when a test lets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now


def first_amounts(bundle: bytes) -> list[int]:
    """The amount of each transaction's first leg: tests tell transactions apart by it."""
    return [one.legs[0].amount_minor for one in Bundle.unpack(bundle).transactions]


def amounts(bundle: bytes, owner: int = ALL_OWNERS) -> bytes:
    """A column of balances: the amounts of that owner's legs, those of debits negative.

    So a test can tell the balances of all legs apart.
    """
    rows = Bundle.unpack(bundle).transactions
    # A plain bundle has all payers, then all payees.
    pairs = zip(*(row.legs for row in rows), strict=True) if BundleFlag.PLAIN in BundleFlag(bundle[1]) else ()
    legs = [leg for column in pairs for leg in column] or [leg for row in rows for leg in row.legs]
    signed = [_signed(leg) for leg in legs if owner in {leg.owner, ALL_OWNERS}]
    return struct.pack(f"<{len(signed)}q", *signed)


def _signed(leg: Leg) -> int:
    return -leg.amount_minor if leg.effect is Effect.DEBIT else leg.amount_minor


def commits(call: Post) -> Answer:
    """Commits every transaction; the balances are those of :func:`amounts`."""
    return Answer(
        (bytes((COMMITTED,)),), (b"",), (amounts(call.bundle) if call.with_balances else b"",), ((),)
    )


class ShardStandIn(Shard):
    """A shard that gives the answers it was told to, in turn, and then commits everything."""

    def __init__(self, shard_id: str, *answers: ShardAnswer) -> None:
        super().__init__(shard_id, f"test/{shard_id}/1", cast("ShardRedis", None))
        self.calls: list[Post] = []
        # Cleared by a test to keep calls waiting.
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self.answers: list[ShardAnswer] = list(answers)
        self.remembered: RememberedOutcome | None = None
        # By account, for those that can be read.
        self.known: dict[str, AccountRecord] = {}
        # Refusals of legs by account; legs of all others could be carried out.
        self.refusing: dict[str, Outcome] = {}
        # Owner and accounts of each check.
        self.checked: list[tuple[int, list[str]]] = []
        self.forgotten_ms = 0
        # Frames of the ledger that wait to be archived.
        self.waiting: list[tuple[str, dict[bytes, bytes]]] = []
        self.decisions: list[bytes] = []

    def posted(self) -> list[list[int]]:
        """The first amounts of each bundle it was given."""
        return [first_amounts(call.bundle) for call in self.calls]

    async def call(self, command: Any) -> Answer:
        """Answers as told."""
        assert isinstance(command, Post)
        self.calls.append(command)
        await self.open_gate.wait()
        answer = self._told()
        return (answer or commits)(command)

    async def outcomes(self, decisions: Sequence[bytes]) -> list[RememberedOutcome | None]:
        """Remembers what it was told to."""
        self.decisions += decisions
        self._told()
        return [self.remembered] * len(decisions)

    async def horizon_ms(self) -> int:
        """Has forgotten nothing but what it was told of."""
        return self.forgotten_ms

    async def ledger_state(self) -> LedgerState:
        """Nothing was archived yet."""
        return LedgerState(0, b"", "0-0", len(self.waiting), 10**6, len(self.waiting), 0)

    async def ledger_after(self, stream_id: str, count: int) -> list[tuple[str, dict[bytes, bytes]]]:
        """What waits."""
        assert stream_id == "0-0"
        return self.waiting[:count]

    async def accounts(self, account_ids: Sequence[str]) -> list[AccountRecord | None]:
        """Knows those it was told of."""
        self._told()
        return [self.known.get(account_id) for account_id in account_ids]

    async def check(self, bundle: bytes, owner: int = ALL_OWNERS) -> bytes:
        """Refuses what it was told to."""
        self._told()
        legs = [leg for one in Bundle.unpack(bundle).transactions for leg in one.legs]
        # As the engine refuses it.
        assert not any(leg.owner and leg.expected_version != NO_VERSION for leg in legs)
        names = [leg.account for leg in legs if owner in {leg.owner, ALL_OWNERS}]
        self.checked.append((owner, names))
        return bytes(self.refusing.get(name, 0) for name in names)

    async def open(self, terms: Sequence[AccountTerms]) -> tuple[list[Outcome], list[AccountRecord]]:
        """Opens nothing: only for tests in which it fails."""
        self._told()
        raise NotImplementedError

    def _told(self) -> Callable[[Post], Answer] | None:
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


class _Away(ShardStandIn):
    async def ledger_state(self) -> LedgerState:
        raise ShardUnavailableError(self.shard_id)


def cluster_cut_at(version: int, boundary: int, left: ShardStandIn, right: ShardStandIn) -> Cluster:
    """A map of two shards: slots below ``boundary`` belong to ``left``, the others to ``right``."""
    shards = (
        ShardInfo(left.shard_id, version, "", (SlotRange(0, boundary - 1),) if boundary else ()),
        ShardInfo(
            right.shard_id,
            version,
            "",
            (SlotRange(boundary, SLOT_COUNT - 1),) if boundary < SLOT_COUNT else (),
        ),
    )
    return Cluster(Topology("test", version, shards), (left, right))


class MapsStandIn:
    """Maps that become known one by one, each when somebody has waited for it."""

    def __init__(self, clock: Clock, *clusters: Cluster) -> None:
        self.current, *self._later = clusters
        self._clock = clock
        self.waits: list[tuple[int, float]] = []

    async def newer_than(self, version: int, timeout_seconds: float) -> bool:
        """Brings the next map, or lets the time pass."""
        self.waits.append((version, timeout_seconds))
        if not self._later:
            self._clock.now += timeout_seconds
            return False
        self.current = self._later.pop(0)
        return True


class CommittersStandIn:
    """Coordinators that give the answers they were told to, in turn, and then commit everything."""

    def __init__(self, *answers: CommitAnswer) -> None:
        self._answers = list(answers)
        self.asked: list[list[Part]] = []

    async def commit_attempts(
        self, parts: Sequence[Part], topology_version: int, deadline_seconds: float, *, with_balances: bool
    ) -> CommitAnswer:
        """Answers as told; keeps the parts of each batch."""
        assert deadline_seconds > 0
        self.asked.append(list(parts))
        if self._answers:
            return self._answers.pop(0)
        return committed(parts, with_balances=with_balances)

    def transactions(self) -> list[Transaction]:
        """All that they were asked to commit."""
        return [
            one for parts in self.asked for part in parts for one in Bundle.unpack(part.bundle).transactions
        ]


def committed(parts: Sequence[Part], *, with_balances: bool) -> coordinator_pb2.CommitAttemptsResponse:
    """A coordinator's answer that commits every transaction; balances are those of :func:`amounts`."""
    return coordinator_pb2.CommitAttemptsResponse(
        results=[
            coordinator_pb2.AttemptResult(
                codes=bytes((COMMITTED,)),
                balances=[
                    amounts(part.bundle, owner) if with_balances else b""
                    for owner in range(len(part.participants) + 1)
                ],
            )
            for part in parts
        ]
    )


class AbortedError(Exception):
    """What the context raises, as gRPC's does."""


@dataclass(slots=True)
class Context:
    """A call's context without a deadline, which keeps how the call ended."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    text: str = ""
    trailing: dict[str, bytes] = field(default_factory=dict)

    def time_remaining(self) -> float | None:
        """No deadline."""
        return None

    async def abort(
        self, code: grpc.StatusCode, text: str, trailing: tuple[tuple[str, bytes], ...]
    ) -> NoReturn:
        """Ends the call."""
        self.code, self.text, self.trailing = code, text, dict(trailing)
        raise AbortedError

    def status(self) -> status_pb2.Status:
        """The rich status."""
        return status_pb2.Status.FromString(self.trailing["grpc-status-details-bin"])

    def detail(self, kind: type[M]) -> list[M]:
        """The details of one kind."""
        found = []
        for packed in self.status().details:
            made = kind()
            if packed.Unpack(made):
                found.append(made)
        return found
