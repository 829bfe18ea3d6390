"""The base of Locust's users that move money: its calls time and report themselves."""

import functools
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar

import gevent
from locust import User
from locust.env import Environment
from locust.exception import LocustError

from tallystick.errors import InvalidArgument, Outcome, TallystickError
from tallystick.locust.greenlets import Done, GreenletClient, to_its_end
from tallystick.locust.lifecycle import addresses_of, shared_client
from tallystick.locust.reporting import Outcomes, outcomes_of, report, reported
from tallystick.settings import ClientSettings
from tallystick.sync import page_by_page
from tallystick.values import Account, AccountResult, TransferResult

ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT", AccountResult, TransferResult)
Given = ParamSpec("Given")

_CARRIED_OUT: Outcomes = ((1, None),)


class TallystickUser(User):
    """A user of Locust's with a wallet: inherit from it, and write tasks that use `self.wallet`.

    Its host is the routers' addresses, "HOST:PORT" or several with commas between: the class's `host`, or
    Locust's own `--host`. All users of a process share one client.

    Attributes:
        wallet: the client's methods, of which each reports itself to Locust.
        expected: outcomes that are no failure to this test, such as `{Outcome.INSUFFICIENT_FUNDS}`; of the
            class, or set on a user for a while. They are counted apart, as "transfer INSUFFICIENT_FUNDS".
        client_settings: of the client that the users share; None for its defaults.
    """

    abstract = True
    expected: Collection[Outcome] = ()
    client_settings: ClassVar[ClientSettings | None] = None

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        if not self.host:
            raise LocustError(
                f"{type(self).__name__} needs the routers: --host HOST:PORT,..., or `host` in the class"
            )
        try:
            addresses_of(self.host)
        except InvalidArgument as error:
            raise LocustError(f"{type(self).__name__}: {error}") from error
        self.wallet = Wallet(self)

    def report(self, name: str, latency_ms: float, outcomes: Outcomes, length: int = 0) -> None:
        """Reports one call's operations; see `tallystick.locust.reporting.report`."""
        report(self, name, latency_ms, outcomes, self.expected, length)

    def end_if_killed(self, done: Done[Any]) -> None:
        """Ends this user, once the call is counted during which Locust stopped it."""
        if done.killed:
            raise gevent.GreenletExit


def _reporting(
    method: Callable[Concatenate[GreenletClient, Given], ResultT],
) -> "Callable[Concatenate[Wallet, Given], ResultT]":
    """The same method, reported as one operation of its name."""

    @functools.wraps(method)
    def call(wallet: "Wallet", /, *args: Given.args, **kwargs: Given.kwargs) -> ResultT:
        return wallet._call(method, lambda _: _CARRIED_OUT, *args, **kwargs)  # noqa: SLF001 - its own class

    return call


def _reporting_items(
    method: Callable[Concatenate[GreenletClient, Given], list[ItemT]],
) -> "Callable[Concatenate[Wallet, Given], list[ItemT]]":
    """The same method, of which each item is reported as an operation."""

    @functools.wraps(method)
    def call(wallet: "Wallet", /, *args: Given.args, **kwargs: Given.kwargs) -> list[ItemT]:
        return wallet._call(method, outcomes_of, *args, **kwargs)  # noqa: SLF001 - its own class

    return call


class Wallet:
    """The methods of `SyncClient`, each of which times itself and is reported to Locust under its own name.

    A call that is refused, or gets no final answer, raises the client's error once it is reported. Where a
    task does not catch it, that ends the task's round, and the user goes on with the next one.
    """

    def __init__(self, user: TallystickUser) -> None:
        self._user = user

    open_account = _reporting(GreenletClient.open_account)
    open_accounts = _reporting_items(GreenletClient.open_accounts)
    get_account = _reporting(GreenletClient.get_account)
    get_accounts = _reporting_items(GreenletClient.get_accounts)
    list_accounts = _reporting(GreenletClient.list_accounts)
    freeze_account = _reporting(GreenletClient.freeze_account)
    unfreeze_account = _reporting(GreenletClient.unfreeze_account)
    close_account = _reporting(GreenletClient.close_account)
    transfer = _reporting(GreenletClient.transfer)
    transfers = _reporting_items(GreenletClient.transfers)
    get_transfer = _reporting(GreenletClient.get_transfer)
    deposit = _reporting(GreenletClient.deposit)
    withdraw = _reporting(GreenletClient.withdraw)
    purchase = _reporting(GreenletClient.purchase)
    refund = _reporting(GreenletClient.refund)
    hold = _reporting(GreenletClient.hold)
    capture = _reporting(GreenletClient.capture)
    void = _reporting(GreenletClient.void)
    post_journal = _reporting(GreenletClient.post_journal)

    def accounts(self, prefix: str = "", *, timeout_s: float | None = None) -> Iterator[Account]:
        """As `SyncClient.accounts`; each page is reported as a `list_accounts`."""
        return page_by_page(lambda token: self.list_accounts(prefix, page_token=token, timeout_s=timeout_s))

    def _call(
        self,
        method: Callable[Concatenate[GreenletClient, Given], ResultT],
        outcomes: Callable[[ResultT], Outcomes],
        *args: Given.args,
        **kwargs: Given.kwargs,
    ) -> ResultT:
        client = shared_client(self._user.host or "", self._user.client_settings)
        began = time.perf_counter()
        done = to_its_end(lambda: method(client, *args, **kwargs))
        latency_ms = (time.perf_counter() - began) * 1000
        told = reported(done.error) if isinstance(done.error, TallystickError) else None
        if told is not None:
            self._user.report(method.__name__, latency_ms, ((1, told),))
        elif done.error is None:
            self._user.report(method.__name__, latency_ms, outcomes(done.result))
        self._user.end_if_killed(done)
        if told is not None:
            raise told from done.error
        if done.error is not None:
            # Nothing was sent: an argument of a wrong type, say.
            raise done.error
        return done.result
