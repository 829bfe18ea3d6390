"""The client against a real gRPC server that loses replies, is busy, goes away or hangs."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from tallystick import (
    AccountNotFound,
    AccountState,
    Client,
    ClientClosed,
    ClientSettings,
    InsufficientFunds,
    InvalidArgument,
    NewAccount,
    Outcome,
    OutcomeUnknown,
    Overloaded,
    TransactionNotFound,
    Transfer,
    Unavailable,
    WrongEventLoop,
)
from tallystick.v1 import wallet_pb2
from tests.client import stand_in
from tests.client.stand_in import StandIn, serving

# Quick retries, so that a test takes milliseconds; the calls' own deadline stays long.
QUICK = ClientSettings(first_retry_delay_s=0.001, longest_retry_delay_s=0.01, router_rest_s=0.01)


@asynccontextmanager
async def wallet(
    *faults: stand_in.Fault, settings: ClientSettings = QUICK
) -> AsyncIterator[tuple[StandIn, Client]]:
    """A stand-in where alice has 100 euros and bob none, and a client of it."""
    service = StandIn(faults)
    service.balances = {"alice": Decimal("100.00"), "bob": Decimal("0.00")}
    async with serving(service) as address, Client(address, settings=settings) as client:
        yield service, client


async def test_transfer_moves_money_and_answers_with_balances() -> None:
    """A transfer gets a UUIDv7, moves exactly its amount, and tells both balances when asked."""
    async with wallet() as (service, client):
        result = await client.transfer("alice", "bob", Decimal("12.50"), "EUR", return_balances=True)
        assert result.committed
        assert uuid.UUID(result.transaction_id).version == 7
        assert (result.from_available, result.to_available) == (Decimal("87.50"), Decimal("12.50"))
        assert service.moves == {result.transaction_id: 1}


async def test_refused_transfer_raises_its_error() -> None:
    """The error names the transfer and what the service said; nothing is tried again."""
    async with wallet() as (service, client):
        with pytest.raises(InsufficientFunds, match="alice to bob") as caught:
            await client.transfer("alice", "bob", 101, "EUR", transaction_id=uuid.UUID(int=7))
        assert caught.value.transaction_id == str(uuid.UUID(int=7))
        assert service.calls == ["BatchTransfer"]


async def test_float_is_refused_and_not_sent() -> None:
    """A float never leaves the process, alone or among others, which are sent."""
    async with wallet() as (service, client):
        with pytest.raises(InvalidArgument, match="is float"):
            await client.transfer("alice", "bob", 0.1, "EUR")  # type: ignore[arg-type]
        assert service.calls == []
        batch = [Transfer("alice", "bob", 0.1, "EUR"), Transfer("alice", "bob", 1, "EUR")]  # type: ignore[arg-type]
        first, second = await client.transfers(batch)
        assert (type(first.error), second.committed) == (InvalidArgument, True)
        assert service.batch_sizes == [1]


async def test_concurrent_transfers_leave_in_a_few_batches() -> None:
    """Two thousand callers at once cost three calls, not two thousand."""
    async with wallet() as (service, client):
        results = await asyncio.gather(*(client.transfer("alice", "bob", "0.01", "EUR") for _ in range(2000)))
        assert all(result.committed for result in results)
        assert sorted(service.batch_sizes) == [666, 667, 667]
        assert service.balances["bob"] == 20


async def test_batch_splits_into_pieces_and_keeps_its_order() -> None:
    """Each item gets its own outcome in its own place, however the batch was cut."""
    settings = ClientSettings(batch_limit=100, batch_floor=10)
    async with wallet(settings=settings) as (service, client):
        batch = [
            Transfer("alice", "nobody" if index % 7 == 0 else "bob", "0.01", "EUR", reference=str(index))
            for index in range(1001)
        ]
        results = await client.transfers(batch)
        assert [result.outcome for result in results] == [
            Outcome.ACCOUNT_NOT_FOUND if index % 7 == 0 else Outcome.COMMITTED for index in range(1001)
        ]
        assert all(isinstance(result.error, AccountNotFound) for result in results[::7])
        assert max(service.batch_sizes) <= 100
        assert await client.transfers([]) == []


async def test_lost_reply_is_asked_for_again_and_moves_nothing_twice() -> None:
    """The same id is sent again; the caller gets the one true outcome."""
    async with wallet(stand_in.work_then_break_off) as (service, client):
        result = await client.transfer("alice", "bob", 10, "EUR")
        assert result.committed
        assert service.calls == ["BatchTransfer", "BatchTransfer"]
        assert service.moves == {result.transaction_id: 1}
        assert service.balances["bob"] == 10


async def test_router_that_is_away_for_a_moment_is_asked_again() -> None:
    """UNAVAILABLE twice, then fine: the caller notices nothing."""
    async with wallet(stand_in.break_off, stand_in.break_off) as (service, client):
        assert (await client.transfer("alice", "bob", 10, "EUR")).committed
        assert len(service.calls) == 3


async def test_unknown_items_of_a_batch_alone_are_sent_again() -> None:
    """Of three transfers one is not known: only that one goes again, by its id."""
    async with wallet() as (service, client):
        ids = [str(uuid.UUID(int=index)) for index in range(3)]
        service.unknown_items = {ids[1]}
        results = await client.transfers([Transfer("alice", "bob", 1, "EUR", name) for name in ids])
        assert [result.transaction_id for result in results if result.committed] == ids
        assert service.batch_sizes == [3, 1]
        assert service.moves == dict.fromkeys(ids, 1)


async def test_busy_service_is_left_alone_as_long_as_it_asked() -> None:
    """RetryInfo holds back the next try."""
    async with wallet(stand_in.busy(retry_after_ms=150)) as (service, client):
        begin_s = asyncio.get_running_loop().time()
        assert (await client.transfer("alice", "bob", 10, "EUR")).committed
        assert asyncio.get_running_loop().time() - begin_s >= 0.15
        assert len(service.calls) == 2


async def test_deadline_without_an_answer_is_unknown_and_asking_again_tells() -> None:
    """A hanging service ends as OutcomeUnknown in time; the same id later gets the truth."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    async with wallet(stand_in.hold(begun, go_on)) as (service, client):
        with pytest.raises(OutcomeUnknown) as caught:
            await client.transfer("alice", "bob", 10, "EUR", timeout_s=0.1)
        name = caught.value.transaction_id
        assert begun.is_set()
        go_on.set()
        assert (await client.transfer("alice", "bob", 10, "EUR", transaction_id=name)).committed
        assert service.moves == {name: 1}


async def test_overload_up_to_the_deadline_says_that_nothing_was_begun() -> None:
    """Every try was refused for load, so the caller may know that nothing happened."""
    # No try can be under way at the deadline: such a one might have begun.
    async with wallet(*[stand_in.busy(retry_after_ms=990)] * 2) as (service, client):
        with pytest.raises(Overloaded):
            await client.transfer("alice", "bob", 10, "EUR", timeout_s=1.9)
        assert len(service.calls) == 2
        assert not service.moves


async def test_cancelling_one_transfer_leaves_its_batch_alone() -> None:
    """The others in the same call get their outcomes."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    async with wallet(stand_in.hold(begun, go_on)) as (service, client):
        tasks = [asyncio.create_task(client.transfer("alice", "bob", 1, "EUR")) for _ in range(5)]
        await begun.wait()
        tasks[2].cancel()
        go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[2], asyncio.CancelledError)
        assert [getattr(result, "committed", None) for result in results] == [True, True, None, True, True]
        assert service.batch_sizes == [5]


async def test_cancelled_batch_frees_its_place() -> None:
    """A batch whose caller left does not keep others from leaving."""
    settings = ClientSettings(batches_in_flight=1)
    begun, go_on = asyncio.Event(), asyncio.Event()
    async with wallet(stand_in.hold(begun, go_on), settings=settings) as (service, client):
        task = asyncio.create_task(client.transfers([Transfer("alice", "bob", 1, "EUR")] * 3))
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        go_on.set()
        assert len(await client.transfers([Transfer("alice", "bob", 1, "EUR")])) == 1
        assert service.batch_sizes == [3, 1]


async def test_cancelled_batch_that_still_waits_is_not_sent() -> None:
    """Nobody asks for its outcomes any more, so its money stays where it is."""
    settings = ClientSettings(batches_in_flight=1)
    begun, go_on = asyncio.Event(), asyncio.Event()
    async with wallet(stand_in.hold(begun, go_on), settings=settings) as (service, client):
        first = asyncio.create_task(client.transfer("alice", "bob", 1, "EUR"))
        await begun.wait()
        queued = asyncio.create_task(client.transfers([Transfer("alice", "bob", 1, "EUR")] * 3))
        assert client._connection is not None
        # The client has no event for it, and needs none: let the loop turn until the three wait.
        while "waiting=3" not in repr(client._connection.sender):  # noqa: ASYNC110
            await asyncio.sleep(0)
        queued.cancel()
        await asyncio.wait([queued])
        second = asyncio.create_task(client.transfer("alice", "bob", 1, "EUR"))
        go_on.set()
        await asyncio.gather(first, second)
        assert service.batch_sizes == [1, 1]


async def test_full_queue_refuses_at_once() -> None:
    """While the only place is taken, the queue holds so many and no more."""
    settings = ClientSettings(batches_in_flight=1, queue_limit=10)
    begun, go_on = asyncio.Event(), asyncio.Event()
    async with wallet(stand_in.hold(begun, go_on), settings=settings) as (service, client):
        first = asyncio.create_task(client.transfer("alice", "bob", 1, "EUR"))
        await begun.wait()
        waiting = [asyncio.create_task(client.transfer("alice", "bob", 1, "EUR")) for _ in range(11)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert [type(task.exception()) for task in done] == [Overloaded]
        go_on.set()
        await asyncio.gather(first, *waiting, return_exceptions=True)
        assert service.batch_sizes == [1, 10]


async def test_dead_router_is_passed_over() -> None:
    """With one of two routers away everything still succeeds, and later calls do not ask it first."""
    async with serving(StandIn()) as dead:
        pass
    async with wallet() as (service, client):
        (alive,) = client._addresses
        async with Client([dead, alive], settings=ClientSettings(first_retry_delay_s=0.001)) as both:
            for _ in range(6):
                assert (await both.transfer("alice", "bob", 1, "EUR")).committed
                assert (await both.get_account("bob")).account_id == "bob"
        assert len(service.moves) == 6


async def test_router_that_hangs_is_passed_over_within_the_deadline() -> None:
    """One try is shorter than the call: the next router gets its turn."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    settings = ClientSettings(attempt_timeout_s=0.1, first_retry_delay_s=0.001)
    hanging = StandIn([stand_in.hold(begun, go_on)] * 10)
    async with serving(hanging) as stuck, wallet() as (service, client):
        async with Client(stuck, *client._addresses, settings=settings) as both:
            results = await asyncio.gather(*(both.transfer("alice", "bob", 1, "EUR") for _ in range(10)))
        assert all(result.committed for result in results)
        assert begun.is_set()
        assert service.balances["bob"] == 10
        go_on.set()


async def test_accounts_one_by_one() -> None:
    """Open, fund, read: balances are exact, states are known."""
    async with wallet() as (_, client):
        await client.open_account("carol", "EUR")
        deposited = await client.deposit("carol", "10.10", "EUR")
        withdrawn = await client.withdraw("carol", Decimal("0.10"), "EUR")
        account = await client.get_account("carol")
        assert (deposited.to_available, withdrawn.from_available) == (Decimal("10.10"), Decimal("10.00"))
        assert (account.available, account.state) == (Decimal("10.00"), AccountState.OPEN)


async def test_unary_errors_are_typed_and_carry_fields() -> None:
    """Refusals of unary calls come as the same errors, with their field and id."""
    async with wallet() as (_, client):
        with pytest.raises(AccountNotFound):
            await client.get_account("nobody")
        with pytest.raises(InvalidArgument, match="only EUR") as invalid:
            await client.open_account("dora", "XXX")
        assert invalid.value.field == "currency"
        with pytest.raises(InsufficientFunds) as poor:
            await client.withdraw("bob", 1, "EUR", transaction_id=str(uuid.UUID(int=9)))
        assert poor.value.transaction_id == str(uuid.UUID(int=9))
        with pytest.raises(TransactionNotFound):
            await client.get_transfer(uuid.UUID(int=1), "alice")


async def test_deposit_with_a_lost_reply_happens_once() -> None:
    """Unary calls too are sent again under the same id."""
    async with wallet(stand_in.work_then_break_off) as (service, client):
        result = await client.deposit("bob", 5, "EUR")
        assert result.to_available == 5
        assert service.moves == {result.transaction_id: 1}


async def test_record_of_a_transfer_can_be_read() -> None:
    """What became of a transfer is found under its id."""
    async with wallet() as (_, client):
        made = await client.transfer("alice", "bob", 1, "EUR")
        record = await client.get_transfer(made.transaction_id, "alice")
        assert (record.outcome, record.amount) == (Outcome.COMMITTED, Decimal("1.00"))


async def test_batches_of_accounts_answer_item_by_item() -> None:
    """Opened ones with an unknown answer are asked for again, those that do not exist carry their error."""
    async with wallet() as (service, client):
        service.unknown_items = {"user:3"}
        opened = await client.open_accounts(NewAccount(f"user:{index}", "EUR") for index in range(9000))
        assert all(result.account for result in opened)
        assert service.calls == ["BatchOpenAccounts"] * 3
        found = await client.get_accounts(["user:8999", "nobody", "user:0"])
        assert [result.account_id for result in found] == ["user:8999", "nobody", "user:0"]
        assert [result.account is not None for result in found] == [True, False, True]
        assert isinstance(found[1].error, AccountNotFound)


async def test_closing_settles_transfers_in_flight_as_unknown() -> None:
    """Nobody is left waiting, and nobody is told that nothing happened."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    settings = ClientSettings(close_grace_s=0.05, batches_in_flight=1)
    async with wallet(stand_in.hold(begun, go_on), settings=settings) as (_, client):
        flying = asyncio.create_task(client.transfer("alice", "bob", 1, "EUR"))
        await begun.wait()
        queued = asyncio.create_task(client.transfer("alice", "bob", 1, "EUR"))
        reading = asyncio.create_task(client.get_account("bob"))
        await reading
        await client.close()
        with pytest.raises(OutcomeUnknown):
            await flying
        with pytest.raises(ClientClosed):
            await queued
        with pytest.raises(ClientClosed):
            await client.transfer("alice", "bob", 1, "EUR")
        with pytest.raises(ClientClosed):
            await client.transfers([Transfer("alice", "bob", 1, "EUR")])
        with pytest.raises(ClientClosed):
            await client.get_account("bob")
        go_on.set()


async def test_closing_lets_what_is_in_flight_land() -> None:
    """A transfer whose answer is on its way at closing gets it."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    async with wallet(stand_in.hold(begun, go_on)) as (_, client):
        flying = asyncio.create_task(client.transfer("alice", "bob", 1, "EUR"))
        await begun.wait()
        closing = asyncio.create_task(client.close())
        go_on.set()
        await closing
        assert (await flying).committed


async def test_channel_closed_under_a_read_is_a_read_without_an_answer() -> None:
    """A read in flight at closing fails as a retryable error, not as a cancellation of its caller."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    async with wallet(stand_in.hold(begun, go_on)) as (_, client):
        reading = asyncio.create_task(client.get_account("bob"))
        await begun.wait()
        await client.close()
        with pytest.raises(Unavailable, match="nothing moved"):
            await reading
        go_on.set()


async def test_answer_that_cannot_be_read_leaves_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    """A malformed balance is a fault worth a log line; the transfer is unknown, not lost and not refused."""
    # No second try fits, so that the first fault is the one reported.
    async with wallet(settings=ClientSettings(first_retry_delay_s=60, longest_retry_delay_s=60)) as (
        service,
        client,
    ):
        service._outcomes[str(uuid.UUID(int=5))] = wallet_pb2.TransferResponse(
            transaction_id=str(uuid.UUID(int=5)), outcome=Outcome.COMMITTED.value, from_available="a lot"
        )
        with pytest.raises(OutcomeUnknown, match="fault in the client"):
            await client.transfer(
                "alice", "bob", 1, "EUR", transaction_id=uuid.UUID(int=5), return_balances=True
            )
    assert "could not be carried" in caplog.text


async def test_no_address_or_no_time_is_a_mistake_said_at_once() -> None:
    """Wrong use raises InvalidArgument before anything is sent."""
    with pytest.raises(InvalidArgument, match="at least one router"):
        Client([])
    async with wallet() as (service, client):
        with pytest.raises(InvalidArgument, match="timeout_s: must be seconds above zero, is 0"):
            await client.transfer("alice", "bob", 1, "EUR", timeout_s=0)
        assert service.calls == []
    with pytest.raises(InvalidArgument, match="batch_limit: must be at most 8192, is 8193"):
        ClientSettings(batch_limit=8193)


async def test_a_question_to_a_dead_router_says_that_nothing_moved() -> None:
    """Reads that get no answer are Unavailable, with the router's address; what moves money stays unknown."""
    quick = ClientSettings(timeout_s=0.3, attempt_timeout_s=0.3)
    async with Client("127.0.0.1:1", settings=quick) as client:
        questions = [client.get_account("alice"), client.get_transfer(uuid.uuid4(), "alice")]
        for question in questions:
            with pytest.raises(Unavailable) as caught:
                await question
            text = str(caught.value)
            assert "no answer from 127.0.0.1:1 (" in text
            assert text.count("nothing moved, ask again") == 1
            assert "transaction_id" not in text
        (read,) = await client.get_accounts(["alice"])
        assert type(read.error) is Unavailable
        with pytest.raises(OutcomeUnknown, match=r"no answer .*; send it again with the same transaction_id"):
            await client.transfer("alice", "bob", 1, "EUR")
        with pytest.raises(OutcomeUnknown, match=r"no answer .*; send it again$"):
            await client.open_account("alice", "EUR")


def test_a_client_of_another_event_loop_says_so() -> None:
    """A second asyncio.run cannot use the first one's client, nor be hurt by closing it."""

    async def read(client: Client) -> None:
        with pytest.raises(Unavailable):
            await client.get_account("alice", timeout_s=0.05)

    async def misuse(client: Client) -> None:
        calls: list[Callable[[], Coroutine[Any, Any, object]]] = [
            lambda: client.get_account("alice"),
            lambda: client.transfer("alice", "bob", 1, "EUR"),
            lambda: client.transfers([Transfer("alice", "bob", 1, "EUR")]),
            lambda: client.get_accounts(["alice"]),
        ]
        for call in calls:
            with pytest.raises(WrongEventLoop, match="another event loop"):
                await call()
        await client.close()
        with pytest.raises(ClientClosed):
            await client.get_account("alice")

    client = Client("127.0.0.1:1")
    asyncio.run(read(client))
    asyncio.run(misuse(client))


async def test_state_shows_in_the_repr() -> None:
    """A client in a log line tells where it stands."""
    client = Client("one:1", ["two:2"])
    assert repr(client) == "<Client one:1, two:2 not connected>"
    await client.close()
    assert repr(client) == "<Client one:1, two:2 closed>"
