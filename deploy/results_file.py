"""FILE.result.csv: the outcome of every row of a payments file, in its order.

It makes a second run change nothing, also long after the first: a row whose outcome is final is not sent
again, as long as the row, and the cluster, are the same. Invariant: an outcome is written only after the
cluster has answered it, and the file as a whole is replaced, never half written:

    FILE.result.csv        what earlier runs found, complete
    FILE.result.csv.part   what the run under way has found so far: the first rows

A run that was killed leaves both; `recover` puts them together.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.payments_file import COLUMNS, Row
from tallystick import Outcome

HEADER = ("row", *COLUMNS, "outcome", "message", "cluster_id")
# Nothing final is known of these: the row must be sent again, with the same id.
OPEN_OUTCOMES = frozenset({Outcome.UNSPECIFIED, Outcome.OUTCOME_UNKNOWN, Outcome.RESOURCE_EXHAUSTED})


@dataclass(frozen=True, slots=True)
class RowResult:
    """What became of one row, in which cluster."""

    number: int
    texts: tuple[str, ...]
    outcome: Outcome
    message: str
    cluster_id: str

    def settles(self, row: Row, cluster_id: str) -> bool:
        """Whether it is the final word on that very row in that cluster."""
        return self.outcome not in OPEN_OUTCOMES and self.cluster_id == cluster_id and self.texts == row.texts


def result_path(payments: Path) -> Path:
    """Where the outcomes of a payments file go: beside it."""
    return payments.with_name(f"{payments.stem}.result.csv")


def read_results(path: Path) -> Iterator[RowResult]:
    """The results in a file, in order; none when there is no file. A torn last line is left out."""
    try:
        source = path.open(encoding="utf-8", newline="\n")
    except FileNotFoundError:
        return
    with source:
        for cells in csv.reader(line for line in source if line.endswith("\n")):
            if len(cells) == len(HEADER) and cells[0].isdecimal() and cells[-3] in Outcome.__members__:
                outcome, message, cluster_id = cells[-3:]
                yield RowResult(int(cells[0]), tuple(cells[1:-3]), Outcome[outcome], message, cluster_id)


def recover(path: Path) -> None:
    """Puts the part that a stopped run left in front of what was known before it."""
    part = _part(path)
    if not part.exists():
        return
    scratch = path.with_name(path.name + ".merge")
    with scratch.open("w", encoding="utf-8", newline="") as sink:
        writer = csv.writer(sink)
        writer.writerow(HEADER)
        last = 0
        for result in read_results(part):
            writer.writerow(_cells(result))
            last = result.number
        for result in read_results(path):
            if result.number > last:
                writer.writerow(_cells(result))
        sink.flush()
        os.fsync(sink.fileno())
    scratch.replace(path)
    part.unlink()


class Results:
    """The results of one run. On exit, however it comes about, the result file holds all that is known."""

    def __init__(self, path: Path) -> None:
        self._path = path
        recover(path)
        self._earlier = read_results(path)
        self._next = next(self._earlier, None)
        self._sink = _part(path).open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._sink)
        self._writer.writerow(HEADER)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sink.flush()
        os.fsync(self._sink.fileno())
        self._sink.close()
        if kind is None:
            _part(self._path).replace(self._path)
        else:
            recover(self._path)

    def earlier(self, row: Row) -> RowResult | None:
        """What an earlier run found for the row's number. Rows must be asked for in order."""
        while self._next is not None and self._next.number < row.number:
            self._next = next(self._earlier, None)
        return self._next if self._next is not None and self._next.number == row.number else None

    def write(self, result: RowResult) -> None:
        """Appends a result. Must be called in the order of the rows."""
        self._writer.writerow(_cells(result))

    def flush(self) -> None:
        """Hands what is written to the system: the death of this process no longer loses it."""
        self._sink.flush()


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _cells(result: RowResult) -> tuple[str | int, ...]:
    return (result.number, *result.texts, result.outcome.name, result.message, result.cluster_id)
