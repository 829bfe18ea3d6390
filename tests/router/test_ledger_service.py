"""LedgerService over gRPC: answers, refusals, watchers that lose nothing and hold nothing up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Engine

from router.execution.ledger_reader import LedgerReader, TooManyQuestionsError
from router.services.ledger_service import LedgerService
from router.services.ledger_watch import WatchSettings
from shard_node.contract import Kind
from shard_node.errors import LedgerUnavailableError
from shard_node.ledger.questions import following
from shard_node.ledger.questions.history import History
from shard_node.ledger.store.rows import Entry
from shard_node.ledger.store.schema import open_ledger
from shard_node.money import to_text
from tallystick.v1 import ledger_pb2, ledger_pb2_grpc
from tests.ledger.books import START_MS, Books, fresh_ledger, sample
from tests.router.contract import Refusal, read_refusal
from tests.router.stand_ins import NoShards

# The contract's reader of refusals takes errors of either kind of client: they have the same methods.
grpc.Call.register(grpc.aio.AioRpcError)

# What happens within a poll or two; a busy machine takes longer.
WAIT_SECONDS = 20.0
QUICK = WatchSettings(poll_seconds=0.02, heartbeat_seconds=0.2)


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


@dataclass(slots=True)
class Served:
    """A service on a server of its own, and a client of it."""

    service: LedgerService
    server: grpc.aio.Server
    stub: Any

    async def stop(self) -> None:
        """As a router stops."""
        self.service.close_watches()
        await self.server.stop(WAIT_SECONDS)
        self.service.close()

    @property
    def watching(self) -> int:
        """How many watchers the service has."""
        watchers = self.service._watchers
        assert watchers is not None
        return watchers.watching


@asynccontextmanager
async def serving(history: History | None, settings: WatchSettings = QUICK) -> AsyncIterator[Served]:
    """A server for one test. No test here asks the live shards."""
    service = LedgerService(history, NoShards(), settings)
    server = grpc.aio.server()
    ledger_pb2_grpc.add_LedgerServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        served = Served(service, server, ledger_pb2_grpc.LedgerServiceStub(channel))
        try:
            yield served
        finally:
            await served.stop()


@pytest.fixture
async def ledger(engine: Engine, books: Books) -> AsyncIterator[Served]:
    """The service of the sample."""
    async with serving(History(engine)) as served:
        yield served


async def refused(call: Any) -> Refusal:
    """How a call that must not succeed was refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return read_refusal(caught.value)


def at(ms: int) -> Timestamp:
    """A time."""
    made = Timestamp()
    made.FromMilliseconds(ms)
    return made


def message_of(entry: Entry) -> ledger_pb2.Entry:
    """An entry of the sample as the contract has it, spelled out anew."""
    return ledger_pb2.Entry(
        account_id=entry.account_id,
        version=entry.version,
        at=at(entry.at_ms),
        kind=entry.kind,  # type: ignore[arg-type]  # numbers are the same
        transaction_id=str(UUID(bytes=entry.transaction_id)) if entry.transaction_id else "",
        counterparty=entry.counterparty,
        currency=entry.currency,
        delta=to_text(entry.delta, 2),
        held_delta=to_text(entry.held_delta, 2),
        balance=to_text(entry.balance, 2),
        reference=entry.reference,
        external_id=entry.external_id,
        initiated_by=entry.initiated_by,
        related_transaction_id=str(UUID(bytes=entry.related_id)) if entry.related_id else "",
        leg=entry.leg,
        leg_count=entry.leg_count,
        shard_id=f"shard-{(entry.entry_id >> 40) - 1}",
    )


def of(books: Books, account: str) -> list[ledger_pb2.Entry]:
    """An account's entries, the oldest first."""
    rows = (Entry(*row) for row in books.rows() if row[1] == account)
    return [message_of(entry) for entry in sorted(rows, key=lambda entry: entry.version)]


# ---------------------------------------------------------------------- questions


async def test_entries_page_by_page(ledger: Served, books: Books) -> None:
    """Every field of every entry; newest first; tokens lead through."""
    found: list[ledger_pb2.Entry] = []
    token = ""
    while True:
        page = await ledger.stub.ListEntries(
            ledger_pb2.ListEntriesRequest(account_id="alice", page_size=4, page_token=token)
        )
        found += page.entries
        token = page.next_page_token
        if not token:
            break
    assert found == of(books, "alice")[::-1]


async def test_filters(ledger: Served, books: Books) -> None:
    """Times, kinds and order; a time between two milliseconds counts as the next one."""
    between = at(START_MS + 4)
    between.nanos += 1
    page = await ledger.stub.ListEntries(
        ledger_pb2.ListEntriesRequest(
            account_id="@world:EUR:shard-0",
            from_time=between,
            to_time=at(START_MS + 10**6),
            kinds=[ledger_pb2.ENTRY_KIND_DEPOSIT],
            order=ledger_pb2.ENTRY_ORDER_OLDEST_FIRST,
        )
    )
    # The deposit itself was at START_MS + 4.
    assert list(page.entries) == []
    page = await ledger.stub.ListEntries(
        ledger_pb2.ListEntriesRequest(account_id="@world:EUR:shard-0", from_time=at(START_MS + 4))
    )
    assert list(page.entries) == of(books, "@world:EUR:shard-0")


async def test_a_transfer(ledger: Served, books: Books) -> None:
    """All legs of a transaction, over both shards; of one payer when asked for."""
    journal = next(Entry(*row) for row in books.rows() if row[4] == Kind.JOURNAL)
    assert journal.transaction_id is not None
    identity = str(UUID(bytes=journal.transaction_id))
    for payer in (None, "shop"):
        found = await ledger.stub.GetTransfer(
            ledger_pb2.GetLedgerTransferRequest(transaction_id=identity, from_account=payer)
        )
        assert [(entry.leg, entry.account_id, entry.delta) for entry in found.entries] == [
            (0, "shop", "-6.00"),
            (1, "alice", "1.00"),
            (2, "bob", "5.00"),
        ]
    other = ledger_pb2.GetLedgerTransferRequest(transaction_id=identity, from_account="alice")
    assert (await refused(ledger.stub.GetTransfer(other))).reason == "TRANSACTION_NOT_FOUND"


async def test_balances(ledger: Served, books: Books) -> None:
    """Available and held at a moment, and now."""
    hold = next(Entry(*row) for row in books.rows() if row[4] == Kind.HOLD and row[1] == "alice")
    found = await ledger.stub.GetBalanceAt(
        ledger_pb2.GetBalanceAtRequest(account_id="alice", time=at(hold.at_ms))
    )
    assert (found.balance, found.available, found.held) == ("77.51", "72.51", "5.00")
    assert (found.version, found.changed_at, found.currency) == (hold.version, at(hold.at_ms), "EUR")
    now = await ledger.stub.GetBalanceAt(ledger_pb2.GetBalanceAtRequest(account_id="alice"))
    assert (now.balance, now.held, now.version) == ("74.51", "0.00", 8)


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"account_id": ""}, "account_id"),
        ({"account_id": "a b"}, "account_id"),
        ({"account_id": "x" * 161}, "account_id"),
        ({"account_id": "alice", "page_size": 1001}, "page_size"),
        ({"account_id": "alice", "page_size": 0}, "page_size"),
        ({"account_id": "alice", "page_size": -1}, "page_size"),
        ({"account_id": "alice", "kinds": [0]}, "kinds"),
        ({"account_id": "alice", "kinds": [99]}, "kinds"),
        ({"account_id": "alice", "order": 7}, "order"),
        ({"account_id": "alice", "page_token": "nonsense"}, "page_token"),
        ({"account_id": "alice", "from_time": Timestamp(nanos=-1)}, "from_time"),
        ({"account_id": "alice", "to_time": Timestamp(seconds=10**15)}, "to_time"),
        ({"account_id": "alice", "from_time": at(5), "to_time": at(4)}, "to_time"),
    ],
)
async def test_bad_pages(ledger: Served, fields: dict[str, Any], field: str) -> None:
    """What is wrong with a request for a page is told by its field."""
    request = ledger_pb2.ListEntriesRequest(**fields)
    assert await refused(ledger.stub.ListEntries(request)) == invalid(field)


def invalid(field: str) -> Refusal:
    """INVALID_ARGUMENT that names a field."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", field, (field,))


async def test_a_token_of_another_request(ledger: Served) -> None:
    """A page token does not fit another account's history."""
    page = await ledger.stub.ListEntries(ledger_pb2.ListEntriesRequest(account_id="alice", page_size=2))
    other = ledger_pb2.ListEntriesRequest(account_id="bob", page_token=page.next_page_token)
    assert await refused(ledger.stub.ListEntries(other)) == invalid("page_token")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"transaction_id": ""}, "transaction_id"),
        ({"transaction_id": "nonsense"}, "transaction_id"),
        ({"transaction_id": "0192e4a6-7c5e-7d3a-8f1b-2c3d4e5f6a7b", "from_account": "a b"}, "from_account"),
        ({"transaction_id": "0192e4a6-7c5e-7d3a-8f1b-2c3d4e5f6a7b", "from_account": ""}, "from_account"),
    ],
)
async def test_bad_transfers(ledger: Served, fields: dict[str, Any], field: str) -> None:
    """The same for a transaction."""
    request = ledger_pb2.GetLedgerTransferRequest(**fields)
    assert await refused(ledger.stub.GetTransfer(request)) == invalid(field)


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"account_id": "ä"}, "account_id"), ({"account_id": "a", "time": Timestamp(nanos=10**9)}, "time")],
)
async def test_bad_balances(ledger: Served, fields: dict[str, Any], field: str) -> None:
    """The same for a balance."""
    assert await refused(ledger.stub.GetBalanceAt(ledger_pb2.GetBalanceAtRequest(**fields))) == invalid(field)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"account_ids": ["alice", "a b"]}, "account_ids"),
        ({"account_ids": ["alice"] * 1001}, "account_ids"),
        ({"cursor": ""}, "cursor"),
        ({"cursor": "nonsense"}, "cursor"),
        # A position that this ledger has not reached: shard 1, entry 255.
        ({"cursor": "AQEAAQAAAP8AAAAAAAAA"}, "cursor"),
        ({"cursor": "AQAA", "from_beginning": True}, "from_beginning"),
    ],
)
async def test_bad_watches(ledger: Served, fields: dict[str, Any], field: str) -> None:
    """The same for a watch; it takes no place."""
    call = ledger.stub.WatchEntries(ledger_pb2.WatchEntriesRequest(**fields))
    assert await refused(call.read()) == invalid(field)
    await until(lambda: ledger.watching == 0)


async def test_what_is_not_there(ledger: Served) -> None:
    """An account without entries, a time before the first, an id that was never used: NOT_FOUND."""
    asked = [
        ledger.stub.ListEntries(ledger_pb2.ListEntriesRequest(account_id="nobody")),
        ledger.stub.GetBalanceAt(ledger_pb2.GetBalanceAtRequest(account_id="alice", time=at(START_MS))),
    ]
    for call in asked:
        assert await refused(call) == Refusal(grpc.StatusCode.NOT_FOUND, "ACCOUNT_NOT_FOUND", "account_id")
    unknown = ledger_pb2.GetLedgerTransferRequest(transaction_id="0192e4a6-7c5e-7d3a-8f1b-2c3d4e5f6a7b")
    assert (await refused(ledger.stub.GetTransfer(unknown))).reason == "TRANSACTION_NOT_FOUND"


def every_call(stub: Any) -> list[Any]:
    """One call of each method that would be answered if there were a ledger."""
    identity = "0192e4a6-7c5e-7d3a-8f1b-2c3d4e5f6a7b"
    return [
        stub.ListEntries(ledger_pb2.ListEntriesRequest(account_id="alice")),
        stub.GetTransfer(ledger_pb2.GetLedgerTransferRequest(transaction_id=identity)),
        stub.GetBalanceAt(ledger_pb2.GetBalanceAtRequest(account_id="alice")),
        stub.WatchEntries(ledger_pb2.WatchEntriesRequest()).read(),
    ]


async def test_a_router_without_a_ledger() -> None:
    """Every method says that the router was started without one."""
    async with serving(None) as served:
        check = served.stub.ConsistencyCheck(ledger_pb2.ConsistencyCheckRequest())
        for call in [*every_call(served.stub), check.read()]:
            with pytest.raises(grpc.aio.AioRpcError, match="--ledger") as caught:
                await call
            assert read_refusal(caught.value) == Refusal(grpc.StatusCode.FAILED_PRECONDITION, "NO_LEDGER", "")


async def test_a_database_that_is_away() -> None:
    """UNAVAILABLE, and in words that name the ledger, never an empty answer."""
    engine = open_ledger("postgresql://nobody@127.0.0.1:1/none")
    async with serving(History(engine)) as served:
        for call in every_call(served.stub):
            with pytest.raises(grpc.aio.AioRpcError, match="the ledger at postgresql") as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert read_refusal(caught.value).retry_ms
    engine.dispose()


async def test_questions_are_bounded() -> None:
    """So many questions wait, no more; each place is free again when its question is answered."""
    reader = LedgerReader(max_threads=1, max_waiting=2)
    answer = threading.Event()
    asked = [asyncio.ensure_future(reader.ask(answer.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyQuestionsError):
        await reader.ask(answer.wait)
    # Whoever leaves does not make room: the question is still being asked.
    asked[0].cancel()
    await asyncio.sleep(0)
    with pytest.raises(TooManyQuestionsError):
        await reader.ask(answer.wait)
    answer.set()
    assert await asked[1]
    assert await reader.ask(lambda: 7) == 7
    reader.close()


async def test_a_question_without_an_answer_ends_in_time() -> None:
    """Its caller is told, its place stays taken until the thread ends, and others are answered meanwhile."""
    reader = LedgerReader(max_threads=2, max_waiting=2, deadline_seconds=0.2)
    answer = threading.Event()
    with pytest.raises(LedgerUnavailableError, match=r"no answer within 0\.2 s"):
        await reader.ask(answer.wait)
    assert await reader.ask(lambda: 7) == 7
    hanging = [asyncio.ensure_future(reader.ask(answer.wait))]
    await asyncio.sleep(0)
    with pytest.raises(TooManyQuestionsError):
        await reader.ask(lambda: 7)
    answer.set()
    assert await hanging[0]
    assert await reader.ask(lambda: 7) == 7
    reader.close()


@pytest.mark.servers
def test_a_hanging_database_keeps_no_process_from_ending() -> None:
    """A thread that waits for ever ends with its process."""
    program = (
        "import asyncio, threading\n"
        "from router.execution.ledger_reader import LedgerReader\n"
        "from shard_node.errors import LedgerUnavailableError\n"
        "async def main():\n"
        "    reader = LedgerReader(deadline_seconds=0.1)\n"
        "    try:\n"
        "        await reader.ask(threading.Event().wait)\n"
        "    except LedgerUnavailableError:\n"
        "        print('told')\n"
        "    reader.close()\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=WAIT_SECONDS, check=True
    )
    assert ended.stdout == "told\n"


# ---------------------------------------------------------------------- how far answers are complete


async def test_answers_say_how_far_they_are_complete(ledger: Served, books: Books) -> None:
    """Up to the last archived entry of the shard that is behind; also that nothing was found."""
    ends = (max(row[3] for row in books.rows() if row[0] >> 40 == number) for number in (1, 2))
    until = at(min(ends) - 1)
    page = await ledger.stub.ListEntries(ledger_pb2.ListEntriesRequest(account_id="alice"))
    balance = await ledger.stub.GetBalanceAt(ledger_pb2.GetBalanceAtRequest(account_id="alice"))
    bought = next(entry for entry in page.entries if entry.transaction_id)
    legs = await ledger.stub.GetTransfer(
        ledger_pb2.GetLedgerTransferRequest(transaction_id=bought.transaction_id)
    )
    assert [answer.complete_until for answer in (page, balance, legs)] == [until] * 3
    for nobody in (
        ledger.stub.ListEntries(ledger_pb2.ListEntriesRequest(account_id="nobody")),
        ledger.stub.GetBalanceAt(ledger_pb2.GetBalanceAtRequest(account_id="nobody")),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=until.ToJsonString()):
            await nobody


async def test_a_watch_is_complete_when_all_has_been_sent(
    ledger: Served, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with the first of several pieces."""
    monkeypatch.setattr(following, "CHUNK", 10)
    call = ledger.stub.WatchEntries(ledger_pb2.WatchEntriesRequest(from_beginning=True))
    told: list[bool] = []
    count = 0
    async with asyncio.timeout(WAIT_SECONDS):
        while not any(told):
            message = await call.read()
            count += len(message.entries)
            told.append(message.HasField("complete_until"))
    call.cancel()
    assert len(told) > 1
    assert count == len(books.rows())


async def test_a_wait_ends_when_the_router_stops(ledger: Served) -> None:
    """A server that is stopping waits for nobody; and a time that is none is refused."""
    request = ledger_pb2.GetBalanceAtRequest(account_id="alice", wait_for=at(2**47))
    call = ledger.stub.GetBalanceAt(request, timeout=WAIT_SECONDS)
    await until(lambda: "1 waiting" in repr(ledger.service._answers))
    ledger.service.close_watches()
    assert (await refused(call)).reason == "NOT_YET_ARCHIVED"
    request.wait_for.nanos = -1
    assert await refused(ledger.stub.GetBalanceAt(request)) == invalid("wait_for")
    checked = ledger.stub.ConsistencyCheck(ledger_pb2.ConsistencyCheckRequest(max_backlog=-1))
    assert await refused(checked.read()) == invalid("max_backlog")


# ---------------------------------------------------------------------- watchers


async def until(true: Any) -> None:
    """Waits for something that happens by itself."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def received(call: Any, count: int) -> tuple[list[ledger_pb2.Entry], str]:
    """Reads a watch until there are so many entries; the last cursor."""
    found: list[ledger_pb2.Entry] = []
    cursor = ""
    async with asyncio.timeout(WAIT_SECONDS):
        while len(found) < count or not cursor:
            message = await call.read()
            assert message is not grpc.aio.EOF
            assert message.cursor
            found += message.entries
            cursor = message.cursor
    return found, cursor


async def ended(call: Any) -> tuple[grpc.aio.AioRpcError, list[ledger_pb2.WatchEntriesResponse]]:
    """The error that a watch ends with, and the messages before it."""
    messages = []
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while (message := await call.read()) is not grpc.aio.EOF:
                messages.append(message)
    except grpc.aio.AioRpcError as error:
        return error, messages
    raise AssertionError("the watch ended without an error")


async def test_watch_from_the_beginning(ledger: Served, books: Books) -> None:
    """Everything that was archived, by time, and then what is archived next."""
    call = ledger.stub.WatchEntries(ledger_pb2.WatchEntriesRequest(from_beginning=True))
    found, _ = await received(call, 25)
    by_time = sorted((Entry(*row) for row in books.rows()), key=lambda entry: (entry.at_ms, entry.entry_id))
    assert found == [message_of(entry) for entry in by_time]
    call.cancel()
    await until(lambda: ledger.watching == 0)


async def test_watch_from_now_on(ledger: Served, books: Books, engine: Engine) -> None:
    """Only what comes after; the first message tells the cursor at once."""
    call = ledger.stub.WatchEntries(ledger_pb2.WatchEntriesRequest())
    _, cursor = await received(call, 0)
    assert cursor
    books.transfer("alice", "bob", 5)
    await asyncio.to_thread(books.store, engine)
    found, _ = await received(call, 2)
    assert [(entry.account_id, entry.delta) for entry in found] == [("alice", "-0.05"), ("bob", "0.05")]
    call.cancel()


async def test_watch_some_accounts(ledger: Served, books: Books, engine: Engine) -> None:
    """Only theirs; while others move the cursor comes all the same, and skips what it passed."""
    request = ledger_pb2.WatchEntriesRequest(account_ids=["shop"], from_beginning=True)
    call = ledger.stub.WatchEntries(request)
    found, cursor = await received(call, 4)
    assert found == of(books, "shop")
    books.deposit("alice", 5)
    await asyncio.to_thread(books.store, engine)
    later = cursor
    async with asyncio.timeout(WAIT_SECONDS):
        while later == cursor:
            message = await call.read()
            assert list(message.entries) == []
            later = message.cursor
    call.cancel()
    resumed = ledger.stub.WatchEntries(ledger_pb2.WatchEntriesRequest(cursor=later))
    books.deposit("bob", 1)
    await asyncio.to_thread(books.store, engine)
    found, _ = await received(resumed, 2)
    assert {entry.account_id for entry in found} == {"bob", "@world:EUR:shard-1"}
    resumed.cancel()


async def test_a_watch_that_is_resumed_misses_nothing(ledger: Served, books: Books, engine: Engine) -> None:
    """Cut off again and again while another thread archives: each entry once, an account's in order."""
    stop = threading.Event()

    def archive() -> None:
        for amount in range(1, 400):
            books.transfer("alice", "bob", amount)
            if amount % 10 == 0:
                books.store(engine)
            if stop.is_set():
                return
        books.store(engine)

    writer = threading.Thread(target=archive)
    writer.start()
    found: list[ledger_pb2.Entry] = []
    request = ledger_pb2.WatchEntriesRequest(from_beginning=True)
    try:
        while len(found) < 25 + 2 * 399:
            call = ledger.stub.WatchEntries(request)
            some, cursor = await received(call, 30 if len(found) < 600 else 1)
            call.cancel()
            found += some
            request = ledger_pb2.WatchEntriesRequest(cursor=cursor)
    finally:
        stop.set()
        writer.join()
    assert len(found) == len(books.rows())
    for name in books.accounts:
        versions = [entry.version for entry in found if entry.account_id == name]
        first = 1 if name.startswith("@") else 0
        assert versions == list(range(first, books.accounts[name].version + 1))


async def test_heartbeats(ledger: Served) -> None:
    """A reader hears its cursor though nothing happens."""
    call = ledger.stub.WatchEntries(ledger_pb2.WatchEntriesRequest())
    async with asyncio.timeout(WAIT_SECONDS):
        messages = [await call.read() for _ in range(3)]
    assert [list(message.entries) for message in messages] == [[], [], []]
    assert len({message.cursor for message in messages}) == 1
    call.cancel()


async def test_a_slow_reader_is_cut_off(engine: Engine) -> None:
    """A reader that takes nothing gets RESOURCE_EXHAUSTED, and goes on later from its last cursor."""
    books = Books(shards=1)
    books.open("alice")
    books.open("bob")
    # Some 15 MB, far more than lies on the way.
    for _ in range(20_000):
        books.transfer("alice", "bob", 1, texts=("r" * 256, "", ""))
    await asyncio.to_thread(books.store, engine, 5000)
    settings = WatchSettings(poll_seconds=0.02, heartbeat_seconds=0.2, write_seconds=0.3)
    async with serving(History(engine), settings) as served:
        call = served.stub.WatchEntries(ledger_pb2.WatchEntriesRequest(from_beginning=True))
        found, cursor = await received(call, 1)
        # Nothing is read until the service has given up, and its place is free.
        await until(lambda: served.watching == 0)
        error, left = await ended(call)
        found += [entry for message in left for entry in message.entries]
        cursor = left[-1].cursor if left else cursor
        assert "go on from the last cursor" in str(error.details())
        refusal = read_refusal(error)
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "RESOURCE_EXHAUSTED",
        )
        assert len(found) < 40_002
        resumed = served.stub.WatchEntries(ledger_pb2.WatchEntriesRequest(cursor=cursor))
        rest, _ = await received(resumed, 40_002 - len(found))
        resumed.cancel()
        assert [entry.version for entry in found + rest if entry.account_id == "alice"] == list(range(20_001))


async def test_watchers_are_bounded(engine: Engine, books: Books) -> None:
    """One too many is refused at once; when one leaves there is room again."""
    settings = WatchSettings(poll_seconds=0.02, heartbeat_seconds=0.2, max_watchers=1)
    async with serving(History(engine), settings) as served:
        first = served.stub.WatchEntries(ledger_pb2.WatchEntriesRequest())
        await received(first, 0)
        second = served.stub.WatchEntries(ledger_pb2.WatchEntriesRequest())
        assert (await refused(second.read())).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        first.cancel()
        await until(lambda: served.watching == 0)
        third = served.stub.WatchEntries(ledger_pb2.WatchEntriesRequest())
        await received(third, 0)
        third.cancel()


async def test_watches_end_when_the_router_stops(engine: Engine, books: Books) -> None:
    """A stopping router ends every watch within moments, and tells the reader to go elsewhere."""
    async with serving(History(engine)) as served:
        call = served.stub.WatchEntries(ledger_pb2.WatchEntriesRequest())
        await received(call, 0)
        begun = time.monotonic()
        stopping = asyncio.ensure_future(served.stop())
        error, _ = await ended(call)
        await stopping
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "the router is stopping" in str(error.details())
        assert time.monotonic() - begun < WAIT_SECONDS / 2
        assert served.watching == 0


async def test_a_database_that_goes_away_under_a_watch(
    engine: Engine, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever watches is told that the ledger does not answer, rather than that nothing happens."""
    history = History(engine)
    away = History(open_ledger("postgresql://nobody@127.0.0.1:1/none"))
    async with serving(history) as served:
        call = served.stub.WatchEntries(ledger_pb2.WatchEntriesRequest())
        await received(call, 0)
        monkeypatch.setattr(history, "_engine", away._engine)
        error, _ = await ended(call)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "the ledger at postgresql" in str(error.details())
