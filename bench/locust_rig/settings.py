"""What a Locust run is given on its command line, or in the form of its web page, checked.

Locust keeps the options itself and hands the master's to every worker, so all that a test needs is here.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from bench.locust_rig.errors import RigError
from bench.locust_rig.knee import Limits
from bench.locust_rig.service_levels import ServiceLevels
from bench.locust_rig.transfer_bytes import MAX_ACCOUNTS
from deploy.connection import find_routers
from shard_node.limits import MAX_BATCH

if TYPE_CHECKING:
    # Only its name: importing Locust replaces the standard library's threads and sockets.
    from locust.argument_parser import LocustArgumentParser

# Every run ends: at most so many steps, each at most so long.
MAX_STEPS = 1000
MAX_STEP_SECONDS = 3600.0
# Far above what any cluster does, far below what would start millions of users.
MAX_RATE = 1e8


class Mode(StrEnum):
    """Which users there are, unless the command line names their classes."""

    BATCH = "batch"
    UNARY = "unary"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class RigSettings:
    """A test. Rates count transfers a second, except those of users, which count their calls a second."""

    routers: tuple[str, ...]
    accounts: int
    batch: int
    batch_user_rate: float
    unary_user_rate: float
    target_rate: float
    step: float
    step_seconds: float
    settle_seconds: float
    call_timeout_seconds: float
    # The share of transfers whose payer has no funds.
    reject_share: float
    # Whether INSUFFICIENT_FUNDS is no failure.
    expect_insufficient_funds: bool
    limits: Limits
    levels: ServiceLevels


def add_options(parser: LocustArgumentParser) -> None:
    """Adds the rig's options to Locust's. Those that a test may change are fields of the web page, too."""
    # Not in a group of their own: Locust shows only what the parser itself was given.
    add = parser.add_argument
    add(
        "--routers",
        default="",
        metavar="HOST:PORT,...",
        include_in_web_ui=False,
        help="Tallystick: routers; default: those of --data",
    )
    add(
        "--data",
        default="tallystick-data",
        metavar="DIR",
        include_in_web_ui=False,
        help="Folder of a cluster",
    )
    add(
        "--mode",
        choices=[mode.value for mode in Mode],
        default=Mode.BATCH.value,
        include_in_web_ui=False,
        help="Users: batch, unary, or as many of both",
    )
    add("--accounts", type=int, default=100_000, help="Accounts, opened when a test starts")
    add("--batch", type=int, default=1000, help="Transfers in one BatchTransfer")
    add("--target-rate", type=float, default=20_000.0, help="Transfers/s to climb to")
    add("--step", type=float, default=2_000.0, help="Transfers/s that each step adds")
    add("--step-seconds", type=float, default=10.0, help="How long each step is measured")
    add("--settle-seconds", type=float, default=2.0, help="How long each step runs before it is measured")
    add("--batch-user-rate", type=float, default=1.0, help="Batches/s of one batch user")
    add("--unary-user-rate", type=float, default=10.0, help="Transfers/s of one unary user")
    add("--call-timeout-seconds", type=float, default=15.0, help="How long an answer may take")
    add("--reject-share", type=float, default=0.0, help="Share of transfers whose payer has no funds")
    add(
        "--expect-insufficient-funds",
        action="store_true",
        help="INSUFFICIENT_FUNDS is no failure, and counted apart; so with --reject-share above 0",
    )
    add("--follow-share", type=float, default=0.95, help="Share of a step's rate that it must reach")
    add("--slo-p99-ms", type=float, default=0.0, help="Service level: p99 at most; 0: any")
    add("--slo-min-rate", type=float, default=0.0, help="Service level: transfers/s at the knee at least")
    add("--slo-max-failures", type=float, default=0.0, help="Service level: share of failures at most")


def read_settings(options: argparse.Namespace) -> RigSettings:
    """The settings; RigError for a bad one, NoClusterError when no routers are named or found."""
    check = _Checked(options)
    reject_share = check.between("reject_share", 0, 1)
    target_rate, step = check.between("target_rate", 1, MAX_RATE), check.between("step", 1, MAX_RATE)
    if target_rate / step > MAX_STEPS:
        raise RigError(
            f"--step: at most {MAX_STEPS} steps lead to --target-rate, not {target_rate / step:.0f}"
        )
    p99_ms = check.between("slo_p99_ms", 0, math.inf)
    return RigSettings(
        routers=tuple(find_routers(options.routers or None, Path(options.data))),
        accounts=check.whole("accounts", 2, MAX_ACCOUNTS),
        batch=check.whole("batch", 1, MAX_BATCH),
        batch_user_rate=check.between("batch_user_rate", 0.01, 1e6),
        unary_user_rate=check.between("unary_user_rate", 0.01, 1e6),
        target_rate=target_rate,
        step=step,
        step_seconds=check.between("step_seconds", 1, MAX_STEP_SECONDS),
        settle_seconds=check.between("settle_seconds", 0, MAX_STEP_SECONDS),
        call_timeout_seconds=check.between("call_timeout_seconds", 0.01, 600),
        reject_share=reject_share,
        expect_insufficient_funds=bool(options.expect_insufficient_funds) or reject_share > 0,
        limits=Limits(p99_ms, check.between("follow_share", 0.1, 1)),
        levels=ServiceLevels(
            p99_ms, check.between("slo_min_rate", 0, MAX_RATE), check.between("slo_max_failures", 0, 1)
        ),
    )


class _Checked:
    """Reads numbers and names the option, its limits and the value when one is out of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options

    def between(self, name: str, least: float, most: float) -> float:
        return self._read(name, least, most, float)

    def whole(self, name: str, least: int, most: int) -> int:
        return int(self._read(name, least, most, int))

    def _read(self, name: str, least: float, most: float, kind: Callable[[str], float]) -> float:
        value = getattr(self._options, name)
        option = "--" + name.replace("_", "-")
        try:
            number = kind(value)
        except ValueError:
            raise RigError(f"{option} must be a number, not {value!r}") from None
        # Written so that NaN is refused too.
        if not least <= number <= most:
            limits = f"at least {least:,}" if most == math.inf else f"{least:,} to {most:,}"
            raise RigError(f"{option} must be {limits}, not {value}")
        return number
