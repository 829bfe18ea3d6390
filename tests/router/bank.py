"""Accounts for the tests over gRPC: opened where a test wants them, funded, looked at, frozen."""

from __future__ import annotations

import itertools
import time
from binascii import crc_hqx
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from redis import Redis

from shard_node.contract import AccountState

if TYPE_CHECKING:
    from deploy.local.launcher import LocalCluster
    from tests.router.contract import Client, Contract

T = TypeVar("T")

# What happens by itself, such as a settlement, takes a second at most; a busy machine, longer.
WAIT_SECONDS = 20.0
POLL_SECONDS = 0.05

_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Route:
    """Hash tags that pin payer and payee to shards: to the same one, or to two."""

    name: str
    payer_tag: str
    payee_tag: str


@dataclass(frozen=True, slots=True)
class Look:
    """An account at one moment."""

    available: str
    held: str
    version: int
    state: int


class Bank:
    """Makes accounts on chosen shards and asks for transfers between them."""

    def __init__(self, contract: Contract, cluster: LocalCluster, wallet: Client, operators: Client) -> None:
        self.contract = contract
        self.wallet = wallet
        self._operators = operators
        self._cluster = cluster
        self._shard_by_tag: dict[str, str] = {}
        # One tag a shard, found as a stranger would: by the hash slot function of Redis Cluster.
        for shard in operators.call("GetTopology").shards:
            ranges = [range(r.first, r.last + 1) for r in shard.slots]
            tags = (f"at{n}" for n in itertools.count())
            tag = next(t for t in tags if any(crc_hqx(t.encode(), 0) % 16384 in r for r in ranges))
            self._shard_by_tag[tag] = shard.shard_id

    @property
    def tags(self) -> list[str]:
        """A hash tag for each shard."""
        return list(self._shard_by_tag)

    @property
    def routes(self) -> dict[str, Route]:
        """A way within a shard and one across two."""
        first, second, *_ = self.tags
        return {
            "same shard": Route("same shard", first, first),
            "across shards": Route("across shards", first, second),
        }

    def shard_of(self, account_id: str) -> str:
        """The shard that an account made here is on."""
        return self._shard_by_tag[account_id[1 : account_id.index("}")]]

    @staticmethod
    def name(tag: str) -> str:
        """An id that no account has yet, on the tag's shard."""
        return f"{{{tag}}}:router-{next(_NUMBERS)}"

    def open(self, tag: str, funds: str = "", currency: str = "EUR", minimum_balance: str = "0") -> str:
        """A new account with that much money; its id."""
        account_id = self.name(tag)
        self.wallet.call(
            "OpenAccount", account_id=account_id, currency=currency, minimum_balance=minimum_balance
        )
        if funds:
            self.fund(account_id, funds, currency)
        return account_id

    def fund(self, account_id: str, amount: str, currency: str = "EUR") -> None:
        """Brings money into an account."""
        self.wallet.call(
            "Deposit", transaction_id=new_id(), account_id=account_id, amount=amount, currency=currency
        )

    def pair(self, route: Route, funds: str = "100.00", currency: str = "EUR") -> tuple[str, str]:
        """A payer with money and a payee without."""
        return self.open(route.payer_tag, funds, currency), self.open(route.payee_tag, currency=currency)

    def look(self, *account_ids: str) -> dict[str, Look | None]:
        """Accounts as they stand, None for those that are not there."""
        results = self.wallet.call("BatchGetAccounts", account_ids=account_ids).results
        found: dict[str, Look | None] = {}
        for account_id, result in zip(account_ids, results, strict=True):
            account = result.account
            found[account_id] = (
                Look(account.available, account.held, account.version, account.state)
                if result.HasField("account")
                else None
            )
        return found

    def available(self, account_id: str) -> str:
        """What can be spent of an account."""
        look = self.look(account_id)[account_id]
        assert look is not None
        return look.available

    def outcome(self, result: Any) -> str:
        """The name of a result's outcome, without its prefix."""
        return self.contract.name("Outcome", result.outcome).removeprefix("OUTCOME_")

    def set_state(self, account_id: str, state: AccountState) -> None:
        """Freezes an account; or takes all money out of it, and closes it."""
        if state is AccountState.CLOSED:
            account = self.wallet.call("GetAccount", account_id=account_id)
            if account.available.strip("0."):
                money = {"amount": account.available, "currency": account.currency}
                self.wallet.call("Withdraw", transaction_id=new_id(), account_id=account_id, **money)
        method = {AccountState.FROZEN: "FreezeAccount", AccountState.CLOSED: "CloseAccount"}[state]
        assert self.wallet.call(method, account_id=account_id).state == state + 1

    def command(self, shard_id: str, command: str, *arguments: bytes | int) -> Any:
        """A command of the engine, as the shard answers it."""
        topology = self._operators.call("GetTopology")
        (epoch,) = (shard.epoch for shard in topology.shards if shard.shard_id == shard_id)
        fence = f"{topology.cluster_id}/{shard_id}/{epoch}"
        with self.redis(shard_id) as redis:
            return redis.execute_command(f"tallystick.{command}", fence, *arguments)

    @contextmanager
    def redis(self, shard_id: str) -> Iterator[Redis]:
        """The Redis of a shard."""
        host, _, port = self._cluster.shard_addresses[shard_id].rpartition(":")
        with Redis(host=host, port=int(port)) as redis:
            yield redis


def wait_for(probe: Callable[[], T | None], what: str) -> T:
    """The first thing that the probe finds; fails when it finds nothing in time."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (found := probe()) is None:
        assert time.monotonic() < deadline, f"no {what} within {WAIT_SECONDS:.0f} s"
        time.sleep(POLL_SECONDS)
    return found


def new_id() -> str:
    """A transaction id that was never used."""
    return str(uuid4())


def payment(
    payer: str, payee: str, amount: str = "1.00", currency: str = "EUR", transaction_id: str = ""
) -> dict[str, Any]:
    """The fields of a transfer, with a new id unless one is given."""
    return {
        "transaction_id": transaction_id or new_id(),
        "from_account": payer,
        "to_account": payee,
        "amount": amount,
        "currency": currency,
        "reference": "test",
    }
