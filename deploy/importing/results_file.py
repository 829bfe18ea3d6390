"""FILE.csv.result.csv: the outcome of every row of a payments file, for people and for the next import.

It makes a second run change nothing, also long after the first. Lines without a row number are of rows that
an earlier version of the payments file had, or say how payers were funded: what is known is never dropped.
Invariant: the file is replaced as a whole, never half written, and one that cannot be read, or in which
something was changed, stops an import: taken as absent it would have everything sent again.
"""

from __future__ import annotations

import csv
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from deploy.errors import TableError
from deploy.importing.csv_table import CsvTable, TableRow
from deploy.importing.payments_file import COLUMNS, Instruction, instruction
from tallystick import Outcome, TallystickError

HEADER = ("row", *COLUMNS, "outcome", "message", "sent_at", "cluster_id", "check")
# What is beside a result file while an import runs, or was killed: the new file, and the database.
SCRATCH_SUFFIX = ".unfinished.csv"
DATABASE_SUFFIX = ".unfinished"
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
            for row in CsvTable(str(path), source, HEADER, is_own=True):
                yield _result(f"{path}, line {row.line}", row, cluster_id)
        except TableError as error:
            raise TableError(
                f"the results of earlier imports cannot be used: {error}. Nothing was sent. Put the file "
                "back as an import left it: without what it knows, money could move twice"
            ) from error


@contextmanager
def replacing(path: Path, cluster_id: str) -> Iterator[Callable[[Result], object]]:
    """Gives what writes a result into a new file, which replaces the old one when the block ends.

    When the block raises, the old file stays as it is.
    """
    scratch = path.with_name(path.name + SCRATCH_SUFFIX)
    try:
        with scratch.open("w", encoding="utf-8", newline="") as sink:
            if path.exists():
                scratch.chmod(stat.S_IMODE(path.stat().st_mode))
            writer = csv.writer(sink)
            writer.writerow(HEADER)

            def write(result: Result) -> None:
                number = "" if result.number is None else result.number
                last = (result.outcome.name, result.message, result.sent_at, cluster_id)
                check = _check(result.instruction, result.outcome.name)
                writer.writerow((number, *result.instruction.texts, *last, check))

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
    number, *texts, outcome, message, sent_at, of_cluster, check = row.cells
    one = instruction(texts)
    if check != _check(one, outcome) or outcome not in Outcome.__members__ or not f"{number}0".isdecimal():
        raise TableError(f"{where}: something in the row was changed since an import wrote it")
    if cluster_id and of_cluster != cluster_id:
        raise TableError(
            f"{where}: they are of the cluster {of_cluster!r}, not of {cluster_id!r}, whose outcomes need a "
            "file of their own: --results FILE"
        )
    return Result(one, Outcome[outcome], message, sent_at, int(number) if number else None)


def _check(one: Instruction, outcome: str) -> str:
    """Changes with all that an import goes by. With a letter in front, for spreadsheets cut numbers."""
    content = one.key + one.fingerprint + outcome.encode()
    return f"x{hashlib.blake2b(content, digest_size=8).hexdigest()}"
