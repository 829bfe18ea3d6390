"""A payments file: one instruction a row, read one at a time, so that the file's size does not matter."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from deploy.importing.csv_table import CsvTable

_UUID_BYTES = 16
_UUID_CHARACTERS = 36


class Instruction(NamedTuple):
    """What one row asks for, as texts: the cluster is the judge of them. Made by `instruction`.

    ``key`` is the transaction id, the same for all ways to write it: 16 bytes, or the text if it is no UUID.
    ``fingerprint`` is 16 bytes that all but the id goes into; "12.5" and "12.50" are one amount there, as
    for the cluster.
    """

    key: bytes
    fingerprint: bytes
    transaction_id: str
    from_account: str
    to_account: str
    amount: str
    currency: str
    reference: str

    @property
    def texts(self) -> tuple[str, ...]:
        """The six columns."""
        return self[2:]

    @property
    def has_uuid(self) -> bool:
        """Whether the id is one. Under anything else nothing can move."""
        return len(self.transaction_id) == _UUID_CHARACTERS and len(self.key) == _UUID_BYTES

    @property
    def is_timed(self) -> bool:
        """Whether the id is a UUIDv7, which counts once for ever."""
        return self.has_uuid and self.key[6] >> 4 == 7


def instruction(texts: Sequence[str]) -> Instruction:
    """The instruction that six texts are, in the order of `COLUMNS`."""
    transaction_id, from_account, to_account, amount, currency, reference = texts
    whole, _, decimals = amount.partition(".")
    if amount.isascii() and (whole + decimals).isdecimal():
        plain = f"{whole.lstrip('0') or '0'}.{decimals.rstrip('0')}"
    else:
        plain = amount
    content = f"{from_account}\0{to_account}\0{plain}\0{currency}\0{reference}".encode()
    fingerprint = hashlib.blake2b(content, digest_size=16).digest()
    return Instruction(_key(transaction_id), fingerprint, *texts)


COLUMNS = ("transaction_id", "from_account", "to_account", "amount", "currency", "reference")


@dataclass(frozen=True, slots=True)
class Row:
    """One row. ``number`` counts from 1, without the header; ``line`` is where it stands in the file.

    ``defect`` says why it cannot be sent; empty when it can.
    """

    number: int
    line: int
    instruction: Instruction
    defect: str = ""


class PaymentsFile:
    """An open payments file; iterating gives its rows. Only the column reference may lack.

    Raises TableError when quoting or header are not clear: before any row is given out.
    """

    def __init__(self, name: str, source: BinaryIO) -> None:
        self._table = CsvTable(name, source, COLUMNS[:-1], COLUMNS[-1:])

    @property
    def rows_total(self) -> int:
        """How many rows there are."""
        return self._table.rows_total

    def __iter__(self) -> Iterator[Row]:
        for row in self._table:
            one = instruction(row.cells)
            defect = row.defect
            if not defect and one.from_account.startswith("@"):
                # The cluster would refuse it; in the result file it would stand for how a payer was funded.
                defect = 'from_account: accounts that begin with "@" belong to the system'
            yield Row(row.number, row.line, one, defect)


def _key(transaction_id: str) -> bytes:
    # The cluster takes this one form; any other is a malformed id, not another spelling of a good one.
    if len(transaction_id) == _UUID_CHARACTERS and transaction_id[8:24:5] == "----":
        with contextlib.suppress(ValueError):
            key = bytes.fromhex(transaction_id.replace("-", ""))
            if len(key) == _UUID_BYTES:
                return key
    return transaction_id.encode()
