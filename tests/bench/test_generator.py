"""The loops: what waits is counted, what fails ends the run. On a simulated clock, so to the millisecond."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from bench.errors import BenchError
from bench.load.arrivals import due_times
from bench.load.generator import LONGEST_LAG_SECONDS, Generator, Method
from bench.load.tally import Tally
from bench.settings import Arrivals, Shape
from bench.transfers.wire import Supply, Wire
from bench.transfers.workload import Workload, make_accounts
from tallystick.v1 import outcome_pb2, wallet_pb2


class _Selector(selectors.SelectSelector):
    """Where the loop would wait for the next timer, the clock moves on instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("the loop waits for something that never comes")
        self.now += max(0.0, timeout)
        return super().select(0)


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop on which a second takes no time."""

    def __init__(self) -> None:
        self._simulated = _Selector()
        super().__init__(self._simulated)

    def time(self) -> float:
        return self._simulated.now

    def stall(self, seconds: float) -> None:
        """Time passes while nothing on the loop can run: the process did not get its processor."""
        self._simulated.now += seconds


def supply(shape: Shape, transfers_a_call: int = 1) -> Supply:
    """Calls among 100 accounts of one shard."""
    accounts = make_accounts(shape)
    return Supply(Workload(shape, accounts, [0] * 16384), Wire(accounts.ids), transfers_a_call)


def committed(request: bytes) -> bytes:
    """The answer to a single transfer."""
    transfer = wallet_pb2.TransferRequest.FromString(request)
    return wallet_pb2.TransferResponse(
        transaction_id=transfer.transaction_id, outcome=outcome_pb2.OUTCOME_COMMITTED
    ).SerializeToString()


def service(loop: SimulatedLoop, seconds: float, stall: tuple[float, float] = (0.0, 0.0)) -> Method:
    """Answers a single transfer after so many seconds; but nothing between two moments."""

    async def method(request: bytes, *, timeout: float) -> bytes:
        begin, end = stall
        await asyncio.sleep(seconds)
        if begin <= loop.time() < end:
            await asyncio.sleep(end - loop.time())
        return committed(request)

    return method


def run(work: Callable[[SimulatedLoop], Coroutine[Any, Any, None]]) -> None:
    """Runs the work on a loop of its own."""
    loop = SimulatedLoop()
    try:
        loop.run_until_complete(work(loop))
    finally:
        loop.close()


def evenly(rate: float, seconds: float) -> Iterator[tuple[float, int]]:
    """One transfer at each moment of an open loop that begins at zero."""
    for due in due_times(rate, Arrivals.EVEN, ""):
        if due >= seconds:
            return
        yield due, 1


@pytest.mark.parametrize("concurrency", [1, 10, 1000])
def test_a_stall_of_the_service_shows_for_every_call_that_was_due_meanwhile(concurrency: int) -> None:
    """100 calls a second for 10 s, and a second without an answer: 100 of 1000 calls waited up to 1 s.

    However few may be in flight: a call that could not even be sent has waited all the same.
    """

    async def work(loop: SimulatedLoop) -> None:
        tally = Tally(0.0)
        method = service(loop, 0.001, stall=(5.0, 6.0))
        generator = Generator([method], supply(Shape(accounts=100)), tally, unary=True, clock=loop.time)
        await generator.open(concurrency, evenly(100.0, 10.0))
        assert tally.committed == tally.latencies.count == 1000
        assert tally.latencies.percentile_ms(50) < 5
        # The longest hundredth waited 0.9 s and more, the longest twentieth half a second; with one call in
        # flight it takes a while to catch up.
        assert tally.latencies.percentile_ms(99.9) == pytest.approx(1000, abs=25)
        assert tally.latencies.percentile_ms(99) == pytest.approx(900, abs=25)
        assert tally.latencies.percentile_ms(95) == pytest.approx(500, abs=60)

    run(work)


def test_a_closed_loop_does_not_see_that() -> None:
    """Which is why there is an open one: a single call waits, and with it the generator."""

    async def work(loop: SimulatedLoop) -> None:
        tally = Tally(0.0)
        method = service(loop, 0.01, stall=(5.0, 6.0))
        generator = Generator([method], supply(Shape(accounts=100)), tally, unary=True, clock=loop.time)
        await generator.closed(1, iter([1] * 1000))
        assert tally.latencies.count == 1000
        assert tally.latencies.percentile_ms(99) < 15
        assert tally.latencies.max_ms == pytest.approx(1000, abs=15)
        assert tally.lags.count == 0

    run(work)


def test_a_stall_of_the_generator_itself_shows_as_well() -> None:
    """In the latencies, and as lateness: the figures are honest, and say whose fault it is."""

    async def work(loop: SimulatedLoop) -> None:
        tally = Tally(0.0)
        method = service(loop, 0.001)
        generator = Generator([method], supply(Shape(accounts=100)), tally, unary=True, clock=loop.time)
        loop.call_at(5.0, loop.stall, 1.0)
        await generator.open(256, evenly(100.0, 10.0))
        assert tally.latencies.count == tally.lags.count == 1000
        for told in (tally.latencies, tally.lags):
            assert told.percentile_ms(99) == pytest.approx(900, abs=25)
            assert told.percentile_ms(50) < 5

    run(work)


def test_nothing_is_sent_before_it_is_due() -> None:
    """Or it would seem faster than it was."""

    async def work(loop: SimulatedLoop) -> None:
        sent: list[float] = []

        async def method(request: bytes, *, timeout: float) -> bytes:
            sent.append(loop.time())
            return committed(request)

        tally = Tally(0.0)
        generator = Generator([method], supply(Shape(accounts=100)), tally, unary=True, clock=loop.time)
        await generator.open(10, evenly(300.0, 1.0))
        due = [moment for moment, _ in evenly(300.0, 1.0)]
        assert all(0 <= at - moment < 0.002 for at, moment in zip(sent, due, strict=True))

    run(work)


def test_an_open_loop_that_falls_too_far_behind_fails() -> None:
    """Twice as many calls as the service can do; the rest may not simply be left out."""

    async def work(loop: SimulatedLoop) -> None:
        tally = Tally(0.0)
        method = service(loop, 0.02)
        generator = Generator([method], supply(Shape(accounts=100)), tally, unary=True, clock=loop.time)
        with pytest.raises(BenchError, match="rate: a call was sent more than 30 s after it was due"):
            await generator.open(1, evenly(100.0, 90.0))
        assert loop.time() == pytest.approx(2 * LONGEST_LAG_SECONDS, abs=1)

    run(work)


@pytest.mark.parametrize("open_loop", [False, True])
def test_the_first_failure_ends_the_run(*, open_loop: bool) -> None:
    """With its own sentence, while other calls are still in flight."""

    async def work(loop: SimulatedLoop) -> None:
        answers = iter(range(1000))

        async def method(request: bytes, *, timeout: float) -> bytes:
            await asyncio.sleep(0.01)
            if next(answers) == 20:
                return wallet_pb2.TransferResponse(transaction_id="another").SerializeToString()
            return committed(request)

        tally = Tally(0.0)
        generator = Generator([method], supply(Shape(accounts=100)), tally, unary=True, clock=loop.time)
        if open_loop:
            sending = generator.open(10, evenly(300.0, 3.0))
        else:
            sending = generator.closed(10, iter([1] * 1000))
        with pytest.raises(BenchError, match="not that of its transfer"):
            await sending
        assert tally.committed < 40
        assert len(asyncio.all_tasks()) == 1

    run(work)


def test_batches_have_the_sizes_that_were_asked_for() -> None:
    """And no transfer is sent twice, also where a block of them ends."""

    async def work(loop: SimulatedLoop) -> None:
        ids: list[str] = []
        sizes: list[int] = []

        async def method(request: bytes, *, timeout: float) -> bytes:
            batch = [t.transaction_id for t in wallet_pb2.BatchTransferRequest.FromString(request).transfers]
            sizes.append(len(batch))
            ids.extend(batch)
            return wallet_pb2.BatchTransferResponse(
                results=[
                    wallet_pb2.TransferResponse(transaction_id=i, outcome=outcome_pb2.OUTCOME_COMMITTED)
                    for i in batch
                ]
            ).SerializeToString()

        tally = Tally(0.0)
        generator = Generator(
            [method], supply(Shape(accounts=100), 3000), tally, unary=False, clock=loop.time
        )
        await generator.closed(2, iter([3000, 3000, 3000, 1]))
        assert sorted(sizes) == [1, 3000, 3000, 3000]
        assert len(set(ids)) == tally.committed == 9001

    run(work)


def test_calls_go_to_the_routers_in_turn() -> None:
    """In both loops."""

    async def work(loop: SimulatedLoop) -> None:
        seen = [0, 0, 0]

        def counting(number: int) -> Method:
            async def method(request: bytes, *, timeout: float) -> bytes:
                seen[number] += 1
                await asyncio.sleep(0.01)
                return committed(request)

            return method

        methods = [counting(number) for number in range(3)]
        tally = Tally(0.0)
        generator = Generator(methods, supply(Shape(accounts=100)), tally, unary=True, clock=loop.time)
        await generator.open(10, evenly(30.0, 1.0))
        assert seen == [10, 10, 10]
        await generator.closed(3, iter([1] * 30))
        assert seen == [20, 20, 20]

    run(work)
