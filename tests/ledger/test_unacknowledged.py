"""Batches changed before the shard was told of them: noticed, for it has what they were made of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, update

from shard_node.client.shard import Shard
from shard_node.errors import LedgerError
from shard_node.ledger.store.archive import Archive
from shard_node.ledger.store.schema import batches, entry_id
from tests.ledger import tampering
from tests.ledger.streams import SHARD, START_MS, Stream
from tests.ledger.test_archive import StoppedError
from tests.ledger.test_archiver import (
    Fuse,
    FusedArchive,
    FusedShard,
    Moment,
    archiver,
    check_all_archived,
    drain,
)

FIRST_UNTOLD = entry_id(SHARD.number, 9)


@pytest.fixture(scope="module")
def threads() -> ThreadPoolExecutor:
    """Where archivers of this module block."""
    return ThreadPoolExecutor(2)


async def stop_untold(shard: Shard, engine: Engine, threads: ThreadPoolExecutor) -> Stream:
    """Two batches of two calls each; an archiver dies before it tells the shard of the second."""
    stream = Stream()
    await stream.add(shard, *[2] * 4)
    fuse = Fuse(Moment.BEFORE_TELLING, 2)
    with pytest.raises(StoppedError):
        await drain(archiver(FusedArchive(engine, fuse), threads), FusedShard(shard, fuse))
    assert (await shard.ledger_state()).number == 1
    return stream


def change_batch(engine: Engine, **values: object) -> None:
    """Writes other values into the second batch."""
    with tampering.writing(engine) as connection:
        connection.execute(update(batches).where(batches.c.number == 2).values(**values))


def drop_last_call(engine: Engine) -> None:
    """Makes the batch end one call earlier, of which it keeps the stream id."""
    for sequence in range(13, 17):
        tampering.delete_entry(engine, entry_id(SHARD.number, sequence))
    change_batch(engine, entry_count=4)


FORGERIES: dict[str, Callable[[Engine], None]] = {
    "a reference": lambda engine: tampering.change_entry(engine, FIRST_UNTOLD, reference="forged"),
    "an amount": lambda engine: tampering.change_entry(engine, FIRST_UNTOLD + 1, delta=6, balance=99),
    "an entry's time": lambda engine: tampering.change_entry(engine, FIRST_UNTOLD, at_ms=1),
    "an entry less": lambda engine: tampering.delete_entry(engine, FIRST_UNTOLD + 7),
    "a call less": drop_last_call,
    "a batch's time": lambda engine: change_batch(engine, first_at_ms=START_MS - 5),
    "a batch's place": lambda engine: change_batch(engine, first_sequence=10),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_batch_is_not_told(
    shard: Shard, engine: Engine, threads: ThreadPoolExecutor, forgery: str
) -> None:
    """Changed and sealed anew, it is refused again and again, and the shard forgets nothing."""
    await stop_untold(shard, engine, threads)

    def forge() -> None:
        FORGERIES[forgery](engine)
        tampering.reseal(engine, SHARD)

    before = await shard.ledger_state()
    await asyncio.to_thread(forge)
    one = archiver(Archive(engine), threads)
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"shard-0: batch 2 .*changed before the shard was told"):
            await one.step(shard)
    assert await shard.ledger_state() == before


async def test_a_forged_hash_is_not_told(shard: Shard, engine: Engine, threads: ThreadPoolExecutor) -> None:
    """A hash that is not the batch's never becomes what the shard vouches for."""
    await stop_untold(shard, engine, threads)
    await asyncio.to_thread(change_batch, engine, hash=bytes([7] * 32))
    with pytest.raises(LedgerError, match="its hash is another one"):
        await archiver(Archive(engine), threads).step(shard)
    assert (await shard.ledger_state()).number == 1


@pytest.mark.parametrize("stream_id", ["nonsense", "", f"{START_MS + 2}-0", "99999999999999-0"])
async def test_a_forged_end_is_not_told(
    shard: Shard, engine: Engine, threads: ThreadPoolExecutor, stream_id: str
) -> None:
    """A batch that says it ends elsewhere in the stream, or nowhere, is refused."""
    await stop_untold(shard, engine, threads)

    def forge() -> None:
        change_batch(engine, stream_id=stream_id)
        tampering.reseal(engine, SHARD)

    await asyncio.to_thread(forge)
    with pytest.raises(LedgerError):
        await archiver(Archive(engine), threads).step(shard)
    assert (await shard.ledger_state()).number == 1


async def test_an_honest_batch_is_told(shard: Shard, engine: Engine, threads: ThreadPoolExecutor) -> None:
    """What nobody changed is told, and everything is there once."""
    stream = await stop_untold(shard, engine, threads)
    await stream.add(shard, 2)
    await drain(archiver(Archive(engine), threads), shard)
    await check_all_archived(shard, engine, stream.frames)
