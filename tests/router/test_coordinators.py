"""The router sends a batch to one coordinator after another until one answers, within the deadline."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, cast

import grpc
import numpy as np
import pytest

from router.execution.coordinators import Coordinators
from router.requests import Part
from shard_node.client import NoReply
from shard_node.cluster.registry import Member, MemberKind, Registry
from shard_node.contract import Outcome
from tallystick.v1 import coordinator_pb2, coordinator_pb2_grpc

ROWS = np.arange(1)
ONE_PART: Final = [Part(0, (1,), ROWS, b"one")]


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

    def __init__(self, status: grpc.StatusCode | None = None, codes: bytes = b"\x01") -> None:
        self._status = status
        self._codes = codes
        self.requests: list[coordinator_pb2.CommitAttemptsRequest] = []

    async def CommitAttempts(  # noqa: N802 -- the contract's name
        self, request: coordinator_pb2.CommitAttemptsRequest, context: Any
    ) -> coordinator_pb2.CommitAttemptsResponse:
        """Answers as told."""
        self.requests.append(request)
        if self._status:
            await context.abort(self._status, "as told")
        result = coordinator_pb2.AttemptResult(codes=self._codes)
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
    answer = await coordinators.commit_attempts(parts, 7, time.monotonic() + seconds, with_balances=True)
    return answer if isinstance(answer, NoReply) else [result.codes for result in answer.results]


async def test_in_turn(start: Start) -> None:
    """Batches go round all coordinators, each batch to one of them."""
    servicers = [CoordinatorStandIn() for _ in range(3)]
    coordinators = await start(*servicers)
    for _ in range(6):
        assert await commit(coordinators) == [b"\x01"]
    assert [len(servicer.requests) for servicer in servicers] == [2, 2, 2]


@pytest.mark.parametrize("with_balances", [True, False])
async def test_what_a_coordinator_gets(start: Start, *, with_balances: bool) -> None:
    """It gets the parts as they are, in order, with their shards by number and the map's version."""
    servicer = CoordinatorStandIn()
    parts = [Part(2, (0,), ROWS, b"one"), Part(0, (1, 2), ROWS, b"other")]
    coordinators = await start(servicer)
    answer = await coordinators.commit_attempts(
        parts, 7, time.monotonic() + 10.0, with_balances=with_balances
    )
    assert isinstance(answer, coordinator_pb2.CommitAttemptsResponse)
    request = coordinator_pb2.CommitAttemptsRequest(
        topology_version=7,
        attempts=[
            coordinator_pb2.AttemptRequest(decider=2, participants=[0], bundle=b"one"),
            coordinator_pb2.AttemptRequest(decider=0, participants=[1, 2], bundle=b"other"),
        ],
        with_balances=with_balances,
    )
    assert servicer.requests == [request]


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
    """A full shard refuses, but a coordinator that was lost before may have committed."""
    full = CoordinatorStandIn(codes=bytes([Outcome.RESOURCE_EXHAUSTED]))
    # The first batch is begun with the second of those in turn.
    coordinators = await start(full, CoordinatorStandIn(status))
    assert (
        await commit(coordinators, [*ONE_PART, Part(1, (0, 2), ROWS, b"other")]) == [bytes((expected,))] * 2
    )


async def test_full_for_some_rows_after_a_lost_try(start: Start) -> None:
    """Only what was refused for load is in doubt; every other outcome stands."""
    some = bytes((Outcome.COMMITTED, Outcome.RESOURCE_EXHAUSTED, Outcome.INSUFFICIENT_FUNDS))
    coordinators = await start(
        CoordinatorStandIn(codes=some), CoordinatorStandIn(grpc.StatusCode.UNAVAILABLE)
    )
    assert await commit(coordinators) == [some.replace(b"\x0e", b"\x0d")]


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
