"""What is too long, or of another type, is refused in the client: by its field, before it spoils a batch."""

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from tallystick import (
    Client,
    ClientSettings,
    InvalidArgument,
    JournalLeg,
    LedgerClient,
    NewAccount,
    Outcome,
    Transfer,
)
from tallystick.limits import MAX_ACCOUNT_ID_BYTES, MAX_AMOUNT_BYTES, MAX_LEGS
from tallystick.settings import SERVICE_BATCH_LIMIT
from tallystick.surroundings import Surroundings
from tallystick.transport import CHANNEL_OPTIONS, Transport
from tallystick.v1 import wallet_pb2
from tests.client.stand_in import StandIn, serving

Call = Callable[[Client], Coroutine[Any, Any, object]]

ID = str(uuid.UUID(int=7))
MAX_MESSAGE_BYTES = dict(CHANNEL_OPTIONS)["grpc.max_send_message_length"]
# Its last moment is none in UTC.
WEST = timezone(timedelta(hours=-1))
# Up to four bytes of UTF-8 a character: how long a text may be that is not ASCII.
WIDE = "\N{GRINNING FACE}"


async def test_one_bad_call_spoils_no_other() -> None:
    """Of 21 calls at once the one with a text as long as a message is refused, and the others move money."""
    service = StandIn()
    service.balances = {"alice": Decimal(100), "bob": Decimal(0)}
    async with serving(service) as address, Client(address) as client:
        bad = client.transfer("alice", "bob", 1, "EUR", reference="x" * MAX_MESSAGE_BYTES, transaction_id=ID)
        good = (client.transfer("alice", "bob", 1, "EUR") for _ in range(20))
        refused, *moved = await asyncio.gather(bad, *good, return_exceptions=True)
    assert isinstance(refused, InvalidArgument)
    assert str(refused) == (
        f"reference: must be at most 256 bytes of UTF-8, has {MAX_MESSAGE_BYTES} (transaction {ID})"
    )
    assert all(not isinstance(result, BaseException) and result.committed for result in moved)
    assert service.balances["bob"] == 20


async def test_a_bad_row_fails_alone() -> None:
    """In each batch method the other rows are answered, in order, and the bad ones are not sent."""
    service = StandIn()
    service.balances = {"alice": Decimal(100), "bob": Decimal(0)}
    rows: list[Any] = [
        Transfer("alice", "bob", 1, "EUR"),
        Transfer("alice", "bob" * 100, 1, "EUR", transaction_id=ID),
        Transfer("alice", 42, 1, "EUR"),  # type: ignore[arg-type]
        ("alice", "bob", 1, "EUR"),
        Transfer("alice", "bob", 2, "EUR"),
        Transfer("alice", "bob", 1, "EUR", reference="\ud800"),
    ]
    async with serving(service) as address, Client(address) as client:
        results = await client.transfers(rows)
        new: list[Any] = [
            NewAccount("carol", "EUR"),
            NewAccount("d" * 65, "EUR"),
            42,
            NewAccount("emil", "EUR"),
        ]
        opened = await client.open_accounts(new)
        read = await client.get_accounts(["bob", 42, "carol", "x" * 65])  # type: ignore[list-item]
    assert [(result.committed, result.error and result.error.field) for result in results] == [
        (True, None),
        (False, "to_account"),
        (False, "to_account"),
        (False, "batch"),
        (True, None),
        (False, "reference"),
    ]
    assert (results[1].transaction_id, results[1].outcome) == (ID, Outcome.INVALID_ARGUMENT)
    assert service.batch_sizes == [2]
    assert [result.error and result.error.field for result in opened] == [
        None,
        "account_id",
        "accounts",
        None,
    ]
    assert [result.error and result.error.field for result in read] == [
        None,
        "account_id",
        None,
        "account_id",
    ]
    assert [result.account_id for result in read] == ["bob", 42, "carol", "x" * 65]


CALLS: list[tuple[str, Call]] = [
    ("account_id", lambda c: c.open_account(42, "EUR")),  # type: ignore[arg-type]
    ("account_id", lambda c: c.open_account("a" * 65, "EUR")),
    ("currency", lambda c: c.open_account("a", None)),  # type: ignore[arg-type]
    ("minimum_balance", lambda c: c.open_account("a", "EUR", "-" + "9" * MAX_AMOUNT_BYTES)),
    ("maximum_balance", lambda c: c.open_account("a", "EUR", maximum_balance=10**5000)),
    ("validate_only", lambda c: c.open_account("a", "EUR", validate_only="yes")),  # type: ignore[arg-type]
    ("accounts", lambda c: c.open_accounts(42)),  # type: ignore[arg-type]
    ("account_id", lambda c: c.get_account(b"a")),  # type: ignore[arg-type]
    ("account_ids", lambda c: c.get_accounts("alice")),
    ("prefix", lambda c: c.list_accounts(b"a")),  # type: ignore[arg-type]
    ("prefix", lambda c: c.list_accounts("a" * 65)),
    ("page_size", lambda c: c.list_accounts(page_size="all")),  # type: ignore[arg-type]
    ("page_token", lambda c: c.list_accounts(page_token=7)),  # type: ignore[arg-type]
    ("timeout_s", lambda c: c.list_accounts(timeout_s=0)),
    ("prefix", lambda c: anext(c.accounts(42))),  # type: ignore[arg-type]
    ("from_account", lambda c: c.transfer(None, "b", 1, "EUR")),  # type: ignore[arg-type]
    ("from_account", lambda c: c.transfer(b"a", "b", 1, "EUR")),  # type: ignore[arg-type]
    ("currency", lambda c: c.transfer("a", "b", 1, b"EUR")),  # type: ignore[arg-type]
    ("validate_only", lambda c: c.transfer("a", "b", 1, "EUR", validate_only=None)),  # type: ignore[arg-type]
    ("validate_only", lambda c: c.deposit("a", 1, "EUR", validate_only=None)),  # type: ignore[arg-type]
    ("to_account", lambda c: c.transfer("a", WIDE * 17, 1, "EUR", reference="r" * 65)),
    ("amount", lambda c: c.transfer("a", "b", "1" * (MAX_AMOUNT_BYTES + 1), "EUR")),
    ("amount", lambda c: c.transfer("a", "b", Decimal("0." + "1" * 100_000), "EUR")),
    ("amount", lambda c: c.transfer("a", "b", 10**5000, "EUR")),
    ("currency", lambda c: c.transfer("a", "b", 1, "EURO")),
    ("reference", lambda c: c.transfer("a", "b", 1, "EUR", reference=WIDE * 65)),
    ("reference", lambda c: c.transfer("a", "b", 1, "EUR", reference="\udcff")),
    ("transaction_id", lambda c: c.transfer("a", "b", 1, "EUR", transaction_id="7" * 37)),
    ("transaction_id", lambda c: c.transfer("a", "b", 1, "EUR", transaction_id=7)),  # type: ignore[arg-type]
    ("timeout_s", lambda c: c.transfer("a", "b", 1, "EUR", timeout_s="soon")),  # type: ignore[arg-type]
    ("timeout_s", lambda c: c.transfers([], timeout_s=-1)),
    ("batch", lambda c: c.transfers(None)),  # type: ignore[arg-type]
    ("from_account", lambda c: c.get_transfer(ID, 42)),  # type: ignore[arg-type]
    ("bank_transaction_id", lambda c: c.deposit("a", 1, "EUR", bank_transaction_id="b" * 129)),
    ("initiated_by", lambda c: c.withdraw("a", 1, "EUR", initiated_by="i" * 129)),
    ("order_id", lambda c: c.purchase("a", "b", 1, "EUR", order_id="o" * 129)),
    ("purchase_transaction_id", lambda c: c.refund(7, "a", 1, "EUR")),  # type: ignore[arg-type]
    ("life_seconds", lambda c: c.hold("a", 1, "EUR", life_seconds=2**64)),
    ("life_seconds", lambda c: c.hold("a", 1, "EUR", life_seconds="1h")),  # type: ignore[arg-type]
    ("hold_transaction_id", lambda c: c.capture(None, "a", "b", 1, "EUR")),  # type: ignore[arg-type]
    ("hold_transaction_id", lambda c: c.void("7" * 37, "a")),
    ("legs", lambda c: c.post_journal([JournalLeg("a", 1, "EUR")] * (MAX_LEGS + 1))),
    ("legs[1]", lambda c: c.post_journal([JournalLeg("a", 1, "EUR"), "b"])),  # type: ignore[list-item]
    ("legs[0].account_id", lambda c: c.post_journal([JournalLeg("a" * 65, 1, "EUR")])),
    ("account_id", lambda c: c.freeze_account(42)),  # type: ignore[arg-type]
    ("account_id", lambda c: c.unfreeze_account("a" * 65)),
    ("account_id", lambda c: c.close_account(None)),  # type: ignore[arg-type]
]


def no_way(_: object) -> Transport:
    """For clients that must not send anything: nothing is there to send it with."""
    transport: Any = object()
    return transport  # type: ignore[no-any-return]


async def test_every_argument_is_checked_before_anything_is_sent() -> None:
    """Wrong types and sizes are InvalidArgument with the field's name, in every method."""
    client = Client("127.0.0.1:1", surroundings=Surroundings(connect=no_way))
    for field, call in CALLS:
        with pytest.raises(InvalidArgument) as caught:
            await call(client)
        assert caught.value.field == field, str(caught.value)
        assert len(str(caught.value)) < 300


async def test_the_ledgers_arguments_are_checked_too() -> None:
    """As those of the wallet."""
    client = LedgerClient("127.0.0.1:1")
    calls: list[tuple[str, Callable[[], Coroutine[Any, Any, object]]]] = [
        ("account_id", lambda: client.page(42)),  # type: ignore[arg-type]
        ("account_id", lambda: client.page("a" * 161)),
        ("from_time", lambda: client.page("a", from_time="today")),  # type: ignore[arg-type]
        ("kinds", lambda: client.page("a", kinds=[1])),  # type: ignore[list-item]
        ("order", lambda: client.page("a", order=1)),  # type: ignore[arg-type]
        ("page_size", lambda: client.page("a", page_size=2**40)),
        ("page_token", lambda: client.page("a", page_token=7)),  # type: ignore[arg-type]
        ("wait_for", lambda: client.page("a", wait_for=0)),  # type: ignore[arg-type]
        ("wait_for", lambda: client.page("a", wait_for=datetime.max)),  # noqa: DTZ901 - the mistake
        ("wait_for", lambda: client.page("a", wait_for=datetime.max.replace(tzinfo=WEST))),
        ("wait_for", lambda: anext(client.entries("a", wait_for="now"))),  # type: ignore[arg-type]
        ("kinds", lambda: anext(client.entries("a", kinds=[1]))),  # type: ignore[list-item]
        ("transaction_id", lambda: client.transfer(7)),  # type: ignore[arg-type]
        ("from_account", lambda: client.transfer(ID, "a" * 161)),
        ("wait_for", lambda: client.transfer(ID, wait_for="now")),  # type: ignore[arg-type]
        ("time", lambda: client.balance_at("a", 5)),  # type: ignore[arg-type]
        ("wait_for", lambda: client.balance_at("a", wait_for=5)),  # type: ignore[arg-type]
        ("account_ids", lambda: anext(client.watch("alice"))),  # type: ignore[arg-type]
        ("account_ids", lambda: anext(client.watch(["a"] * 1001))),  # type: ignore[arg-type]
        ("cursor", lambda: anext(client.watch(cursor=7))),  # type: ignore[arg-type]
        ("patience_s", lambda: client.consistency_check(patience_s=0)),
        ("max_backlog", lambda: client.consistency_check(max_backlog="all")),  # type: ignore[arg-type]
    ]
    for field, call in calls:
        with pytest.raises(InvalidArgument) as caught:
            await call()
        assert caught.value.field == field, str(caught.value)


def test_the_largest_batches_are_messages() -> None:
    """8192 of the longest rows that pass stay below the largest message: no batch needs a cut by bytes."""
    name, amount = WIDE * MAX_ACCOUNT_ID_BYTES, "1" * MAX_AMOUNT_BYTES
    transfer = wallet_pb2.TransferRequest(
        transaction_id=ID,
        from_account=name,
        to_account=name,
        amount=amount,
        currency="EUR",
        reference=WIDE * 64,
        validate_only=True,
    )
    opening = wallet_pb2.OpenAccountRequest(
        account_id=name,
        currency="EUR",
        minimum_balance=amount,
        maximum_balance=amount,
        maximum_transfer=amount,
        validate_only=True,
    )
    for batch in (
        wallet_pb2.BatchTransferRequest(transfers=[transfer] * SERVICE_BATCH_LIMIT),
        wallet_pb2.BatchOpenAccountsRequest(accounts=[opening] * SERVICE_BATCH_LIMIT),
        wallet_pb2.BatchGetAccountsRequest(account_ids=[name] * SERVICE_BATCH_LIMIT),
    ):
        assert batch.ByteSize() < MAX_MESSAGE_BYTES * 0.6


@pytest.mark.parametrize(
    "address",
    [
        *(
            "",
            "localhost",
            "localhost:",
            ":7000",
            "localhost:0",
            "localhost:65536",
            "localhost:http",
            "a b:1",
        ),
        *(
            "http://router:7000",
            "::1:7000",
            "[::1]",
            "[::1:7000",
            "[router]:7000",
            "a:1,b:2",
            "-:1",
            "a:\u0661",
        ),
    ],
)
def test_addresses_are_checked_at_once(address: str) -> None:
    """What is not HOST:PORT is refused where the client is made, by name."""
    for kind in (Client, LedgerClient):
        with pytest.raises(InvalidArgument, match="HOST:PORT") as caught:
            kind("router-1:7000", [address])
        assert repr(address) in str(caught.value)


def test_addresses_that_are_fine() -> None:
    """Names, with dots and dashes; IPv4; IPv6 in brackets."""
    fine = [
        "router-1:7000",
        "a.b-c.example.:1",
        "my_router:65535",
        "127.0.0.1:7000",
        "[::1]:7000",
        "[fe80::1]:1",
    ]
    assert repr(Client(fine)) == f"<Client {', '.join(fine)} not connected>"
    with pytest.raises(InvalidArgument, match="must be a str, is int"):
        Client([7000])  # type: ignore[list-item]


def test_settings_are_checked() -> None:
    """A setting of another type, or below its least value, is refused by name."""
    for name, value in {"batch_limit": "many", "queue_limit": 0, "timeout_s": "1"}.items():
        with pytest.raises(InvalidArgument) as caught:
            ClientSettings(**{name: value})  # type: ignore[arg-type]
        assert caught.value.field == name
