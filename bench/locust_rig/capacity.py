"""`python -m bench.locust_rig.capacity`: what one Locust worker drives, and how many a million/s takes.

One worker sends as fast as it can to a stand-in that answers at once. What counts is the worker's own CPU
time a transfer, which hardly depends on who else uses the machine; from it comes the rate of a worker that
has a core to itself. A worker that is always busy measures its own delays: plan with less than a whole core.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.errors import BenchError
from bench.locust_rig.settings import Mode
from bench.locust_rig.stand_in_process import StandInProcess
from shard_node.limits import MAX_BATCH

TARGET_RATE = 1_000_000
# The share of a core that a worker is planned to use, so that it sends and reads when it should.
PLANNED_SHARE = 0.7
# For both processes to start, on a busy machine.
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one worker did in one mode."""

    mode: str
    batch: int
    transfers_per_second: float
    cores_used: float
    cpu_us_per_transfer: float

    @property
    def per_core(self) -> float:
        """Transfers a second of a worker that uses one core fully."""
        return 1e6 / self.cpu_us_per_transfer

    @property
    def workers_for_target(self) -> int:
        """Workers for a million a second, each using its planned share of a core."""
        return math.ceil(TARGET_RATE / (self.per_core * PLANNED_SHARE))


def measure(mode: Mode, batch: int, users: int, seconds: float) -> Capacity:
    """Runs one worker. Raises BenchError when it fails, or any of its transfers did."""
    with StandInProcess() as stand_in:
        command = [sys.executable, "-m", "bench.locust_rig.one_worker", "--routers", stand_in.address]
        command += ["--mode", mode, "--batch", str(batch), "--users", str(users), "--seconds", str(seconds)]
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=True, timeout=seconds + _START_SECONDS
            )
        except subprocess.SubprocessError as error:
            raise BenchError(f"the worker failed: {error}") from error
    seen = json.loads(done.stdout)
    if seen["failures"] or not seen["transfers"]:
        raise BenchError(f"{seen['failures']} of {seen['transfers']} transfers failed")
    return Capacity(
        mode,
        1 if mode is Mode.UNARY else batch,
        seen["transfers"] / seen["seconds"],
        seen["cpu_seconds"] / seen["seconds"],
        seen["cpu_seconds"] / seen["transfers"] * 1e6,
    )


def main(
    *,
    batch: Annotated[int, typer.Option(min=1, max=MAX_BATCH, help="Transfers in one BatchTransfer.")] = 1000,
    seconds: Annotated[float, typer.Option(min=0.5, max=600, help="How long each mode is measured.")] = 5.0,
    batch_users: Annotated[int, typer.Option(min=1, max=1000, help="Batches in flight at once.")] = 4,
    unary_users: Annotated[int, typer.Option(min=1, max=10_000, help="Single calls in flight at once.")] = 64,
    as_json: Annotated[
        bool, typer.Option("--json", help="One line of JSON on standard output, in place of the table.")
    ] = False,
) -> None:
    """Measure the transfers/s that one Locust worker drives, and the workers that a million/s takes."""
    err = Console(stderr=True)
    found = []
    try:
        for mode, users in ((Mode.BATCH, batch_users), (Mode.UNARY, unary_users)):
            err.print(f"[dim]{mode}: {users} users for {seconds:g} s[/]", highlight=False)
            found.append(measure(mode, batch, users, seconds))
    except BenchError as error:
        err.print(f"[bold red]error:[/] {error}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if as_json:
        sys.stdout.write(json.dumps(_document(found)) + "\n")
    else:
        _show(found)


def _document(found: list[Capacity]) -> dict[str, object]:
    return {
        "target_transfers_per_second": TARGET_RATE,
        "planned_share_of_a_core": PLANNED_SHARE,
        "modes": [
            asdict(capacity)
            | {
                "transfers_per_second_per_core": capacity.per_core,
                "workers_for_target": capacity.workers_for_target,
            }
            for capacity in found
        ],
    }


def _show(found: list[Capacity]) -> None:
    table = Table(
        "users", "batch", "CPU µs/transfer", "transfers/s a core", "workers for a million/s", "measured/s"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for capacity in found:
        table.add_row(
            capacity.mode,
            f"{capacity.batch:,}",
            f"{capacity.cpu_us_per_transfer:.2f}",
            f"{capacity.per_core:,.0f}",
            f"{capacity.workers_for_target:,}",
            f"{capacity.transfers_per_second:,.0f} on {capacity.cores_used:.2f} cores",
        )
    console = Console()
    console.print(table)
    console.print(
        f"A worker is planned to use {PLANNED_SHARE:.0%} of a core; "
        "beyond that its latencies are partly its own.",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    typer.run(main)
