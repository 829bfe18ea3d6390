"""`python -m bench.archive`: entries a second that the archiver moves from a shard into its database.

A Redis with a long stream of made-up transfers, between accounts chosen at random, stands for a shard under
load. A process of its own does what `python -m shard_node.archiver` does with one shard: it reads the
stream, stores, tells the shard. What counts is that process' CPU time, user and system, for a shard's
archiver has one core at the most. Everything is in a temporary folder; with --ledger in that database.
"""

from __future__ import annotations

import asyncio
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from redis.asyncio import Redis

from bench.cluster import read_cpu
from bench.errors import BenchError
from shard_node.agent import RedisProcess, bind, load_library
from shard_node.archiver import BATCH_ENTRIES, ShardArchiver
from shard_node.client import Shard, connect
from shard_node.cluster import SLOT_COUNT, Topology
from shard_node.contract import Kind, Outcome, Terms, Transfers, pack
from shard_node.ledger.store import Archive, open_ledger
from shard_node.ledger.store.migrations import upgrade

_MEASURE = "--measure"
_SHARD = "shard-0"
_WINDOW_MS = 3_600_000
_CALL_TRANSFERS = 1000
_START_MS = 1_750_000_000_000
_ALL_COMMITTED = bytes((Outcome.COMMITTED,))
# Of a run, how often its figures are told.
_PARTS = 10


class _Maker:
    """Transfers between random accounts, as one function call appends them to the stream."""

    def __init__(self, accounts: int) -> None:
        self._random = random.Random(7)
        self._names = [f"customer-{number:07}" for number in range(accounts)]
        self._balances = [0] * accounts
        self._versions = [0] * accounts
        self._now_ms = _START_MS

    def call(self, transfers: int) -> tuple[str, bytes]:
        """One stream entry: its id and its columns. Transaction ids are UUIDv7."""
        self._now_ms += 20
        rows: list[tuple[bytes, Terms]] = []
        moved: list[tuple[int, int, int, int]] = []
        for _ in range(transfers):
            payer, payee = self._random.sample(range(len(self._names)), 2)
            amount = self._random.randrange(1, 10_000)
            terms = Terms(
                amount,
                "EUR",
                payer % SLOT_COUNT,
                payee % SLOT_COUNT,
                Kind.TRANSFER,
                self._names[payer],
                self._names[payee],
                b"invoice 4711",
            )
            unique = self._random.randbytes(10)
            rows.append((self._now_ms.to_bytes(6) + bytes((unique[0] & 0x0F | 0x70,)) + unique[1:], terms))
            moved.append((*self._move(payer, -amount), *self._move(payee, amount)))
        bundle = Transfers.of(rows).bundle()
        numbers = [struct.pack(f"<{transfers}q", *column) for column in zip(*moved, strict=True)]
        return f"{self._now_ms}-0", pack(
            "post", _ALL_COMMITTED, bundle.decisions, bundle.terms, bundle.bodies, *numbers
        )

    def _move(self, account: int, delta: int) -> tuple[int, int]:
        self._balances[account] += delta
        self._versions[account] += 1
        return self._balances[account], self._versions[account]


async def _fill(redis: Redis, entries: int, accounts: int) -> None:
    maker = _Maker(accounts)
    waiting = entries
    while waiting > 0:
        transfers = min(_CALL_TRANSFERS, (waiting + 1) // 2)
        stream_id, packed = maker.call(transfers)
        await redis.xadd("ledger", {"e": packed}, id=stream_id)
        waiting -= 2 * transfers
    await redis.hincrby("meta", "backlog", entries - waiting)


async def _archive(address: str, fence: str, ledger: str, limit: int) -> None:
    """What is measured: an archiver's work with one shard, until nothing waits."""
    engine = open_ledger(ledger)
    upgrade(engine)
    with ThreadPoolExecutor(1) as executor:
        async with Shard(_SHARD, fence, connect(address)) as shard:
            archiver = ShardArchiver(
                _SHARD, Archive(engine), executor, lambda: time.time_ns() // 1_000_000, {"EUR": 2}, limit
            )
            total = (await shard.ledger_state()).backlog
            done, told = 0, 0
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
        f"archived {done:,} entries in {state.number:,} batches: {cpu_s:.1f} s of CPU, "
        f"{wall_s:.1f} s by the clock\n"
        f"{done / cpu_s:,.0f} entries per second of CPU, {cpu_s / done * 1e6:.1f} us each; "
        f"{peak_mib:,.0f} MiB of memory at the most"
    )
    engine.dispose()


async def _run(folder: Path, entries: int, accounts: int, limit: int, ledger: str | None) -> None:
    process = RedisProcess(folder / "redis", "127.0.0.1", None, 0)
    await process.start()
    try:
        initial = Topology.initial("bench", [_SHARD])
        topology = initial.changed(replace(shard, primary=process.address) for shard in initial.shards)
        fence = topology.fence(topology.shard(_SHARD))
        async with Shard(_SHARD, fence, connect(process.address)) as shard:
            await load_library(shard.redis)
            await bind(shard.redis, topology, _SHARD, _WINDOW_MS)
            await _fill(shard.redis, entries, accounts)
        url = ledger or f"sqlite:///{folder / 'ledger.db'}"
        before = read_cpu({"Redis": process.pid})
        command = [sys.executable, "-m", "bench.archive", _MEASURE, process.address, fence, url, str(limit)]
        measured = await asyncio.to_thread(subprocess.run, command, check=False)
        if measured.returncode:
            raise BenchError("the archiver failed")
        redis_s = before.until(read_cpu({"Redis": process.pid})).in_all
        print(f"Redis spent {redis_s / entries * 1e6:.2f} us each")
        if ledger is None:
            size = (folder / "ledger.db").stat().st_size
            print(f"the database has {size / entries:.0f} bytes each, with indexes")
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
    with tempfile.TemporaryDirectory(prefix="tallystick-archive-") as folder:
        try:
            uvloop.run(_run(Path(folder), entries, accounts, limit, ledger))
        except BenchError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(1) from None


if __name__ == "__main__":
    if _MEASURE in sys.argv:
        address, fence, ledger, limit = sys.argv[-4:]
        uvloop.run(_archive(address, fence, ledger, int(limit)))
    else:
        typer.run(main)
