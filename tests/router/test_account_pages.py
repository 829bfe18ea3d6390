"""Listing accounts page by page, over real shards: all of them, once each, in one order, or an error."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from router.execution import Dispatcher, account_pages
from router.services import WalletService
from shard_node.client import Cluster, Shard, ask, connect
from shard_node.cluster.slots import SLOT_COUNT, slot
from shard_node.limits import MAX_BATCH
from tallystick.v1 import wallet_pb2
from tests.exponents import CurrenciesStandIn
from tests.real_shards import RealShards, redis_servers, shards
from tests.router.samples import reader
from tests.router.stand_ins import AbortedError, Clock, CommittersStandIn, Context, MapsStandIn

__all__ = ["redis_servers", "shards"]

# In one slot, more than a shard looks at in one call.
LARGE = [f"{{large}}:{number:04}" for number in range(4500)]


@dataclass(slots=True)
class Town:
    """A router over three shards."""

    shards: RealShards
    cluster: Cluster
    maps: MapsStandIn
    service: WalletService

    async def open(self, names: Iterable[str]) -> None:
        """Opens accounts."""
        asked = [wallet_pb2.OpenAccountRequest(account_id=name, currency="EUR") for name in names]
        request = wallet_pb2.BatchOpenAccountsRequest(accounts=asked)
        answer = await self.service.BatchOpenAccounts(request, Context())
        assert all(result.HasField("account") for result in answer.results)

    async def page(self, **fields: Any) -> tuple[list[str], str]:
        """The ids in one page, and the token of the next."""
        answer = await self.service.ListAccounts(wallet_pb2.ListAccountsRequest(**fields), Context())
        return [account.account_id for account in answer.accounts], answer.next_page_token

    async def pages(self, **fields: Any) -> AsyncIterator[list[str]]:
        """All pages, one after the other."""
        token = ""
        while True:
            names, token = await self.page(page_token=token, **fields)
            yield names
            if not token:
                return

    async def listed(self, **fields: Any) -> list[str]:
        """The ids in all pages."""
        return [name async for page in self.pages(**fields) for name in page]

    async def refused(self, **fields: Any) -> tuple[grpc.StatusCode, str]:
        """The status and the reason with which a page is refused."""
        context = Context()
        with pytest.raises(AbortedError):
            await self.service.ListAccounts(wallet_pb2.ListAccountsRequest(**fields), context)
        (info,) = context.detail(error_details_pb2.ErrorInfo)
        return context.code, info.metadata.get("field", info.reason)


def cluster_of(shards: RealShards) -> Cluster:
    """The shards by their present topology."""
    made = shards.cluster()
    return Cluster(made.topology, made.shards)


@pytest.fixture
async def town(shards: RealShards) -> AsyncIterator[Town]:
    """A router over three empty shards."""
    cluster = cluster_of(shards)
    maps = MapsStandIn(Clock(), cluster)
    currencies: Any = CurrenciesStandIn()
    service = WalletService(Dispatcher(maps, CommittersStandIn(), ask), maps, reader(), currencies)
    try:
        yield Town(shards, cluster, maps, service)
    finally:
        for shard in cluster.shards:
            await shard.close()


def drawn(seed: int, count: int) -> list[str]:
    """Ids of all kinds: plain ones, some with hash tags that are whole, empty or open."""
    draw = random.Random(seed)
    shapes = ("{0}", "user:{0}", "{{a{1}}}:{0}", "x{{a{1}}}{0}", "{{}}{0}", "u{{{0}", "}}{0}{{")
    made = {draw.choice(shapes).format(draw.randrange(10**9), draw.randrange(3)) for _ in range(count)}
    return draw.sample(sorted(made), len(made))


def in_order(names: Iterable[str]) -> list[str]:
    """By slot, then by bytes."""
    return sorted(names, key=lambda name: (slot(name), name.encode()))


@pytest.mark.parametrize("page_size", [1, 7, 1000])
async def test_every_account_comes_once_in_one_order(town: Town, page_size: int) -> None:
    """Pages of any size are full but for the last, and together all there is."""
    names = drawn(page_size, 90)
    await town.open(names)
    pages = [page async for page in town.pages(page_size=page_size)]
    assert list(chain.from_iterable(pages)) == in_order(names)
    assert {len(page) for page in pages[:-1]} <= {page_size}


async def test_accounts_are_shown_as_they_stand(town: Town) -> None:
    """Each with all that reading it alone shows; the last page has no token; an empty cluster one page."""
    assert await town.page() == ([], "")
    names = drawn(0, 101)
    await town.open(names)
    answer = await town.service.ListAccounts(wallet_pb2.ListAccountsRequest(), Context())
    assert len(answer.accounts) == account_pages.DEFAULT_PAGE
    for account in answer.accounts[:5]:
        request = wallet_pb2.GetAccountRequest(account_id=account.account_id)
        assert account == await town.service.GetAccount(request, Context())


async def test_a_slot_with_more_accounts_than_a_call_looks_at(town: Town) -> None:
    """It is read in several calls, and comes in order all the same, among others."""
    others = drawn(1, 100)
    await town.open([*LARGE, *others])
    assert await town.listed(page_size=900) == in_order([*LARGE, *others])
    assert await town.listed(page_size=3, prefix="{large}:001") == LARGE[10:20]


async def test_accounts_opened_meanwhile_leave_nothing_out(town: Town) -> None:
    """Those of the beginning come once each, whatever is opened before or behind the place of a page."""
    early, late = [*LARGE[::2], *drawn(2, 60)], iter([*LARGE[1::2], *drawn(3, 2000)])
    await town.open(early)
    listed: list[str] = []
    async for page in town.pages(page_size=100):
        listed += page
        await town.open([name for name, _ in zip(late, range(60), strict=False) if name not in early])
    assert listed == in_order(set(listed))
    assert set(early) <= set(listed)


async def test_a_page_that_finds_little_is_short_and_goes_on(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at a limited number of accounts; it ends at a place, and is not taken for the last one."""
    monkeypatch.setattr(account_pages, "MAX_LOOKED", 1)
    monkeypatch.setattr(account_pages, "_SLOTS_AT_ONCE", SLOT_COUNT)
    # More on each shard than it looks at in one call.
    names = drawn(4, 14_000)
    for first in range(0, len(names), MAX_BATCH):
        await town.open(names[first : first + MAX_BATCH])
    pages = [page async for page in town.pages(prefix="user:", page_size=1000)]
    assert list(chain.from_iterable(pages)) == in_order(name for name in names if name.startswith("user:"))
    assert len(pages) > 1


async def test_a_shard_that_is_away_fails_the_page(town: Town) -> None:
    """A list is never shorter for it; pages that do not reach it are answered."""
    names = drawn(5, 90)
    await town.open([*names, *LARGE[:9]])
    away = in_order(names)[60]
    index = town.cluster.owner[slot(away)]
    gone = Shard(f"shard-{index}", town.cluster.shards[index].fence, connect("127.0.0.1:1"))
    shards = (*town.cluster.shards[:index], gone, *town.cluster.shards[index + 1 :])
    town.maps.current = Cluster(town.cluster.topology, shards)
    assert await town.refused(page_size=1000) == (grpc.StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN")
    here = in_order(names)[:5]
    assert (await town.page(page_size=5))[0] == [n for n in in_order([*names, *LARGE[:9]])[:5] if n in here]
    assert await town.listed(prefix="{large}:") == LARGE[:9]
    await gone.close()


async def test_a_slot_that_moves_between_pages(town: Town) -> None:
    """The next page goes on in it at its new shard: nothing is left out, nothing comes twice."""
    names = [*LARGE[:40], *drawn(6, 60)]
    await town.open(names)
    place = in_order(names).index(LARGE[20])
    first, token = await town.page(page_size=place)
    moved = slot(LARGE[0])
    town.shards.move(moved, (town.cluster.owner[moved] + 1) % 3)
    newer = cluster_of(town.shards)
    # It learns of the new map when a shard refuses the old one.
    town.maps._later.append(newer)
    assert first + (await town.page(page_size=1000, page_token=token))[0] == in_order(names)
    for shard in newer.shards:
        await shard.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("page_size", 0),
        ("page_size", -1),
        ("page_size", 1001),
        ("prefix", "@world"),
        ("prefix", "no such"),
        ("prefix", "*"),
        ("prefix", "x" * 65),
        ("page_token", "nonsense"),
        ("page_token", "AAAA"),
        ("page_token", "€"),
    ],
)
async def test_bad_requests(town: Town, field: str, value: object) -> None:
    """What is wrong with a request is told by its field."""
    assert await town.refused(**{field: value}) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_a_token_is_for_one_prefix_and_whole(town: Town) -> None:
    """A token of another prefix, cut or mistyped is refused rather than another place be listed."""
    await town.open(drawn(7, 20))
    _, token = await town.page(page_size=3)
    bad = [token[:-4], token[4:], *(token[:at] + "-" + token[at + 1 :] for at in range(len(token)))]
    for wrong in [one for one in bad if one != token]:
        assert await town.refused(page_token=wrong) == (grpc.StatusCode.INVALID_ARGUMENT, "page_token")
    assert await town.refused(page_token=token, prefix="u") == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "page_token",
    )
