"""The hot loop of the router: a BatchTransfer request as bundles, and its answer, a few calls a column.

A transfer passes through here in some two microseconds, so nothing is done a row at a time that can be done a column
at a time: ids are parsed, amounts validated and numbers packed in one call each for a whole batch, and what an
account adds to a packed transfer is made once an account. All is strict: a batch in which anything at all is out of
the ordinary is left to :class:`router.requests.RequestReader`, which looks at it row by row and says what is wrong.
"""

from __future__ import annotations

import operator
import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from xxhash import xxh3_64_digest

from router.fields import ACCOUNT_ID
from router.refusals import refusal
from shard_node.bundles import Bundle, id_times_ms
from shard_node.limits import MAX_REFERENCE_BYTES
from shard_node.outcomes import Outcome
from shard_node.slots import slot
from shard_node.transfers import BODY_HEAD, Kind
from tallystick.v1 import outcome_pb2, wallet_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from router.requests import TransferLike

# Accounts whose parts are remembered; emptied when full. About 400 bytes each.
MAX_REMEMBERED = 2**18

_SLOT = struct.Struct("<H")
_KIND = bytes((Kind.TRANSFER,))
_ID_CHARS = 36
_ID_BYTES = 16
_DASHES = (8, 13, 18, 23)
_NIL = bytes(_ID_BYTES)
_TIMED_VERSION = 7
# Bytes of a body that are kept with its outcome, after the fingerprint; and how many that makes.
_TERMS_BYTES = 11
_TERMS_LENGTH = bytes((8 + _TERMS_BYTES,))
_LENGTHS = tuple(_SLOT.pack(length) for length in range(BODY_HEAD.size + 2 * 64 + MAX_REFERENCE_BYTES + 1))
_COMMITTED = int(Outcome.COMMITTED)
# Fifteen digits stay below 2^53.
_MAX_DIGITS = 15


class Parts(NamedTuple):
    """What an account adds to a packed transfer."""

    slot: int
    # The slot, two bytes; the length of the id, one; the id; length and id.
    slot_bytes: bytes
    length: bytes
    name: bytes
    short: bytes


class Accounts(dict[str, Parts]):
    """Parts by account id. Only valid ids of customers get in, so a hit is a validation too."""

    def __missing__(self, account_id: str) -> Parts:
        if not ACCOUNT_ID.fullmatch(account_id) or account_id[0] == "@":
            raise ValueError(account_id)
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        name, length = account_id.encode(), bytes((len(account_id),))
        number = slot(account_id)
        found = self[account_id] = Parts(number, _SLOT.pack(number), length, name, length + name)
        return found


@dataclass(frozen=True, slots=True)
class PackedTransfers:
    """A batch of transfers of one currency as columns of packed values; ``texts`` are the ids as they came."""

    texts: Sequence[str]
    ids: Sequence[bytes]
    payers: Sequence[Parts]
    payees: Sequence[Parts]
    payer_slots: Sequence[int]
    payee_slots: Sequence[int]
    amounts: Sequence[bytes]
    bodies: Sequence[bytes]
    currency: bytes

    def __len__(self) -> int:
        return len(self.ids)

    def bundle(self, rows: Sequence[int]) -> Bundle:
        """The given rows packed, in the order of ``rows``. There must be some."""
        ids, bodies = [self.ids[row] for row in rows], [self.bodies[row] for row in rows]
        payers, payees = [self.payers[row] for row in rows], [self.payees[row] for row in rows]
        amounts, digest, lengths = self.amounts, xxh3_64_digest, _LENGTHS
        return Bundle(
            len(ids),
            *id_times_ms(ids),
            b"".join([raw + payer.slot_bytes for raw, payer in zip(ids, payers, strict=True)]),
            b"".join([_TERMS_LENGTH + digest(body) + body[:_TERMS_BYTES] for body in bodies]),
            b"".join([payer.short for payer in payers]),
            b"".join([payee.short for payee in payees]),
            b"".join([amounts[row] for row in rows]),
            self.currency,
            b"".join([lengths[len(body)] + body for body in bodies]),
        )


class BatchReader:
    """Reads batches in which nothing is out of the ordinary."""

    def __init__(self, decimals: dict[str, int]) -> None:
        self._decimals = decimals
        self._accounts = Accounts()

    def read(self, requests: Iterable[TransferLike], latest: bytes) -> PackedTransfers | None:
        """The batch, or None when it must be looked at row by row.

        ``latest`` are the first six bytes of the youngest UUIDv7 that is taken.
        """
        rows = [
            (
                r.transaction_id,
                r.from_account,
                r.to_account,
                r.amount,
                r.currency,
                r.reference,
                r.validate_only,
            )
            for r in requests
        ]
        if not rows:
            return None
        texts, payer_names, payee_names, amount_texts, currencies, references, checks = zip(
            *rows, strict=True
        )
        try:
            if any(checks) or currencies.count(currencies[0]) != len(currencies):
                return None
            digits = self._decimals[currencies[0]]
            ids = read_ids(texts, latest)
            amounts = read_amounts(amount_texts, digits)
            accounts = self._accounts
            payers = [accounts[name] for name in payer_names]
            payees = [accounts[name] for name in payee_names]
        except ValueError:
            return None
        if any(map(operator.eq, payer_names, payee_names)):
            return None
        middle = currencies[0].encode()
        bodies = [
            b"".join((amount, middle, p[1], q[1], _KIND, p[2], q[2], p[3], q[3]))
            for amount, p, q in zip(amounts, payers, payees, strict=True)
        ]
        if any(references):
            tails = [reference.encode() for reference in references]
            if max(map(len, tails)) > MAX_REFERENCE_BYTES:
                return None
            bodies = [body + tail for body, tail in zip(bodies, tails, strict=True)]
        return PackedTransfers(
            texts,
            ids,
            payers,
            payees,
            [payer.slot for payer in payers],
            [payee.slot for payee in payees],
            amounts,
            bodies,
            middle,
        )


def read_ids(texts: Sequence[str], latest: bytes) -> list[bytes]:
    """The bytes of UUIDs. Raises ValueError when any is not one, is nil, or is of the future."""
    joined, count = "".join(texts), len(texts)
    # Each of them must be as long: the sum alone would let one make up for another.
    if set(map(len, texts)) != {_ID_CHARS}:
        raise ValueError
    dashes = "-" * count
    if any(joined[at::_ID_CHARS] != dashes for at in _DASHES):
        raise ValueError
    raw = bytes.fromhex(joined.replace("-", ""))
    # fromhex skips spaces, and an id may have had more dashes: only the length tells.
    if len(raw) != _ID_BYTES * count:
        raise ValueError
    ids = [raw[at : at + _ID_BYTES] for at in range(0, len(raw), _ID_BYTES)]
    if min(ids) == _NIL:
        raise ValueError
    if max(ids)[:6] > latest and any(one[:6] > latest and one[6] >> 4 == _TIMED_VERSION for one in ids):
        raise ValueError
    return ids


@lru_cache(maxsize=16)
def _plain_amounts(digits: int) -> re.Pattern[str]:
    one = rf"[0-9]{{1,{_MAX_DIGITS - digits}}}" + (rf"\.[0-9]{{{digits}}}" if digits else "")
    return re.compile(rf"(?:{one},)+")


def read_amounts(texts: Sequence[str], digits: int) -> list[bytes]:
    """Amounts in minor units, eight bytes each. Raises ValueError for any that is not written with all its decimals,
    is zero, or has more than fifteen digits.
    """
    joined = ",".join(texts) + ","
    if not _plain_amounts(digits).fullmatch(joined):
        raise ValueError
    values = list(map(int, joined[:-1].replace(".", "").split(",")))
    if 0 in values or len(values) != len(texts):
        raise ValueError
    packed = struct.pack(f"<{len(values)}q", *values)
    return [packed[at : at + 8] for at in range(0, len(packed), 8)]


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
