"""Single transfers leave at once when none is on its way, and gather while a batch is."""

from __future__ import annotations

import asyncio

import pytest

from router.execution.coalescer import MAX_BATCHES, MAX_WAITING, Coalescer, OverloadedError
from shard_node.contract import Outcome
from shard_node.limits import MAX_BATCH

COMMITTED = int(Outcome.COMMITTED)

# Items are numbers, which tell them apart.
Gatherer = Coalescer[int, tuple[int, int, int]]


class Carrier:
    """Takes batches, and answers each when the test says so."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self._answers: list[asyncio.Future[list[tuple[int, int, int]]]] = []
        self._taken = asyncio.Condition()

    async def execute(self, rows: list[int]) -> list[tuple[int, int, int]]:
        """Keeps the batch under way until it is answered."""
        self.batches.append(rows)
        answer: asyncio.Future[list[tuple[int, int, int]]] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        async with self._taken:
            self._taken.notify_all()
        return await answer

    async def has(self, batches: int) -> None:
        """Waits until it was given so many batches."""
        async with self._taken:
            await self._taken.wait_for(lambda: len(self.batches) >= batches)

    def answer(self, batch: int) -> None:
        """Commits a batch; the balances are the row's number and its negative."""
        amounts = self.batches[batch]
        self._answers[batch].set_result([(COMMITTED, -n, n) for n in amounts])

    def fail(self, batch: int, error: Exception) -> None:
        """Fails a batch."""
        self._answers[batch].set_exception(error)


@pytest.fixture
def carrier() -> Carrier:
    """What carries batches out."""
    return Carrier()


@pytest.fixture
def coalescer(carrier: Carrier) -> Gatherer:
    """A coalescer that hands its batches to the carrier, and has no patience with any that takes long."""
    return Coalescer(carrier.execute, patience_seconds=0)


@pytest.fixture
def patient(carrier: Carrier) -> Gatherer:
    """One whose patience no test outlasts."""
    return Coalescer(carrier.execute, patience_seconds=3600)


async def turns() -> None:
    """Lets the loop do all that is ready: some steps follow from others, none waits for time."""
    for _ in range(5):
        await asyncio.sleep(0)


async def fill(coalescer: Gatherer) -> None:
    """Sends as many batches as may be under way, each of one row (numbers -1, -2, ...)."""
    for number in range(MAX_BATCHES):
        coalescer.submit(-1 - number)
        await turns()


async def test_leaves_at_once_when_idle(coalescer: Gatherer, carrier: Carrier) -> None:
    """With nothing under way a single transfer waits for nobody."""
    future = coalescer.submit(7)
    await turns()
    assert carrier.batches == [[7]]
    carrier.answer(0)
    assert await future == (COMMITTED, -7, 7)
    await turns()
    assert repr(coalescer) == "Coalescer(waiting=0, batches=0)"


async def test_what_comes_together_leaves_together(coalescer: Gatherer, carrier: Carrier) -> None:
    """All that is submitted in one turn of the loop makes one batch, and each gets its own result."""
    futures = [coalescer.submit(n) for n in range(100)]
    await turns()
    assert carrier.batches == [list(range(100))]
    carrier.answer(0)
    assert await asyncio.gather(*futures) == [(COMMITTED, -n, n) for n in range(100)]


async def test_one_at_a_time(patient: Gatherer, carrier: Carrier) -> None:
    """What comes while a batch is under way gathers, and leaves when that one returns."""
    first = patient.submit(0)
    await turns()
    rest = [patient.submit(n) for n in (1, 2)]
    await turns()
    rest.append(patient.submit(3))
    await turns()
    assert carrier.batches == [[0]]
    carrier.answer(0)
    assert await first == (COMMITTED, 0, 0)
    await turns()
    assert carrier.batches == [[0], [1, 2, 3]]
    carrier.answer(1)
    assert await asyncio.gather(*rest) == [(COMMITTED, -n, n) for n in (1, 2, 3)]


async def test_a_failed_batch_keeps_nobody_back(patient: Gatherer, carrier: Carrier) -> None:
    """The next batch leaves when the one before it has returned, be it with an error."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    failing = patient.submit(0)
    await turns()
    fine = patient.submit(1)
    carrier.fail(0, ZeroDivisionError("a defect"))
    with pytest.raises(ZeroDivisionError):
        await failing
    await turns()
    carrier.answer(1)
    assert await fine == (COMMITTED, -1, 1)


async def test_a_slow_batch_keeps_others_back_for_a_time(carrier: Carrier) -> None:
    """When its patience is over, what has gathered leaves; the late return of the slow one harms nobody."""
    coalescer: Gatherer = Coalescer(carrier.execute, patience_seconds=0.01)
    slow = coalescer.submit(0)
    await turns()
    assert carrier.batches == [[0]]
    others = [coalescer.submit(n) for n in (1, 2)]
    await carrier.has(2)
    assert carrier.batches == [[0], [1, 2]]
    carrier.answer(1)
    assert await asyncio.gather(*others) == [(COMMITTED, -n, n) for n in (1, 2)]
    assert not slow.done()
    carrier.answer(0)
    assert await slow == (COMMITTED, 0, 0)
    await coalescer.finish_all()
    assert repr(coalescer) == "Coalescer(waiting=0, batches=0)"


async def test_an_impatient_one_sends_more(coalescer: Gatherer, carrier: Carrier) -> None:
    """Up to MAX_BATCHES are under way at once; they may return in any order."""
    futures = []
    for number in range(MAX_BATCHES):
        futures.append(coalescer.submit(number))
        await turns()
    assert carrier.batches == [[number] for number in range(MAX_BATCHES)]
    for number in reversed(range(MAX_BATCHES)):
        carrier.answer(number)
        assert await futures[number] == (COMMITTED, -number, number)


async def test_gathers_while_busy(coalescer: Gatherer, carrier: Carrier) -> None:
    """With no room all waits, and leaves as one batch when the first one returns."""
    await fill(coalescer)
    for number in range(10):
        coalescer.submit(number)
        await turns()
    assert len(carrier.batches) == MAX_BATCHES
    assert repr(coalescer) == f"Coalescer(waiting=10, batches={MAX_BATCHES})"
    carrier.answer(2)
    await turns()
    assert carrier.batches[MAX_BATCHES:] == [list(range(10))]
    assert repr(coalescer) == f"Coalescer(waiting=0, batches={MAX_BATCHES})"


async def test_batches_are_bounded(patient: Gatherer, carrier: Carrier) -> None:
    """No batch has more than MAX_BATCH rows; full ones follow at once, the rest waits for the newest."""
    for number in range(2 * MAX_BATCH + 1):
        patient.submit(number)
    await turns()
    assert [len(batch) for batch in carrier.batches] == [MAX_BATCH, MAX_BATCH]
    carrier.answer(0)
    await turns()
    assert len(carrier.batches) == 2
    carrier.answer(1)
    await turns()
    assert [len(batch) for batch in carrier.batches] == [MAX_BATCH, MAX_BATCH, 1]
    assert [n for batch in carrier.batches for n in batch] == list(range(2 * MAX_BATCH + 1))


async def test_overload(coalescer: Gatherer, carrier: Carrier) -> None:
    """At MAX_WAITING the next is refused, the others stay, and room comes back with an answer."""
    await fill(coalescer)
    for number in range(MAX_WAITING):
        coalescer.submit(number)
    with pytest.raises(OverloadedError):
        coalescer.submit(MAX_WAITING)
    carrier.answer(0)
    await turns()
    assert carrier.batches[-1] == list(range(MAX_BATCH))
    late = coalescer.submit(MAX_WAITING)
    for batch in range(1, 10):
        if batch < len(carrier.batches):
            carrier.answer(batch)
            await turns()
    assert await late == (COMMITTED, -MAX_WAITING, MAX_WAITING)
    carried = [n for batch in carrier.batches[MAX_BATCHES:] for n in batch]
    assert carried == list(range(MAX_WAITING + 1))


async def test_a_failure_reaches_every_waiter(coalescer: Gatherer, carrier: Carrier) -> None:
    """All rows of a failed batch get its error, those of other batches their results."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    failing = [coalescer.submit(n) for n in range(3)]
    await turns()
    fine = coalescer.submit(3)
    await turns()
    carrier.fail(0, ZeroDivisionError("a defect"))
    answers = await asyncio.gather(*failing, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ZeroDivisionError] * 3
    carrier.answer(1)
    assert await fine == (COMMITTED, -3, 3)
    # The batch that failed made room, and what comes later is carried out.
    later = coalescer.submit(4)
    await turns()
    carrier.answer(2)
    assert await later == (COMMITTED, -4, 4)
    await turns()
    assert repr(coalescer) == "Coalescer(waiting=0, batches=0)"


async def test_a_waiter_that_leaves_disturbs_nobody(coalescer: Gatherer, carrier: Carrier) -> None:
    """A cancelled caller's row is carried out with its batch; the others get their own results."""
    futures = [coalescer.submit(n) for n in range(3)]
    futures[0].cancel()
    await turns()
    futures[1].cancel()
    assert carrier.batches == [[0, 1, 2]]
    carrier.answer(0)
    assert await futures[2] == (COMMITTED, -2, 2)
    assert futures[0].cancelled()
    assert futures[1].cancelled()


async def test_a_waiter_that_leaves_a_failing_batch(coalescer: Gatherer, carrier: Carrier) -> None:
    """A cancelled caller does not keep the error from those who still wait."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    futures = [coalescer.submit(n) for n in range(2)]
    await turns()
    futures[0].cancel()
    carrier.fail(0, ZeroDivisionError("a defect"))
    with pytest.raises(ZeroDivisionError):
        await futures[1]


async def test_finish_all(coalescer: Gatherer, carrier: Carrier) -> None:
    """The end is awaited by whoever drains: what is under way, what waits, what has not left yet."""
    await fill(coalescer)
    future = coalescer.submit(1)
    finished = asyncio.ensure_future(coalescer.finish_all())
    for batch in range(MAX_BATCHES):
        assert not finished.done()
        carrier.answer(batch)
        await turns()
    assert not finished.done()
    carrier.answer(MAX_BATCHES)
    await turns()
    assert finished.done()
    assert future.result() == (COMMITTED, -1, 1)


async def test_finish_all_before_the_first_departure(coalescer: Gatherer, carrier: Carrier) -> None:
    """A row submitted in the very turn in which draining begins is carried out too."""
    future = coalescer.submit(1)
    finished = asyncio.ensure_future(coalescer.finish_all())
    await turns()
    carrier.answer(0)
    await turns()
    assert finished.done()
    assert future.done()


async def test_heavy_items_fill_a_batch_sooner(carrier: Carrier) -> None:
    """Where items weigh more than one, weight is what bounds a batch and what waits; the order stays."""
    heavy: Gatherer = Coalescer(
        carrier.execute, weigh=lambda one: MAX_BATCH // 2 if one % 2 else 1, patience_seconds=0
    )
    for number in range(1, 7):
        heavy.submit(number)
    await turns()
    # Odd numbers weigh half a batch: two of them fill it, and an even one fits no more.
    assert carrier.batches == [[1, 2], [3, 4], [5, 6]]
    heavy.submit(8)
    await turns()
    for _ in range(MAX_WAITING // MAX_BATCH * 2 - 1):
        heavy.submit(7)
    heavy.submit(8)
    with pytest.raises(OverloadedError):
        heavy.submit(7)
    # What is too heavy does not keep out what is not.
    heavy.submit(8)
