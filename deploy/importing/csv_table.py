"""CSV that comes in: payments, the legs of a journal, results of an earlier import.

Invariant: nothing in a file is taken for something else in silence. The whole file is looked through, its
quoting and its header, before its first row is given out: a file that cannot be delimited, or whose header
leaves a doubt, is refused as a whole. A row that can be delimited and is wrong is a row all the same, with
the reason, so that it can fail alone.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import BinaryIO, Final

from deploy.errors import TableError

# Far above what valid fields hold.
MAX_ROW_BYTES: Final = 4096
# So much is shown of each cell of a row with a defect.
_SHOWN_CHARACTERS: Final = 64
# How alike two names of columns are, from 0 to 1, before one counts as a misspelling of the other.
_ALIKE: Final = 0.8
# So many letters of a missing column's name are an abbreviation of it.
_LEAST_LETTERS: Final = 3
_OTHER_DELIMITERS: Final = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_BYTE_ORDER_MARKS: Final = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row. ``cells`` are in the order of the columns asked for, "" for one that the file lacks.

    ``number`` counts rows from 1, ``line`` the file's lines; ``defect`` says why the row cannot be used.
    """

    number: int
    line: int
    cells: tuple[str, ...]
    defect: str = ""


class CsvTable:
    """The rows of an open CSV file. Columns may stand in any order, with others between.

    ``source`` must be seekable: it is read once to be checked, and again for each iteration. Nobody may write
    to it meanwhile. ``rows_total`` is how many rows there are. Of a file that was written by this project
    itself, ``is_own``, neither the size of rows nor what stands in quotes is looked at.

    Raises TableError, which names file and line, when quoting or header are not clear.
    """

    def __init__(
        self,
        name: str,
        source: BinaryIO,
        required: Sequence[str],
        optional: Sequence[str] = (),
        *,
        is_own: bool = False,
    ) -> None:
        self._name = name
        self._source = source
        self._columns = (*required, *optional)
        self._required = required
        self._is_own = is_own
        self._header: list[str] = []
        self._places: tuple[int, ...] = ()
        self._unnamed: list[int] = []
        self.rows_total = sum(1 for _ in self._records())

    def __iter__(self) -> Iterator[TableRow]:
        for number, (line, cells) in enumerate(self._records(), start=1):
            yield self._row(number, line, cells)

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """(Line, cells) of every row; blank lines are none."""
        self._source.seek(0)
        # Strict: a stray quote would swallow the rows behind it without a word.
        reader = csv.reader(self._lines(), strict=True)
        try:
            self._read_header(next(reader, []))
            line = reader.line_num + 1
            for cells in reader:
                if reader.line_num > line and not self._is_own:
                    self._refuse_swallowed_rows(line, cells)
                if cells:
                    yield line, cells
                line = reader.line_num + 1
        except csv.Error as error:
            raise TableError(f"{self._name}, line {reader.line_num}: {_explained(error)}") from error

    def _lines(self) -> Iterator[str]:
        first = True
        for line in self._source:
            if first and (encoding := _BYTE_ORDER_MARKS.get(line[:2])):
                raise TableError(f"{self._name} is {encoding} text: save it as UTF-8")
            text = line.decode("utf-8", errors="surrogateescape")
            # Spreadsheets put a byte order mark in front.
            yield text.removeprefix("\ufeff") if first else text
            first = False

    def _read_header(self, header: list[str]) -> None:
        names = [name.strip().lower() for name in header]
        problem = _header_problem(names, self._required, self._columns)
        if problem:
            raise TableError(
                f"{self._name}: {problem}; the first line must name the columns {', '.join(self._columns)}"
            )
        self._header = names
        self._unnamed = [place for place, name in enumerate(names) if not name]
        self._places = tuple(names.index(column) if column in names else -1 for column in self._columns)

    def _refuse_swallowed_rows(self, line: int, cells: list[str]) -> None:
        """A quote too many at two places makes one cell of all that lies between, in valid CSV."""
        for cell in cells:
            if "\n" in cell and cell.count(",") >= len(self._header) - 1:
                raise TableError(
                    f"{self._name}, line {line}: a quoted cell goes on over {cell.count(chr(10)) + 1} lines "
                    "and holds what looks like further rows: a quote is missing, or there is one too many"
                )

    def _row(self, number: int, line: int, cells: list[str]) -> TableRow:
        texts = [cells[place] if 0 <= place < len(cells) else "" for place in self._places]
        # Apart, for two halves of a character in two cells are no text.
        raw = "\0".join(texts).encode("utf-8", "surrogateescape")
        defect = ""
        if len(cells) != len(self._header):
            defect = f"the row has {len(cells)} cells, the header names {len(self._header)} columns"
        elif any(cells[place] for place in self._unnamed):
            defect = "a cell stands in a column that the header gives no name"
        elif len(raw) > MAX_ROW_BYTES and not self._is_own:
            defect = f"the row has {len(raw)} bytes, more than {MAX_ROW_BYTES}"
        elif not _is_utf8(raw):
            defect = "the row is not UTF-8"
        if defect:
            whole = [text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for text in texts]
            texts = [text[:_SHOWN_CHARACTERS] for text in whole]
        return TableRow(number, line, tuple(texts), defect)


def _header_problem(names: Sequence[str], required: Sequence[str], columns: Sequence[str]) -> str:
    """What is not clear about a header, in words; empty when all is."""
    missing = [column for column in required if column not in names]
    if missing:
        joined = ",".join(names)
        for delimiter, plural in _OTHER_DELIMITERS.items():
            if len(set(joined.split(delimiter)) & set(columns)) > 1:
                return f"its columns are separated by {plural}: save it with commas"
        if not joined:
            return "it is empty, or its first line is"
    repeated = [name for name, count in Counter(names).items() if name and count > 1]
    if repeated:
        return f"the column {', '.join(map(repr, repeated))} is named twice"
    for name in names:
        meant = _misspelt(name, names, columns)
        if meant:
            return f"the column {name!r} is not known: is {meant!r} meant?"
    return f"missing: {', '.join(missing)}" if missing else ""


def _misspelt(name: str, names: Sequence[str], columns: Sequence[str]) -> str:
    """The column that an unknown name seems to mean; empty when it is something else."""
    if not name or name in columns:
        return ""
    plain = {re.sub(r"[^a-z0-9]", "", column): column for column in columns}
    letters = re.sub(r"[^a-z0-9]", "", name)
    for whole, column in plain.items():
        if len(letters) >= _LEAST_LETTERS and whole.startswith(letters) and column not in names:
            return column
    for alike in get_close_matches(letters, plain, 1, _ALIKE):
        # "amount_eur" beside "amount" is a column of its own.
        if not (plain[alike] in names and letters != alike and letters.startswith(alike)):
            return plain[alike]
    return ""


def _explained(error: csv.Error) -> str:
    text = str(error)
    if "new-line character" in text:
        return "a carriage return stands alone: save the file with the line ends of Unix or Windows"
    if "field larger" in text:
        return f"{text}: a quote is missing, or there is one too many"
    return f"the quoting is wrong: {text}"


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
