"""The client against a real cluster."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from deploy.local.launcher import ClusterSpec, LocalCluster
from tallystick import (
    AccountExists,
    AccountNotFound,
    Client,
    CurrencyMismatch,
    InsufficientFunds,
    InvalidArgument,
    NewAccount,
    Outcome,
    SyncClient,
    TransactionIdExpired,
    TransactionIdReused,
    TransactionNotFound,
    Transfer,
)
from tallystick.ids import TransactionIds

pytestmark = pytest.mark.cluster

ACCOUNTS = 60


@pytest.fixture
async def client(cluster: LocalCluster) -> AsyncIterator[Client]:
    """A client of all the cluster's routers."""
    async with Client(cluster.router_addresses) as connected:
        yield connected


@pytest.fixture
async def accounts(client: Client) -> list[str]:
    """New accounts with 100 euros each, spread over the shards."""
    group = uuid.uuid4().hex
    names = [f"{group}:{index}" for index in range(ACCOUNTS)]
    opened = await client.open_accounts(NewAccount(name, "EUR") for name in names)
    assert all(result.account for result in opened)
    funded = await asyncio.gather(*(client.deposit(name, "100.00", "EUR") for name in names))
    assert all(result.committed for result in funded)
    return names


async def balances(client: Client, names: list[str]) -> list[Decimal]:
    """What is available on each account."""
    found = await client.get_accounts(names)
    return [result.account.available for result in found if result.account]


async def test_all_accounts_page_by_page(client: Client, accounts: list[str]) -> None:
    """A page at a time by its token, or one account after the other; with limits, also across pages."""
    group = accounts[0].partition(":")[0]
    first = await client.list_accounts(group, page_size=ACCOUNTS - 1)
    last = await client.list_accounts(group, page_size=1, page_token=first.next_token)
    found = [account async for account in client.accounts(group)]
    assert found == [*first.accounts, *last.accounts]
    assert last.next_token == ""
    assert {account.account_id: account.available for account in found} == dict.fromkeys(accounts, 100)
    with pytest.raises(InvalidArgument) as caught:
        await client.list_accounts("other", page_token=first.next_token)
    assert caught.value.field == "page_token"
    with pytest.raises(InvalidArgument):
        await client.list_accounts(page_size=0)


def test_all_accounts_without_asyncio(cluster: LocalCluster) -> None:
    """An iterator that may be left early, and pages."""
    group = uuid.uuid4().hex
    with SyncClient(cluster.router_addresses) as client:
        for number in range(3):
            client.open_account(f"{group}:{number}", "EUR")
        page = client.list_accounts(group, page_size=2)
        assert [*page.accounts, *client.list_accounts(group, page_token=page.next_token).accounts] == list(
            client.accounts(group)
        )
        assert next(client.accounts(group)) == page.accounts[0]


async def test_concurrent_single_transfers_all_arrive(client: Client, accounts: list[str]) -> None:
    """A thousand transfers round the ring, across all shards: everybody ends with what they began with."""
    pairs = [(accounts[at % ACCOUNTS], accounts[(at + 1) % ACCOUNTS]) for at in range(20 * ACCOUNTS)]
    results = await asyncio.gather(*(client.transfer(payer, payee, "0.05", "EUR") for payer, payee in pairs))
    assert all(result.committed for result in results)
    assert await balances(client, accounts) == [Decimal("100.00")] * ACCOUNTS
    versions = [result.account.version for result in await client.get_accounts(accounts) if result.account]
    assert versions == [1 + 40] * ACCOUNTS


async def test_single_transfer_tells_both_balances(client: Client, accounts: list[str]) -> None:
    """Balances just after, exact, on whatever shards the two accounts are."""
    for payee in accounts[1:6]:
        before = (await client.get_account(accounts[0])).available
        result = await client.transfer(accounts[0], payee, Decimal("1.25"), "EUR", return_balances=True)
        assert result.from_available == before - Decimal("1.25")
        assert result.to_available == Decimal("101.25")


async def test_same_id_again_moves_nothing(client: Client, accounts: list[str]) -> None:
    """The repetition gets the same outcome; other contents under the same id are refused."""
    first = await client.transfer(accounts[0], accounts[1], 10, "EUR")
    again = await client.transfer(accounts[0], accounts[1], 10, "EUR", transaction_id=first.transaction_id)
    assert again.committed
    with pytest.raises(TransactionIdReused):
        await client.transfer(accounts[0], accounts[1], 11, "EUR", transaction_id=first.transaction_id)
    assert await balances(client, accounts[:2]) == [Decimal("90.00"), Decimal("110.00")]


async def test_refusals_are_typed(client: Client, accounts: list[str]) -> None:
    """Each reason comes as its own error, with the id or the field it concerns."""
    payer, payee, name = accounts[0], accounts[1], str(uuid.uuid4())
    with pytest.raises(InsufficientFunds) as poor:
        await client.transfer(payer, payee, "100.01", "EUR", transaction_id=name)
    assert poor.value.transaction_id == name
    with pytest.raises(AccountNotFound):
        await client.transfer(payer, f"nobody:{name}", 1, "EUR")
    await client.open_account(f"dollars:{name}", "USD")
    with pytest.raises(CurrencyMismatch):
        await client.transfer(payer, payee, 1, "USD")
    with pytest.raises(InvalidArgument) as decimals:
        await client.transfer(payer, payee, "0.001", "EUR")
    assert decimals.value.field == "amount"
    with pytest.raises(InvalidArgument) as malformed:
        await client.deposit(payer, "1e3", "EUR")
    assert malformed.value.field == "amount"
    with pytest.raises(AccountExists):
        await client.open_account(payer, "USD")
    with pytest.raises(AccountNotFound):
        await client.get_account(f"nobody:{name}")
    with pytest.raises(TransactionNotFound):
        await client.get_transfer(uuid.uuid4(), payer)
    assert await balances(client, [payer]) == [Decimal("100.00")]


async def test_id_from_long_ago_is_expired(client: Client, accounts: list[str]) -> None:
    """A UUIDv7 of the year 2001 can no longer be told from a repetition."""
    old = TransactionIds(clock_ns=lambda: 1_000_000_000 * 10**9).new()
    with pytest.raises(TransactionIdExpired):
        await client.transfer(accounts[0], accounts[1], 1, "EUR", transaction_id=old)


async def test_batch_answers_item_by_item(client: Client, accounts: list[str]) -> None:
    """One bad item fails that item: malformed, poor and good ones side by side, in order."""
    batch = [
        Transfer(accounts[0], accounts[1], "1.00", "EUR"),
        Transfer(accounts[0], accounts[0], "1.00", "EUR"),
        Transfer(accounts[0], accounts[2], "-1", "EUR"),
        Transfer(accounts[3], accounts[4], "5000", "EUR"),
        Transfer(accounts[0], accounts[5], "1.00", "EUR", transaction_id="no uuid"),
        Transfer(accounts[5], accounts[6], "1.00", "EUR", reference="rent"),
    ]
    results = await client.transfers(batch, return_balances=True)
    assert [result.outcome for result in results] == [
        Outcome.COMMITTED,
        Outcome.INVALID_ARGUMENT,
        Outcome.INVALID_ARGUMENT,
        Outcome.INSUFFICIENT_FUNDS,
        Outcome.INVALID_ARGUMENT,
        Outcome.COMMITTED,
    ]
    assert [result.error.field for result in results if isinstance(result.error, InvalidArgument)] == [
        "to_account",
        "amount",
        "transaction_id",
    ]
    assert results[5].to_available == Decimal("101.00")


async def test_record_tells_what_became_of_a_transfer(client: Client, accounts: list[str]) -> None:
    """Committed and refused ones, deposits and withdrawals too, are found under their ids."""
    made = await client.transfer(accounts[0], accounts[1], "2.50", "EUR")
    record = await client.get_transfer(made.transaction_id, accounts[0])
    assert (record.outcome, record.amount, record.currency) == (Outcome.COMMITTED, Decimal("2.50"), "EUR")
    assert record.decided_at is not None
    taken = await client.withdraw(accounts[2], 1, "EUR")
    assert (await client.get_transfer(taken.transaction_id, accounts[2])).outcome is Outcome.COMMITTED
    refused = str(uuid.uuid4())
    with pytest.raises(InsufficientFunds):
        await client.transfer(accounts[0], accounts[1], 5000, "EUR", transaction_id=refused)
    assert (await client.get_transfer(refused, accounts[0])).outcome is Outcome.INSUFFICIENT_FUNDS


async def test_credit_line_lets_a_balance_go_below_zero(client: Client, accounts: list[str]) -> None:
    """An account with a negative minimum may spend what it does not have, down to that."""
    name = f"{uuid.uuid4().hex}:credit"
    account = await client.open_account(name, "EUR", Decimal("-50.00"))
    assert account.minimum_balance == -50
    result = await client.transfer(name, accounts[0], 50, "EUR", return_balances=True)
    assert result.from_available == -50
    with pytest.raises(InsufficientFunds):
        await client.transfer(name, accounts[0], "0.01", "EUR")


async def test_killed_router_costs_no_transfer(tmp_path: Path) -> None:
    """One of two routers dies under load: every transfer is answered, and each moved exactly once."""
    with LocalCluster(tmp_path / "data", ClusterSpec(shards=2, routers=2)) as cluster:
        async with Client(cluster.router_addresses) as client:
            names = [f"acct:{index}" for index in range(ACCOUNTS)]
            await client.open_accounts(NewAccount(name, "EUR", -100) for name in names)
            answered = asyncio.Event()

            async def pay(first: int) -> None:
                for step in range(50):
                    at = (first + step) % ACCOUNTS
                    await client.transfer(names[at], names[(at + 1) % ACCOUNTS], "0.05", "EUR", timeout_s=30)
                    answered.set()

            paying = asyncio.gather(*(pay(first) for first in range(10 * ACCOUNTS)))
            await answered.wait()
            await asyncio.to_thread(cluster.kill, "router-0")
            await paying
            found = await client.get_accounts(names)
        # Each account paid 500 times and was paid 500 times.
        versions = [result.account.version for result in found if result.account]
        assert versions == [1000] * ACCOUNTS
        assert all(result.account.available == 0 for result in found if result.account)


def test_synchronous_client_moves_money(cluster: LocalCluster) -> None:
    """The same, without asyncio."""
    payer, payee = f"{uuid.uuid4().hex}:payer", f"{uuid.uuid4().hex}:payee"
    with SyncClient(cluster.router_addresses) as client:
        client.open_account(payer, "JPY")
        client.open_account(payee, "JPY")
        client.deposit(payer, 1000, "JPY")
        results = client.transfers([Transfer(payer, payee, 10, "JPY") for _ in range(50)])
        assert all(result.committed for result in results)
        assert client.get_account(payer).available == Decimal(500)
        assert str(client.get_account(payee).available) == "500"
