"""Answers and how far they are complete, of one moment and one connection, while all goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine

from router.execution.ledger_completeness import CompleteAnswers
from router.execution.ledger_reader import LedgerReader
from shard_node.ledger.questions.history import BalanceAt, History
from shard_node.ledger.questions.positions import HistoryQuery
from tests.ledger.town import Town, town_on
from tests.real_shards import RealShards

WAIT_SECONDS = 20.0


@pytest.fixture
async def town(shards: RealShards, engine: Engine) -> AsyncIterator[Town]:
    """Accounts with money on three shards, nothing archived; in either database."""
    async with town_on(shards, engine) as made:
        yield made


@pytest.mark.parametrize("waiting", [0, 2])
async def test_what_is_archived_while_an_answer_is_read_is_not_claimed(town: Town, waiting: int) -> None:
    """The moment is that of before the reading, whatever waited then: what comes later may not be in it."""
    await town.archive()
    (name, other, _) = town.names[0]
    loop, history = asyncio.get_running_loop(), History(town.engine)
    for _ in range(waiting):
        await town.pay(name, other, 5)

    async def pay_and_archive() -> None:
        await town.pay(name, other, 5)
        await town.archiver(0).step(town.cluster.shards[0])
        await town.pay(name, other, 5)

    def read_slowly() -> BalanceAt | None:
        found = history.balance_at(name)
        asyncio.run_coroutine_threadsafe(pay_and_archive(), loop).result()
        return found

    reader = LedgerReader()
    try:
        read, found = await CompleteAnswers(history, lambda: town.cluster.shards, reader).ask(
            read_slowly, None, 0.0
        )
    finally:
        reader.close()
    assert read is not None
    query = HistoryQuery(name, newest_first=False)
    page = await asyncio.to_thread(history.page, query, 1, query.token(read.version))
    assert page is not None
    assert found.until_ms is not None
    assert read.changed_at_ms - 1 <= found.until_ms < page.entries[0].at_ms


async def test_who_waits_is_answered_though_more_comes_all_the_time(town: Town) -> None:
    """What had been made when the request arrived is what is waited for, not all that there is by now."""
    (name, other, _) = town.names[0]
    reader = LedgerReader()
    answers = CompleteAnswers(History(town.engine), lambda: town.cluster.shards, reader)
    await town.archive(1, 2)
    waiting = asyncio.ensure_future(answers.ask(lambda: "answer", 2**50, time.monotonic() + WAIT_SECONDS))
    try:
        archiver = town.archiver(0)
        while not waiting.done():
            await town.pay(name, other, 1)
            await archiver.step(town.cluster.shards[0])
            # Never nothing that waits.
            await town.pay(name, other, 1)
            await asyncio.sleep(0)
        answer, found = await waiting
    finally:
        waiting.cancel()
        reader.close()
    assert answer == "answer"
    assert [reach.caught_up for reach in found.reaches] == [False, True, True]


async def test_a_thread_asks_one_connection(town: Town) -> None:
    """Of several databases behind one address, an answer and its completeness are of the same."""
    history = History(town.engine)

    def is_connection(outer: Connection) -> bool:
        with history.reading() as mine:
            return mine is outer

    def connections() -> tuple[bool, bool]:
        with history.reading() as outer:
            with history.reading() as inner:
                same = inner is outer
            with ThreadPoolExecutor(1) as others:
                return same, others.submit(is_connection, outer).result()

    assert await asyncio.to_thread(connections) == (True, False)
