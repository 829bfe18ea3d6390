"""The load processes, seen from the process that measures: started, given orders, their answers put together.

Each of them has a share of the accounts to open and read, of the calls in flight and of the rate, and draws
transfers of its own from a seed of its own. All begin a run at the same moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import TypeVar

from bench.load.client import (
    Counted,
    LoadHandler,
    LoadSettings,
    Moves,
    OpenAccounts,
    Order,
    ReadAccounts,
    Run,
)
from bench.load.generator import CALL_TIMEOUT_SECONDS, LONGEST_LAG_SECONDS
from bench.load.latency import Latencies
from bench.load.worker import Handler, Worker
from bench.settings import BenchSettings

# On top of a run's own bound: how late an open loop may be, its last calls, a machine that is busy.
_ANSWER_SECONDS = LONGEST_LAG_SECONDS + 2 * CALL_TIMEOUT_SECONDS
# Building the tables, and opening or reading all accounts, a million of them on a slow machine.
_ACCOUNTS_SECONDS = 300.0
# From the order to the beginning of a run: all processes have heard of it by then.
_HEAD_START_SECONDS = 0.05

A = TypeVar("A", Moves, Counted)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What all load processes saw of a run. ``seconds`` is from its beginning to the last answer of all."""

    committed: int
    insufficient_funds: int
    seconds: float
    # Of calls, from when each was due: a batch counts once.
    latencies: Latencies
    # How late an open loop sent its calls; nothing in a closed one.
    lags: Latencies
    # Transfers committed in each second of the run.
    per_second: Sequence[int]

    @property
    def transfers(self) -> int:
        """All that had an outcome."""
        return self.committed + self.insufficient_funds


class Load:
    """As many load processes as there are workers; made by `load_processes`."""

    def __init__(self, group: Sequence[Worker]) -> None:
        self._group = group

    @property
    def pids(self) -> Mapping[str, int]:
        """The process ids by name: client-0, client-1, ..., or client when there is one."""
        if len(self._group) == 1:
            return {"client": self._group[0].pid}
        return {f"client-{number}": worker.pid for number, worker in enumerate(self._group)}

    def open_accounts(self) -> int:
        """Opens all accounts; how many changes they have seen. Raises BenchError."""
        return sum(moves.changes for moves in self._ask(OpenAccounts(), Moves, _ACCOUNTS_SECONDS))

    def read_accounts(self) -> int:
        """How many changes all accounts have seen. Raises BenchError."""
        return sum(moves.changes for moves in self._ask(ReadAccounts(), Moves, _ACCOUNTS_SECONDS))

    def run(self, number: int, seconds: float, transfers: int | None) -> RunResult:
        """One run. Raises BenchError when it is not worth counting."""
        order = Run(number, time.monotonic() + _HEAD_START_SECONDS, seconds, transfers)
        counted = self._ask(order, Counted, seconds + _ANSWER_SECONDS)
        return RunResult(
            sum(one.committed for one in counted),
            sum(one.insufficient_funds for one in counted),
            max(one.seconds for one in counted),
            Latencies.merged(one.latencies for one in counted),
            Latencies.merged(one.lags for one in counted),
            [sum(second) for second in zip_longest(*(one.per_second for one in counted), fillvalue=0)],
        )

    def _ask(self, order: Order, kind: type[A], seconds: float) -> list[A]:
        for worker in self._group:
            worker.send(order)
        return [worker.receive(kind, seconds) for worker in self._group]


@contextmanager
def load_processes(
    settings: BenchSettings,
    routers: Sequence[str],
    owners: Sequence[int],
    make: Callable[[LoadSettings], Handler] = LoadHandler,
) -> Iterator[Load]:
    """The load processes that the settings ask for; they end with this context, whatever happens.

    ``owners`` is the shard of each slot, as a number; ``make`` makes what each process does.
    """
    load = LoadSettings(
        routers,
        owners,
        settings.shape,
        settings.transfers_a_call,
        settings.unary,
        settings.in_flight,
        settings.seed,
        settings.rate,
        settings.arrivals,
        processes=settings.clients,
    )
    each, more = divmod(settings.in_flight, settings.clients)
    with ExitStack() as group:
        workers = []
        for number in range(settings.clients):
            share = replace(load, process=number, concurrency=each + (number < more))
            workers.append(group.enter_context(Worker(f"client-{number}", partial(make, share))))
        yield Load(workers)
