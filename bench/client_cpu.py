"""`python -m bench.client_cpu`: what a transfer costs in the client itself, in CPU microseconds.

The service is a stand-in in a process of its own that commits everything, so the figure
is of the client alone: its Python, protobuf and gRPC, all threads. A cluster's figures
are `python -m bench`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated

import typer
import uvloop

from bench.stand_in import stand_in
from tallystick import Client, Transfer

_PAYMENT = Transfer("acct:000123", "acct:000456", "12.50", "EUR")


@dataclass(frozen=True, slots=True)
class _Figure:
    what: str
    transfers: int
    seconds: float
    cpu_seconds: float

    def __str__(self) -> str:
        rate, cost_us = self.transfers / self.seconds, self.cpu_seconds / self.transfers * 1e6
        return f"{self.what:32} {rate:10,.0f} transfers/s {cost_us:8.1f} us of CPU each"


async def _timed(what: str, transfers: int, work: Awaitable[object]) -> _Figure:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    await work
    return _Figure(what, transfers, time.perf_counter() - wall_s, time.process_time() - cpu_s)


async def _measure(address: str, callers: int, transfers: int, runs: int) -> None:
    each = transfers // callers

    async def call() -> None:
        for _ in range(each):
            await client.transfer(_PAYMENT.from_account, _PAYMENT.to_account, _PAYMENT.amount, "EUR")

    async with Client(address) as client:
        await client.transfers([_PAYMENT])
        for _ in range(runs):
            calls = asyncio.gather(*(call() for _ in range(callers)))
            print(await _timed(f"single, {callers} callers at once", each * callers, calls))
        for _ in range(runs):
            print(await _timed("batch", transfers, client.transfers([_PAYMENT] * transfers)))


def main(
    *,
    callers: Annotated[
        int, typer.Option(min=1, max=100_000, help="Single transfers waiting at once.")
    ] = 2000,
    transfers: Annotated[int, typer.Option(min=1, max=10_000_000, help="Transfers in a run.")] = 200_000,
    runs: Annotated[int, typer.Option(min=1, max=100, help="Runs of each kind.")] = 3,
) -> None:
    """Measure the client against a stand-in in another process."""
    with stand_in() as service:
        uvloop.run(_measure(service.address, callers, max(callers, transfers), runs))


if __name__ == "__main__":
    typer.run(main)
