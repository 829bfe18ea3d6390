"""Carries a payments file into the cluster: in batches, several on their way at once.

A row's outcome is whatever the cluster says of it. Invariants: what is about to be sent is written down first
(`knowledge`); what an earlier import sent, with an id that the shards may have forgotten, is sent again only
after the ledger has said that it did not move (`witness`); nothing here turns "unknown" into "failed".
"""

from __future__ import annotations

import asyncio
import math
import shutil
import stat
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from deploy.errors import DeployError
from deploy.funding import Funding, Wallet
from deploy.knowledge import Knowledge, Record, Standing, now_text
from deploy.payments_file import Instruction, PaymentsFile, Row
from deploy.results_file import OPEN_OUTCOMES, Result, replacing, result_path, said_of
from deploy.witness import Finding, Ledger, Witness
from tallystick import Outcome, TallystickError, Transfer

BATCH_ROWS = 1000
# Enough that the cluster never waits for this process; bounds the memory, whatever the file's size.
BATCHES_IN_FLIGHT = 4
# No deduplication window is shorter than two minutes: the last try of an id must come within one of the
# first, and so must what is sent after the ledger was asked.
MAX_RETRY_SECONDS = 60.0
_PROOF_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ImportSettings:
    """How to import. ``fund`` is what every payer gets when accounts are opened, None to open none.

    ``retry_seconds`` bounds the tries of one batch, to `MAX_RETRY_SECONDS`.
    """

    fund: str | None = None
    retry_seconds: float = MAX_RETRY_SECONDS


@dataclass(slots=True)
class ImportSummary:
    """What an import found: rows by outcome, and how many of them it had to send."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    sent: int = 0

    @property
    def rows(self) -> int:
        """All rows that were reached."""
        return sum(self.outcomes.values())

    @property
    def open(self) -> int:
        """Rows whose outcome is still not known: the next run finds out, or sends them again."""
        return sum(self.outcomes[outcome] for outcome in OPEN_OUTCOMES)


def judge(row: Row, records: Sequence[Record]) -> Result | None:
    """What is known of a row, from the records under its id; None when it is to be sent.

    The scope of an id is the payer: what other payers sent under it is no concern of this row.
    """
    one = row.instruction
    if row.defect:
        return Result(one, Outcome.INVALID_ARGUMENT, f"line {row.line}: {row.defect}", number=row.number)
    mine = [record for record in records if record.instruction.from_account == one.from_account]
    own = next((record for record in mine if record.instruction.fingerprint == one.fingerprint), None)
    if own is not None and own.standing is not Standing.SENT:
        return _of_row(own.result, row)
    for record in mine:
        if record.result.outcome is Outcome.COMMITTED:
            moved = record.instruction
            message = (
                f"an earlier version of this row moved {moved.amount} {moved.currency} to {moved.to_account} "
                "under this transaction_id: give what is to move now an id of its own"
            )
            return Result(one, Outcome.TRANSACTION_ID_REUSED, message, number=row.number)
    if any(record.standing is Standing.DOUBT for record in mine):
        message = "an earlier version of this row may have moved: run the same command again"
        return Result(one, Outcome.OUTCOME_UNKNOWN, message, number=row.number)
    return None


class Importer:
    """One import of one file.

    ``on_progress`` gets the summary so far and how many rows there are, after every batch; ``on_stopping`` is
    called when the import was cancelled and still waits for what is under way.
    """

    def __init__(
        self,
        client: Wallet,
        ledger: Ledger,
        cluster_id: str,
        settings: ImportSettings,
        on_progress: Callable[[ImportSummary, int], None] = lambda _summary, _rows: None,
        on_stopping: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._cluster_id = cluster_id
        self._settings = settings
        self._on_progress = on_progress
        self._on_stopping = on_stopping
        self._witness = Witness(ledger, client)
        self._summary = ImportSummary()
        # Set by the first that goes wrong: from then on nothing more is sent.
        self._problem: BaseException | None = None

    async def run(self, path: Path, results: Path | None = None) -> ImportSummary:
        """Imports the file; returns when every row has been written to the result file.

        When cancelled it sends nothing more, and ends when what is under way has its outcome.

        Raises TableError when the payments or the results of earlier imports cannot be read, before anything
        is sent, and DeployError when the cluster stops answering, or another import of the file is under way.
        What is known by then is in the result file.
        """
        with _opened(path, results) as (source, target):
            rows = PaymentsFile(str(path), source)
            with Knowledge(target, self._cluster_id) as knowledge:
                with replacing(target, self._cluster_id) as write:
                    await self._to_its_end(self._carry(rows, knowledge, write))
                knowledge.discard()
        if self._problem is not None:
            raise self._problem
        return self._summary

    async def _to_its_end(self, work: Coroutine[None, None, None]) -> None:
        """Carries out the work; cancelled once, it goes on without sending anything more."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as cancelled:
            self._stop_for(cancelled)
            self._on_stopping()
            await task

    def _stop_for(self, problem: BaseException) -> None:
        self._problem = self._problem or problem

    async def _carry(
        self, rows: PaymentsFile, knowledge: Knowledge, write: Callable[[Result], object]
    ) -> None:
        """Goes through the file once, and writes the results in its order.

        After a problem it goes on to the end all the same, with what is known already.
        """
        fund, seconds = self._settings.fund, self._settings.retry_seconds
        funding = None if fund is None else Funding(self._client, knowledge, self._witness, fund, seconds)
        under_way: deque[asyncio.Task[list[Result]]] = deque()

        async def take_oldest() -> None:
            for result in await under_way.popleft():
                write(result)
                self._summary.outcomes[result.outcome] += 1
            self._on_progress(self._summary, rows.rows_total)

        for batch in _batches(rows):
            knowledge.note_rows([row.instruction for row in batch])
            to_send, asked_at = await self._prepare(batch, knowledge, funding)
            under_way.append(asyncio.ensure_future(self._finish(batch, to_send, asked_at, knowledge)))
            if len(under_way) == BATCHES_IN_FLIGHT:
                await take_oldest()
        while under_way:
            await take_oldest()
        if self._problem is None:
            # Of rows that the file has no more.
            for doubts in knowledge.doubts():
                knowledge.learn(await self._witness.conclusions(doubts))
        for result in knowledge.others():
            write(result)

    async def _prepare(
        self, batch: Sequence[Row], knowledge: Knowledge, funding: Funding | None
    ) -> tuple[list[Instruction], float]:
        """Of the rows, those to send, with funded payers; and when it was that doubts were looked into."""
        asked_at = math.inf
        if self._problem is not None:
            return [], asked_at
        keys = [row.instruction.key for row in batch]
        found = knowledge.find(keys)
        doubts = [one for records in found.values() for one in records if one.standing is Standing.DOUBT]
        if doubts:
            asked_at = _now_seconds()
            knowledge.learn(await self._witness.conclusions(doubts))
            found = knowledge.find(keys)
        to_send = [row.instruction for row in batch if judge(row, found.get(row.instruction.key, ())) is None]
        if funding is not None:
            try:
                # Before any later batch is on its way: its rows may name the same accounts.
                await funding.prepare(to_send)
            except (DeployError, TallystickError) as error:
                self._stop_for(error)
                return [], asked_at
        return to_send, asked_at

    async def _finish(
        self, batch: Sequence[Row], to_send: Sequence[Instruction], asked_at: float, knowledge: Knowledge
    ) -> list[Result]:
        """Sends what is to be sent; what is known then of the batch's rows, in their order."""
        if to_send:
            self._summary.sent += len(to_send)
            try:
                await self._send(to_send, asked_at, knowledge)
            except (DeployError, TallystickError) as error:
                self._stop_for(error)
        found = knowledge.find(row.instruction.key for row in batch)
        results = []
        for row in batch:
            records = found.get(row.instruction.key, ())
            result = judge(row, records)
            if result is None:
                # Sent, and not answered; there is no record of a row that was not reached.
                own = (one for one in records if one.instruction.fingerprint == row.instruction.fingerprint)
                result = next((_of_row(record.result, row) for record in own), None)
            if result is not None:
                results.append(result)
        return results

    async def _send(self, to_send: Sequence[Instruction], asked_at: float, knowledge: Knowledge) -> None:
        knowledge.intend(to_send, now_text())
        if _now_seconds() - asked_at > _PROOF_SECONDS:
            raise DeployError(
                "the import stood still for too long to go on safely: run the same command again"
            )
        seconds = min(self._settings.retry_seconds, MAX_RETRY_SECONDS)
        answers = await self._client.transfers(map(_transfer, to_send), timeout_s=seconds)
        results = [
            Result(one, answer.outcome, said_of(answer.error))
            for one, answer in zip(to_send, answers, strict=True)
        ]
        expired = [result for result in results if result.outcome is Outcome.TRANSACTION_ID_EXPIRED]
        knowledge.learn(
            Record(result, Standing.CERTAIN if result.is_certain else Standing.SENT)
            for result in results
            if result.outcome is not Outcome.TRANSACTION_ID_EXPIRED
        )
        # It moved, or did not, when the id was new.
        findings = await self._witness.findings([result.instruction for result in expired])
        knowledge.learn(
            Record(result, Standing.CERTAIN)
            if finding is Finding.ABSENT
            else self._witness.conclusion(result, finding)
            for result, finding in zip(expired, findings, strict=True)
        )
        if not any(result.is_certain for result in results):
            # Nobody answers: rather than wait as long for every further batch, say so.
            raise DeployError(
                f"no outcome for any of {len(answers)} rows within {seconds:.0f} s ({answers[0].error}); "
                "once the cluster is back, the same command goes on from here"
            )


def _of_row(result: Result, row: Row) -> Result:
    """The same, as the result of a row that may write it in another way."""
    return Result(row.instruction, result.outcome, result.message, result.sent_at, row.number)


def _now_seconds() -> float:
    """Seconds that count also while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@contextmanager
def _opened(path: Path, results: Path | None) -> Iterator[tuple[BinaryIO, Path]]:
    """The payments, to be read more than once, and where the results go."""
    with path.open("rb") as source:
        if stat.S_ISREG(path.stat().st_mode):
            target = results or result_path(path)
            if target.exists() and target.samefile(path):
                raise DeployError(
                    f"{target} holds the payments themselves: name another file with --results FILE"
                )
            yield source, target
            return
        if results is None:
            raise DeployError(f"{path} is no regular file: say where the outcomes go with --results FILE")
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(source, copy)
            yield copy, results


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    source = iter(rows)
    while batch := list(islice(source, BATCH_ROWS)):
        yield batch


def _transfer(instruction: Instruction) -> Transfer:
    return Transfer(
        from_account=instruction.from_account,
        to_account=instruction.to_account,
        amount=instruction.amount,
        currency=instruction.currency,
        transaction_id=instruction.transaction_id,
        reference=instruction.reference,
    )
