"""What a screen shows: the one place where values become text for people, and documents for programs.

Invariant: data is shown, never obeyed. Nothing in an account's id, a reference or an error's sentence is
taken for markup, a style or an emoji, and what would move the cursor, hide or reorder text is written as an
escape. Nothing is cut off: where a terminal is too narrow for a table, ids and references take several lines,
and beyond that the table is wider than the terminal; away from a terminal there is no width.

No other module uses rich or writes to standard output, so that there is no second way.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import zip_longest
from typing import Any, Protocol, TextIO

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

# Controls; halves of surrogate pairs; separators of lines and paragraphs; what shows nothing, turns the
# direction of text or chooses a variant of the letter before, so that two texts would look alike: Unicode's
# Default_Ignorable_Code_Point (DerivedCoreProperties.txt), marks of annotations and the empty Braille cell.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u2800\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
# A column that folds is not made narrower than this: with a few characters a line, nobody can read it.
_LEAST_FOLDED = 12
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Styled:
    """Text, and its style on a terminal in rich's words."""

    text: str
    style: str


Piece = str | Styled
# A cell of a table; several texts are lines, one under another.
Cell = Piece | Sequence[str]


def strong(text: str) -> Styled:
    """What the eye should find first."""
    return Styled(text, "bold")


def faint(text: str) -> Styled:
    """What is said on the way."""
    return Styled(text, "dim")


def good(text: str) -> Styled:
    """As it should be."""
    return Styled(text, "bold green")


def doubtful(text: str) -> Styled:
    """Not known yet, or not as it should be for now."""
    return Styled(text, "yellow")


def bad(text: str) -> Styled:
    """Wrong."""
    return Styled(text, "bold red")


def shown(text: str) -> str:
    r"""The text with escapes such as \x1b, \u202e or \n for what no screen should act on.

    A backslash stays as it is, so a text that has the four characters \x1b is shown like one that has the
    control: sentences quote what they refuse with its escapes, and those would be escaped again. Where that
    matters, JSON tells them apart.
    """
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class Table:
    """Rows for people. ``right`` names columns of figures, ``folds`` those that may take several lines."""

    def __init__(
        self, *columns: str, right: Collection[str] = (), folds: Collection[str] = (), title: str = ""
    ) -> None:
        self._title = title
        self._columns = columns
        self._right = [name in right for name in columns]
        self._folds = [name in folds for name in columns]
        # An empty row sets those after it apart.
        self._rows: list[list[list[Styled]]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add_row(self, *cells: Cell) -> None:
        """Adds a row, a cell for each column."""
        self._rows.append([_safe_lines(cell) for cell in cells])

    def add_section(self) -> None:
        """Sets the rows that follow apart."""
        self._rows.append([])

    def lines(self, width: int | None, rule: str) -> Iterator[list[Styled]]:
        """The lines to print, without what ends them.

        ``width`` is what columns that may fold try to keep to, None for any width; ``rule`` is what the line
        under the header is made of.
        """
        widths = self._widths(width)
        if self._title:
            yield [Styled(self._title, "italic")]
        yield self._line([Styled(shown(name), "bold") for name in self._columns], widths)
        yield [Styled(rule * (sum(widths) + len(_GAP) * (len(widths) - 1)), "")]
        for row in self._rows:
            folded = [_folded(cell, allowed) for cell, allowed in zip(row, widths, strict=bool(row))]
            yield from (self._line(line, widths) for line in zip_longest(*folded, fillvalue=Styled("", "")))
            if not row:
                yield []

    def _line(self, cells: Iterable[Styled], widths: Iterable[int]) -> list[Styled]:
        pieces: list[Styled] = []
        owed = ""
        for cell, width, right in zip(cells, widths, self._right, strict=True):
            space = " " * (width - cell_len(cell.text))
            before, after = (space, "") if right else ("", space)
            if cell.text:
                pieces += [Styled(owed + before, ""), cell]
                owed = after + _GAP
            else:
                owed += space + _GAP
        # Nothing follows the last text: no line ends in spaces.
        return pieces

    def _widths(self, width: int | None) -> list[int]:
        widths = [cell_len(shown(name)) for name in self._columns]
        least = [max(own, _LEAST_FOLDED) for own in widths]
        for row in self._rows:
            for number, cell in enumerate(row):
                widths[number] = max(widths[number], *(cell_len(line.text) for line in cell))
        if width is None:
            return widths
        # The widest of the columns that may fold gives way first.
        excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
        while excess > 0:
            folding = [n for n, folds in enumerate(self._folds) if folds and widths[n] > least[n]]
            if not folding:
                break
            widths[max(folding, key=widths.__getitem__)] -= 1
            excess -= 1
        return widths


class Advance(Protocol):
    """Moves a bar."""

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        """So much is done of the total, if that is known."""


class Sink(Protocol):
    """What the csv module writes to."""

    def write(self, row: str, /) -> object:
        """Takes a row with its line's end."""


class _Console(Console):
    """Leaves it to `plain_errors` what the end of a pipe means; rich would call it a failure."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Screen:
    """Standard output, or standard error: lines and tables for people."""

    def __init__(self, *, stderr: bool = False) -> None:
        self._console = _Console(stderr=stderr, markup=False, emoji=False, highlight=False)

    @property
    def is_terminal(self) -> bool:
        """Whether somebody looks at it."""
        return self._console.is_terminal

    def print(self, *pieces: Piece) -> None:
        """Prints one line, the pieces without anything between them."""
        self._say(_safe(piece) for piece in pieces)

    def table(self, table: Table) -> None:
        """Prints a table."""
        rule = "─" if self._console.encoding.startswith("utf") else "-"
        lines = table.lines(self._console.width if self.is_terminal else None, rule)
        # In one piece: rich takes its time for each that it prints.
        self._say(piece for n, line in enumerate(lines) for piece in (Styled("\n" * (n > 0), ""), *line))

    def busy(self, what: str) -> AbstractContextManager[object]:
        """Says ``what`` is going on for as long as the block lasts, to a terminal."""
        return self._console.status(Text(shown(what)))

    @contextmanager
    def progress(self, what: str) -> Iterator[Advance]:
        """A bar for as long as the block lasts, on a terminal; it is moved by what it gives."""
        columns = (
            TextColumn(shown(what), markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True, disable=not self.is_terminal) as bar:
            task = bar.add_task("", total=None)

            def advance(done: int, total: int | None, note: str = "") -> None:
                bar.update(task, completed=done, total=total, description=shown(note))

            yield advance

    def _say(self, pieces: Iterable[Styled]) -> None:
        line = Text.assemble(*((piece.text, piece.style) for piece in pieces))
        # As wide as it is: a terminal wraps it, and lets it be copied in one piece.
        self._console.print(line, soft_wrap=True)


out = Screen()
err = Screen(stderr=True)


def write_json(document: Mapping[str, Any], *, one_line: bool = False) -> None:
    """Writes a JSON object and the end of a line to standard output, in ASCII, and holds nothing back.

    Each item of an array in it gets a line of its own, unless it is to be ``one_line``. An array may come as
    an iterator: it is written item by item, for it may have an item for every account there is.
    """
    sink = sys.stdout
    next_value, next_item = (", ", ", ") if one_line else (",\n ", ",\n  ")
    before = "{"
    for name, value in document.items():
        sink.write(f"{before}{json.dumps(name)}: ")
        before = next_value
        if isinstance(value, list | Iterator):
            _write_array(sink, value, next_item)
        else:
            sink.write(json.dumps(value))
    sink.write("}\n" if document else "{}\n")
    sink.flush()


def csv_sink() -> Sink:
    """Standard output for the csv module: UTF-8 in any locale, and the data just as it is.

    A terminal is no file: there, and only there, what is hidden in the data is shown.
    """
    if out.is_terminal:
        return _ShownRows()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="")
    return sys.stdout


class _ShownRows:
    """Rows of a CSV as a terminal gets them."""

    def write(self, row: str, /) -> object:
        return sys.stdout.write(shown(row.removesuffix("\r\n")) + "\n")


def _write_array(sink: TextIO, items: Iterable[Any], next_item: str) -> None:
    before = "["
    for item in items:
        sink.write(f"{before}{json.dumps(item)}")
        before = next_item
    sink.write("[]" if before == "[" else "]")


def _safe(piece: Piece) -> Styled:
    return Styled(shown(piece), "") if isinstance(piece, str) else Styled(shown(piece.text), piece.style)


def _safe_lines(cell: Cell) -> list[Styled]:
    return [_safe(cell)] if isinstance(cell, str | Styled) else [_safe(line) for line in cell]


def _folded(cell: Sequence[Styled], width: int) -> list[Styled]:
    if all(cell_len(line.text) <= width for line in cell):
        return list(cell)
    return [Styled(part, line.style) for line in cell for part in chop_cells(line.text, width)]
