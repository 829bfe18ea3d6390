"""The load: one process of its own that sends batches and reads every answer.

It works as a service would, with the contract's stubs: every request is built, with new ids, while the clock
runs, and every outcome is read and counted. So what that costs is in the client's CPU time, and in the rate.
Invariant: a run that saw anything but COMMITTED and INSUFFICIENT_FUNDS, or an answer out of order, fails.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import grpc
import grpc.aio
import uvloop

from bench.errors import BenchError
from bench.workload import (
    CURRENCY,
    MINIMUM_BALANCE,
    CrossShare,
    Payments,
    Workload,
    account_ids,
    possible_payees,
)
from tallystick import new_transaction_id
from tallystick.v1 import outcome_pb2, wallet_pb2, wallet_pb2_grpc

# Longer than a router's own deadline for a call that brings none: its answer says more than our time-out.
CALL_TIMEOUT_SECONDS = 15.0
# The most that BatchOpenAccounts and BatchGetAccounts take is 8192; smaller ones leave a small router's tail.
ACCOUNTS_A_CALL = 4096
# After this long a run by count has failed to be one.
LONGEST_RUN_SECONDS = 600.0

_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", 16 * 2**20),
    ("grpc.max_receive_message_length", 16 * 2**20),
    ("grpc.enable_retries", 0),
)
_COUNTED = {outcome_pb2.OUTCOME_COMMITTED, outcome_pb2.OUTCOME_INSUFFICIENT_FUNDS}


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What the load is, for all runs. ``owners`` is the shard of each slot, as a number."""

    routers: Sequence[str]
    owners: Sequence[int]
    accounts: int
    batch: int
    concurrency: int
    seed: int
    cross_share: CrossShare
    # Every transfer pays one and the same account.
    hot_payee: bool = False


@dataclass(frozen=True, slots=True)
class OpenAccounts:
    """Order: open the accounts. Answer: :class:`Moves`."""


@dataclass(frozen=True, slots=True)
class ReadAccounts:
    """Order: read the accounts. Answer: :class:`Moves`."""


@dataclass(frozen=True, slots=True)
class Moves:
    """How many changes all accounts together have seen: a transfer makes two."""

    changes: int


@dataclass(frozen=True, slots=True)
class Run:
    """Order: send load for so many seconds, or so many transfers. Answer: :class:`RunResult`."""

    number: int
    seconds: float = LONGEST_RUN_SECONDS
    transfers: int | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run saw. ``seconds`` is from before the first batch was built to after the last was read."""

    committed: int
    insufficient_funds: int
    seconds: float
    batch_seconds: Sequence[float]

    @property
    def transfers(self) -> int:
        """All that had an outcome."""
        return self.committed + self.insufficient_funds


@dataclass(frozen=True, slots=True)
class Failed:
    """Answer to any order that could not be carried out."""

    message: str


Order = OpenAccounts | ReadAccounts | Run
Answer = Moves | RunResult | Failed


@dataclass(slots=True)
class Tally:
    """Outcomes and times of the batches of one run."""

    outcomes: Counter[int] = field(default_factory=Counter)
    batch_seconds: list[float] = field(default_factory=list)

    def add(
        self, request: wallet_pb2.BatchTransferRequest, response: wallet_pb2.BatchTransferResponse
    ) -> None:
        """Reads every outcome. Raises BenchError for one that should not be, or is not of its transfer."""
        results = response.results
        if [r.transaction_id for r in results] != [t.transaction_id for t in request.transfers]:
            raise BenchError("the answers of a batch are not those of its transfers, in their order")
        outcomes = Counter([r.outcome for r in results])
        if not outcomes.keys() <= _COUNTED:
            odd = next(r for r in results if r.outcome not in _COUNTED)
            raise BenchError(f"{outcome_pb2.Outcome.Name(odd.outcome)}: {odd.refusal.message}")
        self.outcomes.update(outcomes)


def batch_request(payments: Payments) -> wallet_pb2.BatchTransferRequest:
    """The message for a batch, each transfer with a new UUIDv7."""
    request = wallet_pb2.BatchTransferRequest()
    add = request.transfers.add
    for payer, payee, amount in zip(payments.payers, payments.payees, payments.amounts, strict=True):
        add(
            transaction_id=new_transaction_id(),
            from_account=payer,
            to_account=payee,
            amount=amount,
            currency=CURRENCY,
        )
    return request


class LoadClient:
    """Carries out orders, one at a time, over one channel a router."""

    def __init__(self, settings: LoadSettings) -> None:
        self._settings = settings
        self._accounts = account_ids(settings.accounts, settings.cross_share)
        self._payees = possible_payees(self._accounts, settings.owners, settings.cross_share)
        self._channels = [grpc.aio.insecure_channel(r, options=_CHANNEL_OPTIONS) for r in settings.routers]
        self._stubs = [wallet_pb2_grpc.WalletServiceStub(channel) for channel in self._channels]

    async def carry_out(self, order: Order) -> Answer:
        """The answer to an order; failures are answers too."""
        try:
            if isinstance(order, OpenAccounts):
                return Moves(await self._open_accounts())
            if isinstance(order, ReadAccounts):
                return Moves(await self._read_accounts())
            return await self._run(order)
        except BenchError as error:
            return Failed(str(error))
        except grpc.aio.AioRpcError as error:
            return Failed(f"a call failed with {error.code().name}: {error.details()}")

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels:
            await channel.close()

    async def _open_accounts(self) -> int:
        changes = 0
        for ids in self._pages():
            requests = [
                wallet_pb2.OpenAccountRequest(
                    account_id=account_id, currency=CURRENCY, minimum_balance=MINIMUM_BALANCE
                )
                for account_id in ids
            ]
            response = await self._stubs[0].BatchOpenAccounts(
                wallet_pb2.BatchOpenAccountsRequest(accounts=requests), timeout=CALL_TIMEOUT_SECONDS
            )
            changes += _versions(response, len(ids))
        return changes

    async def _read_accounts(self) -> int:
        changes = 0
        for ids in self._pages():
            response = await self._stubs[0].BatchGetAccounts(
                wallet_pb2.BatchGetAccountsRequest(account_ids=ids), timeout=CALL_TIMEOUT_SECONDS
            )
            changes += _versions(response, len(ids))
        return changes

    async def _run(self, order: Run) -> RunResult:
        settings = self._settings
        workload = Workload(
            f"{settings.seed}/{order.number}", self._accounts, self._payees, hot_payee=settings.hot_payee
        )
        tally = Tally()
        begun = time.monotonic()
        sizes = self._sizes(order, begun)
        try:
            async with asyncio.TaskGroup() as workers:
                for worker in range(settings.concurrency):
                    stub = self._stubs[worker % len(self._stubs)]
                    workers.create_task(self._send_batches(stub, workload, sizes, tally))
        except ExceptionGroup as failures:
            # The others follow from the first, or say the same.
            raise failures.exceptions[0] from None
        seconds = time.monotonic() - begun
        committed = tally.outcomes[outcome_pb2.OUTCOME_COMMITTED]
        refused = tally.outcomes[outcome_pb2.OUTCOME_INSUFFICIENT_FUNDS]
        if order.transfers is not None and committed + refused < order.transfers:
            raise BenchError(f"{order.transfers} transfers took longer than {order.seconds:.0f} s")
        return RunResult(committed, refused, seconds, tally.batch_seconds)

    async def _send_batches(
        self,
        stub: wallet_pb2_grpc.WalletServiceStub,
        workload: Workload,
        sizes: Iterator[int],
        tally: Tally,
    ) -> None:
        """One batch after the other; the workers share ``sizes``."""
        for size in sizes:
            request = batch_request(workload.draw(size))
            sent = time.monotonic()
            response = await stub.BatchTransfer(request, timeout=CALL_TIMEOUT_SECONDS)
            tally.batch_seconds.append(time.monotonic() - sent)
            tally.add(request, response)

    def _sizes(self, order: Run, begun: float) -> Iterator[int]:
        """How many transfers each batch has, until the run's time or count is over."""
        left = order.transfers
        while time.monotonic() - begun < order.seconds and left != 0:
            size = self._settings.batch if left is None else min(left, self._settings.batch)
            if left is not None:
                left -= size
            yield size

    def _pages(self) -> Iterator[Sequence[str]]:
        for first in range(0, len(self._accounts), ACCOUNTS_A_CALL):
            yield self._accounts[first : first + ACCOUNTS_A_CALL]


def serve(orders: Connection, settings: LoadSettings) -> None:
    """The process: answers orders until the other end is closed."""
    # A terminal's Ctrl-C is for the process that started this one, which then ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        client: LoadClient | None = None
        try:
            while True:
                order: Order = orders.recv()
                client = client or runner.run(_connected(settings))
                orders.send(runner.run(client.carry_out(order)))
        except EOFError:
            pass
        except BenchError as error:
            orders.send(Failed(str(error)))
        finally:
            if client is not None:
                runner.run(client.close())


async def _connected(settings: LoadSettings) -> LoadClient:
    # A channel belongs to the event loop that runs when it is made.
    return LoadClient(settings)


def _versions(response: wallet_pb2.BatchAccountsResponse, count: int) -> int:
    """The changes that these accounts have seen. Raises BenchError when one is refused or left out."""
    for result in response.results:
        if result.HasField("refusal"):
            raise BenchError(f"an account was refused: {result.refusal.message}")
    if len(response.results) != count:
        raise BenchError(f"{len(response.results)} answers for {count} accounts")
    return sum(result.account.version for result in response.results)
