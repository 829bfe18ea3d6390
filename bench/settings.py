"""What a measurement is asked for: the cluster's shape, the load's shape, how long and how often.

Plain values, checked once when they are made. A field is an option of a command, too: its limits and its help
stand here once (see `bench.command`). Nothing here needs the packages that the load itself needs.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from bench.errors import BenchError
from shard_node.limits import MAX_BATCH

# After this long a run by count has failed to be one.
LONGEST_RUN_SECONDS = 600.0
# Bounds of what one machine holds: a shard keeps some 500 bytes a transfer in memory. Ids have six digits.
MAX_ACCOUNTS = 1_000_000
MAX_TRANSFERS = 20_000_000
MAX_SERVERS = 64
MAX_IN_FLIGHT = 100_000
# As nice(1) has it.
_MAX_NICENESS = 19
# Steeper than this, a handful of accounts does everything: that is what a hot account is for.
_MAX_THETA = 3.0
# Two entries a transfer: more than the longest run makes, so that no shard refuses for its archiver's sake.
MAX_BACKLOG_ENTRIES = 50_000_000
# Archiving is work for later: on a busy machine it gives way to the transfers, and its backlog says how much.
ARCHIVER_NICENESS = 10
# Calls in flight when nobody says: enough to keep a small cluster busy, or to let a late one pile up.
CLOSED_IN_FLIGHT = 8
OPEN_IN_FLIGHT = 256

# Options under the titles of `--help`: who reads it looks for one of these.
_cluster = partial(typer.Option, rich_help_panel="Cluster")
_load = partial(typer.Option, rich_help_panel="Load")
_who = partial(typer.Option, rich_help_panel="Who pays whom")
_length = partial(typer.Option, rich_help_panel="Length")
_output = partial(typer.Option, rich_help_panel="Output")


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


ShardsOption = Annotated[int, typer.Option(min=1, max=MAX_SERVERS, help="Redis shards.")]
ArchiversOption = Annotated[
    int,
    _cluster(min=0, max=MAX_SERVERS, help="Archivers; with 0 the ledger waits on the shards till the end."),
]
BatchOption = Annotated[int, _load(min=1, max=MAX_BATCH, help="Transfers in one BatchTransfer.")]
AccountsOption = Annotated[
    int, typer.Option(min=2, max=MAX_ACCOUNTS, help="Accounts, all with a credit line.")
]
SecondsOption = Annotated[float, typer.Option(min=0.1, max=LONGEST_RUN_SECONDS, help="How long a run lasts.")]
RunsOption = Annotated[int, typer.Option(min=1, max=100, help="Runs; the median counts.")]
SeedOption = Annotated[int, typer.Option(help="The same seed draws the same transfers.")]
_DistributionOption = Annotated[Distribution, _who(help="How accounts are chosen.")]
_ThetaOption = Annotated[float, _who(min=0.0, max=_MAX_THETA, help="Of zipfian: how uneven it is.")]
_HotOption = Annotated[
    HotAccount | None,
    _who(
        "--hot-account",
        help="One and the same account in every transfer: a merchant on a great day (payee), or payday.",
    ),
]
_SameShardOption = Annotated[
    float | None,
    _who(
        min=0.0,
        max=1.0,
        metavar="SHARE",
        help="Share of transfers within a shard (ids get hash tags). Default: as it happens.",
    ),
]
_RejectionsOption = Annotated[
    float,
    _who(
        min=0.0,
        max=1.0,
        metavar="SHARE",
        help="Share of transfers whose payer has no funds; each must be refused for that.",
    ),
]


@dataclass(frozen=True, slots=True)
class Shape:
    """Who pays whom: everything about the transfers but when they are sent.

    ``same_shard`` is the share of transfers within one shard, None as chance has it. ``rejections`` is the
    share that asks a payer without funds. Raises BenchError for values that contradict each other.
    """

    accounts: AccountsOption = 100_000
    distribution: _DistributionOption = Distribution.UNIFORM
    theta: _ThetaOption = 0.99
    hot: _HotOption = None
    same_shard: _SameShardOption = None
    rejections: _RejectionsOption = 0.0

    def __post_init__(self) -> None:
        check_limits(self)
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

    shards: ShardsOption = 2
    routers: Annotated[int, _cluster(min=1, max=MAX_SERVERS, help="Routers, used in turn.")] = 1
    coordinators: Annotated[int, _cluster(min=1, max=MAX_SERVERS, help="Coordinators.")] = 1
    archivers: ArchiversOption = 1
    archiver_niceness: Annotated[
        int,
        _cluster(
            min=0,
            max=_MAX_NICENESS,
            help="How far archivers give way to transfers on a busy machine, as nice(1) has it. What they "
            "leave for later is reported as the backlog.",
        ),
    ] = ARCHIVER_NICENESS
    max_backlog: Annotated[
        int,
        _cluster(
            min=1, metavar="ENTRIES", help="So many that wait to be archived, and a shard refuses transfers."
        ),
    ] = MAX_BACKLOG_ENTRIES
    routers_at: Annotated[
        str,
        _cluster(
            metavar="HOST:PORT[,...]",
            help="Aim at a cluster that runs already, in place of one of its own; then the CPU time of the "
            "clients alone is known. It keeps the accounts.",
        ),
    ] = ""
    data: Annotated[
        Path | None,
        _cluster(
            metavar="DIR",
            help="Where the cluster is kept; stays. Default: a temporary folder, removed at the end.",
        ),
    ] = None
    keep: Annotated[bool, _cluster("--keep", help="Keep the temporary folder.")] = False
    batch: BatchOption = 1000
    unary: Annotated[bool, _load("--unary", help="Single Transfer calls, no batches.")] = False
    clients: Annotated[int, _load(min=1, max=MAX_SERVERS, help="Load processes.")] = 1
    concurrency: Annotated[
        int | None,
        _load(
            min=1,
            max=MAX_IN_FLIGHT,
            help="Calls in flight, all load processes together. Default: "
            f"{CLOSED_IN_FLIGHT}; with --rate, where it is only a bound, {OPEN_IN_FLIGHT}.",
        ),
    ] = None
    rate: Annotated[
        float | None,
        _load(
            min=0.1,
            max=10_000_000.0,
            help="Transfers a second, due at times fixed in advance (an open loop), from which latencies "
            "count. Default: a call follows an answer (a closed loop).",
        ),
    ] = None
    arrivals: Annotated[Arrivals, _load(help="With --rate, how calls are spaced.")] = Arrivals.POISSON
    accounts: AccountsOption = 100_000
    distribution: _DistributionOption = Distribution.UNIFORM
    theta: _ThetaOption = 0.99
    hot: _HotOption = None
    hot_payee: Annotated[bool, _who("--hot-payee", help="The same as --hot-account payee.")] = False
    same_shard: _SameShardOption = None
    cross_share: Annotated[
        CrossShare, _who(help="Which transfers cross shards: as it happens, all, or none.")
    ] = CrossShare.ANY
    rejections: _RejectionsOption = 0.0
    seed: SeedOption = 1
    seconds: SecondsOption = 10.0
    transfers: Annotated[
        int | None, _length(min=1, max=MAX_TRANSFERS, help="Transfers in a run, in place of --seconds.")
    ] = None
    runs: RunsOption = 5
    report: Annotated[
        Path | None, _output(metavar="DIR", help="Also write report.json, report.md and pictures there.")
    ] = None

    def __post_init__(self) -> None:
        check_limits(self)
        if self.transfers is not None:
            _within("transfers", self.transfers, self.clients, MAX_TRANSFERS)
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

    def document(self) -> dict[str, Any]:
        """What was asked for, in values that JSON has: short forms as what they stand for."""
        asked = asdict(self)
        for name in ("data", "keep", "report", "hot_payee", "cross_share"):
            del asked[name]
        shape = self.shape
        return {**asked, "hot": shape.hot, "same_shard": shape.same_shard, "concurrency": self.in_flight}


def check_limits(settings: object) -> None:
    """Raises BenchError for a field that is out of the limits of its option."""
    for name, hint in get_type_hints(type(settings), include_extras=True).items():
        value = getattr(settings, name)
        for option in getattr(hint, "__metadata__", ()):
            if value is not None and option.min is not None:
                _within(name, value, option.min, math.inf if option.max is None else option.max)


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise BenchError(f"{name}: {value:,} is not within {least:,} to {most:,}")
