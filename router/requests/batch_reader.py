"""The hot loop of the router: the bytes of a BatchTransferRequest as columns.

No message is parsed and no text of a row is ever made. Every step is one of numpy's over all rows: where they
begin, where the fields of each do, what these hold, whether that is right.

The contract's encoding (https://protobuf.dev/programming-guides/encoding) gives a message many forms: fields
in any order, twice, unknown ones. Only the one that serializers write is taken here, and of that only what is
in order in every way: every tag is compared, and every length leads exactly to the next tag, to the next row
and to the end of all. What differs anywhere is left to protobuf and
:class:`router.requests.transactions.TransactionReader`, which look at it row by row and say what is wrong.
"""

from __future__ import annotations

from binascii import crc_hqx, unhexlify
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.requests.text_tables import Bytes, Numbers, TextTable, cut_out, windows
from router.requests.transfer_columns import TransferColumns
from shard_node.cluster import SLOT_COUNT, Exponents
from shard_node.errors import ExponentUnknownError
from shard_node.limits import MAX_ACCOUNT_ID_CHARS, MAX_BATCH, MAX_MESSAGE_BYTES, MAX_REFERENCE_BYTES

# The steps cost as much for one row as for a hundred: requests of fewer are read sooner row by row.
LEAST_BYTES = 8 * 1024

# Tags of length-delimited fields: number << 3 | 2.
_TRANSFERS = 0x0A
_ID, _FROM, _TO, _AMOUNT, _CURRENCY, _REFERENCE = (number << 3 | 2 for number in range(1, 7))
_MORE = 0x80
# The field behind all rows, where it says yes: a number.
_RETURN_BALANCES = bytes((2 << 3, 1))

_ID_CHARS = 36
_DASHES = (8, 13, 18, 23)
_TIMED_VERSION = 7
_CURRENCY_CHARS = 3
# Fifteen digits stay below 2^53.
_MAX_DIGITS = 15

# Around the request, so that no length, wrong as it may be, leads outside, nor does the longest text's width.
_MARGIN = bytes(2048)
_NAME_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@{}-"


@dataclass(frozen=True, slots=True, eq=False)
class _Fields:
    """Where the fields' contents end in each row, and how long they are."""

    id_ends: Numbers
    payer_ends: Numbers
    payer_lengths: Numbers
    payee_ends: Numbers
    payee_lengths: Numbers
    amount_ends: Numbers
    amount_lengths: Numbers
    currency_ends: Numbers
    reference_ends: Numbers
    reference_lengths: Numbers
    with_balances: bool


class BatchReader:
    """Reads batches in which nothing is out of the ordinary."""

    def __init__(self, exponents: Exponents) -> None:
        self._exponents = exponents

    def read(self, request: bytes, latest: bytes) -> TransferColumns | None:
        """The batch, or None when it must be looked at row by row.

        ``latest`` are the first six bytes of the youngest UUIDv7 that is taken.
        """
        if not LEAST_BYTES <= len(request) <= MAX_MESSAGE_BYTES:
            return None
        try:
            return self._read(request, int.from_bytes(latest))
        except (ValueError, ExponentUnknownError):
            return None

    def _read(self, request: bytes, latest_ms: int) -> TransferColumns:
        data = b"".join((_MARGIN, request, _MARGIN))
        octets: Bytes = np.frombuffer(data, np.uint8)
        fields = _fields(data, octets)
        count = len(fields.id_ends)
        id_texts = windows(data, fields.id_ends - _ID_CHARS, _ID_CHARS)
        ids = read_ids(id_texts, latest_ms)
        accounts, slots = read_accounts(
            data,
            np.concatenate((fields.payer_ends, fields.payee_ends)),
            np.concatenate((fields.payer_lengths, fields.payee_lengths)),
        )
        _check_pairs(accounts, slots, count)
        currencies = windows(data, fields.currency_ends - _CURRENCY_CHARS, _CURRENCY_CHARS)
        amounts = TextTable.ending(data, fields.amount_ends, fields.amount_lengths, padding=ord("0"))
        codes, digits, minor = self._money(currencies, amounts)
        starts = fields.reference_ends - fields.reference_lengths
        _check_text(octets, starts, fields.reference_lengths)
        return TransferColumns(
            id_texts,
            ids,
            accounts,
            slots,
            minor,
            codes,
            digits,
            octets,
            starts,
            fields.reference_lengths,
            fields.with_balances,
        )

    def _money(
        self, currencies: Bytes, amounts: TextTable
    ) -> tuple[NDArray[np.void], list[int], NDArray[np.int64]]:
        """Currencies and exponents, one for all if all are the same, and amounts in minor units.

        Raises ValueError.
        """
        codes: NDArray[np.void] = currencies.view(f"V{_CURRENCY_CHARS}")[:, 0]
        if not np.count_nonzero(currencies != currencies[0]):
            digits = self._digits(codes[0].tobytes())
            return codes[:1], [digits], read_amounts(amounts, digits)
        minor, exponents = np.empty(len(codes), np.int64), np.empty(len(codes), np.uint8)
        for code in set(codes.tolist()):
            rows, digits = np.flatnonzero(codes == np.void(code)), self._digits(code)
            minor[rows], exponents[rows] = read_amounts(amounts[rows], digits), digits
        return codes, exponents.tolist(), minor

    def _digits(self, code: bytes) -> int:
        return self._exponents[code.decode("ascii")]


def _require(holds: NDArray[np.bool_]) -> None:
    # Sooner than all(), where there are few.
    if np.count_nonzero(holds) != holds.size:
        raise ValueError


def _fields(data: bytes, octets: Bytes) -> _Fields:
    """The fields of each row. Raises ValueError when a row is not in the one form."""
    at, ends, with_balances = _rows(octets)
    # The tag and the length of a field are read as one number.
    heads: NDArray[np.uint16] = np.ndarray((len(data) - 1,), "<u2", data, strides=(1,))

    def begin(at: Numbers, tag: int) -> Numbers:
        head = heads[at]
        _require(head & 0xFF == tag)
        return (head >> 8).astype(np.intp)

    id_ends = at + (2 + _ID_CHARS)
    payer_lengths = begin(id_ends, _FROM)
    payer_ends = id_ends + 2 + payer_lengths
    payee_lengths = begin(payer_ends, _TO)
    payee_ends = payer_ends + 2 + payee_lengths
    amount_lengths = begin(payee_ends, _AMOUNT)
    amount_ends = payee_ends + 2 + amount_lengths
    _require(begin(amount_ends, _CURRENCY) == _CURRENCY_CHARS)
    currency_ends = amount_ends + (2 + _CURRENCY_CHARS)
    for lengths, most in (
        (payer_lengths, MAX_ACCOUNT_ID_CHARS),
        (payee_lengths, MAX_ACCOUNT_ID_CHARS),
        (amount_lengths, _MAX_DIGITS + 1),
    ):
        if int(lengths.min()) < 1 or int(lengths.max()) > most:
            raise ValueError
    return _Fields(
        id_ends,
        payer_ends,
        payer_lengths,
        payee_ends,
        payee_lengths,
        amount_ends,
        amount_lengths,
        currency_ends,
        ends,
        _reference_lengths(octets, currency_ends, ends),
        with_balances,
    )


def _rows(octets: Bytes) -> tuple[Numbers, Numbers, bool]:
    """Where each row's first field begins, its id, where the row ends; and whether balances are asked for.

    Raises ValueError.

    They are not followed from one to the next but found by what the head of an id looks like. A text with
    the same bytes makes one row too many: the rows then do not follow on each other.
    """
    begin, last = len(_MARGIN), len(octets) - len(_MARGIN)
    ids = np.flatnonzero((octets[:-1] == _ID) & (octets[1:] == _ID_CHARS))
    if not 0 < len(ids) <= MAX_BATCH:
        raise ValueError
    first = octets[ids - 1].astype(np.intp)
    second = octets[ids - 2]
    # A length of one byte is below 0x80. The last one of two is, too, where it need not be longer.
    is_long = second >= _MORE
    starts = ids - 2 - is_long
    _require(octets[starts] == _TRANSFERS)
    lengths = np.where(is_long, (first << 7) + second - _MORE, first)
    _require((first < _MORE) & (lengths > 0))
    ends = ids + lengths
    behind = octets[ends[-1] : last].tobytes()
    if starts[0] != begin or ends[-1] > last or behind not in (b"", _RETURN_BALANCES):
        raise ValueError
    _require(ends[:-1] == starts[1:])
    return ids, ends, bool(behind)


def _reference_lengths(octets: Bytes, begins: Numbers, ends: Numbers) -> Numbers:
    """The lengths of the references, 0 for none, which end the rows. Raises ValueError."""
    there = np.flatnonzero(begins != ends)
    lengths = np.zeros(len(ends), np.intp)
    if len(there):
        at = begins[there]
        _require(octets[at] == _REFERENCE)
        first, second = octets[at + 1].astype(np.intp), octets[at + 2].astype(np.intp)
        is_long = first >= _MORE
        # Of three bytes, it comes out longer than any that is taken.
        told = np.where(is_long, first - _MORE + (second << 7), first)
        _require((at + 2 + is_long + told == ends[there]) & (told <= MAX_REFERENCE_BYTES))
        lengths[there] = told
    return lengths


def _check_text(octets: Bytes, starts: Numbers, lengths: Numbers) -> None:
    """Raises ValueError when one of these texts is no UTF-8, or has a NUL."""
    there = np.flatnonzero(lengths)
    if len(there):
        starts, lengths = starts[there], lengths[there]
        text = cut_out(octets, starts, lengths).tobytes()
        text.decode()
        # No text begins within a character: so none can end what another began.
        _require(octets[starts] & 0xC0 != 0x80)
        if b"\0" in text:
            raise ValueError


def read_ids(texts: Bytes, latest_ms: int) -> NDArray[np.void]:
    """The 16 bytes of UUIDs, a table of their 36 characters.

    Raises ValueError when one is none, is nil, or is a UUIDv7 of the future.
    """
    for dash in _DASHES:
        _require(texts[:, dash] == ord("-"))
    raw = unhexlify(texts.tobytes().translate(None, b"-"))
    # With more dashes than these in an id there are not enough bytes, which reshape refuses.
    halves = np.frombuffer(raw, ">u8").astype(np.uint64).reshape(len(texts), 2)
    _require((halves[:, 0] | halves[:, 1]) != 0)
    high = halves[:, 0]
    is_timed = (high >> 12 & 0xF) == _TIMED_VERSION
    if int((high >> 16).max(initial=0, where=is_timed)) > latest_ms:
        raise ValueError
    return np.frombuffer(raw, "V16")


def _crc_tables() -> NDArray[np.uint16]:
    """For each distance from an id's end, and each byte there, what it adds to the id's checksum."""
    return np.array(
        [
            [crc_hqx(bytes((byte,)) + bytes(behind), 0) for byte in range(256)]
            for behind in range(MAX_ACCOUNT_ID_CHARS)
        ],
        np.uint16,
    )


# A checksum without a start value is linear: that of an id is the exclusive or of what its bytes add, and a
# byte of zero adds nothing.
_CRC = _crc_tables()


def read_accounts(data: bytes, ends: Numbers, lengths: Numbers) -> tuple[TextTable, NDArray[np.uint16]]:
    """The customers' accounts whose ids end there in ``data``, and their slots.

    Raises ValueError when an id is none.
    """
    accounts = TextTable.ending(data, ends, lengths)
    octets = accounts.table.tobytes()
    if octets.translate(None, _NAME_BYTES) != bytes(len(octets) - int(lengths.sum())):
        raise ValueError
    _require(np.frombuffer(data, np.uint8)[ends - lengths] != ord("@"))
    if b"{" not in octets:
        return accounts, _slots(accounts)
    behind, lengths = _hash_tags(accounts)
    return accounts, _slots(TextTable.ending(data, ends - behind, lengths))


def _hash_tags(accounts: TextTable) -> tuple[Numbers, Numbers]:
    """How many bytes of each id are behind what is hashed, and how many are hashed: as of `slot`."""
    table = accounts.table
    width = table.shape[1]
    behind, lengths = np.zeros_like(accounts.lengths), accounts.lengths.copy()
    openings = np.flatnonzero(table == ord("{"))
    is_first = np.ones(len(openings), np.bool_)
    is_first[1:] = openings[1:] // width != openings[:-1] // width
    openings = openings[is_first]
    # One behind the table, for those that nothing closes.
    closings = np.append(np.flatnonzero(table == ord("}")), table.size + width)
    closings = closings[np.searchsorted(closings, openings)]
    rows = openings // width
    tagged = (closings // width == rows) & (closings > openings + 1)
    rows, openings, closings = rows[tagged], openings[tagged], closings[tagged]
    behind[rows] = width - closings % width
    lengths[rows] = closings - openings - 1
    return behind, lengths


def _slots(texts: TextTable) -> NDArray[np.uint16]:
    """The slots of what is hashed of ids."""
    crc = np.zeros(len(texts), np.uint16)
    for table, column in zip(_CRC[texts.table.shape[1] - 1 :: -1], texts.table.T, strict=True):
        crc ^= table.take(column)
    return crc % SLOT_COUNT


def _check_pairs(accounts: TextTable, slots: NDArray[np.uint16], count: int) -> None:
    """Raises ValueError when the payer of a row, among the first ``count``, is its payee."""
    alike = np.flatnonzero(slots[:count] == slots[count:])
    # No id has a byte of zero, so equal rows of the table are equal ids.
    if len(alike):
        _require((accounts.table[alike] != accounts.table[alike + count]).any(axis=1))


def read_amounts(texts: TextTable, digits: int) -> NDArray[np.int64]:
    """Amounts in minor units, of texts padded with zeros' digit.

    Raises ValueError for any that is not written with all its decimals, is zero, or has more than fifteen
    digits.
    """
    decimals = digits + 1 if digits else 0
    if int(texts.lengths.min()) <= decimals or int(texts.lengths.max()) > _MAX_DIGITS + bool(digits):
        raise ValueError
    table = texts.table
    if digits:
        _require(table[:, -decimals] == ord("."))
        table = np.concatenate((table[:, :-decimals], table[:, -digits:]), axis=1)
    numbers = table - np.uint8(ord("0"))
    _require(numbers <= 9)
    values = np.zeros(len(table), np.int64)
    for column in range(numbers.shape[1]):
        values = values * 10 + numbers[:, column]
    _require(values > 0)
    return values
