"""FILE.csv.result.csv: the outcome of every row of a payments file, for people and for the next import.

It makes a second run change nothing, also long after the first. Lines without a row number are of rows that
an earlier version of the payments file had, or say how payers were funded: what is known is never dropped.
Invariant: the file is replaced as a whole, never half written, and one that cannot be read stops an import:
taken as absent it would have everything sent again.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from deploy.csv_table import MAX_ROW_BYTES, CsvTable, TableRow
from deploy.errors import TableError
from deploy.payments_file import COLUMNS, Instruction, instruction
from tallystick import Outcome, TallystickError

HEADER = ("row", *COLUMNS, "outcome", "message", "sent_at", "cluster_id")
# Nothing final is known of these.
OPEN_OUTCOMES = frozenset({Outcome.UNSPECIFIED, Outcome.OUTCOME_UNKNOWN, Outcome.RESOURCE_EXHAUSTED})


class Result(NamedTuple):
    """What became of one instruction.

    ``sent_at`` is when it was last sent (ISO 8601, UTC), empty if it never was. ``number`` is its row,
    None for one that is no row of the present payments file.
    """

    instruction: Instruction
    outcome: Outcome
    message: str = ""
    sent_at: str = ""
    number: int | None = None

    @property
    def is_certain(self) -> bool:
        """Whether it is the final word."""
        return self.outcome not in OPEN_OUTCOMES


def said_of(error: TallystickError | None) -> str:
    """A result's message: what an answer's error says but the transaction, which has a column of its own."""
    return "" if error is None else str(error.concerning(""))


def result_path(payments: Path) -> Path:
    """Where the outcomes of a payments file go: beside it, under its whole name."""
    return payments.with_name(f"{payments.name}.result.csv")


def read_results(path: Path, cluster_id: str = "") -> Iterator[Result]:
    """The results in a file, in its order; none when there is no file.

    Raises TableError when it is no result file, or speaks of another cluster than ``cluster_id``, if given.
    """
    try:
        source = path.open("rb")
    except FileNotFoundError:
        return
    with source:
        try:
            # A row of the payments file, and what is said of it.
            for row in CsvTable(str(path), source, HEADER, max_row_bytes=2 * MAX_ROW_BYTES):
                yield _result(f"{path}, line {row.line}", row, cluster_id)
        except TableError as error:
            raise TableError(
                f"the results of earlier imports cannot be used: {error}. Nothing was sent. Put the file "
                "back as an import left it, or keep the outcomes of this import elsewhere with --results FILE"
            ) from error


@contextmanager
def replacing(path: Path, cluster_id: str) -> Iterator[Callable[[Result], object]]:
    """Gives what writes a result into a new file, which replaces the old one at the end of the block.

    When the block raises, the old file stays as it is.
    """
    scratch = path.with_name(path.name + ".new")
    try:
        with scratch.open("w", encoding="utf-8", newline="") as sink:
            writer = csv.writer(sink)
            writer.writerow(HEADER)

            def write(result: Result) -> None:
                number = "" if result.number is None else result.number
                last = (result.outcome.name, result.message, result.sent_at, cluster_id)
                writer.writerow((number, *result.instruction.texts, *last))

            yield write
            sink.flush()
            os.fsync(sink.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _result(where: str, row: TableRow, cluster_id: str) -> Result:
    if row.defect:
        raise TableError(f"{where}: {row.defect}")
    number, *texts, outcome, message, sent_at, of_cluster = row.cells
    if outcome not in Outcome.__members__ or not (number.isdecimal() or not number):
        raise TableError(f"{where}: row {number!r} with the outcome {outcome!r} was not written by an import")
    if cluster_id and of_cluster != cluster_id:
        raise TableError(f"{where}: it is of the cluster {of_cluster!r}, not of {cluster_id!r}")
    return Result(instruction(texts), Outcome[outcome], message, sent_at, int(number) if number else None)
