"""The router sends a batch to one coordinator after another until one answers, within the deadline."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields
from typing import Any, Final, cast

import grpc
import numpy as np
import pytest
from router.requests.reader import columns
from shard_node.contract.bundles import Bundle
from shard_node.contract.journal_calls import Journals
from shard_node.contract.journals import Effect, Journal, Leg
from shard_node.contract.transfers import Kind

from router.execution.coordinators import Coordinators
from router.requests import parts as parts_module
from shard_node.client.asking import NoReply
from shard_node.cluster.registry import Member, MemberKind, Registry
from shard_node.cluster.slots import slot
from shard_node.contract.outcomes import Outcome
from tallystick.v1 import coordinator_pb2, coordinator_pb2_grpc
from tests.router.samples import Asked, reader, uuid7
from tests.router.stand_ins import committed

# Payers' shard, payees' shard, and what goes between.
Part = tuple[int, int, Bundle]
ONE_PART: Final[list[Part]] = [(0, 1, columns([reader().transfer(Asked(amount="0.07"))]).bundle())]


class Members:
    """Stands in for the registry: tells who is registered whenever a test says so."""

    def __init__(self) -> None:
        self.tell: Callable[[list[Member]], None] = lambda _: None

    async def watch_members(self, kind: MemberKind, tell: Callable[[list[Member]], None]) -> None:
        """Keeps whom to tell."""
        assert kind is MemberKind.COORDINATOR
        self.tell = tell


class CoordinatorStandIn(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """Commits everything, or fails with the status it was given."""

    def __init__(self, status: grpc.StatusCode | None = None, outcomes: bytes = b"") -> None:
        self._status = status
        self._outcomes = outcomes
        self.requests: list[coordinator_pb2.CommitRequest] = []
        self.journal_requests: list[coordinator_pb2.CommitJournalsRequest] = []
        self.attempt_requests: list[coordinator_pb2.CommitAttemptsRequest] = []

    async def Commit(  # noqa: N802 -- the contract's name
        self, request: coordinator_pb2.CommitRequest, context: Any
    ) -> coordinator_pb2.CommitResponse:
        """Answers as told."""
        self.requests.append(request)
        if self._status:
            await context.abort(self._status, "as told")
        response = committed([part.amounts for part in request.parts], with_balances=request.with_balances)
        for result in response.results:
            result.outcomes = self._outcomes or result.outcomes
        return response

    async def CommitJournals(  # noqa: N802 -- the contract's name
        self, request: coordinator_pb2.CommitJournalsRequest, context: Any
    ) -> coordinator_pb2.CommitJournalsResponse:
        """Answers as told."""
        self.journal_requests.append(request)
        if self._status:
            await context.abort(self._status, "as told")
        return coordinator_pb2.CommitJournalsResponse(outcomes=self._outcomes or b"\x01")

    async def CommitAttempts(  # noqa: N802 -- the contract's name
        self, request: coordinator_pb2.CommitAttemptsRequest, context: Any
    ) -> coordinator_pb2.CommitAttemptsResponse:
        """Answers as told."""
        self.attempt_requests.append(request)
        if self._status:
            await context.abort(self._status, "as told")
        result = coordinator_pb2.AttemptResult(codes=self._outcomes or b"\x01")
        return coordinator_pb2.CommitAttemptsResponse(results=[result] * len(request.attempts))


Start = Callable[..., Awaitable[Coordinators]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts the given coordinators and a router's view of them."""
    async with AsyncExitStack() as stack:

        async def started(*servicers: CoordinatorStandIn) -> Coordinators:
            registry = Members()
            coordinators = Coordinators(cast("Registry", registry))
            await coordinators.start()
            stack.push_async_callback(coordinators.close)
            members = [await stack.enter_async_context(listening(s, n)) for n, s in enumerate(servicers)]
            registry.tell(members)
            return coordinators

        yield started


@asynccontextmanager
async def listening(servicer: CoordinatorStandIn, number: int) -> AsyncIterator[Member]:
    """A coordinator that listens, as a member."""
    server = grpc.aio.server()
    coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield Member(MemberKind.COORDINATOR, f"coordinator-{number}", f"127.0.0.1:{port}", 1)
    await server.stop(None)


async def commit(
    coordinators: Coordinators, parts: Sequence[Part] = ONE_PART, seconds: float = 10.0
) -> list[bytes] | NoReply:
    """The outcomes of a batch, part by part."""
    answer = await coordinators.commit(parts, 7, time.monotonic() + seconds)
    return answer if isinstance(answer, NoReply) else [result.outcomes for result in answer.results]


async def test_in_turn(start: Start) -> None:
    """Batches go round all coordinators, each batch to one of them."""
    servicers = [CoordinatorStandIn() for _ in range(3)]
    coordinators = await start(*servicers)
    for _ in range(6):
        assert await commit(coordinators) == [b"\x01"]
    assert [len(servicer.requests) for servicer in servicers] == [2, 2, 2]


async def test_every_column_of_every_part(start: Start) -> None:
    """A coordinator gets the parts as they are, in order, with the shards by number and the map's version."""
    other = columns([reader().transfer(Asked(uuid7(5), amount="1", currency="USD"))]).bundle()
    parts = [(2, 0, ONE_PART[0][2]), (0, 1, other)]
    servicer = CoordinatorStandIn()
    coordinators = await start(servicer)
    assert await commit(coordinators, parts) == [b"\x01"] * 2
    (request,) = servicer.requests
    assert (request.topology_version, request.with_balances) == (7, True)
    got = []
    for part in request.parts:
        values = [getattr(part, column.name) for column in fields(Bundle)]
        got.append((part.payer_shard, part.payee_shard, Bundle(*values)))
    assert got == parts
    assert (other.oldest_ms, other.newest_ms, got[0][2].oldest_ms) == (5, 5, 0)


@pytest.mark.parametrize("with_balances", [True, False])
async def test_balances_when_wanted(start: Start, *, with_balances: bool) -> None:
    """A coordinator is asked for balances only when somebody wants them."""
    coordinators = await start(CoordinatorStandIn())
    answer = await coordinators.commit(ONE_PART, 7, time.monotonic() + 10.0, with_balances=with_balances)
    assert isinstance(answer, coordinator_pb2.CommitResponse)
    assert bool(answer.results[0].payee_balances) is with_balances


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_the_next_one_takes_over(start: Start, status: grpc.StatusCode) -> None:
    """What one coordinator fails to do another does: the ids make that safe."""
    coordinators = await start(CoordinatorStandIn(status), CoordinatorStandIn())
    assert [await commit(coordinators) for _ in range(4)] == [[b"\x01"]] * 4


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([grpc.StatusCode.RESOURCE_EXHAUSTED] * 2, NoReply.FULL),
        ([grpc.StatusCode.UNAVAILABLE] * 2, NoReply.LOST),
        # One of them may have begun: then it is not known that nothing was.
        ([grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNKNOWN], NoReply.LOST),
        ([grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED], NoReply.LOST),
    ],
)
async def test_all_fail(start: Start, statuses: list[grpc.StatusCode], expected: NoReply) -> None:
    """Each is asked once; "too much load" is the answer only when none can have begun."""
    servicers = [CoordinatorStandIn(status) for status in statuses]
    assert await commit(await start(*servicers)) is expected
    assert [len(servicer.requests) for servicer in servicers] == [1, 1]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (grpc.StatusCode.UNAVAILABLE, Outcome.OUTCOME_UNKNOWN),
        # This one refused before it began: the next one's word stands.
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Outcome.RESOURCE_EXHAUSTED),
    ],
)
async def test_full_after_a_lost_try(start: Start, status: grpc.StatusCode, expected: Outcome) -> None:
    """A full shard refuses, but a coordinator that was lost before may have committed the transfer."""
    full = CoordinatorStandIn(outcomes=bytes([Outcome.RESOURCE_EXHAUSTED]))
    # The first batch is begun with the second of those in turn.
    coordinators = await start(full, CoordinatorStandIn(status))
    assert await commit(coordinators, [*ONE_PART, (1, 0, ONE_PART[0][2])]) == [bytes((expected,))] * 2


async def test_full_for_some_rows_after_a_lost_try(start: Start) -> None:
    """Only what was refused for load is in doubt; every other outcome stands."""
    some = bytes((Outcome.COMMITTED, Outcome.RESOURCE_EXHAUSTED, Outcome.INSUFFICIENT_FUNDS))
    coordinators = await start(
        CoordinatorStandIn(outcomes=some), CoordinatorStandIn(grpc.StatusCode.UNAVAILABLE)
    )
    assert await commit(coordinators) == [some.replace(b"\x0e", b"\x0d")]


async def test_journals(start: Start) -> None:
    """Journals go the same way, by id and body, and a coordinator that was lost makes "full" unknown."""
    leg = Leg("alice", slot("alice"), Effect.HOLD, 7, "EUR")
    batch = Journals.of([(bytes(range(16)), Journal(Kind.HOLD, (leg,), b"\0\0"))])
    full = CoordinatorStandIn(outcomes=bytes([Outcome.RESOURCE_EXHAUSTED]))
    lost = CoordinatorStandIn(grpc.StatusCode.UNAVAILABLE)
    coordinators = await start(full, lost)
    answer = await coordinators.commit_journals(batch, 7, time.monotonic() + 10.0)
    assert isinstance(answer, coordinator_pb2.CommitJournalsResponse)
    assert list(answer.outcomes) == [Outcome.OUTCOME_UNKNOWN]
    request = coordinator_pb2.CommitJournalsRequest(
        topology_version=7, transaction_ids=[bytes(range(16))], bodies=batch.bodies
    )
    assert full.journal_requests == lost.journal_requests == [request]
    assert await (await start()).commit_journals(batch, 7, time.monotonic() + 10.0) is NoReply.LOST


@pytest.mark.parametrize("with_balances", [True, False])
async def test_attempts(start: Start, *, with_balances: bool) -> None:
    """Parts go with their shards by number, in order; a coordinator that was lost makes "full" unknown."""
    rows = np.arange(1)
    parts = [parts_module.Part(2, (0,), rows, b"one"), parts_module.Part(0, (1, 2), rows, b"other")]
    full = CoordinatorStandIn(outcomes=bytes((Outcome.RESOURCE_EXHAUSTED,)))
    lost = CoordinatorStandIn(grpc.StatusCode.UNAVAILABLE)
    coordinators = await start(full, lost)
    answer = await coordinators.commit_attempts(
        parts, 7, time.monotonic() + 10.0, with_balances=with_balances
    )
    assert isinstance(answer, coordinator_pb2.CommitAttemptsResponse)
    assert [result.codes for result in answer.results] == [bytes((Outcome.OUTCOME_UNKNOWN,))] * 2
    request = coordinator_pb2.CommitAttemptsRequest(
        topology_version=7,
        attempts=[
            coordinator_pb2.AttemptRequest(decider=2, participants=[0], bundle=b"one"),
            coordinator_pb2.AttemptRequest(decider=0, participants=[1, 2], bundle=b"other"),
        ],
        with_balances=with_balances,
    )
    assert full.attempt_requests == lost.attempt_requests == [request]


async def test_nobody_there(start: Start) -> None:
    """Without any coordinator, or with one that has gone, the outcome is not known."""
    assert await commit(await start()) is NoReply.LOST
    async with listening(CoordinatorStandIn(), 0) as gone:
        pass
    registry = Members()
    coordinators = Coordinators(cast("Registry", registry))
    await coordinators.start()
    registry.tell([gone])
    assert await commit(coordinators) is NoReply.LOST
    registry.tell([])
    assert await commit(coordinators) is NoReply.LOST
    await coordinators.close()


async def test_no_time_left(start: Start) -> None:
    """A batch whose deadline has passed is not sent, for its outcome would come too late."""
    servicer = CoordinatorStandIn()
    assert await commit(await start(servicer), seconds=-1.0) is NoReply.LOST
    assert servicer.requests == []


async def test_a_coordinator_that_returns() -> None:
    """A coordinator registered at a new address is used from then on."""
    registry = Members()
    coordinators = Coordinators(cast("Registry", registry))
    await coordinators.start()
    async with listening(CoordinatorStandIn(), 0) as first:
        registry.tell([first])
        assert await commit(coordinators) == [b"\x01"]
    async with listening(CoordinatorStandIn(), 0) as second:
        registry.tell([second])
        assert await commit(coordinators) == [b"\x01"]
    await coordinators.close()
