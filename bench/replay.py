"""`python -m bench.replay`: what it costs to rebuild every balance, and to read a page of history.

A ledger of made-up entries is stored in SQLite, in a temporary folder; then a process of its own replays
it, chain verification included, and reads pages of the account with the most entries. The figures are CPU
seconds, peak memory and milliseconds a page.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from bench.command import apart
from bench.errors import BenchError
from shard_node.contract import Kind
from shard_node.ledger.proof import Findings, Replay
from shard_node.ledger.questions import History, HistoryQuery
from shard_node.ledger.store import Archive, Header, Row, entry_id, open_ledger, seal
from shard_node.ledger.store.migrations import upgrade

_SHARDS = 4
_BATCH = 4096
_START_MS = 1_750_000_000_000
_HOT = "shop:busy"
# One payment in ten goes to it.
_HOT_SHARE = 0.1
_PAGES = 50


class _Maker:
    """Entries of accounts that pay each other, some across shards, and one busy payee."""

    def __init__(self, accounts: int) -> None:
        self._random = random.Random(7)
        self.rows: list[list[Row]] = [[] for _ in range(_SHARDS)]
        self._made = [0] * _SHARDS
        self._now_ms = _START_MS
        self._balances: dict[str, list[int]] = {}
        self._home = {f"acct:{n:07}": n % _SHARDS for n in range(accounts)} | {_HOT: 0}
        self._names = list(self._home)
        limits = json.dumps({"minimum_balance": -(10**12), "maximum_balance": 0, "maximum_transfer": 0})
        for name in self._names:
            self._balances[name] = [0, -1]
            self._add(name, Kind.OPEN, None, 0, limits)

    def pay(self) -> None:
        """One payment: two entries."""
        self._now_ms += 1
        payer, payee = self._random.sample(self._names, 2)
        if self._random.random() < _HOT_SHARE and payer != _HOT:
            payee = _HOT
        amount = self._random.randrange(1, 10_000)
        key = self._now_ms.to_bytes(6) + b"\x70\x00" + self._random.randbytes(16)
        self._add(payer, Kind.TRANSFER, (key, 0, payee), -amount, "")
        self._add(payee, Kind.TRANSFER, (key, 1, payer), amount, "")

    def _add(
        self, name: str, kind: Kind, half: tuple[bytes, int, str] | None, delta: int, attributes: str
    ) -> None:
        """One entry; ``half`` is the transaction's key, the number of the leg, the other account."""
        account, shard = self._balances[name], self._home[name]
        account[0] += delta
        account[1] += 1
        self._made[shard] += 1
        key, leg, other = half or (b"", 0, "")
        self.rows[shard].append(
            (entry_id(shard + 1, self._made[shard]), name, account[1], self._now_ms, int(kind),
             key[:16] or None, key[16:] or None, leg, 2 if half else 0, other, "EUR", delta, 0, account[0],
             None, "invoice 4711", "", "", attributes)
        )  # fmt: skip


def _fill(url: str, entries: int, accounts: int) -> None:
    engine = open_ledger(url)
    try:
        upgrade(engine)
        archive = Archive(engine)
        archive.keep_exponents({"EUR": 2})
        positions = [archive.position(f"shard-{n}") for n in range(_SHARDS)]
        maker = _Maker(accounts)
        made = accounts + 1
        while True:
            for shard, rows in enumerate(maker.rows):
                if len(rows) < _BATCH and made < entries:
                    continue
                position, count = positions[shard], len(rows)
                if count == 0:
                    continue
                header = Header(
                    position.shard, position.number + 1, position.next_sequence, count,
                    f"{rows[-1][3]}-0", rows[0][3], rows[-1][3], rows[-1][3],
                )  # fmt: skip
                sealed = seal(position.hash, header, rows)
                archive.store(sealed, rows)
                positions[shard] = position.after(sealed)
                rows.clear()
            if made >= entries:
                return
            for _ in range(min(_BATCH, entries - made + 1) // 2 + 1):
                maker.pay()
                made += 2
    finally:
        engine.dispose()


def _memory_mib() -> float:
    """The most that this process has had in memory since its program was loaded (proc(5), VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise BenchError("/proc/self/status has no VmHWM")


def _measure(url: str) -> None:
    engine = open_ledger(url)
    history = History(engine)
    before_mib = _memory_mib()
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    findings = Findings()
    replay = Replay(history, findings)
    for _ in replay.run():
        pass
    replay.fold.finish()
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    fold = replay.fold
    print(
        f"replay with chain     {fold.entries:10,} entries {cpu_s:8.2f} s of CPU {wall_s:8.2f} s "
        f"{cpu_s / fold.entries * 1e6:6.2f} us each"
    )
    print(
        f"memory                {_memory_mib():10,.0f} MiB at the most, {before_mib:,.0f} MiB before; "
        f"{len(fold.accounts):,} accounts, {findings.total} findings, {fold.open_count} open"
    )
    for what, ask in _questions(history):
        times_ms = []
        for _ in range(_PAGES):
            begun = time.perf_counter()
            ask()
            times_ms.append((time.perf_counter() - begun) * 1000)
        times_ms.sort()
        print(
            f"{what:42} {statistics.median(times_ms):8.2f} ms median, "
            f"{times_ms[-2]:8.2f} ms the second slowest of {_PAGES}"
        )
    engine.dispose()


def _questions(history: History) -> Iterator[tuple[str, Callable[[], object]]]:
    chance = random.Random(11)
    newest = history.balance_at(_HOT)
    if newest is None:
        raise BenchError(f"{_HOT} has no entries")
    end_ms = newest.changed_at_ms
    query = HistoryQuery(_HOT)

    def some_ms() -> int:
        return chance.randrange(_START_MS, end_ms)

    def middle() -> object:
        at_ms = some_ms()
        return history.page(HistoryQuery(_HOT, at_ms, at_ms + 60_000, newest_first=False))

    yield f"newest page of 100 of {newest.version:,}", lambda: history.page(query)
    yield (
        "page of 100 somewhere, by token",
        lambda: history.page(query, 100, query.token(chance.randrange(newest.version))),
    )
    yield (
        "page of 1000 somewhere",
        lambda: history.page(query, 1000, query.token(chance.randrange(newest.version))),
    )
    yield "first page of a minute somewhere", middle
    yield (
        "page of a kind that is rare",
        lambda: history.page(HistoryQuery(_HOT, kinds=frozenset({int(Kind.FREEZE)}))),
    )
    yield "balance at some time", lambda: history.balance_at(_HOT, some_ms())


def main(
    *,
    entries: Annotated[
        int, typer.Option(min=1000, max=20_000_000, help="Entries in the ledger.")
    ] = 1_000_000,
    accounts: Annotated[
        int, typer.Option(min=2, max=1_000_000, help="Accounts that pay each other.")
    ] = 100_000,
) -> None:
    """Measure replay and history on a made-up ledger."""
    with tempfile.TemporaryDirectory(prefix="tallystick-replay-") as folder:
        url = f"sqlite:///{Path(folder) / 'ledger.db'}"
        begun = time.perf_counter()
        _fill(url, entries, min(accounts, entries // 4))
        print(
            f"stored                {entries:10,} entries in {time.perf_counter() - begun:.1f} s", flush=True
        )
        apart(_measure, url)


if __name__ == "__main__":
    typer.run(main)
