"""Reading a payments file: one row at a time, so that its size does not matter.

A row that cannot be read as six texts is a row all the same, with the reason: it gets an outcome like any
other and does not stop the rest.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from deploy.errors import DataError

COLUMNS = ("transaction_id", "from_account", "to_account", "amount", "currency", "reference")
# Far above what six valid fields hold, and small enough that a batch of rows always fits into one message.
MAX_ROW_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Row:
    """One row, as texts. ``number`` counts from 1, without the header; ``defect`` is set when unreadable."""

    number: int
    transaction_id: str
    from_account: str
    to_account: str
    amount: str
    currency: str
    reference: str
    defect: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """The six columns."""
        return (
            self.transaction_id,
            self.from_account,
            self.to_account,
            self.amount,
            self.currency,
            self.reference,
        )


class PaymentsFile:
    """An open payments file; iterating gives its rows. Columns may stand in any order, with others between.

    Raises DataError when the header lacks a column, or the text is no CSV at all.
    """

    def __init__(self, path: Path, source: BinaryIO) -> None:
        self._path = path
        self._source = source
        self.bytes_read = 0

    def __iter__(self) -> Iterator[Row]:
        # Strict: a stray quote would swallow the rows behind it without a word.
        reader = csv.reader(self._lines(), strict=True)
        try:
            places = self._places(next(reader, []))
            number = 0
            for cells in reader:
                if cells:
                    number += 1
                    yield _row(number, cells, places)
        except csv.Error as error:
            raise DataError(f"{self._path}, line {reader.line_num}: {error}") from error

    def _lines(self) -> Iterator[str]:
        for line in self._source:
            text = line.decode("utf-8", errors="surrogateescape")
            # Spreadsheets put a byte order mark in front.
            yield text.removeprefix("\ufeff") if self.bytes_read == 0 else text
            self.bytes_read += len(line)

    def _places(self, header: list[str]) -> tuple[int, ...]:
        names = [name.strip().lower() for name in header]
        missing = [column for column in COLUMNS if column not in names and column != "reference"]
        if missing:
            raise DataError(
                f"{self._path}: the first line must name the columns {', '.join(COLUMNS)}; "
                f"missing: {', '.join(missing)}"
            )
        return tuple(names.index(column) if column in names else -1 for column in COLUMNS)


def _row(number: int, cells: list[str], places: tuple[int, ...]) -> Row:
    texts = [cells[place] if 0 <= place < len(cells) else "" for place in places]
    defect = ""
    if len(cells) <= max(places):
        defect = f"the row has {len(cells)} columns, the header promises {max(places) + 1} or more"
    else:
        raw = "".join(texts).encode("utf-8", "surrogateescape")
        if len(raw) > MAX_ROW_BYTES:
            defect = f"the row has {len(raw)} bytes, more than {MAX_ROW_BYTES}"
        elif not _is_utf8(raw):
            defect = "the row is not UTF-8"
            texts = [text.encode("utf-8", "replace").decode() for text in texts]
    transaction_id, from_account, to_account, amount, currency, reference = texts
    return Row(number, transaction_id, from_account, to_account, amount, currency, reference, defect)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
