"""The client's money operations against a real cluster, by both clients."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import pytest

from deploy.local.launcher import LocalCluster
from tallystick import (
    AccountClosed,
    AccountFrozen,
    AccountNotEmpty,
    AccountState,
    CaptureExceedsHold,
    Client,
    HoldNotActive,
    InsufficientFunds,
    InvalidArgument,
    JournalLeg,
    NewAccount,
    Outcome,
    PurchaseNotFound,
    RefundExceedsPurchase,
    SyncClient,
    TransactionIdReused,
    Transfer,
    TransferLimit,
    VersionMismatch,
)

pytestmark = pytest.mark.cluster


@pytest.fixture
async def client(cluster: LocalCluster) -> AsyncIterator[Client]:
    """A client of all the cluster's routers."""
    async with Client(cluster.router_addresses) as connected:
        yield connected


@pytest.fixture
async def names(client: Client) -> list[str]:
    """Six new accounts, somewhere, the first with 100 euros."""
    group = uuid.uuid4().hex
    made = [f"{group}:{index}" for index in range(6)]
    opened = await client.open_accounts(NewAccount(name, "EUR") for name in made)
    assert all(result.account for result in opened)
    await client.deposit(made[0], 100, "EUR", bank_transaction_id="SEPA 1", initiated_by="test")
    return made


async def test_purchases_and_refunds(client: Client, names: list[str]) -> None:
    """Refunds stop at what was paid, also when they come all at once."""
    customer, merchant, other, *_ = names
    bought = await client.purchase(customer, merchant, 30, "EUR", order_id="7")
    assert (bought.from_available, bought.to_available) == (Decimal(70), Decimal(30))
    checked = await client.refund(bought.transaction_id, customer, 30, "EUR", validate_only=True)
    assert (checked.outcome, checked.committed) == (Outcome.VALID, False)
    refunds = (client.refund(bought.transaction_id, customer, "7.50", "EUR") for _ in range(10))
    results = await asyncio.gather(*refunds, return_exceptions=True)
    assert sum(isinstance(result, RefundExceedsPurchase | InsufficientFunds) for result in results) == 6
    assert (await client.get_account(customer)).available == 100
    with pytest.raises(PurchaseNotFound) as caught:
        await client.refund(bought.transaction_id, other, 1, "EUR")
    assert caught.value.field == "purchase_transaction_id"


async def test_holds(client: Client, names: list[str]) -> None:
    """A hold is captured in part, or voided; what is wrong has an error of its own."""
    account, payee, *_ = names
    held = await client.hold(account, 30, "EUR", life_seconds=600)
    assert held.available == 70
    with pytest.raises(CaptureExceedsHold):
        await client.capture(held.transaction_id, account, payee, "30.01", "EUR")
    captured = await client.capture(held.transaction_id, account, payee, Decimal("12.50"), "EUR")
    assert (captured.from_available, captured.to_available) == (Decimal("87.50"), Decimal("12.50"))
    with pytest.raises(HoldNotActive):
        await client.void(held.transaction_id, account)
    second = await client.hold(account, 7, "EUR")
    assert (await client.void(second.transaction_id, account)).available == Decimal("87.50")
    found = await client.get_account(account)
    assert (found.available, found.held) == (Decimal("87.50"), Decimal(0))


async def test_journals(client: Client, names: list[str]) -> None:
    """Legs on all shards happen together; the same id again moves nothing, other legs are refused."""
    legs = [JournalLeg(names[1], "1.25", "EUR"), JournalLeg(names[0], Decimal("-5.00"), "EUR")]
    legs += [JournalLeg(name, "1.25", "EUR") for name in names[2:5]]
    assert (await client.post_journal(legs, validate_only=True)).outcome is Outcome.VALID
    done = await client.post_journal(legs, initiated_by="clerk")
    assert done.available == (Decimal("1.25"), 95, *[Decimal("1.25")] * 3)
    again = await client.post_journal(legs, initiated_by="clerk", transaction_id=done.transaction_id)
    assert (again.outcome, again.available) == (Outcome.COMMITTED, (None,) * 5)
    with pytest.raises(TransactionIdReused):
        await client.post_journal(legs, transaction_id=done.transaction_id)
    with pytest.raises(InvalidArgument) as caught:
        await client.post_journal(legs[:2])
    assert caught.value.field == "legs"
    record = await client.get_transfer(done.transaction_id, names[0])
    assert (record.outcome, record.amount) == (Outcome.COMMITTED, Decimal(5))


async def test_states_and_limits(client: Client, names: list[str]) -> None:
    """Accounts are frozen, thawed and closed, and keep to their limits."""
    account, payee, *_ = names
    limited = f"{payee}:limited"
    opened = await client.open_account(limited, "EUR", maximum_balance=50, maximum_transfer="9.50")
    assert (opened.maximum_balance, opened.maximum_transfer) == (Decimal(50), Decimal("9.50"))
    await client.transfer(account, limited, 50, "EUR")
    with pytest.raises(TransferLimit):
        await client.transfer(limited, account, "9.51", "EUR")
    assert (await client.freeze_account(limited)).state is AccountState.FROZEN
    with pytest.raises(AccountFrozen):
        await client.withdraw(limited, 1, "EUR")
    assert (await client.unfreeze_account(limited)).state is AccountState.OPEN
    with pytest.raises(AccountNotEmpty):
        await client.close_account(limited, validate_only=True)
    assert (await client.close_account(payee)).state is AccountState.CLOSED
    with pytest.raises(AccountClosed):
        await client.deposit(payee, 1, "EUR")


async def test_checked_transfers(client: Client, names: list[str]) -> None:
    """A checked transfer is VALID or raises what it would get; in a batch others are not held up by it."""
    payer, payee, *_ = names
    checked = await client.transfer(payer, payee, 100, "EUR", validate_only=True)
    assert (checked.outcome, checked.error) == (Outcome.VALID, None)
    with pytest.raises(InsufficientFunds):
        await client.transfer(payer, payee, "100.01", "EUR", validate_only=True)
    first, second = await client.transfers(
        [Transfer(payer, payee, 60, "EUR", validate_only=True), Transfer(payer, payee, 40, "EUR")]
    )
    assert (first.outcome, first.error, second.committed) == (Outcome.VALID, None, True)
    assert (await client.get_account(payee)).available == 40


async def test_transfers_on_a_condition(client: Client, names: list[str]) -> None:
    """Money moves only while the payer is at the version its caller saw: alone, in a batch, a journal."""
    payer, payee, *_ = names
    seen = (await client.get_account(payer)).version
    await client.transfer(payer, payee, 1, "EUR", expected_version=seen)
    with pytest.raises(VersionMismatch) as refused:
        await client.transfer(payer, payee, 1, "EUR", expected_version=seen)
    assert refused.value.field == "expected_version"
    results = await client.transfers(
        [Transfer(payer, payee, 1, "EUR", expected_version=version) for version in (seen, seen + 1)]
    )
    assert [result.outcome for result in results] == [Outcome.VERSION_MISMATCH, Outcome.COMMITTED]

    async def journal(version: int, account: str = payer) -> Outcome:
        others = [JournalLeg(payer, -2, "EUR"), JournalLeg(payee, 2, "EUR")]
        legs = [
            replace(one, expected_version=version) if one.account_id == account else one for one in others
        ]
        return (await client.post_journal(legs)).outcome

    assert await journal(seen + 2) is Outcome.COMMITTED
    with pytest.raises(VersionMismatch) as refused:
        await journal(seen + 2)
    assert refused.value.field == "legs[0].expected_version"
    with pytest.raises(InvalidArgument) as invalid:
        await journal(2, payee)
    assert invalid.value.field == "legs[1].expected_version"
    with pytest.raises(InvalidArgument) as invalid:
        await client.transfer(payer, payee, 1, "EUR", expected_version=-1)
    assert invalid.value.field == "expected_version"
    assert (await client.get_account(payer)).available == Decimal(96)


def test_synchronous_client(cluster: LocalCluster) -> None:
    """The same operations, without asyncio."""
    group = uuid.uuid4().hex
    customer, merchant = f"{group}:customer", f"{group}:merchant"
    with SyncClient(cluster.router_addresses) as client:
        for name in (customer, merchant):
            client.open_account(name, "JPY", maximum_transfer=500)
        client.deposit(customer, 1000, "JPY", bank_transaction_id="b")
        bought = client.purchase(customer, merchant, 300, "JPY")
        assert client.refund(bought.transaction_id, customer, 100, "JPY").to_available == 800
        held = client.hold(customer, 500, "JPY", life_seconds=60)
        assert client.capture(held.transaction_id, customer, merchant, 400, "JPY").from_available == 400
        held = client.hold(customer, 1, "JPY")
        assert client.void(held.transaction_id, customer).available == 400
        legs = [JournalLeg(customer, -400, "JPY"), JournalLeg(merchant, 400, "JPY")]
        assert client.post_journal(legs).available == (Decimal(0), Decimal(1000))
        assert client.freeze_account(customer).state is AccountState.FROZEN
        assert client.unfreeze_account(customer).state is AccountState.OPEN
        assert client.close_account(customer).state is AccountState.CLOSED
        assert client.withdraw(merchant, 500, "JPY", initiated_by="shop").from_available == 500
