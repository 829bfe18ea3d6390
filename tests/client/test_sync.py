"""The synchronous client, against a stand-in in a process of its own."""

import threading
from decimal import Decimal

import pytest

from tallystick import (
    AccountNotFound,
    ClientClosed,
    NewAccount,
    RetryableError,
    SyncClient,
    Transfer,
    Unavailable,
)

pytestmark = pytest.mark.servers


def test_every_method_waits_for_its_answer(address: str) -> None:
    """The methods are those of the asyncio client, with plain results."""
    with SyncClient(address) as client:
        assert client.open_account("carol", "EUR").available == 0
        assert client.open_accounts([NewAccount("dora", "EUR")])[0].account is not None
        assert client.deposit("carol", "10.00", "EUR").committed
        made = client.transfer("carol", "dora", Decimal("2.50"), "EUR", return_balances=True)
        assert made.to_available == Decimal("2.50")
        assert client.transfers([Transfer("carol", "dora", 1, "EUR")])[0].committed
        assert client.withdraw("carol", 1, "EUR").from_available == Decimal("5.50")
        assert client.get_account("dora").available == Decimal("3.50")
        assert [result.account_id for result in client.get_accounts(["dora", "carol"])] == ["dora", "carol"]
        assert client.get_transfer(made.transaction_id, "carol").outcome == made.outcome
        assert repr(client) == f"<SyncClient {address} open>"


def test_errors_are_raised_in_the_callers_thread(address: str) -> None:
    """A refusal looks the same as in asyncio."""
    with SyncClient(address) as client, pytest.raises(AccountNotFound):
        client.get_account("nobody")


def test_threads_share_one_client(address: str) -> None:
    """Eight threads transfer at once; every cent arrives."""
    with SyncClient(address) as client:
        before = client.get_account("bob").available

        def pay() -> None:
            for _ in range(25):
                client.transfer("alice", "bob", "0.01", "EUR")

        threads = [threading.Thread(target=pay) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.get_account("bob").available - before == Decimal("2.00")


def test_closing_ends_the_thread_and_later_calls_say_so(address: str) -> None:
    """Nothing of a closed client is left running; closing twice is fine."""
    client = SyncClient(address)
    client.get_account("alice")
    client.close()
    client.close()
    assert not client._thread.is_alive()
    with pytest.raises(ClientClosed):
        client.get_account("alice")


def test_closing_leaves_no_thread_waiting(address: str) -> None:
    """Threads in the middle of calls hear that the client is closed, whenever that happens."""
    client = SyncClient(address)
    ended: list[RetryableError] = []
    begun = threading.Barrier(5)

    def read() -> None:
        client.get_account("alice")
        begun.wait()
        try:
            while True:
                client.get_account("alice")
        except RetryableError as error:
            ended.append(error)

    threads = [threading.Thread(target=read, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    client.close()
    for thread in threads:
        thread.join(timeout=20)
    assert {type(error) for error in ended} <= {ClientClosed, Unavailable}
    assert len(ended) == 4
