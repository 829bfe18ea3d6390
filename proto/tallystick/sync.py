"""The same client for code that does not use asyncio."""

import functools
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

from tallystick.client import Client
from tallystick.loop_thread import ThreadedClient
from tallystick.values import Account, AccountPage

ResultT = TypeVar("ResultT")
Given = ParamSpec("Given")


def _waiting(
    method: Callable[Concatenate[Client, Given], Coroutine[Any, Any, ResultT]],
) -> "Callable[Concatenate[SyncClient, Given], ResultT]":
    """The same method for callers that wait, with the same arguments, results and errors."""

    @functools.wraps(method)
    def wait(client: "SyncClient", /, *args: Given.args, **kwargs: Given.kwargs) -> ResultT:
        return client._thread.run(method(client._client, *args, **kwargs))  # noqa: SLF001 - its own class

    return wait


class SyncClient(ThreadedClient[Client]):
    """A `Client` that runs in a thread of its own, with the same methods, each of which waits.

    Any number of threads may share one; their transfers leave together in batches.
    Use it with `with`, or `close` it. Not for use inside a coroutine: it would stop
    the caller's event loop.

    Args:
        addresses: "host:port" of the routers, one by one or as lists.
        settings: limits and waits.
    """

    _kind = Client

    open_account = _waiting(Client.open_account)
    open_accounts = _waiting(Client.open_accounts)
    get_account = _waiting(Client.get_account)
    get_accounts = _waiting(Client.get_accounts)
    list_accounts = _waiting(Client.list_accounts)
    freeze_account = _waiting(Client.freeze_account)
    unfreeze_account = _waiting(Client.unfreeze_account)
    close_account = _waiting(Client.close_account)
    transfer = _waiting(Client.transfer)
    transfers = _waiting(Client.transfers)
    get_transfer = _waiting(Client.get_transfer)
    deposit = _waiting(Client.deposit)
    withdraw = _waiting(Client.withdraw)
    purchase = _waiting(Client.purchase)
    refund = _waiting(Client.refund)
    hold = _waiting(Client.hold)
    capture = _waiting(Client.capture)
    void = _waiting(Client.void)
    post_journal = _waiting(Client.post_journal)

    def accounts(self, prefix: str = "", *, timeout_s: float | None = None) -> Iterator[Account]:
        """As `Client.accounts`; waits for each page when the one before it is used up."""
        # Not that iterator itself: each of its items would be waited for, in another thread.
        return page_by_page(lambda token: self.list_accounts(prefix, page_token=token, timeout_s=timeout_s))


def page_by_page(read: Callable[[str], AccountPage]) -> Iterator[Account]:
    """The accounts of all pages; `read` takes a page's token, empty for the first."""
    token = ""
    while True:
        page = read(token)
        yield from page.accounts
        token = page.next_token
        if not token:
            return
