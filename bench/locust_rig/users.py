"""Locust's users: each sends at a steady rate, one call at a time.

Latency is counted from when a call was due, not from when it was sent: a cluster that stalls, or a generator
that does, makes the calls behind it late, and their lateness is in the percentiles (no coordinated omission).
"""

from __future__ import annotations

import itertools
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import ClassVar

import gevent
import grpc
from gevent.event import Event
from locust import task
from locust.stats import RequestStats, StatsError

from bench.locust_rig.answers import COMMITTED, batch_outcomes, single_outcome
from bench.locust_rig.settings import RigSettings
from bench.transfers import Supply, Wire, Workload
from shard_node.cluster import SLOT_COUNT
from tallystick import Outcome, Overloaded, Refused, TallystickError
from tallystick.errors import ERROR_TYPES
from tallystick.locust import TallystickUser
from tallystick.locust.greenlets import Done, to_its_end
from tallystick.locust.reporting import Outcomes, reported
from tallystick.transport import CHANNEL_OPTIONS

# The methods, and how transfers are named in the statistics.
BATCH, SINGLE = "BatchTransfer", "Transfer"
_SERVICE = "/tallystick.v1.WalletService/"

# Calls a method by its name. Its error, if it has one, is a grpc.RpcError.
Router = Callable[[str, bytes], Done[bytes]]


class Routers:
    """A channel to each router, shared by all users of this process; users take the routers in turn."""

    def __init__(self, addresses: Sequence[str], timeout_seconds: float) -> None:
        self._channels = [grpc.insecure_channel(address, options=CHANNEL_OPTIONS) for address in addresses]
        self._turns = itertools.cycle([_router(channel, timeout_seconds) for channel in self._channels])

    def next(self) -> Router:
        """The router whose turn it is."""
        return next(self._turns)

    def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels:
            channel.close()


def _router(channel: grpc.Channel, timeout_seconds: float) -> Router:
    # Neither serializer nor parser: bytes.
    methods: dict[str, grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {
        name: channel.unary_unary(_SERVICE + name) for name in (BATCH, SINGLE)
    }

    def answer(name: str, request: bytes) -> bytes:
        future = methods[name].future(request, timeout=timeout_seconds)
        ended = Event()
        future.add_done_callback(lambda _: ended.set())
        ended.wait()
        return future.result()

    return lambda name, request: to_its_end(lambda: answer(name, request))


class Rig:
    """What all users of this process share during a test."""

    def __init__(self, settings: RigSettings) -> None:
        self.settings = settings
        accounts = settings.all_accounts
        # Which shard an account is on decides nothing here.
        workload = Workload(settings.accounts_shape, accounts, [0] * SLOT_COUNT)
        self.supply = Supply(workload, Wire(accounts.ids), settings.batch)
        # Every process draws other pairs.
        self.supply.start(secrets.token_hex())
        self.routers = Routers(settings.routers, settings.call_timeout_seconds)
        self.expected = {Outcome.INSUFFICIENT_FUNDS} if settings.expect_insufficient_funds else set()


class TransferUser(TallystickUser):
    """What both kinds of users have in common. Their calls are bytes, and not their wallet's."""

    abstract = True
    # Of the test that runs; a process runs one at a time.
    rig: ClassVar[Rig]

    @classmethod
    def calls_per_second(cls, settings: RigSettings) -> float:
        """How often a user of this class sends."""
        raise NotImplementedError

    @classmethod
    def transfers_per_second(cls, settings: RigSettings) -> float:
        """How many transfers a user of this class sends."""
        return cls.calls_per_second(settings)

    def on_start(self) -> None:
        """Takes a router, and a moment of its own, so that the users do not all send at once."""
        self.expected = self.rig.expected
        self._router: Router = self.rig.routers.next()
        self._interval_seconds = 1 / self.calls_per_second(self.rig.settings)
        gevent.sleep(random.uniform(0, self._interval_seconds))
        self._due = time.perf_counter()

    def wait_time(self) -> float:
        """Seconds until the next call is due: none when this user is behind."""
        self._due += self._interval_seconds
        return max(0.0, self._due - time.perf_counter())

    def _count(self, name: str, done: Done[bytes], outcomes: Mapping[str, int]) -> None:
        """Reports the transfers of a call that has ended by how many had which outcome."""
        latency_ms = (time.perf_counter() - self._due) * 1000
        self.report(name, latency_ms, _with_errors(outcomes), 0 if done.error else len(done.result))
        self.end_if_killed(done)


class BatchTransferUser(TransferUser):
    """Sends batches of --batch transfers, --batch-user-rate of them a second."""

    @classmethod
    def calls_per_second(cls, settings: RigSettings) -> float:
        """Batches a second."""
        return settings.batch_user_rate

    @classmethod
    def transfers_per_second(cls, settings: RigSettings) -> float:
        """Transfers a second."""
        return settings.batch_user_rate * settings.batch

    @task
    def batch_transfer(self) -> None:
        """One batch."""
        batch = self.rig.supply.next(self.rig.settings.batch)
        done = self._router(BATCH, batch.batch_request())
        self._count(BATCH, done, batch_outcomes(batch, done.error or done.result))


class UnaryTransferUser(TransferUser):
    """Sends single transfers, --unary-user-rate of them a second."""

    @classmethod
    def calls_per_second(cls, settings: RigSettings) -> float:
        """Transfers a second."""
        return settings.unary_user_rate

    @task
    def transfer(self) -> None:
        """One transfer."""
        single = self.rig.supply.next(1)
        done = self._router(SINGLE, single.single_request())
        self._count(SINGLE, done, {single_outcome(single, done.error or done.result): 1})


def _with_errors(outcomes: Mapping[str, int]) -> Outcomes:
    """The counts by outcome with the error that stands for each, as `TallystickUser.report` wants them."""
    return [(count, _error(name)) for name, count in outcomes.items()]


@cache
def _error(name: str) -> TallystickError | None:
    if name == COMMITTED:
        return None
    outcome = Outcome.__members__.get(name)
    # Locust shows the name of the type of an error that has no outcome of the contract.
    kind = ERROR_TYPES[outcome] if outcome else type(name, (TallystickError,), {})
    return reported(kind())


def counted(stats: RequestStats) -> tuple[int, int]:
    """How many transfers Locust was told of as committed, and of how many it does not know the outcome."""
    done = sum(
        entry.num_requests - entry.num_failures
        for (name, _), entry in stats.entries.items()
        if name in {BATCH, SINGLE}
    )
    doubtful = sum(
        error.occurrences
        for error in stats.errors.values()
        # On a master it is text.
        if not _nothing_moved(StatsError.parse_error(error.error))
    )
    return done, doubtful


def _nothing_moved(name: str) -> bool:
    outcome = Outcome.__members__.get(name)
    return outcome is not None and issubclass(ERROR_TYPES[outcome], Refused | Overloaded)
