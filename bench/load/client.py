"""The load: processes of their own that send calls and read every answer.

Every request is built, with new ids, while the clock runs, and every answer is compared with the one that it
should be. So what that costs is in the client's CPU time, and in the rate. What makes a run fail is in
`bench.load.tally`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import grpc
import grpc.aio
import uvloop

from bench.errors import BenchError
from bench.load.arrivals import due_times
from bench.load.generator import CALL_TIMEOUT_SECONDS, Generator, Method
from bench.load.tally import Tally
from bench.settings import LONGEST_RUN_SECONDS, Arrivals, Shape
from bench.transfers import CURRENCY, Supply, Wire, Workload, make_accounts
from tallystick.v1 import wallet_pb2, wallet_pb2_grpc

# The most that BatchOpenAccounts and BatchGetAccounts take is 8192; smaller ones leave a small router's tail.
ACCOUNTS_A_CALL = 4096
_SERVICE = "/tallystick.v1.WalletService"
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", 16 * 2**20),
    ("grpc.max_receive_message_length", 16 * 2**20),
    ("grpc.enable_retries", 0),
)


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What the load of one process is, for all runs.

    ``owners`` is the shard of each slot, as a number. ``concurrency`` is this process' own; ``rate``, in
    transfers a second, that of all processes together, None for a closed loop.
    """

    routers: Sequence[str]
    owners: Sequence[int]
    shape: Shape
    transfers_a_call: int
    unary: bool
    concurrency: int
    seed: int
    rate: float | None = None
    arrivals: Arrivals = Arrivals.POISSON
    process: int = 0
    processes: int = 1


@dataclass(frozen=True, slots=True)
class OpenAccounts:
    """Order: open this process' share of the accounts. Answer: :class:`Moves`."""


@dataclass(frozen=True, slots=True)
class ReadAccounts:
    """Order: read this process' share of the accounts. Answer: :class:`Moves`."""


@dataclass(frozen=True, slots=True)
class Moves:
    """How many changes these accounts together have seen: a transfer makes two."""

    changes: int


@dataclass(frozen=True, slots=True)
class Run:
    """Order: send load for so many seconds, or so many transfers. Answer: :class:`Counted`.

    ``begin_at`` is on the machine's monotonic clock, so that all processes begin at once; ``transfers`` is
    for all processes together.
    """

    number: int
    begin_at: float
    seconds: float = LONGEST_RUN_SECONDS
    transfers: int | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """What one process saw of a run. ``seconds`` is from its beginning to the last answer."""

    committed: int
    insufficient_funds: int
    seconds: float
    # Histograms, as `Latencies.encoded` gives them.
    latencies: bytes
    lags: bytes
    per_second: Sequence[int]


Order = OpenAccounts | ReadAccounts | Run
Answer = Moves | Counted


class LoadClient:
    """Carries out orders, one at a time, over one channel a router."""

    def __init__(self, settings: LoadSettings) -> None:
        self._settings = settings
        self._accounts = make_accounts(settings.shape)
        self._workload = Workload(settings.shape, self._accounts, settings.owners)
        self._supply = Supply(self._workload, Wire(self._accounts.ids), settings.transfers_a_call)
        self._channels = [grpc.aio.insecure_channel(r, options=_CHANNEL_OPTIONS) for r in settings.routers]
        self._stubs = [wallet_pb2_grpc.WalletServiceStub(channel) for channel in self._channels]
        name = "Transfer" if settings.unary else "BatchTransfer"
        # Without serializers: bytes in, bytes out.
        self._methods = [
            cast("Method", channel.unary_unary(f"{_SERVICE}/{name}")) for channel in self._channels
        ]

    async def carry_out(self, order: Order) -> Answer:
        """The answer to an order; BenchError when it cannot be carried out."""
        try:
            if isinstance(order, OpenAccounts):
                return Moves(await self._open_accounts())
            if isinstance(order, ReadAccounts):
                return Moves(await self._read_accounts())
            return await self._run(order)
        except grpc.aio.AioRpcError as error:
            advice = ""
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                advice = " (too much was in flight: a lower rate, or a lower concurrency)"
            raise BenchError(f"a call failed with {error.code().name}: {error.details()}{advice}") from error

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels:
            await channel.close()

    async def send(self, order: Run, seed: str, tally: Tally) -> None:
        """Sends the load of a run, and counts every answer; BenchError for one that should not be."""
        settings = self._settings
        generator = Generator(self._methods, self._supply, tally, unary=settings.unary)
        if settings.rate is None:
            await generator.closed(settings.concurrency, self._sizes(order))
        else:
            calls_a_second = settings.rate / settings.transfers_a_call
            due = due_times(calls_a_second, settings.arrivals, seed, settings.process, settings.processes)
            await generator.open(settings.concurrency, self._scheduled(order, due))

    async def _open_accounts(self) -> int:
        changes = 0
        ids, minimum_balances = self._accounts.ids, self._accounts.minimum_balances
        for stub, page in self._pages():
            requests = [
                wallet_pb2.OpenAccountRequest(
                    account_id=ids[at], currency=CURRENCY, minimum_balance=minimum_balances[at]
                )
                for at in page
            ]
            response = await stub.BatchOpenAccounts(
                wallet_pb2.BatchOpenAccountsRequest(accounts=requests), timeout=CALL_TIMEOUT_SECONDS
            )
            changes += _versions(response, len(page))
        return changes

    async def _read_accounts(self) -> int:
        changes = 0
        for stub, page in self._pages():
            ids = [self._accounts.ids[at] for at in page]
            response = await stub.BatchGetAccounts(
                wallet_pb2.BatchGetAccountsRequest(account_ids=ids), timeout=CALL_TIMEOUT_SECONDS
            )
            changes += _versions(response, len(page))
        return changes

    def _pages(self) -> Iterator[tuple[wallet_pb2_grpc.WalletServiceStub, range]]:
        """This process' share of the accounts in pages, their positions, each for a router to be asked."""
        total = len(self._accounts.ids)
        firsts = range(0, total, ACCOUNTS_A_CALL)
        for number in range(self._settings.process, len(firsts), self._settings.processes):
            # In turn, so that every channel is connected before the first run.
            stub = self._stubs[number % len(self._stubs)]
            yield stub, range(firsts[number], min(firsts[number] + ACCOUNTS_A_CALL, total))

    async def _run(self, order: Run) -> Counted:
        seed = f"{self._settings.seed}/{self._settings.process}/{order.number}"
        self._supply.start(seed)
        tally = Tally(order.begin_at)
        await asyncio.sleep(max(0.0, order.begin_at - time.monotonic()))
        await self.send(order, seed, tally)
        seconds = time.monotonic() - order.begin_at
        count = tally.committed + tally.refused
        if order.transfers is not None and count < self._share(order.transfers):
            raise BenchError(f"transfers: {order.transfers:,} took longer than {order.seconds:.0f} s")
        return Counted(
            tally.committed,
            tally.refused,
            seconds,
            tally.latencies.encoded(),
            tally.lags.encoded(),
            tally.per_second,
        )

    def _sizes(self, order: Run) -> Iterator[int]:
        """How many transfers each call of a closed loop has, until the run's time or count is over."""
        ending = order.begin_at + order.seconds
        for size in self._counted(order):
            if time.monotonic() >= ending:
                return
            yield size

    def _scheduled(self, order: Run, due: Iterator[float]) -> Iterator[tuple[float, int]]:
        """The moment and size of each call of an open loop, until the run's time or count is over."""
        for size, seconds in zip(self._counted(order), due, strict=False):
            if seconds >= order.seconds:
                return
            yield order.begin_at + seconds, size

    def _counted(self, order: Run) -> Iterator[int]:
        left = None if order.transfers is None else self._share(order.transfers)
        most = self._settings.transfers_a_call
        while left is None or left > 0:
            size = most if left is None else min(left, most)
            if left is not None:
                left -= size
            yield size

    def _share(self, transfers: int) -> int:
        """How many of all processes' transfers are this one's."""
        each, more = divmod(transfers, self._settings.processes)
        return each + (self._settings.process < more)


class LoadHandler:
    """A load process: a client carries out orders, one at a time, on an event loop of its own."""

    def __init__(self, settings: LoadSettings, client_type: type[LoadClient] = LoadClient) -> None:
        async def connected() -> LoadClient:
            # A channel belongs to the event loop that runs when it is made.
            return client_type(settings)

        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._client = self._runner.run(connected())

    def carry_out(self, order: Order) -> Answer:
        """The answer to an order; BenchError when it cannot be carried out."""
        return self._runner.run(self._client.carry_out(order))

    def close(self) -> None:
        """Closes the channels and the loop."""
        self._runner.run(self._client.close())
        self._runner.close()


def _versions(response: wallet_pb2.BatchAccountsResponse, count: int) -> int:
    """The changes that these accounts have seen. Raises BenchError when one is refused or left out."""
    for result in response.results:
        if result.HasField("refusal"):
            raise BenchError(f"an account was refused: {result.refusal.message}")
    if len(response.results) != count:
        raise BenchError(f"{len(response.results)} answers for {count} accounts")
    return sum(result.account.version for result in response.results)
