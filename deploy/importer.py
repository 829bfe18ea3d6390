"""Carries a payments file into the cluster: in batches, several on their way at once, results in file order.

A row's outcome is whatever the cluster says of it. A row whose outcome is not known in time stays open in the
result file, and the next run asks again with the same id: nothing here turns "unknown" into "failed".
"""

from __future__ import annotations

import asyncio
import fcntl
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from deploy.errors import DeployError
from deploy.funding import Funding, Wallet
from deploy.payments_file import PaymentsFile, Row
from deploy.results_file import OPEN_OUTCOMES, Results, RowResult, result_path
from tallystick import Outcome, Transfer, TransferResult

BATCH_ROWS = 1000
# Enough that the cluster never waits for this process; bounds the memory, whatever the file's size.
BATCHES_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True)
class ImportSettings:
    """How to import. ``fund`` is what every payer gets when accounts are opened, None to open none.

    ``resend`` sends also rows whose outcome is known. ``retry_seconds`` bounds the tries of one batch.
    """

    fund: str | None = None
    resend: bool = False
    retry_seconds: float = 60.0


@dataclass(slots=True)
class ImportSummary:
    """What an import found: rows by outcome, and how many of them it had to send."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    sent: int = 0

    @property
    def rows(self) -> int:
        """All rows of the file."""
        return sum(self.outcomes.values())

    @property
    def open(self) -> int:
        """Rows whose outcome is still not known: to be sent again by the next run."""
        return sum(self.outcomes[outcome] for outcome in OPEN_OUTCOMES)


class Importer:
    """One import of one file. ``on_progress`` gets the summary so far and the bytes read, after every batch.

    Raises DeployError when the cluster stops answering, or another import of the file is under way; what is
    known by then is in the result file.
    """

    def __init__(
        self,
        client: Wallet,
        cluster_id: str,
        settings: ImportSettings,
        on_progress: Callable[[ImportSummary, int], None] = lambda _summary, _bytes: None,
    ) -> None:
        self._client = client
        self._cluster_id = cluster_id
        self._settings = settings
        self._on_progress = on_progress
        self._funding = (
            None if settings.fund is None else Funding(client, settings.fund, settings.retry_seconds)
        )

    async def run(self, path: Path) -> ImportSummary:
        """Imports the file; returns when every row has been written to the result file."""
        summary = ImportSummary()
        with path.open("rb") as source:
            try:
                fcntl.flock(source, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DeployError(f"another import of {path} is under way") from error
            rows = PaymentsFile(path, source)
            with Results(result_path(path)) as results:
                await self._carry(rows, results, summary)
        return summary

    async def _carry(self, rows: PaymentsFile, results: Results, summary: ImportSummary) -> None:
        waiting: deque[asyncio.Task[list[RowResult]]] = deque()

        async def take_oldest() -> None:
            found = await waiting.popleft()
            for result in found:
                results.write(result)
                summary.outcomes[result.outcome] += 1
            results.flush()
            self._on_progress(summary, rows.bytes_read)

        try:
            for batch in _batches(rows):
                known = [self._known(row, results) for row in batch]
                if self._funding is not None:
                    # Before any later batch is on its way: its rows may name the same accounts.
                    await self._open_and_fund(self._funding, batch, known)
                summary.sent += sum(result is None for result in known)
                waiting.append(asyncio.ensure_future(self._send(batch, known)))
                if len(waiting) == BATCHES_IN_FLIGHT:
                    await take_oldest()
            while waiting:
                await take_oldest()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _open_and_fund(
        self, funding: Funding, batch: Sequence[Row], known: Sequence[RowResult | None]
    ) -> None:
        for row, result in zip(batch, known, strict=True):
            if result is not None and result.outcome is Outcome.COMMITTED:
                funding.note(row)
        await funding.prepare(batch)

    def _known(self, row: Row, results: Results) -> RowResult | None:
        if self._settings.resend:
            return None
        earlier = results.earlier(row)
        return earlier if earlier is not None and earlier.settles(row, self._cluster_id) else None

    async def _send(self, batch: Sequence[Row], known: Sequence[RowResult | None]) -> list[RowResult]:
        to_send = [row for row, result in zip(batch, known, strict=True) if result is None and not row.defect]
        answers = await self._client.transfers(
            (_transfer(row) for row in to_send), timeout_s=self._settings.retry_seconds
        )
        if answers and all(answer.outcome in OPEN_OUTCOMES for answer in answers):
            # Nobody answers: rather than wait as long for every further batch, say so.
            raise DeployError(
                f"no outcome for any of {len(answers)} rows within {self._settings.retry_seconds:.0f} s "
                f"({answers[0].error}); once the cluster is back, the same command goes on from here"
            )
        answered = iter(answers)
        return [
            result or (self._defective(row) if row.defect else self._answered(row, next(answered)))
            for row, result in zip(batch, known, strict=True)
        ]

    def _defective(self, row: Row) -> RowResult:
        return RowResult(row.number, row.texts, Outcome.INVALID_ARGUMENT, row.defect, self._cluster_id)

    def _answered(self, row: Row, answer: TransferResult) -> RowResult:
        error = answer.error
        # Without the transaction, which has a column of its own.
        message = "" if error is None else str(error.concerning(""))
        return RowResult(row.number, row.texts, answer.outcome, message, self._cluster_id)


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    source = iter(rows)
    while batch := list(islice(source, BATCH_ROWS)):
        yield batch


def _transfer(row: Row) -> Transfer:
    return Transfer(
        from_account=row.from_account,
        to_account=row.to_account,
        amount=row.amount,
        currency=row.currency,
        transaction_id=row.transaction_id,
        reference=row.reference,
    )
