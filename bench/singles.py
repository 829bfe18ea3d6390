"""`python -m bench.singles`: single `await client.transfer(...)` calls of one process, many at once.

Services call the client one transfer at a time, from as many tasks as they have requests; the client makes
batches of them. This measures what such a process gets: the client library in a process of its own against
a cluster on the same machine, every result awaited, by as many tasks as asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from typing import Annotated

import typer

from bench.command import Progress, command
from bench.errors import BenchError
from bench.load import LoadClient, LoadHandler, LoadSettings, Measurement, Run, Tally, measure
from bench.reporting import document, report
from bench.settings import MAX_IN_FLIGHT, BenchSettings
from bench.transfers import AMOUNTS, CURRENCY
from deploy.terminal import Screen
from tallystick import Client, TallystickError

# What the project asks of the client: see the README.
TARGET_RATE = 40_000
CallersOption = Annotated[
    int,
    typer.Option("--callers", min=1, max=MAX_IN_FLIGHT, help="Tasks, each with one transfer at a time."),
]
# Connections, tables, code paths taken for the first time.
_WARM_UP_SECONDS = 1.0
# Drawn at once: more would keep the event loop from its answers for milliseconds.
_DRAWN = 4096


class SinglesClient(LoadClient):
    """Sends its transfers through the client library; accounts are opened and read as by any load process."""

    def __init__(self, settings: LoadSettings) -> None:
        super().__init__(settings)
        self._client = Client(settings.routers)

    async def close(self) -> None:
        """Closes the client and the channels."""
        await self._client.close()
        await super().close()

    async def send(self, order: Run, _seed: str, tally: Tally) -> None:
        """One run. Raises BenchError for any transfer that is not committed."""
        payments = self._payments(order.begin_at + order.seconds)

        async def call() -> None:
            # The callers share the payments.
            for payer, payee, amount in payments:
                await self._client.transfer(payer, payee, amount, CURRENCY)
                tally.count(1, 0, time.monotonic())

        try:
            async with asyncio.TaskGroup() as callers:
                for _ in range(self._settings.concurrency):
                    callers.create_task(call())
        except* TallystickError as errors:
            # The others follow from the first, or say the same.
            raise BenchError(f"a transfer failed: {errors.exceptions[0]}") from errors

    def _payments(self, until: float) -> Iterator[tuple[str, str, str]]:
        """Payer, payee and amount of each transfer, until the time is over."""
        ids = self._accounts.ids
        while True:
            for payer, payee, amount in self._workload.draw(_DRAWN).rows():
                if time.monotonic() >= until:
                    return
                yield ids[payer], ids[payee], AMOUNTS[amount]


singles_handler = partial(LoadHandler, client_type=SinglesClient)


def _measure(settings: BenchSettings, progress: Progress) -> Measurement:
    """Measure single transfers through the Python client: many tasks of one process, one transfer each.

    Prints transfers a second and CPU time by part; checks that each transfer moved money once.
    """
    return measure(settings, progress, singles_handler, _WARM_UP_SECONDS)


def _show(screen: Screen, settings: BenchSettings, measurement: Measurement) -> None:
    report.show(screen, settings, measurement)
    screen.print(f"Aimed at: {TARGET_RATE:,} transfers/s, each a single call of the Python client")


main = command(
    _measure,
    _show,
    document,
    BenchSettings(unary=True, concurrency=2000),
    ("shards", "archivers", "accounts", "concurrency", "seconds", "runs", "seed"),
    concurrency=CallersOption,
)

if __name__ == "__main__":
    typer.run(main)
