"""Carries a payments file into the cluster: in batches, several on their way at once.

A row's outcome is whatever the cluster says of it. Invariants: what is about to be sent is written down first
(`knowledge`); what an earlier import sent, with an id that the shards may have forgotten, is sent again only
after the ledger has said that it did not move (`witness`); nothing here turns "unknown" into "failed".
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import stat
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from deploy.errors import DeployError, TableError
from deploy.importing.funding import Funding, Wallet
from deploy.importing.knowledge import Knowledge, Record, Standing, now_text
from deploy.importing.payments_file import Instruction, PaymentsFile, Row
from deploy.importing.results_file import (
    DATABASE_SUFFIX,
    OPEN_OUTCOMES,
    SCRATCH_SUFFIX,
    Result,
    replacing,
    result_path,
    said_of,
)
from deploy.importing.witness import Finding, Ledger, Witness, asking_now, must_be_fresh
from tallystick import Outcome, TallystickError, Transfer

BATCH_ROWS = 1000
# Enough that the cluster never waits for this process; bounds the memory, whatever the file's size.
BATCHES_IN_FLIGHT = 4
# No deduplication window is shorter than two minutes: the last try of an id must be within one of the first.
MAX_RETRY_SECONDS = 60.0


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
    if own is not None and own.standing is Standing.CERTAIN:
        return _of_row(own.result, row)
    for record in mine:
        if record.result.outcome is Outcome.COMMITTED:
            moved = record.instruction
            message = (
                f"an earlier version of this row moved {moved.amount} {moved.currency} to {moved.to_account} "
                "under this transaction_id: give what is to move now an id of its own"
            )
            return Result(one, Outcome.TRANSACTION_ID_REUSED, message, number=row.number)
    if own is not None and own.standing is Standing.DOUBT:
        # A timed id counts once for ever: the cluster itself tells a repetition, if only one thing can be it.
        is_safe = one.is_timed and all(
            record is own or record.standing is Standing.CERTAIN for record in mine
        )
        return None if is_safe else _of_row(own.result, row)
    if any(record.standing is Standing.DOUBT for record in mine):
        message = "an earlier version of this row may have moved: run the same command again"
        return Result(one, Outcome.OUTCOME_UNKNOWN, message, number=row.number)
    return None


@dataclass(slots=True)
class _Step:
    """A batch on its way. ``asked_at`` is when doubts about its rows were looked into.

    ``found`` is what is known of its rows, by id. ``unproved`` are what may have moved all the same: keys and
    fingerprints.
    """

    batch: Sequence[Row]
    found: Mapping[bytes, Sequence[Record]]
    to_send: Sequence[Instruction] = ()
    asked_at: float = math.inf
    unproved: Collection[tuple[bytes, bytes]] = ()


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
        self._ledger = ledger
        self._cluster_id = cluster_id
        self._retry_seconds = min(settings.retry_seconds, MAX_RETRY_SECONDS)
        self._fund = settings.fund
        self._on_progress = on_progress
        self._on_stopping = on_stopping
        self._summary = ImportSummary()
        self._knowledge: Knowledge
        self._witness: Witness
        self._funding: Funding | None = None
        # Set by the first that goes wrong: from then on nothing more is sent.
        self._problem: BaseException | None = None

    async def run(self, rows: PaymentsFile, target: Path) -> ImportSummary:
        """Imports rows; returns when every row has been written to the result file ``target``.

        When cancelled it sends nothing more, and ends when what is under way has its outcome.

        Raises TableError when the results of earlier imports cannot be read, before anything is sent, and
        DeployError when the cluster stops answering, another import has the result file, or a disk is full.
        What is known by then is in the result file, or beside it for the next import.
        """
        try:
            with Knowledge(target, self._cluster_id) as knowledge:
                self._knowledge = knowledge
                self._witness = Witness(self._ledger, self._client, knowledge)
                if self._fund is not None:
                    self._funding = Funding(
                        self._client, knowledge, self._witness, self._fund, self._retry_seconds
                    )
                with replacing(target, self._cluster_id) as write:
                    await self._to_its_end(self._carry(rows, write))
                knowledge.discard()
        except OSError as error:
            raise DeployError(
                f"the results cannot be written: {error}; what was sent is kept beside {target}: once that "
                "is mended, the same command goes on from here"
            ) from error
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

    async def _carry(self, rows: PaymentsFile, write: Callable[[Result], object]) -> None:
        """Goes through the file once, and writes the results in its order.

        After a problem it goes on to the end all the same, with what is known already.
        """
        knowledge = self._knowledge
        under_way: deque[asyncio.Task[list[Result]]] = deque()

        async def take_oldest() -> None:
            for result in await under_way.popleft():
                write(result)
                self._summary.outcomes[result.outcome] += 1
            self._on_progress(self._summary, rows.rows_total)

        try:
            for batch in _batches(rows):
                # A row with a defect is no instruction, though its texts may be those of one.
                knowledge.note_rows([row.instruction for row in batch if not row.defect])
                step = await self._prepared(batch)
                under_way.append(asyncio.ensure_future(self._finish(step)))
                if len(under_way) == BATCHES_IN_FLIGHT:
                    await take_oldest()
            while under_way:
                await take_oldest()
        finally:
            if under_way:
                await asyncio.wait(under_way)
        if self._problem is None:
            # Of rows that the file has no more.
            for doubts in knowledge.doubts():
                knowledge.learn(await self._witness.conclusions(doubts))
        for result in knowledge.others():
            write(result)

    async def _prepared(self, batch: Sequence[Row]) -> _Step:
        """What to send of a batch: doubts about its rows are looked into, their payers are funded."""
        keys = [row.instruction.key for row in batch]
        step = _Step(batch, self._knowledge.find(keys))
        if self._problem is not None:
            return step
        if doubts := _doubts(step.found):
            step.asked_at = asking_now()
            self._knowledge.learn(await self._witness.conclusions(doubts))
            step.found = self._knowledge.find(keys)
            step.unproved = {record.instruction[:2] for record in _doubts(step.found)}
        to_send = [
            row.instruction for row in batch if judge(row, step.found.get(row.instruction.key, ())) is None
        ]
        if self._funding is not None:
            try:
                # Before any later batch is on its way: its rows may name the same accounts.
                await self._funding.prepare(to_send)
            except (DeployError, TallystickError) as error:
                self._stop_for(error)
                return step
        step.to_send = to_send
        return step

    async def _finish(self, step: _Step) -> list[Result]:
        """Sends what is to be sent; what is known then of the batch's rows, in their order."""
        if step.to_send:
            self._summary.sent += len(step.to_send)
            try:
                await self._send(step)
            except (DeployError, TallystickError) as error:
                self._stop_for(error)
            step.found = self._knowledge.find(row.instruction.key for row in step.batch)
        results = []
        for row in step.batch:
            records = step.found.get(row.instruction.key, ())
            result = judge(row, records)
            if result is None:
                # Sent, and not answered; there is no record of a row that was not reached.
                own = (one for one in records if one.instruction.fingerprint == row.instruction.fingerprint)
                result = next((_of_row(record.result, row) for record in own), None)
            if result is not None:
                results.append(result)
        return results

    async def _send(self, step: _Step) -> None:
        self._knowledge.intend(step.to_send, now_text())
        must_be_fresh(step.asked_at)
        answers = await self._client.transfers(map(_transfer, step.to_send), timeout_s=self._retry_seconds)
        expired, learned = [], []
        for one, answer in zip(step.to_send, answers, strict=True):
            result = Result(one, answer.outcome, said_of(answer.error))
            if answer.outcome is Outcome.TRANSACTION_ID_EXPIRED:
                expired.append(result)
            elif answer.outcome is Outcome.INVALID_ARGUMENT and one[:2] in step.unproved:
                # A router's word, which knows nothing of what an earlier import did.
                learned.append(self._witness.conclusion(result, Finding.UNPROVABLE))
            else:
                learned.append(Record(result, Standing.CERTAIN if result.is_certain else Standing.SENT))
        self._knowledge.learn(learned)
        # It moved, or did not, when the id was new.
        findings = await self._witness.findings([result.instruction for result in expired])
        self._knowledge.learn(
            Record(result, Standing.CERTAIN)
            if finding is Finding.ABSENT
            else self._witness.conclusion(result, finding)
            for result, finding in zip(expired, findings, strict=True)
        )
        if all(answer.outcome in OPEN_OUTCOMES for answer in answers):
            # Nobody answers: rather than wait as long for every further batch, say so.
            raise DeployError(
                f"no outcome for any of {len(answers)} rows within {self._retry_seconds:.0f} s "
                f"({answers[0].error}); once the cluster is back, the same command goes on from here"
            )


def _doubts(found: Mapping[bytes, Sequence[Record]]) -> list[Record]:
    return [one for records in found.values() for one in records if one.standing is Standing.DOUBT]


def _of_row(result: Result, row: Row) -> Result:
    """The same, as the result of a row that may write it in another way."""
    return Result(row.instruction, result.outcome, result.message, result.sent_at, row.number)


@contextmanager
def opened(path: Path, results: Path | None = None) -> Iterator[tuple[PaymentsFile, Path]]:
    """The payments, checked, and where their results go: beside them, or where it was said.

    They are read from a private copy: whoever writes to the file meanwhile must not change a row between the
    check and the sending. A file that has several names has one result file.

    Raises TableError when quoting or header are not clear, DeployError when there is no place for results.
    """
    is_file = stat.S_ISREG(path.stat().st_mode)
    if results is not None:
        target = results.resolve()
    elif is_file:
        target = result_path(path.resolve())
    else:
        raise DeployError(f"{path} is no regular file: say where the outcomes go with --results FILE")
    for suffix in ("", SCRATCH_SUFFIX, DATABASE_SUFFIX):
        written = target.with_name(target.name + suffix)
        if written.exists() and written.samefile(path):
            raise DeployError(f"{written} holds the payments themselves: name other results with --results")
    with tempfile.TemporaryFile() as copy:
        with path.open("rb") as source:
            shutil.copyfileobj(source, copy)
        if not is_file and copy.tell():
            copy.seek(-1, os.SEEK_END)
            if copy.read() != b"\n":
                raise TableError(f"{path} ends in the middle of a line: was what wrote it cut off?")
        yield PaymentsFile(str(path), copy), target


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
