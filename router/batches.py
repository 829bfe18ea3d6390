"""The hot loop of the router: a BatchTransfer request as bundles, and its answer, a few calls a column.

A transfer passes through here in some three microseconds, so nothing is done a row at a time that can be done
a column at a time: ids are parsed, amounts and account ids validated in one call each for hundreds of
transfers. Memory is what costs most, beside two busy shards: so a request is worked through in pieces that
stay in a core's cache, and an account's slot is computed anew, which costs less than to look it up among a
hundred thousand.

All is strict: a batch in which anything at all is out of the ordinary is left to
:class:`router.requests.RequestReader`, which looks at it row by row and says what is wrong.
"""

from __future__ import annotations

import operator
import re
import struct
from binascii import crc_hqx
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from xxhash import xxh3_64_digest

from router.refusals import refusal
from shard_node.bundles import Bundle, id_times_ms
from shard_node.limits import MAX_REFERENCE_BYTES
from shard_node.outcomes import Outcome
from shard_node.slots import SLOT_COUNT, slot
from shard_node.transfers import BODY_HEAD, Kind
from tallystick.v1 import outcome_pb2, wallet_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.requests import TransferLike

# Transfers worked on at once: with all that is made of them some 400 KiB.
PIECE = 512

_KIND = int(Kind.TRANSFER)
_ID_CHARS = 36
_ID_BYTES = 16
_DASHES = (8, 13, 18, 23)
_NIL = bytes(_ID_BYTES)
_TIMED_VERSION = 7
_VERSION_AT = 6
# Bytes of a body that are kept with its outcome, after the fingerprint; and how many that makes.
_TERMS_BYTES = 11
_TERMS_LENGTH = bytes((8 + _TERMS_BYTES,))
_BYTE = tuple(bytes((length,)) for length in range(65))
_LENGTHS = tuple(
    struct.pack("<H", length) for length in range(BODY_HEAD.size + 2 * 64 + MAX_REFERENCE_BYTES + 1)
)
# Account ids of customers, each with a comma behind it.
_NAMES = re.compile(r"(?:[A-Za-z0-9._:{}\-][A-Za-z0-9._:@{}\-]{0,63},)+")
# Fifteen digits stay below 2^53.
_MAX_DIGITS = 15
_COMMITTED = int(Outcome.COMMITTED)


@dataclass(slots=True)
class PackedTransfers:
    """A batch of transfers of one currency: for each column of a bundle a list of its values, packed.

    ``texts`` are the ids as they came. ``times_ms`` are the oldest and newest, as of a bundle, of each piece.
    """

    currency: bytes
    texts: list[str]
    payer_slots: list[int]
    payee_slots: list[int]
    times_ms: list[tuple[int, int]]
    decisions: list[bytes]
    terms: list[bytes]
    payers: list[bytes]
    payees: list[bytes]
    amounts: list[bytes]
    bodies: list[bytes]

    def __len__(self) -> int:
        return len(self.texts)

    def bundle(self, rows: Sequence[int]) -> Bundle:
        """The given rows packed, in the order of ``rows``. There must be some.

        Its oldest and newest id are those of the whole batch.
        """
        # A getter of one item would give the item itself.
        chosen = operator.itemgetter(*rows) if len(rows) > 1 else lambda column: (column[rows[0]],)
        join = b"".join
        return Bundle(
            len(rows),
            min(oldest for oldest, _ in self.times_ms),
            max(newest for _, newest in self.times_ms),
            join(chosen(self.decisions)),
            join(chosen(self.terms)),
            join(chosen(self.payers)),
            join(chosen(self.payees)),
            join(chosen(self.amounts)),
            self.currency,
            join(chosen(self.bodies)),
        )


class BatchReader:
    """Reads batches in which nothing is out of the ordinary."""

    def __init__(self, decimals: dict[str, int]) -> None:
        self._decimals = decimals

    def read(self, requests: Sequence[TransferLike], latest: bytes) -> PackedTransfers | None:
        """The batch, or None when it must be looked at row by row.

        ``latest`` are the first six bytes of the youngest UUIDv7 that is taken.
        """
        if not requests:
            return None
        currency = requests[0].currency
        batch = PackedTransfers(currency.encode(), [], [], [], [], [], [], [], [], [], [])
        try:
            digits = self._decimals[currency]
            for first in range(0, len(requests), PIECE):
                _read_piece(requests[first : first + PIECE], currency, digits, latest, batch)
        except ValueError:
            return None
        return batch


def _read_piece(
    requests: Sequence[TransferLike], currency: str, digits: int, latest: bytes, batch: PackedTransfers
) -> None:
    """Adds some transfers to the batch. Raises ValueError when they must be looked at row by row."""
    rows = [
        (r.transaction_id, r.from_account, r.to_account, r.amount, r.currency, r.reference, r.validate_only)
        for r in requests
    ]
    texts, payers, payees, amounts, currencies, references, checks = zip(*rows, strict=True)
    count = len(texts)
    if any(checks) or currencies.count(currency) != count or any(map(operator.eq, payers, payees)):
        raise ValueError
    raw, values = read_ids(texts, latest), read_amounts(amounts, digits)
    names, slots = read_accounts(payers + payees)
    payer_names, payee_names = names[:count], names[count:]
    payer_slots, payee_slots = slots[:count], slots[count:]
    pack, code, digest, lengths = BODY_HEAD.pack, batch.currency, xxh3_64_digest, _LENGTHS
    bodies = [
        pack(amount, code, payer_slot, payee_slot, _KIND, len(payer), len(payee)) + payer + payee
        for amount, payer_slot, payee_slot, payer, payee in zip(
            values, payer_slots, payee_slots, payer_names, payee_names, strict=True
        )
    ]
    if any(references):
        tails = [reference.encode() for reference in references]
        if max(map(len, tails)) > MAX_REFERENCE_BYTES:
            raise ValueError
        bodies = [body + tail for body, tail in zip(bodies, tails, strict=True)]
    ids = struct.unpack("16s" * count, raw)
    batch.texts += texts
    batch.payer_slots += payer_slots
    batch.payee_slots += payee_slots
    batch.times_ms.append(id_times_ms(ids))
    slot_bytes = struct.unpack("2s" * count, struct.pack(f"<{count}H", *payer_slots))
    batch.decisions += [one + own for one, own in zip(ids, slot_bytes, strict=True)]
    batch.terms += [_TERMS_LENGTH + digest(body) + body[:_TERMS_BYTES] for body in bodies]
    batch.payers += [_BYTE[len(name)] + name for name in payer_names]
    batch.payees += [_BYTE[len(name)] + name for name in payee_names]
    batch.amounts += struct.unpack("8s" * count, struct.pack(f"<{count}q", *values))
    batch.bodies += [lengths[len(body)] + body for body in bodies]


def read_ids(texts: Sequence[str], latest: bytes) -> bytes:
    """The bytes of UUIDs, one after the other.

    Raises ValueError when one is none, is nil, or is of the future.
    """
    # Each of them must be as long: the sum alone would let one make up for another.
    if set(map(len, texts)) != {_ID_CHARS}:
        raise ValueError
    joined, count = "".join(texts), len(texts)
    dashes = "-" * count
    if any(joined[at::_ID_CHARS] != dashes for at in _DASHES):
        raise ValueError
    raw = bytes.fromhex(joined.replace("-", ""))
    # fromhex skips spaces, and an id may have had more dashes: only the length tells.
    if len(raw) != _ID_BYTES * count:
        raise ValueError
    # Digits sort as the bytes do; capitals come before small letters, so with any of them texts cannot be
    # compared.
    if not joined.islower() or max(texts) > f"{latest[:4].hex()}-{latest[4:].hex()}-8":
        ids = struct.unpack("16s" * count, raw)
        if any(one[:6] > latest and one[_VERSION_AT] >> 4 == _TIMED_VERSION for one in ids):
            raise ValueError
    if _NIL in raw and _NIL in struct.unpack("16s" * count, raw):
        raise ValueError
    return raw


def read_accounts(texts: Sequence[str]) -> tuple[list[bytes], list[int]]:
    """The ids of customers' accounts and their slots. Raises ValueError when one is none."""
    joined = ",".join(texts) + ","
    if joined.count(",") != len(texts) or not _NAMES.fullmatch(joined):
        raise ValueError
    names = joined[:-1].encode().split(b",")
    if "{" in joined:
        return names, [slot(text) for text in texts]
    return names, [crc_hqx(name, 0) % SLOT_COUNT for name in names]


@lru_cache(maxsize=16)
def _plain_amounts(digits: int) -> re.Pattern[str]:
    one = rf"[0-9]{{1,{_MAX_DIGITS - digits}}}" + (rf"\.[0-9]{{{digits}}}" if digits else "")
    return re.compile(rf"(?:{one},)+")


def read_amounts(texts: Sequence[str], digits: int) -> list[int]:
    """Amounts in minor units.

    Raises ValueError for any that is not written with all its decimals, is zero, or has more than fifteen
    digits.
    """
    joined = ",".join(texts) + ","
    if joined.count(",") != len(texts) or not _plain_amounts(digits).fullmatch(joined):
        raise ValueError
    values = list(map(int, joined[:-1].replace(".", "").split(",")))
    if 0 in values:
        raise ValueError
    return values


def answer(texts: Sequence[str], outcomes: Sequence[int]) -> bytes:
    """A serialized BatchTransferResponse: each transfer's id, 36 characters, and what became of it.

    A result is field 1; within it the id is field 1, and the rest is the same for all with one outcome.
    """
    if outcomes.count(_COMMITTED) == len(texts):
        return ("\n(\n$" + "\x10\x01\n(\n$".join(texts) + "\x10\x01").encode()
    frames = {code: _frame(code) for code in set(outcomes)}
    pieces: list[bytes] = []
    for text, code in zip(texts, outcomes, strict=True):
        head, tail = frames[code]
        pieces += (head, text.encode(), tail)
    return b"".join(pieces)


def _frame(code: int) -> tuple[bytes, bytes]:
    """What stands before and after the id in every result with that outcome."""
    if code == _COMMITTED:
        result = wallet_pb2.TransferResponse(outcome=outcome_pb2.OUTCOME_COMMITTED)
    else:
        why = refusal(code)
        result = wallet_pb2.TransferResponse(outcome=why.outcome, refusal=why)
    tail = result.SerializeToString()
    # An empty field 1 of the answer, but for the length of what will be in it.
    length = _varint(2 + _ID_CHARS + len(tail))
    return b"\n" + length + b"\n$", tail


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
