"""The hot loop of the router: the bytes of a BatchTransferRequest as columns, and the bytes of its answer.

No message is parsed and no text of a row is ever made. The rows' places are found by their lengths; from
there on every step is one of numpy's over all rows: where the fields of each begin, what they hold, whether
that is right. That costs a sixth of what reading messages field by field did.

The contract's encoding (https://protobuf.dev/programming-guides/encoding) gives a message many forms: fields
in any order, twice, unknown ones. Only the one that serializers write is taken here, and of that only what is
in order in every way: every tag is compared, and every length leads exactly to the next tag, to the row's end
and to the end of all. What differs anywhere is left to protobuf and
:class:`router.requests.reader.RequestReader`, which look at it row by row and say what is wrong.
"""

from __future__ import annotations

from array import array
from binascii import crc_hqx, unhexlify
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from router.requests.byte_tables import Texts, joined, windows
from router.requests.packed import PackedTransfers
from shard_node.cluster import SLOT_COUNT
from shard_node.errors import ExponentUnknownError
from shard_node.limits import MAX_ACCOUNT_ID_CHARS, MAX_BATCH, MAX_MESSAGE_BYTES, MAX_REFERENCE_BYTES

if TYPE_CHECKING:
    from router.requests.byte_tables import Bytes, Numbers
    from shard_node.cluster import Exponents

# The steps cost as much for one row as for a hundred: requests of fewer are read sooner row by row.
LEAST_BYTES = 8 * 1024

# Tags of length-delimited fields: number << 3 | 2.
_TRANSFERS = 0x0A
_ID, _FROM, _TO, _AMOUNT, _CURRENCY, _REFERENCE = (number << 3 | 2 for number in range(1, 7))
_MORE = 0x80

_ID_CHARS = 36
_DASHES = (8, 13, 18, 23)
_TIMED_VERSION = 7
_CURRENCY_CHARS = 3
# Fifteen digits stay below 2^53.
_MAX_DIGITS = 15

# Around the request, so that no length, wrong as it may be, leads outside, nor does the longest text's width.
_MARGIN = bytes(2048)
_NAME_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@{}-"


class _Fields(NamedTuple):
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


class BatchReader:
    """Reads batches in which nothing is out of the ordinary."""

    def __init__(self, exponents: Exponents) -> None:
        self._exponents = exponents

    def read(self, request: bytes, latest: bytes) -> PackedTransfers | None:
        """The batch, or None when it must be looked at row by row.

        ``latest`` are the first six bytes of the youngest UUIDv7 that is taken.
        """
        if not LEAST_BYTES <= len(request) <= MAX_MESSAGE_BYTES:
            return None
        try:
            return self._read(request, int.from_bytes(latest))
        except (ValueError, ExponentUnknownError):
            return None

    def _read(self, request: bytes, latest_ms: int) -> PackedTransfers:
        data = b"".join((_MARGIN, request, _MARGIN))
        fields = _fields(data)
        currencies = windows(data, fields.currency_ends - _CURRENCY_CHARS, _CURRENCY_CHARS)
        _require(currencies == currencies[0])
        currency = currencies[0].tobytes()
        id_texts = windows(data, fields.id_ends - _ID_CHARS, _ID_CHARS)
        ids, oldest_ms, newest_ms = read_ids(id_texts, latest_ms)
        count = len(ids)
        accounts, slots = read_accounts(
            data,
            np.concatenate((fields.payer_ends, fields.payee_ends)),
            np.concatenate((fields.payer_lengths, fields.payee_lengths)),
        )
        payers, payees = accounts[:count], accounts[count:]
        # No id has a byte of zero, so equal rows of the table are equal ids.
        _require((payers.table != payees.table).any(axis=1))
        amounts = Texts.ending(data, fields.amount_ends, fields.amount_lengths, padding=ord("0"))
        references = Texts.ending(data, fields.reference_ends, fields.reference_lengths)
        _check_text(references)
        return PackedTransfers(
            currency,
            id_texts,
            ids,
            oldest_ms,
            newest_ms,
            payers,
            payees,
            slots[:count],
            slots[count:],
            read_amounts(amounts, self._exponents[currency.decode("ascii")]),
            references,
        )


def _require(holds: NDArray[np.bool_]) -> None:
    # Sooner than all(), where there are few.
    if np.count_nonzero(holds) != holds.size:
        raise ValueError


def _row_ends(data: bytes) -> Numbers:
    """Where each row of the request between the margins ends. Raises ValueError."""
    at, last = len(_MARGIN), len(data) - len(_MARGIN)
    ends = array("q")
    add = ends.append
    # No further than a batch may be: of garbage there may be millions, while all others wait.
    while at < last and len(ends) <= MAX_BATCH:
        length = data[at + 1]
        if length >= _MORE:
            # Of two bytes, the first with seven bits. Of three, it comes out longer than any row taken here.
            length += (data[at + 2] << 7) - _MORE + 1
        at += length + 2
        add(at)
    if at != last or len(ends) > MAX_BATCH:
        raise ValueError
    return np.frombuffer(ends, np.int64)


def _fields(data: bytes) -> _Fields:
    """The fields of each row. Raises ValueError when a row is not in the one form."""
    octets: Bytes = np.frombuffer(data, np.uint8)

    def begin(at: Numbers, tag: int) -> Numbers:
        _require(octets[at] == tag)
        return octets[at + 1].astype(np.intp)

    ends = _row_ends(data)
    heads = np.concatenate(([len(_MARGIN)], ends[:-1]))
    is_long = begin(heads, _TRANSFERS) >= _MORE
    at = heads + 2 + is_long
    _require(begin(at, _ID) == _ID_CHARS)
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
        _require((lengths >= 1) & (lengths <= most))
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
    )


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


def _check_text(texts: Texts) -> None:
    """Raises ValueError when one is no UTF-8, or has a NUL."""
    if texts.table.size:
        # An end of line between two of them, so that none can end what another began.
        text = joined(np.full((len(texts), 1), ord("\n"), np.uint8), texts)[0]
        text.decode()
        if b"\0" in text:
            raise ValueError


def read_ids(texts: Bytes, latest_ms: int) -> tuple[NDArray[np.void], int, int]:
    """The 16 bytes of UUIDs, a table of their 36 characters; and the oldest and newest, as of a bundle.

    Raises ValueError when one is none, is nil, or is a UUIDv7 of the future.
    """
    count = len(texts)
    for dash in _DASHES:
        _require(texts[:, dash] == ord("-"))
    raw = unhexlify(texts.tobytes().translate(None, b"-"))
    # With more dashes than these in an id there are not enough bytes, which reshape refuses.
    halves = np.frombuffer(raw, ">u8").astype(np.uint64).reshape(count, 2)
    _require((halves[:, 0] | halves[:, 1]) != 0)
    high = halves[:, 0]
    is_timed = (high >> 12 & 0xF) == _TIMED_VERSION
    times_ms = high >> 16
    newest_ms = int(times_ms.max(initial=0, where=is_timed))
    if newest_ms > latest_ms:
        raise ValueError
    oldest_ms = int(times_ms.min()) if is_timed.all() else 0
    return np.frombuffer(raw, "V16"), oldest_ms, newest_ms


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


def read_accounts(data: bytes, ends: Numbers, lengths: Numbers) -> tuple[Texts, NDArray[np.uint16]]:
    """The customers' accounts whose ids end there in ``data``, and their slots.

    Raises ValueError when an id is none.
    """
    accounts = Texts.ending(data, ends, lengths)
    octets = accounts.table.tobytes()
    if octets.translate(None, _NAME_BYTES) != bytes(len(octets) - int(lengths.sum())):
        raise ValueError
    _require(np.frombuffer(data, np.uint8)[ends - lengths] != ord("@"))
    if b"{" not in octets:
        return accounts, _slots(accounts)
    behind, lengths = _hash_tags(accounts)
    return accounts, _slots(Texts.ending(data, ends - behind, lengths))


def _hash_tags(accounts: Texts) -> tuple[Numbers, Numbers]:
    """How many bytes of each id are behind what is hashed, and how many are hashed: as of `slot`."""
    table = accounts.table
    count, width = table.shape
    rows = np.arange(count)
    opening = (table == ord("{")).argmax(axis=1)
    closing = ((table == ord("}")) & (np.arange(width) > opening[:, None])).argmax(axis=1)
    # Where there is none, argmax is 0: the first byte then is another, or no closing one is behind it.
    tagged = (table[rows, opening] == ord("{")) & (closing > opening + 1)
    return np.where(tagged, width - closing, 0), np.where(tagged, closing - opening - 1, accounts.lengths)


def _slots(texts: Texts) -> NDArray[np.uint16]:
    """The slots of what is hashed of ids."""
    crc = np.zeros(len(texts), np.uint16)
    for table, column in zip(_CRC[texts.table.shape[1] - 1 :: -1], texts.table.T, strict=True):
        crc ^= table[column]
    return crc % SLOT_COUNT


def read_amounts(texts: Texts, digits: int) -> NDArray[np.int64]:
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
