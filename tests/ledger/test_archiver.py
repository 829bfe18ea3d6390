"""Archiving one shard exactly once, whatever stops when: real Redis, both databases."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, text, update

from shard_node.archiver.shard_archiver import LedgerSource, ShardArchiver, Step
from shard_node.client.ledger_state import LedgerState
from shard_node.client.shard import Shard
from shard_node.cluster.currencies import Exponents
from shard_node.cluster.slots import slot
from shard_node.contract.accounts import AccountTerms
from shard_node.contract.commands import Decide, Decided, Finish, Post, Prepare, Prepared, new_attempt_id
from shard_node.contract.details import Details, pack_details
from shard_node.contract.kinds import Effect, Kind
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transactions import Transaction, bundle_of
from shard_node.errors import BatchTakenError, ExponentUnknownError, LedgerError, RetryableError
from shard_node.ledger.questions.history import History
from shard_node.ledger.store.archive import Archive
from shard_node.ledger.store.chain import GENESIS, Sealed
from shard_node.ledger.store.frames import StreamFrame, decode
from shard_node.ledger.store.rows import Entry, Row
from shard_node.ledger.store.schema import WRITING, batches, entries
from shard_node.limits import MAX_BATCH
from tests.coordinator.payloads import WORLD, posted_bundle, transaction, transfer
from tests.exponents import EXPONENTS
from tests.ledger.scribe import DONE
from tests.ledger.streams import LATER, SHARD, Stream
from tests.ledger.test_archive import StoppedError, verified_rows
from tests.real_shards import RealShards

BATCH_ENTRIES = 8


class Moment(Enum):
    """Where a step may be cut off."""

    BEFORE_READING = auto()
    AFTER_READING = auto()
    BEFORE_STORING = auto()
    AFTER_STORING = auto()
    BEFORE_TELLING = auto()
    AFTER_TELLING = auto()


@dataclass(slots=True)
class Fuse:
    """Stops whoever reaches a moment for the n-th time."""

    moment: Moment | None = None
    left: int = 1

    def reach(self, moment: Moment) -> None:
        """The process dies here, if it is time."""
        if moment is self.moment:
            self.left -= 1
            if self.left == 0:
                raise StoppedError(moment.name)


class FusedShard:
    """A shard whose caller may die around a call."""

    def __init__(self, shard: LedgerSource, fuse: Fuse) -> None:
        self._shard = shard
        self._fuse = fuse

    async def archived(self, stream_id: str, number: int, head: bytes, entries: int) -> None:
        self._fuse.reach(Moment.BEFORE_TELLING)
        await self._shard.archived(stream_id, number, head, entries)
        self._fuse.reach(Moment.AFTER_TELLING)

    async def ledger_state(self) -> LedgerState:
        return await self._shard.ledger_state()

    async def ledger_after(self, stream_id: str, count: int) -> Sequence[StreamFrame]:
        self._fuse.reach(Moment.BEFORE_READING)
        read = await self._shard.ledger_after(stream_id, count)
        self._fuse.reach(Moment.AFTER_READING)
        return read


class FusedArchive(Archive):
    """An archive whose caller may die around a store."""

    def __init__(self, engine: Engine, fuse: Fuse) -> None:
        super().__init__(engine)
        self._fuse = fuse

    def store(self, sealed: Sealed, rows: Sequence[Row]) -> None:
        self._fuse.reach(Moment.BEFORE_STORING)
        super().store(sealed, rows)
        self._fuse.reach(Moment.AFTER_STORING)


@pytest.fixture(scope="module")
def threads() -> ThreadPoolExecutor:
    """Where archivers of this module block."""
    return ThreadPoolExecutor(4)


def archiver(archive: Archive, threads: ThreadPoolExecutor) -> ShardArchiver:
    """A process that begins."""
    return ShardArchiver("shard-0", archive, threads, lambda: 1, EXPONENTS, BATCH_ENTRIES)


async def drain(archiver: ShardArchiver, source: LedgerSource) -> list[Step]:
    """Steps until nothing is left."""
    steps = [await archiver.step(source)]
    while steps[-1].entries:
        steps.append(await archiver.step(source))
    return steps


async def check_all_archived(shard: Shard, engine: Engine, expected: Sequence[StreamFrame]) -> None:
    """Every entry is stored once, in order, in an unbroken chain, and the shard knows."""
    archive = Archive(engine)
    rows = await asyncio.to_thread(verified_rows, archive, SHARD)
    assert rows == decode(SHARD, expected, 1)
    state = await shard.ledger_state()
    position = await asyncio.to_thread(archive.position, "shard-0")
    assert (state.backlog, state.length) == (0, 0)
    assert (state.number, state.head, state.stream_id) == (position.number, position.hash, position.stream_id)


async def test_batches_are_bounded(shard: Shard, engine: Engine, threads: ThreadPoolExecutor) -> None:
    """A batch takes as many calls as fit, one at least; a full one says that there is more."""
    stream = Stream()
    sizes = [1, 1, 2, 3, 20, 1]
    await stream.add(shard, *sizes)
    steps = await drain(archiver(Archive(engine), threads), shard)
    assert [(step.entries, step.full) for step in steps] == [
        (8, True),
        (6, True),
        (40, True),
        (2, False),
        (0, False),
    ]
    await check_all_archived(shard, engine, stream.frames)


async def test_a_step_with_nothing_to_do(shard: Shard, engine: Engine, threads: ThreadPoolExecutor) -> None:
    """An empty stream makes no batch."""
    one = archiver(Archive(engine), threads)
    assert await one.step(shard) == Step(0, full=False)
    assert (await shard.ledger_state()).number == 0
    stream = Stream()
    await stream.add(shard, 1)
    assert await one.step(shard) == Step(2, full=False)
    await check_all_archived(shard, engine, stream.frames)


@pytest.mark.parametrize("moment", Moment)
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_stopped_at_any_moment(
    shard: Shard, engine: Engine, threads: ThreadPoolExecutor, moment: Moment, times: int
) -> None:
    """Whoever goes on after a death stores what is missing, nothing twice, and tells the shard all."""
    stream = Stream()
    await stream.add(shard, *[3] * 6)
    fuse = Fuse(moment, times)
    first = archiver(FusedArchive(engine, fuse), threads)
    with pytest.raises(StoppedError):
        await drain(first, FusedShard(shard, fuse))
    await stream.add(shard, 3)
    await drain(archiver(Archive(engine), threads), shard)
    await check_all_archived(shard, engine, stream.frames)


@pytest.mark.parametrize("moment", Moment)
async def test_an_error_at_any_moment(
    shard: Shard, engine: Engine, threads: ThreadPoolExecutor, moment: Moment
) -> None:
    """The same archiver goes on by itself after an error, whatever had been done by then."""
    stream = Stream()
    await stream.add(shard, *[3] * 6)
    fuse = Fuse(moment, 2)
    one = archiver(FusedArchive(engine, fuse), threads)
    source = FusedShard(shard, fuse)
    with pytest.raises(StoppedError):
        await drain(one, source)
    await drain(one, source)
    await check_all_archived(shard, engine, stream.frames)


async def test_a_second_archiver_takes_over(
    shard: Shard, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    """One that was away while another went on finds out before it stores, and goes on after it."""
    stream = Stream()
    await stream.add(shard, 3)
    old, new = archiver(Archive(engine), threads), archiver(Archive(engine), threads)
    await drain(old, shard)
    await stream.add(shard, 3)
    await drain(new, shard)
    await stream.add(shard, 3)
    assert await old.step(shard) == Step(6, full=False)
    await check_all_archived(shard, engine, stream.frames)


@pytest.mark.parametrize("seed", range(4))
async def test_archivers_at_once_that_die(
    shard: Shard, engine: Engine, threads: ThreadPoolExecutor, seed: int
) -> None:
    """Three archivers race over one growing stream, and die at random: still all is there once."""
    dice = random.Random(seed)
    stream = Stream()
    growing = True

    async def grow() -> None:
        nonlocal growing
        try:
            for _ in range(60):
                await stream.add(shard, dice.randint(1, 4))
                await asyncio.sleep(0)
        finally:
            # Should that fail, the others must end all the same.
            growing = False

    async def live() -> None:
        idle = False
        while growing or not idle:
            fuse = Fuse(dice.choice(list(Moment)), dice.randint(1, 6))
            one = archiver(FusedArchive(engine, fuse), threads)
            idle = False
            try:
                while growing or not idle:
                    idle = (await one.step(FusedShard(shard, fuse))).entries == 0
            except (StoppedError, BatchTakenError):
                idle = False

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(grow())
        for _ in range(3):
            group.create_task(live())
    await check_all_archived(shard, engine, stream.frames)


# ---------------------------------------------------------------------- databases that are not the right one


def cut_tail(engine: Engine, from_number: int) -> None:
    """What an old backup looks like."""
    with engine.connect().execution_options(**{WRITING: True}) as connection, connection.begin():
        first = connection.execute(
            text("SELECT first_sequence FROM batches WHERE number = :n"), {"n": from_number}
        ).scalar_one()
        connection.execute(delete(entries).where(entries.c.entry_id >= (1 << 40) + first))
        connection.execute(delete(batches).where(batches.c.number >= from_number))


async def archive_three(shard: Shard, engine: Engine, threads: ThreadPoolExecutor) -> Stream:
    """Three batches of one call each."""
    stream = Stream()
    await stream.add(shard, *[4] * 3)
    await drain(archiver(Archive(engine), threads), shard)
    return stream


@pytest.mark.parametrize("running", [False, True], ids=["at the start", "while it runs"])
async def test_an_old_backup_is_refused(
    shard: Shard, engine: Engine, threads: ThreadPoolExecutor, *, running: bool
) -> None:
    """With its end lost the archive is not gone on with, again and again, and the shard forgets nothing."""
    stream = Stream()
    await stream.add(shard, *[4] * 3)
    one = archiver(Archive(engine), threads)
    await drain(one, shard)
    await asyncio.to_thread(cut_tail, engine, 3)
    await stream.add(shard, 4)
    if running:
        with pytest.raises(BatchTakenError):
            await one.step(shard)
    else:
        one = archiver(Archive(engine), threads)
    for _ in range(2):
        with pytest.raises(
            LedgerError, match=r"shard-0: the archive ends at batch 2, but batch 3 was stored"
        ):
            await one.step(shard)
    assert (await shard.ledger_state()).length == 1
    assert len(await asyncio.to_thread(verified_rows, Archive(engine), SHARD)) == 16


class RestoredShard:
    """A shard that says what an older copy of it would say."""

    def __init__(self, shard: Shard, state: LedgerState) -> None:
        self._state = state
        self.ledger_after = shard.ledger_after

    async def archived(self, *_: Any) -> None:
        raise AssertionError("it was told of a batch")

    async def ledger_state(self) -> LedgerState:
        return self._state


@pytest.mark.parametrize("told", ["one batch less", "another batch"])
async def test_a_shard_that_went_back_is_refused(
    shard: Shard, engine: Engine, threads: ThreadPoolExecutor, told: str
) -> None:
    """An older copy of a shard that comes up under a running archiver: nothing is added to what it lost."""
    stream = Stream()
    await stream.add(shard, 4)
    one = archiver(Archive(engine), threads)
    await drain(one, shard)
    older = await shard.ledger_state()
    await stream.add(shard, 4)
    await drain(one, shard)
    if told == "another batch":
        older = replace(await shard.ledger_state(), head=bytes(32))
    # Of other accounts than those that went back: no version is there twice.
    await Stream(("eve", "dan")).add(shard, 1)
    for _ in range(2):
        with pytest.raises(LedgerError, match="nothing of this shard is archived"):
            await one.step(RestoredShard(shard, older))
    assert (await asyncio.to_thread(Archive(engine).position, "shard-0")).number == 2


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("what", ["renamed", "removed", "replaced"])
async def test_a_file_that_is_taken_away(
    shard: Shard, engine: Engine, threads: ThreadPoolExecutor, tmp_path: Path, what: str
) -> None:
    """A shard is not told of what is in a file that nobody finds any more; put back, it is gone on with."""
    stream = await archive_three(shard, engine, threads)
    one = archiver(Archive(engine), threads)
    await drain(one, shard)
    file, away = tmp_path / "ledger.db", tmp_path / "away.db"
    # A second name, by which it can be put back.
    away.hardlink_to(file)
    file.unlink()
    if what == "replaced":
        shutil.copy(away, file)
    await stream.add(shard, 4)
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"ledger\.db was renamed, removed or replaced"):
            await one.step(shard)
        assert (await shard.ledger_state()).number == 3
    if what != "removed":
        away.rename(file)
        await drain(one, shard)
        await check_all_archived(shard, engine, stream.frames)


async def test_all_lost_is_refused(shard: Shard, engine: Engine, threads: ThreadPoolExecutor) -> None:
    """An empty database in place of the archive is not begun anew."""
    await archive_three(shard, engine, threads)
    await asyncio.to_thread(cut_tail, engine, 1)
    with pytest.raises(LedgerError, match="ends at batch 0, but batch 3"):
        await archiver(Archive(engine), threads).step(shard)


async def test_a_changed_head_is_refused(shard: Shard, engine: Engine, threads: ThreadPoolExecutor) -> None:
    """When the last batch is not the one that the shard was told of, nothing is added to it."""
    await archive_three(shard, engine, threads)

    def change() -> None:
        with engine.connect().execution_options(**{WRITING: True}) as connection, connection.begin():
            connection.execute(update(batches).where(batches.c.number == 3).values(hash=GENESIS))

    await asyncio.to_thread(change)
    with pytest.raises(LedgerError, match="batch 3 of the archive is not the one"):
        await archiver(Archive(engine), threads).step(shard)


async def test_another_clusters_archive_is_refused(
    shards: RealShards, shard: Shard, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    """A shard that was never told of anything does not trust an archive that has batches of its name."""
    await archive_three(shard, engine, threads)
    shards.wipe()
    await Stream(("eve", "dan")).add(shard, 1)
    with pytest.raises(LedgerError, match="another cluster's"):
        await archiver(Archive(engine), threads).step(shard)
    state = await shard.ledger_state()
    assert (state.number, state.backlog, state.length) == (0, 2, 1)


async def test_what_cannot_be_read_stays_on_the_shard(
    shard: Shard, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    """A frame of no known layout stops the shard's archive, and is not forgotten."""
    stream = Stream()
    await stream.add(shard, 1)
    await shard.redis.xadd("ledger", LATER)
    one = archiver(Archive(engine), threads)
    for _ in range(2):
        with pytest.raises(LedgerError, match="unreadable: ValueError layout 99"):
            await one.step(shard)
    assert (await shard.ledger_state()).length == 2


async def test_a_repeated_version_is_refused(
    shard: Shard, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    """A shard that went back in time, and makes other entries of the same versions, is noticed."""
    stream = await archive_three(shard, engine, threads)
    frame: dict[Any, Any] = dict(stream.frames[0][1])
    await shard.redis.xadd("ledger", frame, id=f"{10**13}-0")
    with pytest.raises(LedgerError, match="archived already") as refused:
        await archiver(Archive(engine), threads).step(shard)
    assert not isinstance(refused.value, RetryableError)
    assert (await shard.ledger_state()).length == 1


# ---------------------------------------------------------------------- what a shard really writes


async def test_everything_a_shard_writes(shard: Shard, engine: Engine, threads: ThreadPoolExecutor) -> None:
    """Frames of every command are understood, and the backlog counts their entries exactly."""
    details = pack_details(Details(b"order", b"till", b"thanks"))
    refused = bytes((Outcome.INSUFFICIENT_FUNDS,))
    deposit = transfer(WORLD, "ann", 100, Kind.DEPOSIT, details=details)
    rent, too_much, last = (transfer("ann", "bob", amount, details=b"\0\0rent") for amount in (30, 500, 30))
    await shard.open(
        [
            AccountTerms("ann", slot("ann"), "EUR", 0, 10_000, 500),
            AccountTerms("bob", slot("bob"), "EUR"),
        ]
    )
    # Of each bundle some transactions are refused, of which there is no entry.
    assert (await shard.call(Post(posted_bundle([too_much, deposit])))).codes == (refused + DONE,)
    sent = across([rent, too_much, last])
    name = new_attempt_id(await shard.clock_ms())
    prepared = await shard.call(Prepare([Prepared(name, "test/shard-1", 1, sent)]))
    assert set(prepared.codes[0]) == {Outcome.PREPARED}
    codes = DONE + refused + bytes((Outcome.ACCOUNT_CLOSED,))
    finished = await shard.call(Finish([name], [codes]))
    assert finished.codes == [bytes((Outcome.FINISHED, Outcome.DROPPED, Outcome.DROPPED))]
    name = new_attempt_id(await shard.clock_ms())
    decided = await shard.call(Decide([Decided(name, ["test/shard-1"], b"", b"", across([rent, too_much]))]))
    assert decided.codes == [DONE + refused]
    hold = transaction(Kind.HOLD, [("ann", Effect.HOLD, 20)], bound=60_000, details=details)
    assert (await shard.call(Post(posted_bundle([hold])))).codes == (DONE,)
    await shard.set_state([("bob", Kind.FREEZE)])
    before = await shard.ledger_state()
    await drain(archiver(Archive(engine), threads), shard)
    after = await shard.ledger_state()
    rows = [Entry._make(row) for row in await asyncio.to_thread(verified_rows, Archive(engine), SHARD)]
    assert [
        (row.account_id, row.kind, row.version, row.leg, row.delta, row.held_delta, row.balance)
        for row in rows
    ] == [
        ("ann", Kind.OPEN, 0, 0, 0, 0, 0),
        ("bob", Kind.OPEN, 0, 0, 0, 0, 0),
        ("@world:EUR:shard-0", Kind.DEPOSIT, 1, 0, -100, 0, -100),
        ("ann", Kind.DEPOSIT, 1, 1, 100, 0, 100),
        ("bob", Kind.TRANSFER, 1, 1, 30, 0, 30),
        ("ann", Kind.TRANSFER, 2, 0, -30, 0, 70),
        ("ann", Kind.HOLD, 3, 0, 0, 20, 70),
        ("bob", Kind.FREEZE, 2, 0, 0, 0, 30),
    ]
    assert rows[0].attributes == '{"minimum_balance": 0, "maximum_balance": 10000, "maximum_transfer": 500}'
    assert (rows[3].external_id, rows[6].initiated_by, rows[5].reference) == ("order", "till", "rent")
    assert (before.backlog, after.backlog, after.length) == (len(rows), 0, 0)


def across(rows: Sequence[Transaction]) -> bytes:
    """The bundle of transfers whose payees are on another shard than their payers."""
    return bundle_of([replace(row, legs=(row.legs[0], replace(row.legs[1], owner=1))) for row in rows])


async def test_a_bundle_as_long_as_any(shard: Shard, engine: Engine, threads: ThreadPoolExecutor) -> None:
    """Of the largest batch that a shard takes every row has its entries, in order, but for those refused."""
    # Every third is more than all the money there is.
    amounts = [1 if number % 3 else 10**9 for number in range(MAX_BATCH)]
    batch = [transfer("ann", "bob", amount) for amount in amounts]
    await shard.open([AccountTerms(name, slot(name), "EUR") for name in ("ann", "bob")])
    await shard.call(Post(posted_bundle([transfer(WORLD, "ann", MAX_BATCH, Kind.DEPOSIT)])))
    await shard.call(Post(posted_bundle(batch)))
    before = await shard.ledger_state()
    await drain(archiver(Archive(engine), threads), shard)
    after = await shard.ledger_state()
    rows = [Entry._make(row) for row in await asyncio.to_thread(verified_rows, Archive(engine), SHARD)]
    paid = [row for row in batch if row.legs[0].amount_minor == 1]
    assert [(row.transaction_id, row.account_id, row.version, row.balance) for row in rows[4:]] == [
        entry
        for place, row in enumerate(paid, 1)
        for entry in (
            (row.transaction_id, "ann", 1 + place, MAX_BATCH - place),
            (row.transaction_id, "bob", place, place),
        )
    ]
    assert (before.backlog, after.backlog, after.length) == (len(rows), 0, 0)


async def test_a_currency_without_a_known_exponent_waits(
    shard: Shard, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    """Nothing of it is stored or forgotten until the cluster's exponent is known; then that is copied."""
    known = Exponents()
    one = ShardArchiver("shard-0", Archive(engine), threads, lambda: 1, known, BATCH_ENTRIES)
    stream = Stream()
    await stream.add(shard, 2)
    with pytest.raises(ExponentUnknownError, match="how many decimals EUR has is not known here"):
        await one.step(shard)
    assert (await shard.ledger_state()).backlog == 4
    assert await asyncio.to_thread(History(engine).exponents) == {}
    known.learn({"EUR": 2, "JPY": 0})
    await drain(one, shard)
    await check_all_archived(shard, engine, stream.frames)
    assert await asyncio.to_thread(History(engine).exponents) == {"EUR": 2, "JPY": 0}


async def test_a_ledger_that_has_another_exponent_is_not_written_to(
    shard: Shard, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    """Nor read: one of the two is wrong, and a person has to say which."""
    stream = Stream()
    await stream.add(shard, 2)
    await asyncio.to_thread(Archive(engine).keep_exponents, {"EUR": 3})
    told = "the ledger has 3 decimals for EUR, the cluster 2"
    with pytest.raises(LedgerError, match=told):
        await archiver(Archive(engine), threads).step(shard)
    assert (await shard.ledger_state()).backlog == 4
    with pytest.raises(LedgerError, match=told):
        await asyncio.to_thread(History(engine, EXPONENTS).exponent, "EUR")
    assert await asyncio.to_thread(History(engine).exponent, "EUR") == 3


async def test_archivers_that_copy_an_exponent_at_once(engine: Engine) -> None:
    """Both find it there; neither fails."""
    together = [asyncio.to_thread(Archive(engine).keep_exponents, EXPONENTS) for _ in range(4)]
    await asyncio.gather(*together)
    assert await asyncio.to_thread(History(engine).exponents) == EXPONENTS
