"""`python -m bench.archive`: entries a second that the archiver moves from a shard into its database.

A shard carries out transfers between accounts chosen at random, of which nothing is archived for a while.
Then a process of its own does what `python -m shard_node.archiver` does with one shard: it reads the
stream, stores, tells the shard. What counts is that process' CPU time, user and system, for a shard's
archiver has one core at the most. Everything is in a temporary folder; with --ledger in that database.
"""

from __future__ import annotations

import asyncio
import random
import resource
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from sqlalchemy import Engine

from bench.cluster import read_cpu
from bench.command import apart
from bench.errors import BenchError
from deploy.terminal import plain_errors
from shard_node.agent import RedisProcess
from shard_node.archiver import BATCH_ENTRIES, ShardArchiver
from shard_node.client import Shard, connect
from shard_node.cluster import Topology, slot
from shard_node.contract import (
    AccountTerms,
    Details,
    Effect,
    Kind,
    Leg,
    Outcome,
    Post,
    Transaction,
    bundle_of,
    pack_details,
)
from shard_node.ledger.store import Archive, open_ledger
from shard_node.ledger.store.migrations import upgrade
from shard_node.limits import MAX_BATCH

_SHARD = "shard-0"
_WINDOW_MS = 3_600_000
_CALL_TRANSFERS = 1000
# Which no run comes near.
_CREDIT_LINE_MINOR = -(10**12)
_DETAILS = pack_details(Details(reference=b"invoice 4711"))
_ALL_COMMITTED = bytes((Outcome.COMMITTED,))
# Of a run, how often its figures are told.
_PARTS = 10


class _Maker:
    """Transfers between random accounts, a call's worth at once."""

    def __init__(self, accounts: int) -> None:
        self._random = random.Random(7)
        self.names = [f"customer-{number:07}" for number in range(accounts)]

    def transfers(self, count: int, now_ms: int) -> bytes:
        """A bundle of so many. Transaction ids are UUIDv7."""
        rows = []
        for _ in range(count):
            payer, payee = self._random.sample(self.names, 2)
            amount, unique = self._random.randrange(1, 10_000), self._random.randbytes(10)
            name = now_ms.to_bytes(6) + bytes((unique[0] & 0x0F | 0x70,)) + unique[1:]
            legs = Leg(payer, Effect.DEBIT, amount, "EUR"), Leg(payee, Effect.CREDIT, amount, "EUR")
            rows.append(Transaction(name, Kind.TRANSFER, slot(payer), legs, _DETAILS))
        return bundle_of(rows)


async def _open(shard: Shard, names: Sequence[str]) -> None:
    for first in range(0, len(names), MAX_BATCH):
        page = names[first : first + MAX_BATCH]
        await shard.open([AccountTerms(name, slot(name), "EUR", _CREDIT_LINE_MINOR) for name in page])


async def _transfer(shard: Shard, maker: _Maker, entries: int) -> None:
    """Makes so many entries, two a transfer."""
    waiting, now_ms = entries, await shard.clock_ms()
    while waiting > 0:
        count = min(_CALL_TRANSFERS, (waiting + 1) // 2)
        (codes,) = (await shard.call(Post(maker.transfers(count, now_ms)))).codes
        if codes != _ALL_COMMITTED:
            raise BenchError("a transfer was refused")
        waiting -= 2 * count


def _archiver(engine: Engine, executor: Executor, limit: int) -> ShardArchiver:
    return ShardArchiver(
        _SHARD, Archive(engine), executor, lambda: time.time_ns() // 1_000_000, {"EUR": 2}, limit
    )


async def _fill(shard: Shard, ledger: str, entries: int, accounts: int) -> None:
    """Opens accounts, whose entries are archived before anything is measured, then makes ``entries``."""
    maker = _Maker(accounts)
    await _open(shard, maker.names)
    engine = open_ledger(ledger)
    upgrade(engine)
    with ThreadPoolExecutor(1) as executor:
        archiver = _archiver(engine, executor, BATCH_ENTRIES)
        while (await archiver.step(shard)).entries:
            pass
    engine.dispose()
    await _transfer(shard, maker, entries)


async def _archive(address: str, fence: str, ledger: str, limit: int) -> None:
    """What is measured: an archiver's work with one shard, until nothing waits."""
    engine = open_ledger(ledger)
    with ThreadPoolExecutor(1) as executor:
        async with Shard(_SHARD, fence, connect(address)) as shard:
            archiver = _archiver(engine, executor, limit)
            before = await shard.ledger_state()
            total, done, told = before.backlog, 0, 0
            began, cpu_s = time.perf_counter(), time.process_time()
            part_cpu_s = cpu_s
            while (step := await archiver.step(shard)).entries:
                done += step.entries
                if done - told >= total / _PARTS or not step.full:
                    now_s = time.process_time()
                    print(
                        f"{done:12,} entries: the last {done - told:,} at "
                        f"{(done - told) / (now_s - part_cpu_s):,.0f} entries per second of CPU",
                        flush=True,
                    )
                    part_cpu_s, told = now_s, done
            state = await shard.ledger_state()
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    if done != total or state.backlog:
        raise BenchError(f"{done} of {total} entries were stored, {state.backlog} wait")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"archived {done:,} entries in {state.number - before.number:,} batches: {cpu_s:.1f} s of CPU, "
        f"{wall_s:.1f} s by the clock\n"
        f"{done / cpu_s:,.0f} entries per second of CPU, {cpu_s / done * 1e6:.1f} us each; "
        f"{peak_mib:,.0f} MiB of memory at the most"
    )
    engine.dispose()


def _archive_all(address: str, fence: str, ledger: str, limit: int) -> None:
    uvloop.run(_archive(address, fence, ledger, limit))


async def _run(folder: Path, entries: int, accounts: int, limit: int, ledger: str | None) -> None:
    process = RedisProcess(folder / "redis", "127.0.0.1", None, 0)
    await process.start()
    try:
        initial = Topology.initial("bench", [_SHARD])
        topology = initial.changed(replace(shard, primary=process.address) for shard in initial.shards)
        fence = topology.fence(topology.shard(_SHARD))
        url = ledger or f"sqlite:///{folder / 'ledger.db'}"
        async with Shard(_SHARD, fence, connect(process.address)) as shard:
            await shard.bind(_WINDOW_MS, 2 * entries + accounts)
            await _fill(shard, url, entries, accounts)
        before = read_cpu({"Redis": process.pid})
        await asyncio.to_thread(apart, _archive_all, process.address, fence, url, limit)
        redis_s = before.until(read_cpu({"Redis": process.pid})).in_all
        print(f"Redis spent {redis_s / entries * 1e6:.2f} us each")
        if ledger is None:
            size = (folder / "ledger.db").stat().st_size
            print(f"the database has {size / (entries + accounts):.0f} bytes each, with indexes")
    finally:
        await process.stop()


def main(
    *,
    entries: Annotated[int, typer.Option(min=1000, max=20_000_000, help="Entries that wait.")] = 2_000_000,
    accounts: Annotated[
        int, typer.Option(min=2, max=1_000_000, help="Accounts that pay each other.")
    ] = 100_000,
    limit: Annotated[int, typer.Option(min=1, max=200_000, help="The archiver's --limit.")] = BATCH_ENTRIES,
    ledger: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An empty database. [default: SQLite]", show_default=False),
    ] = None,
) -> None:
    """Measure how fast one shard is archived."""
    with tempfile.TemporaryDirectory(prefix="tallystick-archive-") as folder, plain_errors(as_json=False):
        uvloop.run(_run(Path(folder), entries, accounts, limit, ledger))


if __name__ == "__main__":
    typer.run(main)
