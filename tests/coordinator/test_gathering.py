"""Small batches go together, and each gets its own answers; nothing holds up the others for long."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from coordinator import gathering
from coordinator.driver import Driver
from coordinator.gathering import Gatherer, Request, Told
from shard_node.bundles import Bundle, each, split_decisions
from shard_node.limits import MAX_BATCH
from shard_node.outcomes import Outcome
from shard_node.transfers import Kind, Terms, Transfers
from tests.coordinator.bank import Bank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinator.protocol import Part
    from shard_node.directory import Cluster
    from tests.real_shards import RealShards

MAP = cast("Cluster", SimpleNamespace())
OTHER_MAP = cast("Cluster", SimpleNamespace())


def bundle_of(*numbers: int, currency: str = "EUR") -> Bundle:
    """Transfers with these numbers for ids and amounts."""
    return Bundle.of(
        Transfers.of(
            [(bytes([n] * 16), Terms(n, currency, 0, 1, Kind.TRANSFER, f"a{n}", "b", b"")) for n in numbers]
        )
    )


@dataclass(slots=True)
class DriverStandIn:
    """Answers each row with its id's first byte, when the test lets it."""

    commits: list[list[Part]] = field(default_factory=list)
    begun: asyncio.Condition = field(default_factory=asyncio.Condition)
    may_go: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False
    # For all rows, in place of the ids' bytes.
    code: bytes = b""

    async def commit(self, parts: Sequence[Part], _: object, *, with_balances: bool) -> Any:
        """Balances are the same numbers, where they are wanted."""
        async with self.begun:
            self.commits.append(list(parts))
            self.begun.notify_all()
        await self.may_go.wait()
        if self.fails:
            raise RuntimeError("planted")
        for part in parts:
            part.outcomes = self.code or bytes(key[0] for key in split_decisions(part.bundle.decisions))
            if with_balances:
                part.payer_balances = struct.pack(f"<{part.bundle.count}q", *part.outcomes)
                part.payee_balances = struct.pack(f"<{part.bundle.count}q", *(-n for n in part.outcomes))


@dataclass(slots=True)
class Stage:
    """A gatherer that has as much under way as it may."""

    driver: DriverStandIn = field(default_factory=DriverStandIn)
    busy: list[asyncio.Task[Sequence[Told]]] = field(default_factory=list)
    gatherer: Any = None

    async def start(self) -> Stage:
        """Fills it with batches of number 99."""
        self.gatherer = Gatherer(cast("Driver", self.driver))
        self.busy = [self.send([(0, 1, bundle_of(99))]) for _ in range(gathering.MAX_UNDER_WAY)]
        await asyncio.sleep(0)
        return self

    def send(
        self, parts: Sequence[tuple[int, int, Bundle]], cluster: Cluster = MAP, *, with_balances: bool = False
    ) -> asyncio.Task[Sequence[Told]]:
        """A batch."""
        requests = [Request(*part) for part in parts]
        return asyncio.ensure_future(self.gatherer.commit(requests, cluster, with_balances=with_balances))

    async def later(self) -> list[list[Part]]:
        """What was committed after the first ones, once all may go."""
        self.driver.may_go.set()
        await asyncio.gather(*self.busy)
        return self.driver.commits[gathering.MAX_UNDER_WAY :]


async def test_batches_that_wait_go_together() -> None:
    """A bundle a pair of shards, in the order of the batches; each batch gets its own rows."""
    stage = await Stage().start()
    first = stage.send([(0, 1, bundle_of(1, 2)), (1, 0, bundle_of(3))], with_balances=True)
    second = stage.send(
        [(1, 0, bundle_of(4)), (2, 0, bundle_of(5)), (0, 1, bundle_of(6))], with_balances=True
    )
    await asyncio.sleep(0)
    assert len(stage.driver.commits) == gathering.MAX_UNDER_WAY
    (together,) = await stage.later()
    told = await asyncio.gather(first, second)
    assert [[one.outcomes for one in batch] for batch in told] == [[b"\1\2", b"\3"], [b"\4", b"\5", b"\6"]]
    assert [one.payer_balances for one in told[1]] == [struct.pack("<q", n) for n in (4, 5, 6)]
    assert told[0][0].payee_balances == struct.pack("<2q", -1, -2)
    assert {(part.payer_shard, part.payee_shard): part.bundle for part in together} == {
        (0, 1): bundle_of(1, 2, 6),
        (1, 0): bundle_of(3, 4),
        (2, 0): bundle_of(5),
    }
    assert len({part.attempt.attempt_id for part in together}) == 3


async def test_one_code_for_all_is_everyones() -> None:
    """Also when a part's outcome is a single byte."""
    stage = await Stage().start()
    batches = [stage.send([(0, 1, bundle_of(n, n + 1))]) for n in (1, 3)]
    stage.driver.code = b"\7"
    await stage.later()
    assert [told for batch in batches for told in await batch] == [Told(b"\7", b"", b"")] * 2


@pytest.mark.parametrize("kind", ["map", "balances", "size"])
async def test_what_differs_does_not_go_together(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another map, other wishes, or more than a shard takes at once."""
    stage = await Stage().start()
    if kind == "size":
        monkeypatch.setattr(gathering, "MAX_BATCH", 3)
    batches = [
        stage.send([(0, 1, bundle_of(1, 2))]),
        stage.send(
            [(2, 1, bundle_of(3, 4))],
            OTHER_MAP if kind == "map" else MAP,
            with_balances=kind == "balances",
        ),
    ]
    await asyncio.sleep(0)
    later = await stage.later()
    assert [told.outcomes for batch in batches for told in await batch] == [b"\1\2", b"\3\4"]
    assert [[part.bundle.count for part in parts] for parts in later] == [[2], [2]]


async def test_large_bundles_do_not_wait() -> None:
    """Their attempt's own price does not count, so there is nothing to wait for."""
    stage = await Stage().start()
    terms = Terms(1, "EUR", 0, 1, Kind.TRANSFER, "a", "b", b"")
    large = Bundle.of(Transfers.of([(n.to_bytes(16), terms) for n in range(gathering.LARGE)]))
    batch = stage.send([(0, 1, large)])
    await asyncio.sleep(0)
    assert [part.bundle for part in stage.driver.commits[-1]] == [large]
    await stage.later()
    assert len((await batch)[0].outcomes) == gathering.LARGE <= MAX_BATCH


async def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those under way may wait for a silent shard: the others go all the same, also those that come later."""
    monkeypatch.setattr(gathering, "PATIENCE_SECONDS", 0.01)
    stage = await Stage().start()
    for number in (1, 2):
        batch = stage.send([(2, 3, bundle_of(number))])
        wanted = gathering.MAX_UNDER_WAY + number
        async with asyncio.timeout(10), stage.driver.begun:
            await stage.driver.begun.wait_for(lambda: len(stage.driver.commits) == wanted)  # noqa: B023
        stage.busy.append(batch)
    await stage.later()


async def test_a_failure_reaches_all() -> None:
    """And leaves room for those that come after it."""
    stage = await Stage().start()
    batches = [stage.send([(0, 1, bundle_of(n))]) for n in (1, 2)]
    stage.driver.fails = True
    stage.driver.may_go.set()
    for batch in (*stage.busy, *batches):
        with pytest.raises(RuntimeError, match="planted"):
            await batch
    stage.driver.fails = False
    assert (await stage.send([(0, 1, bundle_of(5))]))[0].outcomes == b"\5"


def test_joined_currencies() -> None:
    """One for all only when all rows of all bundles have it."""
    euros, dollars, both = bundle_of(1, 2), bundle_of(3, currency="USD"), bundle_of(4)
    mixed = Bundle.joined([euros, dollars])
    assert mixed.currencies == b"EUREURUSD"
    assert Bundle.joined([mixed, both]).currencies == b"EUREURUSDEUR"
    assert Bundle.joined([mixed, mixed]).currencies == b"EUREURUSDEUREURUSD"
    assert Bundle.joined([euros, both]) == bundle_of(1, 2, 4)


async def test_one_transfer_in_two_batches_moves_once(shards: RealShards) -> None:
    """A caller's second try may be gathered with the first one; both hear of the one commit."""
    bank = await Bank.open(shards)
    try:
        gatherer = Gatherer(Driver(bank))  # type: ignore[arg-type]  # of a directory it needs the cluster only
        before = await bank.balances()
        part = bank.part(bank.attempt(bank.transfer(30)))
        request = [Request(part.payer_shard, part.payee_shard, part.bundle)]
        sent = [gatherer.commit(request, bank.cluster, with_balances=False) for _ in range(5)]
        told = [each(answer.outcomes, 1)[0] for (answer,) in await asyncio.gather(*sent)]
        assert told == [Outcome.COMMITTED] * len(sent)
        assert await bank.balances() == (before[0] - 30, before[1] + 30)
    finally:
        await bank.close()
