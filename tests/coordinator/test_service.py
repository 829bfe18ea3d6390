"""The coordinator's own limit: what is in its hands is counted from the first moment to the last."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from coordinator import service as service_module
from coordinator.service import CoordinatorService
from tallystick.v1 import coordinator_pb2
from tests.router.stand_ins import AbortedError, Context

if TYPE_CHECKING:
    from coordinator.driver import Driver
    from shard_node.directory import Directory


class DirectoryStandIn:
    """A map that becomes known when the test says so."""

    def __init__(self) -> None:
        self.current = SimpleNamespace(topology=SimpleNamespace(version=1))
        self.arrived = asyncio.Event()

    async def newer_than(self, version: int, timeout_seconds: float) -> bool:
        """Waits for the test."""
        await self.arrived.wait()
        return True


class DriverStandIn:
    """Commits every row."""

    async def commit(self, transfers: Any, _: object) -> Any:
        """An answer without any row known."""
        count = len(transfers)
        return SimpleNamespace(outcomes=[1] * count, payer_balances=[0] * count, payee_balances=[0] * count)


class AnyAbort(Context):
    """A context whose abort takes no trailing metadata either."""

    async def abort(self, code: Any, text: str, trailing: Any = ()) -> Any:
        """Ends the call."""
        await super().abort(code, text, trailing)


async def test_a_batch_that_waits_for_a_map_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst that waits for a newer map is held to the limit; whoever is done gives its room back."""
    monkeypatch.setattr(service_module, "MAX_IN_HAND", 3)
    directory = DirectoryStandIn()
    service: Any = CoordinatorService(cast("Driver", DriverStandIn()), cast("Directory", directory))
    request = coordinator_pb2.CommitRequest(
        topology_version=2,
        keys=[b"k"] * 2,
        payers=["a"] * 2,
        payees=["b"] * 2,
        amounts_minor=[1] * 2,
        currencies=["EUR"] * 2,
        bodies=[b""] * 2,
        payer_slots=[0] * 2,
        payee_slots=[1] * 2,
    )
    first = asyncio.ensure_future(service.Commit(request, AnyAbort()))
    await asyncio.sleep(0)
    with pytest.raises(AbortedError):
        await service.Commit(request, AnyAbort())
    directory.arrived.set()
    assert (await first).outcomes == b"\1\1"
    assert (await service.Commit(request, AnyAbort())).outcomes == b"\1\1"
