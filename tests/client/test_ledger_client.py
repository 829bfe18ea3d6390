"""The ledger's client against a real LedgerService: values, errors, and a watch that nothing ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import grpc
import pytest
from sqlalchemy import Engine

from router.services.ledger_service import LedgerService
from router.services.ledger_watch import WatchSettings
from shard_node.contract import Kind
from shard_node.ledger.questions.history import History
from shard_node.ledger.store.rows import Entry as Row
from tallystick import (
    AccountNotFound,
    ClientClosed,
    InvalidArgument,
    LedgerClient,
    NotYetArchived,
    Refused,
    RetryableError,
    SyncLedgerClient,
    TransactionNotFound,
    new_transaction_id,
)
from tallystick.ledger import Entry, EntryKind, EntryOrder
from tallystick.v1 import ledger_pb2_grpc
from tests.ledger.books import START_MS, Books, fresh_ledger, sample
from tests.router.stand_ins import NoShards

QUICK = WatchSettings(poll_seconds=0.02, heartbeat_seconds=0.1)
WAIT_SECONDS = 20.0


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An empty ledger."""
    made = fresh_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield made
    made.dispose()


@pytest.fixture
def books(engine: Engine) -> Books:
    """The sample, archived."""
    made = sample()
    made.store(engine, batch=4)
    return made


class Router:
    """A server of the ledger that can be stopped."""

    def __init__(self, engine: Engine | None) -> None:
        self.service = LedgerService(History(engine) if engine else None, NoShards(), QUICK)
        self.server = grpc.aio.server()
        ledger_pb2_grpc.add_LedgerServiceServicer_to_server(self.service, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"

    async def stop(self) -> None:
        """As a router stops."""
        self.service.close_watches()
        await self.server.stop(WAIT_SECONDS)
        self.service.close()


@asynccontextmanager
async def routers(engine: Engine | None, count: int = 1) -> AsyncIterator[list[Router]]:
    """Some servers of one ledger."""
    async with AsyncExitStack() as ending:
        made = [Router(engine) for _ in range(count)]
        for router in made:
            await router.server.start()
            ending.push_async_callback(router.stop)
        yield made


@pytest.fixture
async def client(engine: Engine, books: Books) -> AsyncIterator[LedgerClient]:
    """A client of the sample's ledger."""
    async with routers(engine) as (router,), LedgerClient(router.address) as made:
        yield made


def value_of(row: Row) -> Entry:
    """An entry of the sample as a value, spelled out anew."""
    return Entry(
        row.account_id,
        row.version,
        datetime.fromtimestamp(row.at_ms / 1000, UTC),
        EntryKind(row.kind),
        str(UUID(bytes=row.transaction_id)) if row.transaction_id else "",
        row.counterparty,
        row.currency,
        Decimal(row.delta).scaleb(-2),
        Decimal(row.held_delta).scaleb(-2),
        Decimal(row.balance).scaleb(-2),
        row.reference,
        row.external_id,
        row.initiated_by,
        str(UUID(bytes=row.related_id)) if row.related_id else "",
        row.leg,
        row.leg_count,
        f"shard-{(row.entry_id >> 40) - 1}",
    )


def of(books: Books, account: str) -> list[Entry]:
    """An account's entries, the oldest first."""
    rows = sorted((Row(*row) for row in books.rows() if row[1] == account), key=lambda row: row.version)
    return [value_of(row) for row in rows]


async def test_entries(client: LedgerClient, books: Books) -> None:
    """All entries in either order, within a range, of some kinds; as values with decimals."""
    assert [entry async for entry in client.entries("alice")] == of(books, "alice")[::-1]
    oldest = client.entries("alice", order=EntryOrder.OLDEST_FIRST, kinds=[EntryKind.HOLD, EntryKind.EXPIRY])
    assert [entry async for entry in oldest] == [
        entry for entry in of(books, "alice") if entry.kind in {EntryKind.HOLD, EntryKind.EXPIRY}
    ]
    second = of(books, "alice")[1]
    ranged = client.entries("alice", from_time=second.at, to_time=second.at + timedelta(milliseconds=1))
    assert [entry async for entry in ranged] == [second]


async def test_pages(client: LedgerClient, books: Books) -> None:
    """A page at a time, by its token."""
    first = await client.page("alice", page_size=4)
    second = await client.page("alice", page_size=5, page_token=first.next_token)
    assert [*first.entries, *second.entries] == of(books, "alice")[::-1]
    assert (bool(first.next_token), second.next_token) == (True, "")


async def test_a_transfer_and_a_balance(client: LedgerClient, books: Books) -> None:
    """A transaction by its legs; a balance then and now."""
    bought = next(entry for entry in of(books, "alice") if entry.kind is EntryKind.PURCHASE)
    legs = await client.transfer(UUID(bought.transaction_id), "alice")
    assert [(leg.account_id, leg.delta, leg.external_id) for leg in legs] == [
        ("alice", Decimal("-9.99"), "order-7"),
        ("shop", Decimal("9.99"), "order-7"),
    ]
    then = await client.balance_at("alice", bought.at)
    assert (then.balance, then.available, then.held, then.version, then.changed_at) == (
        bought.balance,
        bought.balance,
        Decimal(0),
        bought.version,
        bought.at,
    )
    assert (await client.balance_at("alice")).version == 8


async def test_errors(client: LedgerClient) -> None:
    """What is not there, what is malformed, and what no service should have to see."""
    with pytest.raises(AccountNotFound, match="no entry is archived"):
        await client.balance_at("nobody")
    with pytest.raises(InvalidArgument) as caught:
        await client.page("alice", page_token="nonsense")  # noqa: S106 -- of a page
    assert caught.value.field == "page_token"
    with pytest.raises(InvalidArgument, match="must be 1 to 1000, or left out for 100, is 0"):
        await client.page("alice", page_size=0)
    for named in (client.page("alice", kinds=[]), anext(client.watch([]))):
        with pytest.raises(InvalidArgument, match="is empty: leave it out for all"):
            await named
    with pytest.raises(InvalidArgument) as caught:
        await client.transfer(new_transaction_id(), "")
    assert caught.value.field == "from_account"
    with pytest.raises(InvalidArgument, match="needs a time zone"):
        await client.balance_at("alice", datetime.fromtimestamp(0))  # noqa: DTZ006 -- the mistake
    with pytest.raises(InvalidArgument) as caught:
        await anext(client.watch(cursor="nonsense"))
    assert caught.value.field == "cursor"


async def test_answers_say_how_far_they_are_complete(client: LedgerClient, books: Books) -> None:
    """Values, streams and errors; shards that do not answer are archived up to some moment for certain."""
    page = await client.page("alice")
    complete_until = page.complete_until
    assert complete_until is not None
    stream = client.entries("alice", wait_for=complete_until - timedelta(minutes=1))
    assert [entry async for entry in stream] == of(books, "alice")[::-1]
    legs = await client.transfer(next(one for one in page.entries if one.transaction_id).transaction_id)
    found = [stream, legs, await client.balance_at("alice")]
    assert [one.complete_until for one in found] == [complete_until] * 3  # type: ignore[attr-defined]
    watch = client.watch(["shop"], from_beginning=True)
    assert (await anext(watch)).complete_until == complete_until
    await watch.aclose()  # type: ignore[attr-defined]  # it is a generator
    for absent in (client.page("nobody"), client.balance_at("nobody")):
        with pytest.raises(AccountNotFound) as account:
            await absent
        assert account.value.complete_until == complete_until
    with pytest.raises(TransactionNotFound) as transaction:
        await client.transfer(new_transaction_id())
    assert transaction.value.complete_until == complete_until


async def test_a_wait_in_vain_is_not_yet(client: LedgerClient) -> None:
    """In the time that was given, with the moment up to which all is known, and nothing is refused."""
    complete_until = (await client.page("alice")).complete_until
    everything = datetime.max.replace(tzinfo=UTC)
    with pytest.raises(NotYetArchived, match="shard-0 does not answer; shard-1 does not answer") as caught:
        await client.balance_at("alice", wait_for=everything, timeout_s=0.3)
    assert caught.value.complete_until == complete_until
    with pytest.raises(NotYetArchived):
        await anext(client.entries("alice", wait_for=everything, timeout_s=0.3))
    with pytest.raises(InvalidArgument, match="wait_for: needs a time zone"):
        await client.transfer(new_transaction_id(), wait_for=datetime.max)  # noqa: DTZ901 -- the mistake


async def test_no_ledger_and_no_router() -> None:
    """A router without a ledger refuses; where there is no router, there is no answer."""
    async with routers(None) as (router,), LedgerClient(router.address) as client:
        with pytest.raises(Refused, match="--ledger"):
            await client.balance_at("alice")
        with pytest.raises(Refused, match="--ledger"):
            await client.consistency_check()
    async with LedgerClient("127.0.0.1:1") as nobody:
        with pytest.raises(RetryableError):
            await nobody.balance_at("alice", timeout_s=0.2)
        with pytest.raises(RetryableError):
            await anext(nobody.watch(patience_s=0.2))


async def test_a_watch_goes_on_at_another_router(engine: Engine, books: Books) -> None:
    """While routers stop under it, one after the other, a watch gets every entry once."""
    async with routers(engine, 3) as made, LedgerClient([router.address for router in made]) as client:
        received: list[Entry] = []
        amount = 0
        async with asyncio.timeout(WAIT_SECONDS):
            async for news in client.watch(from_beginning=True):
                received += news.entries
                if len(received) < len(books.rows()):
                    continue
                if amount == 2:
                    break
                await made[amount].stop()
                amount += 1
                books.transfer("alice", "bob", amount)
                await asyncio.to_thread(books.store, engine)
        assert sorted(received, key=lambda e: (e.shard_id, e.at)) == sorted(
            (value_of(Row(*row)) for row in books.rows()), key=lambda e: (e.shard_id, e.at)
        )


async def test_a_watch_that_is_left(client: LedgerClient, books: Books) -> None:
    """A watch that is left in the middle leaves nothing behind, and its cursor goes on elsewhere."""
    watch = client.watch(["shop"], from_beginning=True)
    news = await anext(watch)
    assert list(news.entries) == of(books, "shop")
    await watch.aclose()  # type: ignore[attr-defined]  # it is a generator
    again = client.watch(["shop"], cursor=news.cursor)
    assert (await anext(again)).entries == ()
    await again.aclose()  # type: ignore[attr-defined]  # the same


def test_without_asyncio(engine: Engine, books: Books) -> None:
    """The same methods for code that waits; iterators that are left early end."""
    started: threading.Event = threading.Event()
    loop = asyncio.new_event_loop()
    address: list[str] = []
    stop = asyncio.Event()

    async def serve() -> None:
        async with routers(engine) as (router,):
            address.append(router.address)
            started.set()
            await stop.wait()

    server = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    server.start()
    try:
        assert started.wait(WAIT_SECONDS)
        with SyncLedgerClient(address) as client:
            entries = client.entries("alice")
            assert list(entries) == of(books, "alice")[::-1]
            assert entries.complete_until == client.page("alice").complete_until
            assert client.balance_at("bob", datetime.fromtimestamp(START_MS / 1000 + 10, UTC)).version
            watched = client.watch(from_beginning=True)
            assert len(next(watched).entries) == 25
            watched.close()  # type: ignore[attr-defined]  # it is a generator
            with pytest.raises(AccountNotFound):
                client.page("nobody")
            bought = next(row for row in books.rows() if row[4] == Kind.PURCHASE)
            assert len(client.transfer(UUID(bytes=bought[5]))) == 2
        with pytest.raises(ClientClosed):
            client.balance_at("alice")
    finally:
        loop.call_soon_threadsafe(stop.set)
        server.join()
        loop.close()
