"""`python -m bench.journals`: journals of four legs over three shards, each a call of its own, many at once.

The router gathers those that come together: what is in flight at once is a batch for coordinator and shards.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial

import typer

from bench.command import Progress, command
from bench.errors import BenchError
from bench.load import LoadClient, LoadHandler, LoadSettings, Measurement, Run, Tally, measure
from bench.reporting import document, report
from bench.settings import BenchSettings
from bench.transfers import AMOUNTS, CURRENCY
from deploy.terminal import Screen
from shard_node.cluster import slot
from tallystick import new_transaction_id
from tallystick.v1 import wallet_pb2

SHARDS = 3
# A journal changes four accounts, a transfer two.
_TRANSFERS = 2
_DRAWN = 4096
_CALL_TIMEOUT_SECONDS = 30.0


class JournalsClient(LoadClient):
    """Sends journals that are two payments at once; accounts are opened and read as by any load process."""

    def __init__(self, settings: LoadSettings) -> None:
        super().__init__(settings)
        self._homes = [settings.owners[slot(account)] for account in self._accounts.ids]

    async def send(self, order: Run, _seed: str, tally: Tally) -> None:
        """One run. Raises BenchError for any journal that is not committed."""
        journals = self._journals(order.begin_at + order.seconds)

        async def call() -> None:
            for number, request in enumerate(journals):
                await self._stubs[number % len(self._stubs)].PostJournal(
                    request, timeout=_CALL_TIMEOUT_SECONDS
                )
                tally.count(_TRANSFERS, 0, time.monotonic())

        try:
            async with asyncio.TaskGroup() as callers:
                for _ in range(self._settings.concurrency):
                    callers.create_task(call())
        except* Exception as errors:
            raise BenchError(f"a journal failed: {errors.exceptions[0]}") from errors

    def _journals(self, until: float) -> Iterator[wallet_pb2.PostJournalRequest]:
        """Each of four accounts of three shards, until the time is over."""
        ids, homes = self._accounts.ids, self._homes
        while True:
            payments = self._workload.draw(_DRAWN).rows()
            for (first, second, amount), (third, fourth, other) in zip(payments, payments, strict=True):
                if time.monotonic() >= until:
                    return
                places = (first, second, third, fourth)
                if len({*places}) < len(places) or len({homes[place] for place in places}) < SHARDS:
                    continue
                request = wallet_pb2.PostJournalRequest(transaction_id=new_transaction_id())
                for place, text in zip(
                    places,
                    (f"-{AMOUNTS[amount]}", AMOUNTS[amount], f"-{AMOUNTS[other]}", AMOUNTS[other]),
                    strict=True,
                ):
                    request.legs.add(account_id=ids[place], amount=text, currency=CURRENCY)
                yield request


def _measure(settings: BenchSettings, progress: Progress) -> Measurement:
    """Measure journals of four legs over three shards: single calls, as many at once as make a batch.

    Prints CPU time by part; checks that each journal changed its four accounts once.
    """
    return measure(settings, progress, partial(LoadHandler, client_type=JournalsClient))


def _show(screen: Screen, settings: BenchSettings, measurement: Measurement) -> None:
    report.show(screen, settings, measurement)
    screen.print("A journal of four legs counts as two transfers: double the figures for a journal")


main = command(
    _measure,
    _show,
    document,
    BenchSettings(shards=SHARDS, unary=True, concurrency=500, archivers=0, accounts=10_000),
    ("archivers", "accounts", "concurrency", "seconds", "runs", "seed"),
)

if __name__ == "__main__":
    typer.run(main)
