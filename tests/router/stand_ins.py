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
from shard_node.contract.calls import Call, Post, Reply
from shard_node.contract.journal_calls import JournalCall, JournalReply, Journals, LegCheck, PostJournals
from shard_node.contract.journals import Journal

from shard_node.client.asking import NoReply
from shard_node.client.directory import Cluster
from shard_node.client.shard import LedgerState, Shard
from shard_node.cluster.slots import SLOT_COUNT
from shard_node.cluster.topology import ShardInfo, SlotRange, Topology
from shard_node.contract.outcomes import Outcome
from shard_node.errors import ShardUnavailableError
from tallystick.v1 import coordinator_pb2

if TYPE_CHECKING:
    from shard_node.contract.bundles import Bundle
    from shard_node.contract.records import Account, RememberedOutcome

    from shard_node.client.shard import ShardRedis

COMMITTED = int(Outcome.COMMITTED)

M = TypeVar("M", bound=Message)

ShardAnswer = Exception | Callable[[Any], Reply | JournalReply]
CommitAnswer = NoReply | coordinator_pb2.CommitResponse
# What a committer was asked: the amounts by pair of shards, and the version of the map.
CommitAsked = tuple[dict[tuple[int, int], list[int]], int]
JournalAnswer = NoReply | coordinator_pb2.CommitJournalsResponse


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


def unpacked(column: bytes) -> list[int]:
    """Amounts or balances of a bundle."""
    return list(struct.unpack(f"<{len(column) // 8}q", column))


def packed(values: Sequence[int]) -> bytes:
    """A column of amounts or balances."""
    return struct.pack(f"<{len(values)}q", *values)


def commits(call: Call | JournalCall) -> Reply | JournalReply:
    """Commits every row; the balances are the amount and its negative, so that a test can tell rows apart.

    Those of a journal's legs are their amounts.
    """
    if isinstance(call, PostJournals):
        legs = [leg for journal in call.batch.journals for leg in journal.legs]
        count = len(call.batch)
        return JournalReply([COMMITTED] * count, [0] * count, [leg.amount_minor for leg in legs])
    assert isinstance(call, Post)
    return Reply((bytes((COMMITTED,)),), *_balances(call.bundle.amounts, with_balances=call.with_balances))


def _balances(amounts: bytes, *, with_balances: bool) -> tuple[list[bytes], list[bytes]]:
    """Those of payers and payees of one bundle."""
    if not with_balances:
        return [b""], [b""]
    return [packed([-amount for amount in unpacked(amounts)])], [amounts]


class ShardStandIn(Shard):
    """A shard that gives the answers it was told to, in turn, and then commits everything."""

    def __init__(self, shard_id: str, *answers: ShardAnswer) -> None:
        super().__init__(shard_id, f"test/{shard_id}/1", cast("ShardRedis", None))
        self.calls: list[Call | JournalCall] = []
        # Cleared by a test to keep calls waiting.
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self.answers: list[ShardAnswer] = list(answers)
        self.remembered: RememberedOutcome | None = None
        # By account, for those that can be read.
        self.known: dict[str, Account] = {}
        # Refusals of legs by account; legs of all others could be carried out.
        self.refusing: dict[str, Outcome] = {}
        self.checked: list[LegCheck] = []
        self.forgotten_ms = 0
        # Entries of the ledger that wait to be archived.
        self.waiting: list[tuple[str, bytes]] = []
        self.decisions: list[bytes] = []

    def posted(self) -> list[list[int]]:
        """The amounts of each bundle it was given."""
        return [unpacked(call.bundle.amounts) for call in self.calls if isinstance(call, Post)]

    async def call(self, call: Call | JournalCall) -> Any:
        """Answers as told."""
        self.calls.append(call)
        await self.open_gate.wait()
        answer = self.answers.pop(0) if self.answers else commits
        if isinstance(answer, Exception):
            raise answer
        return answer(call)

    async def outcome(self, decision: bytes) -> RememberedOutcome | None:
        """Remembers what it was told to."""
        self.decisions.append(decision)
        self._fail_if_told()
        return self.remembered

    async def horizon_ms(self) -> int:
        """Has forgotten nothing but what it was told of."""
        return self.forgotten_ms

    async def ledger_state(self) -> LedgerState:
        """Nothing was archived yet."""
        return LedgerState(0, b"", "0-0", len(self.waiting), 10**6, len(self.waiting), 0)

    async def ledger_after(self, stream_id: str, count: int) -> list[tuple[str, bytes]]:
        """What waits."""
        assert stream_id == "0-0"
        return self.waiting[:count]

    async def accounts(self, account_ids: Sequence[str]) -> list[Account | None]:
        """Knows those it was told of."""
        self._fail_if_told()
        return [self.known.get(account_id) for account_id in account_ids]

    async def check(self, legs: Sequence[LegCheck]) -> list[int]:
        """Refuses what it was told to."""
        self._fail_if_told()
        self.checked += legs
        return [self.refusing.get(leg.account, 0) for leg in legs]

    async def open(
        self,
        account_ids: Sequence[str],
        slots: Sequence[int],
        currencies: Sequence[str],
        floors_minor: Sequence[int],
        maximum_balances_minor: Sequence[int] | None = None,
        maximum_transfers_minor: Sequence[int] | None = None,
    ) -> tuple[list[Outcome], list[Account]]:
        """Opens nothing: only for tests in which it fails."""
        self._fail_if_told()
        raise NotImplementedError

    def _fail_if_told(self) -> None:
        if self.answers:
            answer = self.answers.pop(0)
            assert isinstance(answer, Exception)
            raise answer


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

    def __init__(self, *answers: CommitAnswer, journal_answers: Sequence[JournalAnswer] = ()) -> None:
        self._answers = list(answers)
        self._journal_answers = list(journal_answers)
        self.batches: list[CommitAsked] = []
        self.journal_batches: list[tuple[list[Journal], int]] = []

    async def commit(
        self,
        parts: Sequence[tuple[int, int, Bundle]],
        topology_version: int,
        deadline_seconds: float,
        *,
        with_balances: bool = True,
    ) -> CommitAnswer:
        """Answers as told; keeps the amounts of each part and the version of the map."""
        assert deadline_seconds > 0
        amounts = {(payer, payee): unpacked(bundle.amounts) for payer, payee, bundle in parts}
        assert len(amounts) == len(parts)
        self.batches.append((amounts, topology_version))
        if self._answers:
            return self._answers.pop(0)
        return committed([bundle.amounts for _, _, bundle in parts], with_balances=with_balances)

    async def commit_journals(
        self, batch: Journals, topology_version: int, deadline_seconds: float
    ) -> JournalAnswer:
        """Answers as told; keeps the journals of each batch and the version of the map."""
        assert deadline_seconds > 0
        self.journal_batches.append((list(batch.journals), topology_version))
        return self._journal_answers.pop(0) if self._journal_answers else committed_journals(batch)


def committed(amounts: Sequence[bytes], *, with_balances: bool = True) -> coordinator_pb2.CommitResponse:
    """A coordinator's answer that commits every row of some parts, given by their columns of amounts."""
    response = coordinator_pb2.CommitResponse()
    for column in amounts:
        (payer_balances,), (payee_balances,) = _balances(column, with_balances=with_balances)
        response.results.add(
            outcomes=bytes((COMMITTED,)), payer_balances=payer_balances, payee_balances=payee_balances
        )
    return response


def told(*outcomes: bytes) -> coordinator_pb2.CommitResponse:
    """A coordinator's answer with these outcomes, part by part, and no balances."""
    return coordinator_pb2.CommitResponse(
        results=[coordinator_pb2.CommitResult(outcomes=codes) for codes in outcomes]
    )


def committed_journals(batch: Journals) -> coordinator_pb2.CommitJournalsResponse:
    """A coordinator's answer that commits every journal; balances are the legs' amounts."""
    return coordinator_pb2.CommitJournalsResponse(
        outcomes=bytes([COMMITTED] * len(batch)),
        legs=[0] * len(batch),
        balances_minor=[leg.amount_minor for journal in batch.journals for leg in journal.legs],
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
