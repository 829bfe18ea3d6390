"""What a coordinator takes from routers: not too much at once, and what was split by its own map."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest

from coordinator import service as service_module
from coordinator.service import CoordinatorService
from shard_node.contract.bundles import Bundle
from shard_node.contract.calls import ATTEMPT_BYTES
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transfers import Kind, Terms, Transfers
from tallystick.v1 import coordinator_pb2
from tests.router.stand_ins import AbortedError, Context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinator.driver import Driver
    from coordinator.protocol import Part
    from shard_node.client.directory import Directory


class DirectoryStandIn:
    """A map that becomes known when the test says so."""

    def __init__(self) -> None:
        self.current = SimpleNamespace(topology=SimpleNamespace(version=1))
        self._arrived = asyncio.Event()

    def arrive(self, version: int) -> None:
        """The map of that version is known."""
        self.current.topology.version = version
        self._arrived.set()

    async def newer_than(self, version: int, timeout_seconds: float) -> bool:
        """Waits for the test."""
        return await self._arrived.wait()


class DriverStandIn:
    """Commits every row."""

    def __init__(self) -> None:
        self.committed: list[Part] = []

    async def commit(self, parts: Sequence[Part], _: object, *, with_balances: bool) -> Any:
        """An answer with balances of 7 where they are wanted."""
        for part in parts:
            part.outcomes = b"\1"
            part.payer_balances = struct.pack("<q", 7) * part.bundle.count if with_balances else b""
        self.committed += parts
        return SimpleNamespace(parts=parts)


class AnyAbort(Context):
    """A context whose abort takes no trailing metadata either."""

    async def abort(self, code: Any, text: str, trailing: Any = ()) -> Any:
        """Ends the call."""
        await super().abort(code, text, trailing)

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
        self.service = CoordinatorService(cast("Driver", self.driver), cast("Directory", self.directory))


@pytest.fixture
def stage() -> Stage:
    """A service that has committed nothing."""
    return Stage()


def request_of(version: int, *, with_balances: bool = False) -> coordinator_pb2.CommitRequest:
    """Two parts of one transfer and of two, split by the map of that version."""
    parts = []
    for payee_shard, count in ((1, 1), (2, 2)):
        terms = Terms(1, "EUR", 0, 1, Kind.TRANSFER, "a", "b", b"")
        bundle = Transfers.of([(bytes([n] * 16), terms) for n in range(count)]).bundle()
        columns = {name: getattr(bundle, name) for name in Bundle.__slots__}
        parts.append(coordinator_pb2.CommitPart(payer_shard=0, payee_shard=payee_shard, **columns))
    return coordinator_pb2.CommitRequest(topology_version=version, parts=parts, with_balances=with_balances)


async def test_a_batch_that_waits_for_a_map_counts(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst that waits for a newer map is held to the limit; whoever is done gives its room back."""
    monkeypatch.setattr(service_module, "MAX_IN_HAND", 4)
    request = request_of(2)
    first = asyncio.ensure_future(stage.service.Commit(request, AnyAbort()))
    await asyncio.sleep(0)
    with pytest.raises(AbortedError):
        await stage.service.Commit(request, AnyAbort())
    stage.directory.arrive(2)
    assert [result.outcomes for result in (await first).results] == [b"\1", b"\1"]
    again = await stage.service.Commit(request, AnyAbort())
    assert [result.outcomes for result in again.results] == [b"\1", b"\1"]


@pytest.mark.parametrize("version", [1, 3], ids=["older", "newer"])
async def test_a_batch_split_by_another_map_is_stale(stage: Stage, version: int) -> None:
    """Positions of shards, and who owns a slot, may differ: nothing is asked of any shard."""
    stage.directory.arrive(2)
    answer = await stage.service.Commit(request_of(version), AnyAbort())
    assert [result.outcomes for result in answer.results] == [bytes((Outcome.STALE_EPOCH,))] * 2
    assert stage.driver.committed == []


async def test_each_part_is_an_attempt_of_its_own(stage: Stage) -> None:
    """The columns arrive as they were sent, under fresh ids, also when the same batch comes again."""
    request = request_of(1)
    for _ in range(2):
        await stage.service.Commit(request, AnyAbort())
    committed = stage.driver.committed
    assert len({part.attempt.attempt_id for part in committed}) == 4
    assert {len(part.attempt.attempt_id) for part in committed} == {ATTEMPT_BYTES}
    assert [(part.payer_shard, part.payee_shard) for part in committed] == [(0, 1), (0, 2)] * 2
    for part, sent in zip(committed, [*request.parts, *request.parts], strict=True):
        assert all(getattr(part.bundle, name) == getattr(sent, name) for name in Bundle.__slots__)


@pytest.mark.parametrize("wanted", [True, False])
async def test_balances_come_when_they_are_wanted(stage: Stage, wanted: bool) -> None:  # noqa: FBT001
    """A column a part, or none at all."""
    answer = await stage.service.Commit(request_of(1, with_balances=wanted), AnyAbort())
    expected = [struct.pack("<q", 7), struct.pack("<qq", 7, 7)] if wanted else [b"", b""]
    assert [result.payer_balances for result in answer.results] == expected


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("count", 0, "parts[1].count: 0, not 1 or more"),
        ("count", 3, "parts[1].decisions: 36 bytes, not 54 for 3 transfers"),
        ("decisions", bytes(35), "parts[1].decisions: 35 bytes, not 36 for 2 transfers"),
        ("amounts", bytes(8), "parts[1].amounts: 8 bytes, not 16 for 2 transfers"),
        ("terms", b"\0", "parts[1].terms: 1 bytes, not at least 2 for 2 transfers"),
        ("payers", b"", "parts[1].payers: 0 bytes, not at least 2 for 2 transfers"),
        ("payees", b"", "parts[1].payees: 0 bytes, not at least 2 for 2 transfers"),
        ("bodies", bytes(3), "parts[1].bodies: 3 bytes, not at least 4 for 2 transfers"),
        ("currencies", b"EURUSDGBP", "parts[1].currencies: 9 bytes, not 3 or 6"),
    ],
)
async def test_columns_of_another_size_are_refused(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, column: str, value: int | bytes, said: str
) -> None:
    """As a router of another version may send them: no part of the batch is begun."""
    request = request_of(1)
    setattr(request.parts[1], column, value)
    context = AnyAbort()
    with pytest.raises(AbortedError):
        await stage.service.Commit(request, context)
    assert (context.code, context.text) == (grpc.StatusCode.INVALID_ARGUMENT, said)
    assert stage.driver.committed == []
    # Nor does it count as under way.
    monkeypatch.setattr(service_module, "MAX_IN_HAND", 3)
    await stage.service.Commit(request_of(1), AnyAbort())
    assert len(stage.driver.committed) == 2
