"""Locust's users: each sends at a steady rate, one call at a time.

Latency is counted from when a call was due, not from when it was sent: a cluster that stalls, or a generator
that does, makes the calls behind it late, and their lateness is in the percentiles (no coordinated omission).
"""

from __future__ import annotations

import random
import time
from typing import ClassVar

import gevent
from locust import User, task
from locust.exception import StopUser

from bench.locust_rig.answers import INSUFFICIENT_FUNDS, batch_outcomes, single_outcome
from bench.locust_rig.calls import RouterCalls, Routers
from bench.locust_rig.settings import RigSettings
from bench.locust_rig.statistics import count_transfers
from bench.locust_rig.transfer_bytes import TransferRequests


class Rig:
    """What all users of this process share during a test."""

    def __init__(self, settings: RigSettings) -> None:
        self.settings = settings
        self.requests = TransferRequests(settings.accounts, settings.reject_share)
        self.routers = Routers(settings.routers, settings.call_timeout_seconds)
        self.expected = frozenset({INSUFFICIENT_FUNDS} if settings.expect_insufficient_funds else ())


class TransferUser(User):
    """What both kinds of users have in common."""

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
        raise NotImplementedError

    def on_start(self) -> None:
        """Takes a router, and a moment of its own, so that the users do not all send at once."""
        self._router: RouterCalls = self.rig.routers.next()
        self._interval_seconds = 1 / self.calls_per_second(self.rig.settings)
        gevent.sleep(random.uniform(0, self._interval_seconds))
        self._due = time.perf_counter()

    def wait_time(self) -> float:
        """Seconds until the next call is due: none when this user is behind."""
        self._due += self._interval_seconds
        return max(0.0, self._due - time.perf_counter())

    def _latency_ms(self) -> float:
        return (time.perf_counter() - self._due) * 1000


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
        batch = self.rig.requests.batch(self.rig.settings.batch)
        done = self._router.batch_transfer(batch.request)
        outcomes = batch_outcomes(batch, done.answer)
        size = len(done.answer) if isinstance(done.answer, bytes) else 0
        latency_ms = self._latency_ms()
        count_transfers(
            self.environment.stats, "BatchTransfer", latency_ms, outcomes, self.rig.expected, size
        )
        if done.killed:
            raise StopUser


class UnaryTransferUser(TransferUser):
    """Sends single transfers, --unary-user-rate of them a second."""

    @classmethod
    def calls_per_second(cls, settings: RigSettings) -> float:
        """Transfers a second."""
        return settings.unary_user_rate

    @classmethod
    def transfers_per_second(cls, settings: RigSettings) -> float:
        """The same."""
        return settings.unary_user_rate

    @task
    def transfer(self) -> None:
        """One transfer."""
        single = self.rig.requests.single()
        done = self._router.transfer(single.request)
        outcome = single_outcome(single, done.answer)
        size = len(done.answer) if isinstance(done.answer, bytes) else 0
        count_transfers(
            self.environment.stats, "Transfer", self._latency_ms(), {outcome: 1}, self.rig.expected, size
        )
        if done.killed:
            raise StopUser
