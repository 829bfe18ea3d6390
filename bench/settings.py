"""What a measurement is asked for: the cluster's shape, the load's shape, how long and how often.

Plain values, checked once when they are made; nothing here needs the packages that the load itself needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bench.errors import BenchError
from shard_node.limits import MAX_BATCH

# After this long a run by count has failed to be one.
LONGEST_RUN_SECONDS = 600.0
# Bounds of what one machine holds: a shard keeps some 500 bytes a transfer in memory. Ids have six digits.
MAX_ACCOUNTS = 1_000_000
MAX_TRANSFERS = 20_000_000
MAX_SERVERS = 64
MAX_RUNS = 100
MAX_IN_FLIGHT = 4096
MAX_RATE = 10_000_000.0
# Steeper than this, a handful of accounts does everything: that is what a hot account is for.
MAX_THETA = 3.0
# Two entries a transfer: more than the longest run makes, so that no shard refuses for its archiver's sake.
MAX_BACKLOG_ENTRIES = 50_000_000
# Archiving is work for later: on a busy machine it gives way to the transfers, and its backlog says how much.
ARCHIVER_NICENESS = 10
# Calls in flight when nobody says: enough to keep a small cluster busy, or to let a late one pile up.
CLOSED_IN_FLIGHT = 8
OPEN_IN_FLIGHT = 256


class CrossShare(StrEnum):
    """Which transfers cross shards: as chance has it, all of them, or none."""

    ANY = "any"
    CROSS = "cross"
    SAME = "same"


class Distribution(StrEnum):
    """How often each account is chosen: all alike, or by Zipf's law, the first one most."""

    UNIFORM = "uniform"
    ZIPFIAN = "zipfian"


class HotAccount(StrEnum):
    """The side on which one and the same account stands in every transfer."""

    PAYER = "payer"
    PAYEE = "payee"


class Arrivals(StrEnum):
    """When the calls of an open loop are due: independent of each other, or evenly spaced."""

    POISSON = "poisson"
    EVEN = "even"


@dataclass(frozen=True, slots=True)
class Shape:
    """Who pays whom: everything about the transfers but when they are sent.

    ``same_shard`` is the share of transfers within one shard, None as chance has it. ``rejections`` is the
    share that asks a payer without funds. Raises BenchError for values that contradict each other.
    """

    accounts: int = 100_000
    distribution: Distribution = Distribution.UNIFORM
    theta: float = 0.99
    hot: HotAccount | None = None
    same_shard: float | None = None
    rejections: float = 0.0

    def __post_init__(self) -> None:
        _within("accounts", self.accounts, 2, MAX_ACCOUNTS)
        _within("theta", self.theta, 0.0, MAX_THETA)
        _within("rejections", self.rejections, 0.0, 1.0)
        if self.same_shard is not None:
            _within("same_shard", self.same_shard, 0.0, 1.0)
        if self.hot is HotAccount.PAYER and self.rejections:
            raise BenchError("rejections: a hot payer has funds, so no transfer of it is refused")


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """What to measure. A run ends after ``seconds``, or after ``transfers`` when that is given.

    ``rate`` (transfers a second, all load processes together) makes it an open loop: calls are due at times
    fixed in advance, whatever the answers do. Without it each answer lets the next call go. ``concurrency``
    is the most calls in flight, all load processes together; `in_flight` says what None stands for.
    Raises BenchError for values out of their limits.
    """

    shards: int = 2
    routers: int = 1
    coordinators: int = 1
    accounts: int = 100_000
    batch: int = 1000
    concurrency: int | None = None
    seconds: float = 10.0
    transfers: int | None = None
    runs: int = 5
    seed: int = 1
    cross_share: CrossShare = CrossShare.ANY
    # The same as ``hot=HotAccount.PAYEE``.
    hot_payee: bool = False
    archivers: int = 1
    # A temporary folder when None, removed at the end unless ``keep``.
    data: Path | None = None
    keep: bool = False
    clients: int = 1
    # Single Transfer calls in place of batches.
    unary: bool = False
    rate: float | None = None
    arrivals: Arrivals = Arrivals.POISSON
    distribution: Distribution = Distribution.UNIFORM
    theta: float = 0.99
    hot: HotAccount | None = None
    same_shard: float | None = None
    rejections: float = 0.0
    max_backlog: int = MAX_BACKLOG_ENTRIES
    archiver_niceness: int = ARCHIVER_NICENESS
    # host:port of the routers of a cluster that runs already, in place of one of its own.
    routers_at: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("shards", "routers", "coordinators", "clients"):
            _within(name, getattr(self, name), 1, MAX_SERVERS)
        _within("archivers", self.archivers, 0, MAX_SERVERS)
        _within("batch", self.batch, 1, MAX_BATCH)
        _within("seconds", self.seconds, 0.1, LONGEST_RUN_SECONDS)
        _within("runs", self.runs, 1, MAX_RUNS)
        if self.transfers is not None:
            _within("transfers", self.transfers, self.clients, MAX_TRANSFERS)
        if self.rate is not None:
            _within("rate", self.rate, 0.1, MAX_RATE)
        if self.concurrency is not None:
            _within("concurrency", self.concurrency, self.clients, MAX_IN_FLIGHT)
        if self.same_shard is not None and self.cross_share is not CrossShare.ANY:
            raise BenchError("same_shard: say how many cross once, by this or by cross_share")
        if self.hot_payee and self.hot is HotAccount.PAYER:
            raise BenchError("hot_payee: the hot account cannot be on both sides")
        # Made for its checks.
        _ = self.shape

    @property
    def shape(self) -> Shape:
        """What the transfers are."""
        shares = {CrossShare.ANY: self.same_shard, CrossShare.CROSS: 0.0, CrossShare.SAME: 1.0}
        return Shape(
            self.accounts,
            self.distribution,
            self.theta,
            HotAccount.PAYEE if self.hot_payee else self.hot,
            shares[self.cross_share],
            self.rejections,
        )

    @property
    def in_flight(self) -> int:
        """The most calls in flight, all load processes together."""
        usual = CLOSED_IN_FLIGHT if self.rate is None else OPEN_IN_FLIGHT
        return self.concurrency or max(self.clients, usual)

    @property
    def transfers_a_call(self) -> int:
        """How many transfers one call carries."""
        return 1 if self.unary else self.batch

    @property
    def longest_seconds(self) -> float:
        """How long calls are sent at most."""
        return self.seconds if self.transfers is None else LONGEST_RUN_SECONDS


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise BenchError(f"{name}: {value:,} is not within {least:,} to {most:,}")
