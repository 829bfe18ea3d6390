"""Answers from the archive of a real cluster say how far they are complete, and wait; whatever is away."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from deploy.local.launcher import LocalCluster
from router.execution import ledger_completeness
from router.execution.ledger_completeness import (
    ANSWER_SECONDS,
    CompleteAnswers,
    LedgerStates,
    NotYetArchivedError,
)
from router.execution.ledger_reader import LedgerReader
from shard_node.client.connection import CALL_TIMEOUT_SECONDS
from shard_node.client.ledger_state import LedgerState
from shard_node.errors import ShardUnavailableError
from shard_node.ledger.questions.history import History
from tallystick.v1 import ledger_pb2, ledger_pb2_grpc
from tests.ledger.books import fresh_ledger
from tests.router.bank import Bank, new_id, wait_for
from tests.router.contract import Client
from tests.router.stand_ins import ShardStandIn

ARCHIVER = "archiver-0"
# "All that happened before this request."
EVERYTHING = Timestamp(seconds=253_402_300_799)
# What an archiver that works needs, on a machine that is busy.
PATIENCE_SECONDS = 15.0


@contextmanager
def stopped(cluster: LocalCluster, name: str) -> Iterator[int]:
    """A process of the cluster does nothing, as if it hung; it goes on in the end. Its id."""
    pid = cluster.pid(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def stub(router_channel: grpc.Channel) -> ledger_pb2_grpc.LedgerServiceStub:
    """The LedgerService, with deadlines of the test's own."""
    return ledger_pb2_grpc.LedgerServiceStub(router_channel)


def deposit(bank: Bank, account: str, amount: str = "5.00") -> str:
    """Brings money in; the transaction's id."""
    used = new_id()
    bank.wallet.call("Deposit", transaction_id=used, account_id=account, amount=amount, currency="EUR")
    return used


def refused(call: Any, *arguments: Any, **named: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """How a call was refused: its code, reason and metadata; retryable ones say when."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **named)
    error: Any = caught.value
    status = rpc_status.from_call(error)
    assert status is not None, error
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    (packed, *rest) = status.details
    assert packed.Unpack(info)
    assert bool(rest) == (error.code() is grpc.StatusCode.UNAVAILABLE)
    assert all(one.Unpack(retry) for one in rest)
    return error.code(), info.reason, dict(info.metadata)


def moment(text: str) -> int:
    """A time of an error's metadata in ms."""
    made = Timestamp()
    made.FromJsonString(text)
    return made.ToMilliseconds()


def transfer(transaction_id: str, wait: Timestamp | None = EVERYTHING) -> ledger_pb2.GetLedgerTransferRequest:
    """A request for a transaction."""
    return ledger_pb2.GetLedgerTransferRequest(transaction_id=transaction_id, wait_for=wait)


@pytest.mark.cluster
def test_everything_before_the_request_is_in_the_answer(stub: Any, bank: Bank) -> None:
    """At once after each deposit, on each shard; and complete_until is after it by the shard's clock."""
    for tag in bank.tags:
        account = bank.open(tag)
        used = deposit(bank, account)
        found = stub.GetTransfer(transfer(used), timeout=PATIENCE_SECONDS)
        assert [entry.account_id for entry in found.entries][-1] == account
        assert all(
            entry.at.ToMilliseconds() <= found.complete_until.ToMilliseconds() for entry in found.entries
        )
        used = deposit(bank, account)
        balance = stub.GetBalanceAt(
            ledger_pb2.GetBalanceAtRequest(account_id=account, wait_for=EVERYTHING), timeout=PATIENCE_SECONDS
        )
        assert balance.balance == "10.00"
        assert balance.complete_until.ToMilliseconds() >= balance.changed_at.ToMilliseconds()
    _, reason, metadata = refused(stub.GetTransfer, transfer(new_id()), timeout=PATIENCE_SECONDS)
    assert reason == "TRANSACTION_NOT_FOUND"
    assert moment(metadata["complete_until"]) >= balance.changed_at.ToMilliseconds()


@pytest.mark.cluster
def test_while_the_archiver_hangs_answers_say_so(cluster: LocalCluster, stub: Any, bank: Bank) -> None:
    """What is not found is known up to a moment before it; who waits is told which shard lags, or gets it."""
    account = bank.open(bank.tags[1])
    stub.ListEntries(
        ledger_pb2.ListEntriesRequest(account_id=account, wait_for=EVERYTHING), timeout=PATIENCE_SECONDS
    )
    with stopped(cluster, ARCHIVER) as pid, ThreadPoolExecutor() as threads:
        used = deposit(bank, account)
        made_ms = bank_time_ms(bank, account)
        balance = stub.GetBalanceAt(ledger_pb2.GetBalanceAtRequest(account_id=account), timeout=5)
        assert (balance.balance, balance.complete_until.ToMilliseconds()) == ("0.00", made_ms - 1)
        _, reason, metadata = refused(stub.GetTransfer, transfer(used, None), timeout=5)
        assert reason == "TRANSACTION_NOT_FOUND"
        assert moment(metadata["complete_until"]) == made_ms - 1
        code, reason, metadata = refused(stub.GetTransfer, transfer(used), timeout=1)
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_YET_ARCHIVED")
        assert moment(metadata["complete_until"]) == made_ms - 1
        # Of the three shards one alone has something that waits.
        assert metadata["shards_behind"] == bank.shard_of(account)
        assert metadata["shards_not_answering"] == ""
        # A moment well past is known all the same.
        _, reason, _ = refused(stub.GetTransfer, transfer(used, Timestamp(seconds=1_000_000_000)), timeout=5)
        assert reason == "TRANSACTION_NOT_FOUND"
        waiting = threads.submit(stub.GetTransfer, transfer(used), timeout=PATIENCE_SECONDS)
        os.kill(pid, signal.SIGCONT)
        assert len(waiting.result().entries) == 2


@pytest.mark.cluster
def test_a_shard_that_hangs_holds_no_answer_up(cluster: LocalCluster, stub: Any, bank: Bank) -> None:
    """Answers come soon, complete up to what is archived of it; who waits is told that it does not answer."""
    other = bank.open(bank.tags[0], "1.00")
    hung = bank.shard_of(bank.name(bank.tags[2]))
    request = ledger_pb2.GetBalanceAtRequest(account_id=other)
    waiting = ledger_pb2.GetBalanceAtRequest(account_id=other, wait_for=EVERYTHING)
    stub.GetBalanceAt(waiting, timeout=PATIENCE_SECONDS)
    with stopped(cluster, f"redis:{hung}"):
        stopped_ms = time.time_ns() // 1_000_000
        for _ in range(3):
            # Well before the call to the shard is given up.
            found = stub.GetBalanceAt(request, timeout=CALL_TIMEOUT_SECONDS / 2)
            assert found.complete_until.ToMilliseconds() < stopped_ms
            assert found.balance == "1.00"
        code, reason, metadata = refused(stub.GetBalanceAt, waiting, timeout=2)
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_YET_ARCHIVED")
        assert (metadata["shards_behind"], metadata["shards_not_answering"]) == ("", hung)

    def complete_again() -> bool | None:
        found = stub.GetBalanceAt(waiting, timeout=PATIENCE_SECONDS)
        return found.complete_until.ToMilliseconds() > stopped_ms or None

    wait_for(complete_again, "answer of the shard")


@pytest.mark.cluster
def test_a_watch_says_when_all_has_come(stub: Any, bank: Bank, ledger: Client) -> None:
    """Complete up to a moment at or after an entry only with that entry, or after it."""
    account = bank.open(bank.tags[1])
    watching = ledger.stream("WatchEntries", account_ids=[account], from_beginning=True)
    versions: list[int] = []
    for message in watching:
        versions += [entry.version for entry in message.entries]
        if message.HasField("complete_until") and versions:
            assert message.complete_until.ToMilliseconds() >= message.entries[-1].at.ToMilliseconds()
            break
    assert versions == [0]
    watching.cancel()  # type: ignore[attr-defined]  # a call of gRPC's


def bank_time_ms(bank: Bank, account: str) -> int:
    """When the last entry was made on an account's shard, by the shard's clock."""
    with bank.redis(bank.shard_of(account)) as redis:
        ((stream_id, _),) = cast("list[tuple[bytes, object]]", redis.xrevrange("ledger", count=1))
    return int(stream_id.partition(b"-")[0])


# ---------------------------------------------------------------------- asking shards


class Asked(ShardStandIn):
    """A shard that answers, when a test lets it, how often it was asked."""

    def __init__(self, shard_id: str) -> None:
        super().__init__(shard_id)
        self.asked = 0
        self.answering = asyncio.Event()
        self.fails = False

    async def ledger_state(self) -> LedgerState:
        """As it was when the call came."""
        self.asked += 1
        state = LedgerState(self.asked, b"", "0-0", 0, 0, 0, 0)
        await self.answering.wait()
        if self.fails:
            raise ShardUnavailableError("away")
        return state


class Waiting(ShardStandIn):
    """A shard with entries that wait."""

    number = 0
    read = 0
    archived_while_read = False

    async def ledger_state(self) -> LedgerState:
        """What waits."""
        return LedgerState(self.number, b"", "0-0", 0, 0, len(self.waiting), 0)

    async def ledger_after(self, stream_id: str, count: int) -> list[tuple[str, dict[bytes, bytes]]]:
        """Counts how often that is read."""
        self.read += 1
        if self.archived_while_read:
            self.archived_while_read = False
            self.number += 1
        return await super().ledger_after(stream_id, count)


def numbers(states: dict[str, LedgerState | None]) -> list[int | None]:
    """Which call each shard's answer is of; None where there is none."""
    return [None if state is None else state.number for state in states.values()]


async def test_questions_share_a_call_that_began_after_them() -> None:
    """Those that come while a call is under way get the answer to the next one, all together."""
    shard, other = Asked("shard-0"), Asked("shard-1")
    other.answering.set()
    states = LedgerStates(lambda: (shard, other))
    first = asyncio.ensure_future(states.ask())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert shard.asked == 1
    later = [asyncio.ensure_future(states.ask()) for _ in range(5)]
    await asyncio.sleep(0)
    shard.answering.set()
    assert numbers(await first)[0] == 1
    assert {numbers(await one)[0] for one in later} == {2}
    assert shard.asked == 2
    shard.fails = True
    assert numbers(await states.ask())[0] is None


async def test_the_oldest_entry_that_waits_is_read_once_a_batch() -> None:
    """It may be large. And never one that is oldest only because others were archived meanwhile."""
    shard = Waiting("shard-0")
    states = LedgerStates(lambda: (shard,))

    async def oldest_ms() -> int | None:
        state = (await states.ask())["shard-0"]
        assert state is not None
        return state.oldest_ms

    assert await oldest_ms() is None
    shard.waiting = [("1000-0", {}), ("2000-0", {})]
    assert [await oldest_ms() for _ in range(3)] == [1000, 1000, 1000]
    assert shard.read == 1
    shard.number, shard.waiting = 1, [("2000-0", {})]
    shard.archived_while_read = True
    assert await oldest_ms() is None
    assert await oldest_ms() == 2000


async def test_a_silent_shard_is_waited_for_once() -> None:
    """Those who come while it is known to hang get the others' answers at once."""
    shard, other = Asked("shard-0"), Asked("shard-1")
    other.answering.set()
    states = LedgerStates(lambda: (shard, other))
    begun = time.monotonic()
    assert numbers(await states.ask()) == [None, 1]
    waited = time.monotonic() - begun
    assert ANSWER_SECONDS <= waited < 8 * ANSWER_SECONDS
    assert numbers(await states.ask()) == [None, 2]
    assert time.monotonic() - begun - waited < ANSWER_SECONDS / 2
    states.close()


class Silenced(ShardStandIn):
    """A shard with an entry that waits, which says so once and then no more."""

    looks = 0

    async def ledger_state(self) -> LedgerState:
        """A look asks twice when it reads an entry, too."""
        self.looks += 1
        if self.looks > 2:
            await asyncio.Event().wait()
        return await super().ledger_state()


async def test_a_wait_ends_in_time_though_a_shard_falls_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what the last look found: past its deadline, the caller would hear nothing of it."""
    monkeypatch.setattr(ledger_completeness, "ANSWER_SECONDS", 60.0)
    shard, reader = Silenced("shard-0"), LedgerReader()
    shard.waiting = [("1000-0", {})]
    engine = fresh_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    answers = CompleteAnswers(History(engine), lambda: (shard,), reader)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(NotYetArchivedError, match="shard-0 has 1 entries"):
                await answers.ask(lambda: "answer", 2**50, time.monotonic() + 0.3)
    finally:
        answers.close()
        reader.close()
        engine.dispose()
    assert shard.looks > 2
