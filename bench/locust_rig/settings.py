"""What a Locust run is given on its command line, or in the form of its web page, checked.

Locust keeps the options itself and hands the master's to every worker, so all that a test needs is here.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.locust_rig.knee import Limits
from bench.locust_rig.service_levels import ServiceLevels
from bench.settings import MAX_ACCOUNTS, Shape
from bench.transfers import Accounts, make_accounts
from deploy.local import DEFAULT_DATA, find_routers
from shard_node.limits import MAX_BATCH

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
    # Where a cluster of this machine keeps its own file.
    data: Path
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

    @property
    def accounts_shape(self) -> Shape:
        """Who pays whom: all alike."""
        return Shape(self.accounts, rejections=self.reject_share)

    @property
    def all_accounts(self) -> Accounts:
        """The accounts, of names of their own: a test does not meet what another measurement left behind."""
        return make_accounts(self.accounts_shape, "locust")


@dataclass(frozen=True, slots=True)
class _Number:
    """An option that is a number, of the default's type: its limits, its help."""

    default: float
    least: float
    most: float
    text: str
    metavar: str = "N"

    def read(self, option: str, value: Any) -> float:
        """The value as a number; BenchError that names the option, its limits and the value."""
        try:
            number = type(self.default)(value)
        except ValueError:
            raise BenchError(f"{option} must be a number, not {value!r}") from None
        # Written so that NaN is refused too.
        if not self.least <= number <= self.most:
            limits = f"{self.least:,} to {self.most:,}"
            if self.most == math.inf:
                limits = f"at least {self.least:,}"
            raise BenchError(f"{option} must be {limits}, not {value}")
        return number


_NUMBERS = {
    "--accounts": _Number(100_000, 2, MAX_ACCOUNTS, "opened when a test starts"),
    "--batch": _Number(1000, 1, MAX_BATCH, "transfers in one BatchTransfer"),
    "--target-rate": _Number(20_000.0, 1, MAX_RATE, "transfers/s to climb to"),
    "--step": _Number(2_000.0, 1, MAX_RATE, "transfers/s that each step adds"),
    "--step-seconds": _Number(10.0, 1, MAX_STEP_SECONDS, "how long each step is measured"),
    "--settle-seconds": _Number(2.0, 0, MAX_STEP_SECONDS, "how long each step runs before it is measured"),
    "--batch-user-rate": _Number(1.0, 0.01, 1e6, "batches/s of one batch user"),
    "--unary-user-rate": _Number(10.0, 0.01, 1e6, "transfers/s of one unary user"),
    "--call-timeout-seconds": _Number(15.0, 0.01, 600, "how long an answer may take"),
    "--reject-share": _Number(0.0, 0, 1, "share of transfers whose payer has no funds, 0 to 1", "SHARE"),
    "--follow-share": _Number(0.95, 0.1, 1, "share of a step's rate that it must reach, 0 to 1", "SHARE"),
    "--slo-p99-ms": _Number(0.0, 0, math.inf, "service level of each step: p99 in ms at most; 0: any"),
    "--slo-min-rate": _Number(0.0, 0, MAX_RATE, "service level: transfers/s at the knee at least"),
    "--slo-max-failures": _Number(0.0, 0, 1, "service level: of all transfers at most, 0 to 1", "SHARE"),
}
# They are of a whole run, not of a test.
_NOT_ON_PAGE = ("--routers", "--data", "--mode")
# Locust's page makes labels of these names, and their values come back under what it makes of the labels: a
# digit would not survive that.
_FIELDS = {
    "--slo-p99-ms": "highest_latency",
    "--slo-min-rate": "lowest_rate",
    "--slo-max-failures": "highest_share_of_failures",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the rig's options to Locust's. Those that a test may change are fields of the web page, too."""
    group = parser.add_argument_group(
        "Tallystick", "The climb of bench/locustfile.py, and its service levels."
    )

    def add(option: str, default: Any, text: str, metavar: str = "N", **more: Any) -> None:
        if not isinstance(default, bool):
            more |= {"type": type(default), "metavar": metavar}
        action = group.add_argument(option, dest=field_of(option), default=default, help=text, **more)
        # What Locust's parser keeps of an option, but not its groups.
        for name in ("is_secret", "is_required", "is_multiple"):
            setattr(action, name, False)
        action.include_in_web_ui = option not in _NOT_ON_PAGE  # type: ignore[attr-defined]

    add("--routers", "", "Routers; default: those of --data", "HOST:PORT,...")
    add("--data", str(DEFAULT_DATA), "Folder of a cluster of this machine", "DIR")
    modes = [mode.value for mode in Mode]
    add("--mode", Mode.BATCH.value, "Users: batch, unary, or as many of both", "MODE", choices=modes)
    for option, number in _NUMBERS.items():
        add(option, number.default, number.text, number.metavar)
    text = "INSUFFICIENT_FUNDS is no failure, and counted apart; so with a reject share above 0"
    add("--expect-insufficient-funds", default=False, text=text, action="store_true")


def field_of(option: str) -> str:
    """The name of an option's value, which is the name of its field on the web page."""
    return _FIELDS.get(option, option.removeprefix("--").replace("-", "_"))


# Options of Locust's own for what the climb decides, by their fields, with the values that they have unasked.
_REFUSED = {
    "num_users": ("-u", (None,), "--target-rate decides, and what one user sends: --batch-user-rate"),
    "spawn_rate": ("-r", (None,), "the users of a step start at once"),
    "run_time": (
        "-t",
        (None,),
        "the climb ends at its knee or at --target-rate, each step after --step-seconds",
    ),
    "reset_stats": ("--reset-stats", (False,), "each step is measured by itself"),
    "exit_code_on_error": ("--exit-code-on-error", (1,), "the service levels decide: --slo-max-failures"),
}


def refuse_what_does_nothing(options: argparse.Namespace) -> None:
    """Raises BenchError for an option of Locust's that was given and would change nothing, or only harm."""
    for name, (option, defaults, reason) in _REFUSED.items():
        if getattr(options, name) not in defaults:
            raise BenchError(f"{option} does nothing here: {reason}")
    if options.host and options.routers:
        raise BenchError("--host and --routers are the same here: give one of them")


def read_settings(options: argparse.Namespace, host: str = "") -> RigSettings:
    """The settings; BenchError for a bad one, NoClusterError when no routers are named or found.

    Args:
        options: Locust's, with the rig's.
        host: the routers, as Locust's page may have changed them; empty: those of the options.
    """
    data = Path(options.data)
    numbers: dict[str, Any] = {
        field_of(option): number.read(option, getattr(options, field_of(option)))
        for option, number in _NUMBERS.items()
    }
    steps = numbers["target_rate"] / numbers["step"]
    if steps > MAX_STEPS:
        raise BenchError(f"--step: at most {MAX_STEPS} steps lead to --target-rate, not {steps:.0f}")
    p99_ms, min_rate, max_failures = (numbers.pop(name) for name in _FIELDS.values())
    return RigSettings(
        routers=tuple(find_routers(host or options.routers or None, data)),
        data=data,
        expect_insufficient_funds=bool(options.expect_insufficient_funds) or numbers["reject_share"] > 0,
        limits=Limits(p99_ms, numbers.pop("follow_share")),
        levels=ServiceLevels(p99_ms, min_rate, max_failures),
        **numbers,
    )
