"""The same client for code that does not use asyncio."""

from collections.abc import Callable, Iterator

from tallystick.client import Client
from tallystick.loop_thread import ThreadedClient, waiting
from tallystick.values import Account, AccountPage


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

    open_account = waiting(Client.open_account)
    open_accounts = waiting(Client.open_accounts)
    get_account = waiting(Client.get_account)
    get_accounts = waiting(Client.get_accounts)
    list_accounts = waiting(Client.list_accounts)
    freeze_account = waiting(Client.freeze_account)
    unfreeze_account = waiting(Client.unfreeze_account)
    close_account = waiting(Client.close_account)
    transfer = waiting(Client.transfer)
    transfers = waiting(Client.transfers)
    get_transfer = waiting(Client.get_transfer)
    deposit = waiting(Client.deposit)
    withdraw = waiting(Client.withdraw)
    purchase = waiting(Client.purchase)
    refund = waiting(Client.refund)
    hold = waiting(Client.hold)
    capture = waiting(Client.capture)
    void = waiting(Client.void)
    post_journal = waiting(Client.post_journal)

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
