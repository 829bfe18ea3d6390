"""What a coordinator takes from routers: not too much at once, and what was split by its own map."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from coordinator import service as service_module
from coordinator.attempts import Attempt
from coordinator.driver import Driver, now_ms
from coordinator.service import CoordinatorService
from shard_node.cluster.slots import slot
from shard_node.contract import BUNDLE_HEAD, Outcome, new_attempt_id, start_ms
from tallystick.v1 import coordinator_pb2
from tests.coordinator.journal_bank import HAS, JournalBank
from tests.coordinator.payloads import attempts_at, transfer
from tests.real_shards import RealShards
from tests.router.stand_ins import AbortedError, Context


class DirectoryStandIn:
    """A map of three shards that becomes known when the test says so."""

    def __init__(self) -> None:
        self.current = SimpleNamespace(
            topology=SimpleNamespace(version=1), shard_ids=["shard-0", "shard-1", "shard-2"]
        )
        self._arrived = asyncio.Event()

    def arrive(self, version: int) -> None:
        """The map of that version is known."""
        self.current.topology.version = version
        self._arrived.set()

    async def newer_than(self, version: int, timeout_seconds: float) -> bool:
        """Waits for the test."""
        return await self._arrived.wait()


class DriverStandIn:
    """Commits everything."""

    def __init__(self) -> None:
        self.committed: list[Attempt] = []

    def new_attempt_id(self) -> bytes:
        """As the driver's."""
        return new_attempt_id(now_ms())

    async def commit(self, attempts: Sequence[Attempt], _: object, *, with_balances: bool) -> None:
        """The deciding shard's balances are 7, where they are wanted."""
        for attempt in attempts:
            attempt.outcomes = b"\1"
            attempt.balances = {0: struct.pack("<q", 7) * attempt.count if with_balances else b""}
        self.committed += attempts


class AnyContext(Context):
    """A context of a caller with an address."""

    def peer(self) -> str:
        """Who calls."""
        return "ipv4:127.0.0.1:1"


@dataclass(slots=True)
class Stage:
    """A service between stand-ins."""

    directory: DirectoryStandIn = field(default_factory=DirectoryStandIn)
    driver: DriverStandIn = field(default_factory=DriverStandIn)
    service: Any = None

    def __post_init__(self) -> None:
        self.service = CoordinatorService(cast("Driver", self.driver), cast("Any", self.directory))


@pytest.fixture
def stage() -> Stage:
    """A service that has committed nothing."""
    return Stage()


def request_of(version: int, *, with_balances: bool = False) -> coordinator_pb2.CommitAttemptsRequest:
    """An attempt at one transfer and one at two, split by the map of that version."""
    parts = []
    for participant, count in ((1, 1), (2, 2)):
        rows = [transfer("a", "b", 1) for _ in range(count)]
        ((attempt, _),) = attempts_at(rows, _Owner({"a": 0, "b": participant}))
        parts.append(
            coordinator_pb2.AttemptRequest(decider=0, participants=[participant], bundle=attempt.bundle)
        )
    return coordinator_pb2.CommitAttemptsRequest(
        topology_version=version, attempts=parts, with_balances=with_balances
    )


class _Owner(list[int]):
    """Shards by slot, of a few accounts."""

    def __init__(self, shards: dict[str, int]) -> None:
        super().__init__([0] * 16384)
        for name, index in shards.items():
            self[slot(name)] = index


async def test_a_batch_that_waits_for_a_map_counts(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst that waits for a newer map is held to the limit; whoever is done gives its room back."""
    monkeypatch.setattr(service_module, "MAX_IN_HAND", 4)
    request = request_of(2)
    first = asyncio.ensure_future(stage.service.CommitAttempts(request, AnyContext()))
    await asyncio.sleep(0)
    context = AnyContext()
    with pytest.raises(AbortedError):
        await stage.service.CommitAttempts(request, context)
    assert context.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    stage.directory.arrive(2)
    assert [result.codes for result in (await first).results] == [b"\1", b"\1"]
    again = await stage.service.CommitAttempts(request, AnyContext())
    assert [result.codes for result in again.results] == [b"\1", b"\1"]


@pytest.mark.parametrize("version", [1, 3], ids=["older", "newer"])
async def test_a_batch_split_by_another_map_is_stale(stage: Stage, version: int) -> None:
    """Positions of shards, and who owns a slot, may differ: nothing is asked of any shard."""
    stage.directory.arrive(2)
    answer = await stage.service.CommitAttempts(request_of(version), AnyContext())
    assert [result.codes for result in answer.results] == [bytes((Outcome.STALE_EPOCH,))] * 2
    assert stage.driver.committed == []


async def test_each_attempt_has_an_id_of_its_own(stage: Stage) -> None:
    """Bundles arrive as they were sent, also when the same batch comes again; ids tell when they began."""
    request = request_of(1)
    before = now_ms()
    for _ in range(2):
        await stage.service.CommitAttempts(request, AnyContext())
    committed = stage.driver.committed
    assert len({attempt.attempt_id for attempt in committed}) == 4
    assert all(before <= start_ms(attempt.attempt_id) <= now_ms() for attempt in committed)
    assert [(a.deciding_shard, a.participants) for a in committed] == [(0, [1]), (0, [2])] * 2
    assert [a.bundle for a in committed] == [one.bundle for one in request.attempts] * 2
    assert [a.count for a in committed] == [1, 2] * 2


@pytest.mark.parametrize("wanted", [True, False])
async def test_balances_come_when_they_are_wanted(stage: Stage, wanted: bool) -> None:  # noqa: FBT001
    """A column an owner, empty where nothing is known; or none at all."""
    answer = await stage.service.CommitAttempts(request_of(1, with_balances=wanted), AnyContext())
    expected = [[struct.pack("<q", 7), b""], [struct.pack("<qq", 7, 7), b""]] if wanted else [[], []]
    assert [list(result.balances) for result in answer.results] == expected


def _with_head(bundle: bytes, place: int, value: int) -> bytes:
    head = list(BUNDLE_HEAD.unpack_from(bundle))
    head[place] = value
    return BUNDLE_HEAD.pack(*head) + bundle[BUNDLE_HEAD.size :]


Change = Callable[[coordinator_pb2.CommitAttemptsRequest], object]


def _change_bundle(change: Callable[[bytes], bytes]) -> Change:
    def apply(request: coordinator_pb2.CommitAttemptsRequest) -> None:
        request.attempts[1].bundle = change(request.attempts[1].bundle)

    return apply


BUNDLE, PARTICIPANTS = "attempts[1].bundle", "attempts[1].participants"
MISFITS: dict[str, tuple[Change, str, str]] = {
    "no bundle": (_change_bundle(lambda b: b[:15]), BUNDLE, "15 bytes, which are no bundle"),
    "too short": (_change_bundle(lambda b: b[:-1]), BUNDLE, "as its head says"),
    "too long": (_change_bundle(lambda b: b + b"x"), BUNDLE, "as its head says"),
    "layout": (_change_bundle(lambda b: _with_head(b, 0, 9)), BUNDLE, "layout 9, not 1"),
    "flags": (_change_bundle(lambda b: _with_head(b, 1, 255)), BUNDLE, "flags 255"),
    "none": (_change_bundle(lambda b: _with_head(b, 2, 0)), BUNDLE, "0 transactions, not 1 to 8192"),
    "too many": (
        _change_bundle(lambda b: _with_head(b, 2, 8193)),
        BUNDLE,
        "8193 transactions, not 1 to 8192",
    ),
    "other count": (_change_bundle(lambda b: _with_head(b, 2, 3)), BUNDLE, "4 legs"),
    "other legs": (_change_bundle(lambda b: _with_head(b, 3, 3)), BUNDLE, "3 legs"),
    "other texts": (_change_bundle(lambda b: _with_head(b, 5, 1)), BUNDLE, "as its head says"),
    "nobody takes part": (lambda r: r.attempts[1].ClearField("participants"), PARTICIPANTS, "0 of them"),
    "another one": (lambda r: r.attempts[1].participants.append(1), PARTICIPANTS, "2 of them"),
    "the deciding shard": (lambda r: r.attempts[1].participants.__setitem__(0, 0), PARTICIPANTS, "twice"),
    "beyond the map": (lambda r: r.attempts[1].participants.__setitem__(0, 3), PARTICIPANTS, "beyond the 3"),
    "decider beyond": (lambda r: setattr(r.attempts[1], "decider", 3), "attempts[1].decider", "beyond the 3"),
    "too much": (
        lambda r: r.attempts.extend([r.attempts[1]] * 1023),
        "attempts",
        "1025 of them, not at most 1024",
    ),
}


@pytest.mark.parametrize(("change", "name", "said"), MISFITS.values(), ids=MISFITS.keys())
async def test_what_fits_no_shards_is_refused(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, change: Change, name: str, said: str
) -> None:
    """As a router of another version may send it: the field is named, and nothing of the batch is begun."""
    request = request_of(1)
    change(request)
    context = AnyContext()
    with pytest.raises(AbortedError):
        await stage.service.CommitAttempts(request, context)
    assert context.code is grpc.StatusCode.INVALID_ARGUMENT
    assert context.text.startswith(f"{name}: ")
    assert said in context.text
    assert stage.driver.committed == []
    # Nor does it count as under way.
    monkeypatch.setattr(service_module, "MAX_IN_HAND", 3)
    await stage.service.CommitAttempts(request_of(1), AnyContext())
    assert len(stage.driver.committed) == 2


async def test_a_batch_has_no_more_than_a_batch(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its attempts come to a shard in one command, which has that limit."""
    monkeypatch.setattr("coordinator.requests.MAX_BATCH", 2)
    context = AnyContext()
    with pytest.raises(AbortedError):
        await stage.service.CommitAttempts(request_of(1), context)
    assert context.text == "attempts: 3 transactions, not at most 2"


# ------------------------------------------------------------------ with shards


class MappedBank(SimpleNamespace):
    """A directory whose map never changes."""

    async def newer_than(self, version: int, timeout_seconds: float) -> bool:
        """No."""
        return False


@pytest.fixture
async def bank(shards: RealShards) -> AsyncIterator[JournalBank]:
    """Three accounts of 100 on three shards."""
    made = await JournalBank.open(shards)
    yield made
    assert await made.alarms() == 0
    await made.close()


async def test_journals_are_committed_with_the_balances_of_all_legs(bank: JournalBank) -> None:
    """By owner, the deciding shard first; a refusal says which leg it concerns."""
    rows = [bank.split(10), bank.split(HAS)]
    attempt = bank.attempt(*rows)
    directory = MappedBank(current=bank.cluster)
    service = CoordinatorService(Driver(bank), cast("Any", directory))
    request = coordinator_pb2.CommitAttemptsRequest(
        topology_version=bank.cluster.topology.version,
        attempts=[coordinator_pb2.AttemptRequest(decider=0, participants=[1, 2], bundle=attempt.bundle)],
        with_balances=True,
    )
    (result,) = (await service.CommitAttempts(request, AnyContext())).results
    assert list(result.codes) == [Outcome.COMMITTED, Outcome.INSUFFICIENT_FUNDS]
    assert list(result.legs) == [0, 1]
    unknown = 2**53
    assert [struct.unpack("<qq", column) for column in result.balances] == [
        (HAS - 10, unknown),
        (HAS - 10, unknown),
        (HAS + 20, unknown),
    ]
    await bank.resolve()
